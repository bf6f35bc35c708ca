"""Puts changes that are held in memory into a snapshot's directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from castoff.fs.changes import Added, Removed
from castoff.fs.upper import UpperWriter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from castoff.fs.changes import Change
    from castoff.fs.ownership import Ownership
    from castoff.fs.union import UnionTree


def write_changes(
    changes: Iterable[Change], upper: str, lower: UnionTree, ownership: Ownership, userxattr: bool
) -> tuple[str, ...]:
    """Write changes into an upper directory in overlay format and return notes on what could not be kept.

    Modification times are those of the entries, to the nanosecond. Content is copied inside the kernel, and blocks
    are shared where the file system can. Neither atomic nor idempotent: on an error the directory is half-written.

    Args:
        changes: in layer order.
        upper: absolute host path of the directory, as a rule an empty one.
        lower: the tree that it lies on; parents that only it has are brought up with its metadata.
        ownership: takes the owners.
        userxattr: whether overlay's attributes are ``user.overlay.*``.

    Raises:
        ContextError: an entry can't be read, or can't be put where it says.
        StoreError: the directory can't be written.
    """
    with UpperWriter(upper, lower, ownership, userxattr) as writer:
        return apply_changes(changes, writer)


def apply_changes(changes: Iterable[Change], writer: UpperWriter) -> tuple[str, ...]:
    """Hand changes, which are in layer order, to a writer; see `write_changes`."""
    for change in changes:
        if isinstance(change, Added):
            writer.add(change.entry)
        elif isinstance(change, Removed):
            writer.remove(change.path)
        else:
            writer.hide_content(change.path)
    writer.finish()
    return tuple(writer.notes)
