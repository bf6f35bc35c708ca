"""Containers on a terminal: detaching, joining again, sizes, and further processes with a terminal."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
from containers_rig import Lives, eventually, make_lives, processes_of

pytestmark = pytest.mark.integration

RUN = ("run", "--network", "none")


@pytest.fixture(scope="module", params=["root", "user"])
def lives(request: pytest.FixtureRequest) -> Iterator[Lives]:
    yield from make_lives(request.param, request)


@pytest.fixture(autouse=True)
def nothing_stays(lives: Lives) -> Iterator[None]:
    yield
    lives.clear()
    eventually(lambda: not processes_of(lives.store), "the end of all processes")


def test_detach_and_join_again(lives: Lives) -> None:
    user = lives.terminal(*RUN, "-it", "--name", "shell", "busybox", "sh")
    user.type(b"X=kept; stty size; echo rea''dy\r")
    assert b"30 100" in user.read_until(b"ready")
    user.type(b"\x10\x11")
    user.read_until(b"detached")
    assert user.process.wait(60) == 0
    assert user.is_as_before()
    user.end()
    assert lives.state("shell")["Running"]
    again = lives.terminal("attach", "shell")
    again.resize(40, 120)
    again.type(b"\recho $X-again; until stty size | grep '40 120'; do sleep 0.05; done; echo si''zed\r")
    again.read_until(b"kept-again")
    again.read_until(b"sized")
    again.type(b"sh -c \"trap 'exit 3' INT; echo loo''ping; while :; do sleep 0.05; done\"; echo rc=$?\r")
    again.read_until(b"looping")
    again.type(b"\x03")
    again.read_until(b"rc=3")
    again.type(b"\x10x\x10\x11")  # one Ctrl-P alone goes to the container
    again.read_until(b"detached")
    again.end()
    lives.good("rm", "-f", "shell")


def test_shell_ends_with_its_code_and_is_removed(lives: Lives) -> None:
    user = lives.terminal(*RUN, "-it", "busybox", "sh", "-c", "read x; echo got-$x; exit 5")
    user.type(b"word\r")
    user.read_until(b"got-word")
    assert user.end() == 5
    assert lives.names() == []


def test_exec_on_a_terminal(lives: Lives) -> None:
    lives.run("base", "busybox", "sh", "-c", "while :; do sleep 0.05; done")
    user = lives.terminal("exec", "-it", "-e", "PS1=ps1>", "base", "sh")
    user.read_until(b"ps1>")
    user.type(b"stty size; test -t 0 && echo is-a-tt''y\r")
    assert b"30 100" in user.read_until(b"is-a-tty")
    user.resize(41, 121)
    user.type(b"until stty size | grep '41 121'; do sleep 0.05; done; echo si''zed\r")
    user.read_until(b"sized")
    user.type(b"exit 12\r")
    assert user.process.wait(60) == 12
    assert user.is_as_before()
    user.end()


def test_closed_terminal_hangs_up_what_was_started_there(lives: Lives) -> None:
    lives.run("base", "busybox", "sh", "-c", "while :; do sleep 0.05; done")
    user = lives.terminal("exec", "-it", "base", "sh", "-c", "echo rea''dy; exec sleep 1234")
    user.read_until(b"ready")
    assert "sleep 1234" in lives.good("exec", "base", "ps")
    for pid in processes_of("\0".join(("exec", "-it", "base"))):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    user.end()
    eventually(lambda: "sleep 1234" not in lives.good("exec", "base", "ps"), "the end of the shell")
