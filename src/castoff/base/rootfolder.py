"""A root file system in a host folder, in which programs of its own can be run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from castoff.errors import RunError, StoreError
from castoff.events import LogEvent, Observer
from castoff.fs.ownership import Owner
from castoff.fs.tableownership import ownership_source
from castoff.fs.union import DirectoryLayer, UnionTree
from castoff.mount import Mount, MountKind
from castoff.sandbox.spec import Network, ProcessSpec, RootSpec

if TYPE_CHECKING:
    from castoff.base.roottree import RootTree
    from castoff.sandbox.executor import Executor

_TAIL = 8192
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class RootFolder:
    """A root in a host folder, in overlay format.

    Attributes:
        path: the folder of the root.
        new_dir: gives empty folders on the same file system, for overlayfs to work in.
        executor: runs its programs.
        observer: is told what they print.
        userxattr: whether overlay's attributes are in the ``user.`` namespace.
        emulated: whether owners are in the table beside the folder, and not the files' own.
    """

    path: str
    new_dir: Callable[[], str]
    executor: Executor
    observer: Observer
    userxattr: bool
    emulated: bool = False

    def fill(self, tree: RootTree) -> None:
        """Write all entries of a tree into the empty folder; contents that the tree spooled are moved.

        Raises:
            StoreError: the folder can't be written.
            SyscallError: an owner can't be given.
        """
        ownership = ownership_source(self.emulated)(self.path)
        root = os.fsencode(self.path)
        os.chmod(root, 0o755)  # noqa: S103 - the root of a system is for all to enter
        for entry in tree.entries():
            # The tree's parents are directories, never links: these paths can't leave the folder.
            host = root + b"/" + entry.path
            try:
                if entry.is_dir:
                    os.mkdir(host)
                elif entry.is_symlink:
                    os.symlink(entry.link, host)
                elif entry.hardlink is not None:
                    os.link(root + b"/" + entry.hardlink, host, follow_symlinks=False)
                    continue
                elif entry.source is not None:
                    os.rename(entry.source, host)
                else:
                    with open(host, "xb") as stream:
                        stream.write(entry.data or b"")
            except OSError as error:
                raise StoreError(f"the root of the base can't be written: {error}") from error
            ownership.set_(entry.path, host, Owner(entry.mode, entry.uid, entry.gid, 0))
        ownership.flush()

    def run(self, vertex: str, argv: tuple[str, ...], env: tuple[str, ...], mounts: tuple[Mount, ...] = ()) -> None:
        """Run a program of the root as its root user, without a network.

        Args:
            vertex: to which progress what it prints belongs.
            argv: program and arguments.
            env: its whole environment.
            mounts: what it sees besides the root.

        Raises:
            RunError: it ended with another code than 0; its last words are in `tail`.
            SandboxError: it can't be isolated.
        """
        # A work folder that was mounted with `volatile` can't be mounted again.
        spec = ProcessSpec(
            root=RootSpec((), self.path, self.new_dir(), self.userxattr),
            argv=argv,
            env=env,
            mounts=mounts,
            network=Network.NONE,
            hostname="localhost",
        )
        tail = bytearray()
        read_end, write_end = os.pipe()
        try:
            with open(os.devnull, "rb") as nothing:
                process = self.executor.start(spec, nothing.fileno(), write_end, write_end)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        reader = threading.Thread(target=self._forward, args=(read_end, vertex, tail), name="castoff-base", daemon=True)
        reader.start()
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            reader.join()
        if code:
            raise RunError(
                f"{argv[0]} failed with code {code} while the base was configured",
                returncode=code,
                name=vertex,
                tail=bytes(tail),
            )

    def _forward(self, descriptor: int, vertex: str, tail: bytearray) -> None:
        """Pass on what a program prints until nobody can print any more."""
        with open(descriptor, "rb", buffering=0) as stream:
            while data := stream.read(_CHUNK):
                tail += data
                del tail[:-_TAIL]
                self.observer.log(LogEvent(vertex, data, 1, time.time()))

    def load(self, tree: RootTree) -> None:
        """Put everything that is in the folder now into an empty tree; contents stay where they are."""
        ownership = ownership_source(self.emulated)(self.path)
        union = UnionTree([DirectoryLayer(self.path, ownership, self.userxattr)])
        links: dict[tuple[int, int], bytes] = {}
        for entry in union.walk(b""):
            if not entry.path:
                continue
            if entry.inode is not None and entry.is_file:
                first = links.setdefault(entry.inode, entry.path)
                if first != entry.path:
                    entry = replace(entry, hardlink=first, source=None)  # noqa: PLW2901
            tree.add(replace(entry, inode=None))


def bind(source: str, target: str) -> Mount:
    """Return a read-only bind mount."""
    return Mount(MountKind.BIND, target, source, readonly=True)
