"""From an ``--output`` to the exporter that writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from castoff.errors import UsageError
from castoff.export.archive import DockerArchiveExporter
from castoff.export.layout import LayoutExporter
from castoff.export.rootfs import export_folder, export_tar

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.events import Observer
    from castoff.export.exporter import ExportReport, ImageResult
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
    """

    image: ImageResult
    tree: Callable[[], UnionTree]
    epoch: int | None = None
    stdout: BinaryIO | None = None


def check_output(output: OutputSpec) -> None:
    """Refuse, before anything is built, what can't be written afterwards.

    Raises:
        UsageError: it is to be pushed.
    """
    if output.push or output.type == "registry":
        raise UsageError(
            "castoff can't push to a registry yet",
            hint="write -o type=oci,dest=FILE and push that with skopeo copy oci-archive:FILE docker://…",
        )


def write_output(output: OutputSpec, product: Product, observer: Observer, vertex: str) -> ExportReport | None:
    """Write one output; None where the store, which has the image already, is all that was asked for.

    Raises:
        ExportError: the destination can't be written.
        StoreError: a blob is missing or damaged.
    """
    check_output(output)
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
