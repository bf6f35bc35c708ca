"""Limits on a tree of files that looks like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from castoff.containers.attachment import KeyWatch
from castoff.containers.cgroups import Cgroup
from castoff.containers.record import Limits
from castoff.errors import UnsupportedError

LIMITS = Limits(64 << 20, 1.5, 10)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def make_first(root: Path, controllers: str = "memory cpu,cpuacct pids") -> None:
    mounts = [f"30 1 0:1 / /cg/{names} rw - cgroup cgroup rw,{names}\n" for names in controllers.split()]
    groups = [f"{number}:{names}:/own\n" for number, names in enumerate(controllers.split(), 1)]
    write(root, {"proc/self/mountinfo": "".join(mounts), "proc/self/cgroup": "".join([*groups, "0::/\n"])})
    for names in controllers.split():
        write(root, {f"cg/{names}/own/cgroup.procs": ""})


def test_version_1(tmp_path: Path) -> None:
    make_first(tmp_path)
    group = Cgroup.create("x", LIMITS, str(tmp_path))
    own = tmp_path / "cg"
    assert (own / "memory/own/castoff-x/memory.limit_in_bytes").read_text() == str(64 << 20)
    assert (own / "cpu,cpuacct/own/castoff-x/cpu.cfs_quota_us").read_text() == "150000"
    assert (own / "pids/own/castoff-x/pids.max").read_text() == "10"
    assert len(group.procs) == 3
    group.enter()
    assert Path(group.procs[0]).read_text() == "0"
    write(tmp_path, {"cg/memory/own/castoff-x/memory.oom_control": "under_oom 0\noom_kill 2\n"})
    assert group.oom_killed()


def test_version_2(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/mountinfo": "30 1 0:1 / /cg rw - cgroup2 cgroup2 rw\n",
            "proc/self/cgroup": "0::/own\n",
            "cg/cgroup.controllers": "cpu memory pids\n",
            "cg/own/cgroup.subtree_control": "",
            "cg/own/cgroup.procs": "",
            "cg/cgroup.subtree_control": "",
            "cg/castoff/cgroup.subtree_control": "",
        },
    )
    group = Cgroup.create("x", LIMITS, str(tmp_path))
    [procs] = group.procs
    folder = Path(procs).parent
    assert folder.name == "castoff-x"
    assert (folder / "memory.max").read_text() == str(64 << 20)
    assert (folder / "cpu.max").read_text() == "150000 100000"
    assert (folder / "pids.max").read_text() == "10"
    assert (folder.parent / "cgroup.subtree_control").read_text().startswith("+")
    assert not group.oom_killed()


def test_what_is_missing_is_said_and_nothing_stays(tmp_path: Path) -> None:
    make_first(tmp_path, "memory")
    with pytest.raises(UnsupportedError, match="--pids-limit can't be set") as caught:
        Cgroup.create("x", Limits(pids=3), str(tmp_path))
    assert caught.value.hint
    assert caught.value.feature == "cgroups"


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"\x10"], b"", False),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10", b"y"], b"\x10\x10y", False),
        ([b"a\x10\x11b"], b"a", True),
        ([b"a\x10", b"\x11"], b"a", True),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x11\x10"], b"\x11", False),
    ],
)
def test_keys_that_detach(typed: list[bytes], passed: bytes, detached: bool) -> None:
    watch = KeyWatch()
    out, end = b"", False
    for data in typed:
        part, end = watch.feed(data)
        out += part
    assert (out, end) == (passed, detached)
