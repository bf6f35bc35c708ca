"""Many containers at once, again and again: nothing of them stays.

CASTOFF_TEST_CONTAINERS says how many there are at once, and CASTOFF_TEST_ROUNDS how often (3 and 2 if nothing is said).
"""

from __future__ import annotations

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


def test_many_at_once_leave_nothing(lives: Lives) -> None:
    names = [f"c{number}" for number in range(AT_ONCE)]
    lives.run("warm", "--rm", "busybox", "true")
    eventually(lambda: lives.names() == [], "the end of the first one")
    before, mounted = files(lives.store), mounts()
    script = "trap 'exit 0' TERM; echo $$ > /file; echo up; while :; do sleep 0.1; done"
    for turn in range(ROUNDS):
        starting = [
            lives.start("run", "-d", "--network", "none", "--name", name, "busybox", "sh", "-c", script)
            for name in names
        ]
        for process in starting:
            _, err = process.communicate()
            assert process.returncode == 0, err
        assert sorted(lives.good("ps", "--format", "{{.Names}}").split()) == sorted(names)
        for name in names:
            eventually(lambda name=name: lives("logs", name).out == "up\n", "the log")  # type: ignore[misc]
        assert lives.good("exec", names[turn % AT_ONCE], "cat", "/file") == "1"
        lives.good("stop", *names)
        assert [lives.state(name)["ExitCode"] for name in names] == [0] * AT_ONCE
        lives.good("rm", *names)
        eventually(lambda: not processes_of(lives.store), "the end of all processes")
        assert files(lives.store) == before
        assert mounts() == mounted
