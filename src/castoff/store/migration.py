"""Bringing a store of an older format to the present one, step by step.

A step turns one format into the next, in place. It must be idempotent: castoff may be killed in the middle of it, and
the version is written down only when it is done. While steps run nobody else uses the store.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from castoff.errors import StoreError
from castoff.oci.jsontext import dump
from castoff.store.failure import translated
from castoff.store.locking import exclusive
from castoff.store.replacement import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Step = Callable[[str], None]

MARK = "castoff.json"
"""The file of a store that holds the version of its format."""

STEPS: Mapping[int, Step] = MappingProxyType({})
"""What turns each older format into the next one, given the store's folder. Format 1 is the first there was."""


def write_version(root: str, version: int) -> None:
    """Write down the format of a store. Atomic, durable.

    Raises:
        OSError: the store can't be written.
    """
    replace_file(f"{root}/{MARK}", dump({"version": version}) + b"\n", durable=True)


def migrate(root: str, read_version: Callable[[], int], target: int, steps: Mapping[int, Step] = STEPS) -> None:
    """Bring a store to a format. Idempotent; a stop in between is made good by the next call.

    Waits for the end of every process that uses the store.

    Args:
        root: absolute path of the store.
        read_version: reads the format that it has; asked anew once the store is ours, and after each step.
        target: the format that it shall have.
        steps: by the format that each begins with.

    Raises:
        StoreError: no step leads on, or the store can't be written.
    """
    with translated(f"bring the store in {root} to format {target}"), exclusive(f"{root}/use.lock"):
        while (version := read_version()) < target:
            step = steps.get(version)
            if step is None:
                raise StoreError(
                    f"the store in {root} has format {version}, which this castoff can't bring to format {target}",
                    hint="remove it, or name another folder with --root",
                )
            step(root)
            write_version(root, version + 1)
