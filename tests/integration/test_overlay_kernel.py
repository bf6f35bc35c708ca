"""The kernel's overlay and castoff's view of the same layers agree, for random histories, whoever is root.

The test runs this module as a program inside new namespaces: it mounts, changes things through the mount, and compares.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Require

pytestmark = pytest.mark.integration

ROUNDS = 5
STEPS = 25
NAMES = ["a", "b", "c", "d.e", "long" * 20]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("who", ["root", "namespace"])
def test_the_kernel_and_castoff_see_the_same_tree(tmp_path: Path, require: Require, who: str, seed: int) -> None:
    if who == "root":
        require.root()
        namespaces = ["--mount"]
    else:
        require.user_namespaces()
        namespaces = ["--user", "--map-root-user", "--mount"]
    require.overlay(tmp_path)
    command = [require.command("unshare", "util-linux"), *namespaces, sys.executable, __file__]
    done = subprocess.run(
        [*command, str(tmp_path), str(seed), str(int(who == "namespace"))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("agreed on "), done.stdout


class History:
    """Random changes made through a mount."""

    def __init__(self, root: str, dice: random.Random) -> None:
        self.root = root
        self.dice = dice

    def directories(self) -> list[str]:
        return [found for found, _, _ in os.walk(self.root)]

    def somewhere(self) -> str:
        return os.path.join(self.dice.choice(self.directories()), self.dice.choice(NAMES))

    def existing(self) -> str | None:
        paths = [os.path.join(base, name) for base, below, files in os.walk(self.root) for name in [*below, *files]]
        return self.dice.choice(sorted(paths)) if paths else None

    def step(self) -> None:
        kind = self.dice.choice(
            ["write"] * 4 + ["mkdir"] * 4 + ["symlink", "remove", "rename", "link", "link", "chmod", "again", "fifo"]
        )
        path, old = self.somewhere(), self.existing()
        try:
            if kind == "write":
                # Neither through a link, which would lead out of the mount, nor into a FIFO that nobody reads.
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
                with open(os.open(path, flags, 0o644), "ab") as file:
                    file.write(self.dice.randbytes(self.dice.randrange(3000)))
            elif kind == "mkdir":
                os.mkdir(path)
                os.mkdir(os.path.join(path, "inner"))
            elif kind == "symlink":
                os.symlink(self.dice.choice(["a", "/b", "../c"]), path)
            elif kind == "fifo":
                os.mkfifo(path)
            elif old is not None:
                self.change(kind, old, path)
        except OSError:
            pass  # such as a file where a directory is needed: another step will do

    def change(self, kind: str, old: str, path: str) -> None:
        if kind == "remove":
            remove(old)
        elif kind == "rename":
            os.rename(old, path)
        elif kind == "link":
            os.link(old, path, follow_symlinks=False)
        elif kind == "chmod" and not os.path.islink(old):
            os.chmod(old, self.dice.choice([0o700, 0o755, 0o4711, 0o600 | 0o100]))
        elif kind == "again" and os.path.isdir(old):
            remove(old)
            os.mkdir(old)
            with open(os.path.join(old, self.dice.choice(NAMES)), "wb") as file:
                file.write(b"new")


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


Row = tuple[bytes, int, int, int, int, str, bytes]


def kernel_rows(root: str) -> list[Row]:
    rows: list[Row] = []
    for base, below, files in os.walk(os.fsencode(root)):
        for name in [*below, *files]:
            path = os.path.join(base, name)
            status = os.lstat(path)
            content, link = "", b""
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                link = os.readlink(path)
            mtime = 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
            where = os.path.relpath(path, os.fsencode(root))
            rows.append((where, status.st_mode, status.st_uid, status.st_gid, mtime, content, link))
    return sorted(rows)


def main(folder: str, seed: int, userxattr: bool) -> None:
    from castoff.fs.changes import Opaque, iter_changes
    from castoff.fs.ownership import DirectOwnership
    from castoff.fs.union import DirectoryLayer, UnionTree
    from castoff.layer.apply import apply_layer
    from castoff.layer.compression import open_decompressed
    from castoff.layer.create import LayerOptions, write_layer
    from castoff.snapshot.materialise import write_changes
    from castoff.snapshot.overlay import OverlaySnapshotter

    class Folders:
        number = 0

        def new_dir(self) -> str:
            self.number += 1
            path = os.path.join(folder, f"temporary{self.number}")
            os.mkdir(path)
            return path

    def rows(tree: UnionTree) -> list[Row]:
        found: list[Row] = []
        for entry in tree.walk():
            content = ""
            if entry.is_file:
                with tree.open_(entry) as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            mtime = 0 if entry.is_dir else entry.mtime_ns
            if entry.path:
                found.append((entry.path, entry.mode, entry.uid, entry.gid, mtime, content, entry.link))
        return sorted(found)

    def without_times(found: list[Row]) -> list[Row]:
        return [(*row[:4], row[4] // 1_000_000_000, *row[5:]) for row in found]

    def mounted(lowers: tuple[str, ...], upper: str | None, work: str | None) -> list[str]:
        options = ["userxattr"] * userxattr + ["redirect_dir=off", "metacopy=off"] * (not userxattr)
        options.append("lowerdir=" + ":".join(lowers))
        if upper is not None:
            options += [f"upperdir={upper}", f"workdir={work}"]
        return ["mount", "-t", "overlay", "overlay", "-o", ",".join(options), merged]

    ownership = DirectOwnership()
    dice = random.Random(seed)
    merged = os.path.join(folder, "merged")
    empty = os.path.join(folder, "empty")
    os.mkdir(merged)
    os.mkdir(empty)
    folders = Folders()
    snapshotter = OverlaySnapshotter(os.path.join(folder, "snapshots"), folders, userxattr=userxattr)
    parent, layered = None, UnionTree()
    counts = {"paths": 0, "opaque": 0}
    for _ in range(ROUNDS):
        active = snapshotter.prepare(parent)
        subprocess.run(mounted(active.lowers or (empty,), active.upper, active.work), check=True)
        history = History(merged, dice)
        for _ in range(STEPS):
            history.step()
        wanted = kernel_rows(merged)
        subprocess.run(["umount", merged], check=True)
        lower = snapshotter.tree(parent)
        assert rows(snapshotter.upper_tree(active)) == wanted, "the union differs from the kernel's"

        # A second upper directory, written by castoff from the changes, is the same to castoff and to the kernel.
        changes = list(iter_changes(active.upper, lower, ownership, userxattr))
        counts["opaque"] += sum(isinstance(change, Opaque) for change in changes)
        copy = snapshotter.prepare(parent)
        write_changes(changes, copy.upper, lower, ownership, userxattr)
        assert rows(snapshotter.upper_tree(copy)) == wanted, "the copy differs"
        subprocess.run(mounted((copy.upper, *(copy.lowers or (empty,))), None, None), check=True)
        assert kernel_rows(merged) == wanted, "the kernel sees the copy in another way"
        subprocess.run(["umount", merged], check=True)
        snapshotter.discard(copy)

        # A third, unpacked from a layer onto layers that were themselves unpacked.
        blob = io.BytesIO()
        info = write_layer(changes, blob, LayerOptions())
        blob.seek(0)
        upper = folders.new_dir()
        os.chmod(upper, 0o755)
        applied = apply_layer(open_decompressed(blob), upper, layered, ownership, userxattr)
        assert applied.diff_id == info.diff_id
        assert applied.notes == ()
        layered = layered.with_top(DirectoryLayer(upper, ownership, userxattr))
        assert without_times(rows(layered)) == without_times(wanted), "the layer differs"
        stack = tuple(layer.path for layer in layered.layers if isinstance(layer, DirectoryLayer))
        subprocess.run(mounted((*stack, empty), None, None), check=True)
        assert without_times(kernel_rows(merged)) == without_times(wanted), "the kernel sees the layers in another way"
        subprocess.run(["umount", merged], check=True)

        parent = snapshotter.commit(active)
        counts["paths"] += len(wanted)
    assert counts["paths"]
    print(f"agreed on {counts['paths']} paths, {counts['opaque']} opaque directories")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1")
