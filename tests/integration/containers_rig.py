"""Containers that live, of root and of an ordinary user, on a store of their own with the image ``busybox``."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from engine_rig import BUSYBOX, Engine

TIMEOUT = 60.0


@dataclass
class Done:
    """What a run of castoff gave."""

    code: int
    out: str
    err: str


@dataclass
class Lives:
    """Runs castoff as one user on one store, and looks after what it starts."""

    folder: str
    command: list[str]
    env: dict[str, str]
    identity: dict[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> str:
        """The store's folder."""
        return os.path.join(self.folder, "store")

    def argv(self, *arguments: str) -> list[str]:
        """Return the command line."""
        return [*self.command, "--root", self.store, *arguments]

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start castoff with pipes."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(self.argv(*arguments), cwd=self.folder, env=self.env, **pipes, **self.identity)

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Done:
        """Run castoff."""
        process = self.start(*arguments, stdin=subprocess.PIPE)
        out, err = process.communicate(stdin, timeout=TIMEOUT)
        return Done(process.returncode, out.decode(), err.decode("utf-8", "replace"))

    def good(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run castoff, which must succeed, and return what it printed without the last line feed."""
        done = self(*arguments, stdin=stdin)
        assert done.code == 0, done.err
        return done.out.rstrip("\n")

    def run(self, name: str, *arguments: str) -> str:
        """Run a container in the background, without a way out (which takes its time), and return its id."""
        return self.good("run", "-d", "--network", "none", "--name", name, *arguments)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return all that is known of a container."""
        found: list[dict[str, Any]] = json.loads(self.good("inspect", name))
        return found[0]

    def state(self, name: str) -> dict[str, Any]:
        """Return how a container is."""
        state: dict[str, Any] = self.inspect(name)["State"]
        return state

    def container_folder(self, container_id: str) -> str:
        """Return the folder of a container."""
        return os.path.join(self.store, "containers", container_id)

    def names(self) -> list[str]:
        """Return the names of all containers."""
        return sorted(self.good("ps", "-a", "--format", "{{.Names}}").split())

    def clear(self) -> None:
        """Remove all containers."""
        ids = self.good("ps", "-a", "-q").split()
        if ids:
            self.good("rm", "-f", *ids)

    def terminal(self, *arguments: str) -> Terminal:
        """Run castoff on a terminal of its own."""
        return Terminal(self, arguments)


def eventually(check: Callable[[], object], what: str = "") -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + TIMEOUT
    while not check():
        if time.monotonic() > deadline:
            pytest.fail(f"it never came: {what}")
        time.sleep(0.05)


def processes_of(text: str) -> list[int]:
    """Return the processes with a text in their command lines."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if text.encode() in file.read() and int(pid) != os.getpid():
                found.append(int(pid))
    return found


class Terminal:
    """A pseudo-terminal as a user's, with castoff on it as its foreground process."""

    def __init__(self, lives: Lives, arguments: Sequence[str]) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(30, 100)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *lives.argv(*arguments)],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            cwd=lives.folder,
            env=lives.env,
            **lives.identity,
        )
        self.output = b""

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        """Type."""
        os.write(self.master, keys)

    def read_until(self, word: bytes) -> bytes:
        """Wait for a word on the screen, and return what came before it."""
        deadline = time.monotonic() + TIMEOUT
        while word not in self.output:
            readable, _, _ = select.select([self.master], [], [], 0.1)
            if readable:
                self.output += os.read(self.master, 65536)
            elif time.monotonic() > deadline:
                pytest.fail(f"{word!r} did not appear in {self.output!r}")
        before, _, self.output = self.output.partition(word)
        return before

    def is_as_before(self) -> bool:
        """Tell whether the terminal's settings are what they were."""
        return termios.tcgetattr(self.slave)[:4] == self.before[:4]

    def end(self) -> int:
        """Wait for the end of castoff, and return its exit code."""
        code = self.process.wait(TIMEOUT)
        os.close(self.master)
        os.close(self.slave)
        return code


def make_lives(kind: str, request: pytest.FixtureRequest) -> Iterator[Lives]:
    """Yield containers of ``root`` or of an ordinary ``user``; skips name what is missing."""
    require = request.getfixturevalue("require")
    require.file(BUSYBOX, "busybox-static")
    if kind == "root":
        require.root()
        folder = tempfile.mkdtemp(prefix="castoff-lives-")
        made = Lives(folder, request.getfixturevalue("castoff_command"), dict(os.environ))
        owner = None
    else:
        user = request.getfixturevalue("ordinary_user")
        require.subordinate_ids(user)
        command, settings = request.getfixturevalue("user_castoff")
        folder = tempfile.mkdtemp(prefix="lives-", dir=user.home)
        os.chown(folder, user.uid, user.gid)
        marks = {name: value for name, value in os.environ.items() if name.startswith("CASTOFF_TEST")}
        made = Lives(folder, command, {**user.environment(), **settings, **marks})
        owner = (user.uid, user.gid)
        if os.geteuid() == 0:
            made.identity = {"user": user.uid, "group": user.gid, "extra_groups": []}
    engine = Engine(folder, lambda arguments, **_: _completed(made, arguments), owner, made.store)
    try:
        engine.make_base()
        yield made
        made.clear()
    finally:
        subprocess.run(["rm", "-rf", folder], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def _completed(lives: Lives, arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    process = subprocess.Popen(
        [*lives.command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=lives.folder,
        env=lives.env,
        **lives.identity,
    )
    out, err = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)
