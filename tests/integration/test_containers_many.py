"""Many containers at once, again and again: nothing of them stays.

CASTOFF_TEST_CONTAINERS says how many there are at once, and CASTOFF_TEST_ROUNDS how often (3 and 2 if nothing is said).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest
from containers_rig import Lives, eventually, make_lives, processes_of

pytestmark = pytest.mark.integration

AT_ONCE = int(os.environ.get("CASTOFF_TEST_CONTAINERS", "3"))
ROUNDS = int(os.environ.get("CASTOFF_TEST_ROUNDS", "2"))


@pytest.fixture(scope="module", params=["root", "user"])
def lives(request: pytest.FixtureRequest) -> Iterator[Lives]:
    yield from make_lives(request.param, request)


def files(folder: str) -> list[str]:
    """Return what is below a folder, but for the store's own notes."""
    found = subprocess.run(["find", folder], capture_output=True, check=True, text=True).stdout.splitlines()
    return sorted(path for path in found if "/tmp/unsynced-" not in path)


def mounts() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return sorted(line.split()[4] for line in file)


def marked() -> set[str]:
    """Return the processes that this session has started and that still run, whatever they are called."""
    mark = f"CASTOFF_TEST_SESSION={os.environ['CASTOFF_TEST_SESSION']}".encode()
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if mark in file.read().split(b"\0"):
                found.add(pid)
    return found


def test_many_at_once_leave_nothing(lives: Lives) -> None:
    names = [f"c{number}" for number in range(AT_ONCE)]
    lives.run("warm", "--rm", "busybox", "true")
    eventually(lambda: lives.names() == [], "the end of the first one")
    before, mounted, others = files(lives.store), mounts(), marked()
    script = "trap 'exit 0' TERM; echo $$ > /file; echo up; while :; do sleep 0.1; done"
    for turn in range(ROUNDS):
        # One has a network of its own, with a published port; the others are spared the time that takes.
        networks = [["-p", "127.0.0.1::80"] if number == 0 else ["--network", "none"] for number in range(AT_ONCE)]
        starting = [
            lives.start("run", "-d", *network, "--name", name, "busybox", "sh", "-c", script)
            for name, network in zip(names, networks, strict=True)
        ]
        for process in starting:
            _, err = process.communicate()
            assert process.returncode == 0, err
        assert sorted(lives.good("ps", "--format", "{{.Names}}").split()) == sorted(names)
        for name in names:
            eventually(lambda name=name: lives("logs", name).out == "up\n", "the log")  # type: ignore[misc]
        assert lives.good("exec", names[turn % AT_ONCE], "cat", "/file") == "1"
        lives.good("stop", *names)
        assert lives.good("wait", *names).split() == ["0"] * AT_ONCE
        lives.good("rm", *names)
        eventually(lambda: not marked() - others and not processes_of(lives.store), "the end of all processes")
        assert files(lives.store) == before
        assert mounts() == mounted
