"""All that is known of an image as one JSON object, in the form of docker inspect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from castoff.store.images import format_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from castoff.image.image import StoredImage
    from castoff.oci.config import ContainerConfig
    from castoff.oci.reference import Reference


def document(image: StoredImage, references: Iterable[Reference] = (), tagged: float = 0.0) -> dict[str, Any]:
    """Return the object that docker inspect prints for an image, with its manifest's descriptor added.

    Args:
        image: the image.
        references: its names in the store.
        tagged: when it was tagged, in seconds since the epoch; 0 where that is not known.

    Raises:
        StoreError: a blob is missing or damaged.
        InvalidImageError: the image is not valid.
    """
    config = image.config()
    names = sorted(set(references))
    digest = image.descriptor.digest
    value: dict[str, Any] = {
        "Id": str(image.config_digest()),
        "RepoTags": [name.familiar for name in names if name.tag],
        "RepoDigests": sorted({f"{_repository(name)}@{digest}" for name in names}),
        "Parent": "",
        "Comment": config.history[-1].comment if config.history else "",
        "Created": config.created,
        "DockerVersion": "",
        "Author": config.author,
        "Architecture": config.platform.architecture,
    }
    if config.platform.variant:
        value["Variant"] = config.platform.variant
    value |= {
        "Os": config.platform.os,
        "Size": image.size(),
        "Config": container_document(config.config),
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in config.diff_ids]},
        "Metadata": {"LastTagTime": format_time(tagged) if tagged else ""},
        "Descriptor": image.descriptor.to_json(),
    }
    annotations = image.manifest().annotations
    if annotations:
        value["Annotations"] = dict(annotations)
    return value


def container_document(config: ContainerConfig) -> dict[str, Any]:
    """Return the ``Config`` object: that of the image's config document, with what scripts ask for always there."""
    return {
        "User": "",
        "Env": None,
        "Cmd": None,
        "Entrypoint": None,
        "WorkingDir": "",
        "Labels": None,
        **config.to_json(),
    }


def _repository(reference: Reference) -> str:
    from dataclasses import replace

    return replace(reference, tag="latest", digest=None).familiar.removesuffix(":latest")
