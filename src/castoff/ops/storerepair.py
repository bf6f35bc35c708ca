"""Removes from a store what is damaged and can be made again, and what killed processes have left."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from castoff.errors import StoreError
from castoff.oci.digest import Digest
from castoff.ops.storecheck import StoreReport, check_store
from castoff.store.failure import translated
from castoff.store.removal import remove_tree

if TYPE_CHECKING:
    from castoff.ops.storecheck import Problem
    from castoff.store.directory import DirectoryStore


def repair_store(store: DirectoryStore) -> tuple[StoreReport, list[str]]:
    """Look a store over, remove what is damaged, and return what is still wrong, and what was removed. Idempotent.

    Blobs that are not what their digests promise, snapshots that are not whole and records that can't be read go: the
    next build makes them again. Images whose blobs can't be had any more stay in the list, and are reported.

    Args:
        store: the store; this process must not be building in it.

    Raises:
        StoreError: another process uses the store, or it can't be written.
    """
    with store.collecting() as alone:
        if not alone:
            raise StoreError(
                "another castoff is using the store, so that nothing of it can be repaired",
                hint="wait for its end, and try again",
            )
        before = check_store(store, alone=True)
        damaged = [problem for problem in before.problems if problem.path]
        if not damaged and not before.leftovers:
            return before, []
        removed: list[str] = []
        store.bump_generation()
        # What names a thing goes before the thing, so that a stop in between leaves steps that only run again.
        for problem in sorted(damaged, key=lambda each: each.part != "record"):
            with translated(f"remove {problem.path}"):
                _remove(store, problem)
            removed.append(problem.path)
        removed += [path for path in before.leftovers if _cleared(path)]
        return check_store(store, alone=True), removed


def _remove(store: DirectoryStore, problem: Problem) -> None:
    if problem.part == "blob":
        store.blobs.delete(Digest.parse(problem.name))
    elif problem.part == "snapshot":
        doomed = f"{store.session().new_dir()}/damaged"
        os.rename(problem.path, doomed)  # at once for everybody, however long the removal takes
        remove_tree(os.path.dirname(doomed))
    elif problem.name == "generation":
        store.bump_generation()
    elif not remove_tree(problem.path):
        raise StoreError(f"{problem.path} can't be removed", hint="check who owns it, and its mode")


def _cleared(path: str) -> bool:
    """Remove something left over, and the lock of a session with it."""
    return remove_tree(path) and remove_tree(path + ".lock")
