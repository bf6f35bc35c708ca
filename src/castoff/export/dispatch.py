"""From an ``--output`` to the exporter that writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from castoff.errors import UsageError
from castoff.export.archive import DockerArchiveExporter
from castoff.export.layout import LayoutExporter
from castoff.export.rootfs import export_folder, export_tar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from castoff.events import Observer
    from castoff.export.exporter import Exporter, ExportReport, ImageResult
    from castoff.export.parse import OutputSpec
    from castoff.fs.union import UnionTree


@dataclass(frozen=True, slots=True)
class Product:
    """What a build made, in the forms that exporters take.

    Attributes:
        image: the image, in the store.
        tree: gives the merged file system.
        epoch: seconds since 1970 to which later times are taken back; None keeps them.
        stdout: standard output, for ``dest=-``.
        pusher: gives what pushes to registries, when an output is to be pushed.
    """

    image: ImageResult
    tree: Callable[[], UnionTree]
    epoch: int | None = None
    stdout: BinaryIO | None = None
    pusher: Callable[[], Exporter] | None = None


def check_output(output: OutputSpec, tags: Sequence[str] = ()) -> None:
    """Refuse, before anything is built, what can't be written afterwards.

    Args:
        output: what is asked for.
        tags: the references of the image, besides those of the output.

    Raises:
        UsageError: it is to be pushed and has no name, or is pushed and written to a file at once.
    """
    if not output.push:
        return
    if output.type not in ("image", "registry"):
        raise UsageError(
            f"--output of type {output.type} writes files, and is not pushed",
            hint="give a second --output type=registry",
        )
    if not tags and not output.names:
        raise UsageError("an image that is to be pushed needs a reference", hint="give one with -t REGISTRY/NAME:TAG")


def write_output(output: OutputSpec, product: Product, observer: Observer, vertex: str) -> ExportReport | None:
    """Write one output; None where the store, which has the image already, is all that was asked for.

    Raises:
        ExportError: the destination can't be written.
        StoreError: a blob is missing or damaged.
        RegistryError: it is to be pushed, and the registry refuses or can't be reached.
    """
    if output.push:
        assert product.pusher is not None
        return product.pusher().export(product.image, observer, vertex)
    match output.type:
        case "oci":
            exporter = LayoutExporter(output.dest, tar=output.tar, stdout=product.stdout)
            return exporter.export(product.image, observer, vertex)
        case "docker" if output.dest:
            return DockerArchiveExporter(output.dest, stdout=product.stdout).export(product.image, observer, vertex)
        case "tar":
            return export_tar(product.tree(), output.dest, observer, vertex, epoch=product.epoch, stdout=product.stdout)
        case "local":
            return export_folder(product.tree(), output.dest, observer, vertex)
        case _:
            return None
