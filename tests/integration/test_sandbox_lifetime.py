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


def start(rig: Rig) -> tuple[subprocess.Popen[str], str]:
    """Start castoff's part with a step that has a child; return it with the tag that marks them."""
    tag = f"tag-{uuid.uuid4().hex}"
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
    try:
        assert len(await_count(tag, 2)) == 2
    except BaseException:
        process.kill()  # else the step would run for as long as it sleeps
        process.wait()
        raise
    return process, tag


def test_killed_castoff_leaves_nothing(rig: Rig) -> None:
    process, tag = start(rig)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert await_count(tag, 0) == []
    assert await_count(rig.state, 0) == []  # the fork server, which has the folder among its arguments
    assert os.listdir(rig.state) == []


def test_killed_server_leaves_no_process(rig: Rig) -> None:
    process, tag = start(rig)
    servers = processes_with(rig.state)
    assert len(servers) == 1
    os.kill(servers[0], signal.SIGKILL)
    assert await_count(tag, 0) == []
    process.wait(20)
    for name in os.listdir(rig.state):
        subprocess.run(["rm", "-rf", os.path.join(rig.state, name)], check=True)


def test_interrupt_of_the_terminal_does_not_reach_steps(rig: Rig) -> None:
    """The fork server has a session of its own: it is castoff that decides what a ^C means."""
    process, tag = start(rig)
    steps = processes_with(tag)
    assert all(os.getsid(pid) not in (os.getsid(0), os.getsid(process.pid)) for pid in steps)
    process.kill()
    process.wait()
    assert await_count(tag, 0) == []
    assert await_count(rig.state, 0) == []
