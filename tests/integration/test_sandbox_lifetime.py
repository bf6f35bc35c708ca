"""What happens when castoff, or its fork server, is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator

import pytest
from sandbox_rig import Rig, make_rig, remove_rig

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["root", "subuid"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = make_rig(request.param, request)
    yield made
    remove_rig(made)


def processes_with(word: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if word.encode() in file.read():
                        found.append(int(name))
            except OSError:
                continue
    return found


def await_count(word: str, count: int) -> list[int]:
    found: list[int] = []
    for _ in range(2000):
        found = processes_with(word)
        if len(found) == count:
            break
        time.sleep(0.01)
    return found


def new_tag() -> str:
    """Return a word that no other process has, those of another run of these tests included."""
    return f"tag-{uuid.uuid4().hex}"


def start(rig: Rig, tag: str) -> subprocess.Popen[str]:
    """Start castoff's part with a step that has a child; all are marked with a tag."""
    step = rig.step("sh", "-c", f"sh -c 'sleep 1000; : {tag}' & sleep 1000; : {tag}")
    process = subprocess.Popen(
        [rig.python, "-B", rig.driver],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd="/",
        **rig.identity(),
    )
    assert process.stdin is not None
    process.stdin.write(rig.request(step))
    process.stdin.close()
    assert len(await_count(tag, 2)) == 2
    return process


def test_killed_castoff_leaves_nothing(rig: Rig) -> None:
    tag = new_tag()
    process = start(rig, tag)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert await_count(tag, 0) == []
    assert await_count(rig.state, 0) == []  # the fork server, which has the folder among its arguments
    assert os.listdir(rig.state) == []


def test_killed_server_leaves_no_process(rig: Rig) -> None:
    tag = new_tag()
    process = start(rig, tag)
    servers = processes_with(rig.state)
    assert len(servers) == 1
    os.kill(servers[0], signal.SIGKILL)
    assert await_count(tag, 0) == []
    process.wait(20)
    for name in os.listdir(rig.state):
        subprocess.run(["rm", "-rf", os.path.join(rig.state, name)], check=True)


def test_interrupt_of_the_terminal_does_not_reach_steps(rig: Rig) -> None:
    """The fork server has a session of its own: it is castoff that decides what a ^C means."""
    tag = new_tag()
    process = start(rig, tag)
    steps = processes_with(tag)
    assert all(os.getsid(pid) not in (os.getsid(0), os.getsid(process.pid)) for pid in steps)
    process.kill()
    process.wait()
    assert await_count(tag, 0) == []
    assert await_count(rig.state, 0) == []
