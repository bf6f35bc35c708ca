"""Archives of images as old and hostile programs write them."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.image.image import StoredImage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from castoff.oci.descriptor import Descriptor
    from castoff.store.blobs import BlobStore


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a tar archive, well formed or not.

    Attributes:
        name: written as it is, ``..`` and leading slashes included.
        data: the content that follows the header.
        type: tarfile's type flag.
        link: the target of a link.
        size: what the header says; None for the true size.
    """

    name: str
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    link: str = ""
    size: int | None = None


def tar_of(members: Iterable[Member], *, end: bool = True) -> bytes:
    """Return a tar archive of some entries.

    Args:
        members: in this order.
        end: whether the two closing blocks are written.
    """
    out = io.BytesIO()
    for member in members:
        info = tarfile.TarInfo(member.name)
        info.type = member.type
        info.linkname = member.link
        info.size = len(member.data) if member.size is None else member.size
        out.write(info.tobuf(tarfile.GNU_FORMAT))
        out.write(member.data + bytes(-len(member.data) % tarfile.BLOCKSIZE))
    if end:
        out.write(bytes(2 * tarfile.BLOCKSIZE))
    return out.getvalue()


def legacy_docker_members(
    blobs: BlobStore, images: Sequence[tuple[Descriptor, Sequence[str]]], *, link_repeated: bool = True
) -> list[Member]:
    """Return the entries of an archive as docker save wrote it before version 25.

    Each layer is ``<hex>/layer.tar``; one that several images share is a symbolic link the second time.

    Args:
        blobs: where the images are, with uncompressed layers.
        images: manifests, and their tags.
        link_repeated: whether repeated layers are links; off, they are written again.
    """
    members: list[Member] = []
    manifest = []
    written: dict[str, str] = {}
    for number, (descriptor, tags) in enumerate(images):
        image = StoredImage(blobs, descriptor)
        config = image.manifest().config
        members.append(Member(f"{config.digest.hex}.json", blobs.read(config.digest)))
        names = []
        for position, layer in enumerate(image.layers()):
            folder = f"{number}{position}{layer.diff_id.hex}"
            name = f"{folder}/layer.tar"
            first = written.setdefault(str(layer.diff_id), name)
            if first != name and link_repeated:
                members.append(Member(name, type=tarfile.SYMTYPE, link=f"../{first}"))
            else:
                with blobs.open_(layer.descriptor.digest) as file:
                    members.append(Member(name, file.read()))
            members.append(Member(f"{folder}/VERSION", b"1.0"))
            names.append(name)
        manifest.append({"Config": f"{config.digest.hex}.json", "RepoTags": list(tags), "Layers": names})
    members.append(Member("manifest.json", json.dumps(manifest).encode()))
    return members
