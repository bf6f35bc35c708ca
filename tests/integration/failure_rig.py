"""Builds that are watched while they run: what they say, what a signal does to them, what they leave behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from engine_rig import BUSYBOX, Engine, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pytest

PATIENCE = 60.0
"""How long a test waits for what must come; no test waits this long unless it fails."""


@dataclass
class Account:
    """Who runs castoff, and how."""

    command: list[str]
    environment: dict[str, str]
    uid: int | None = None
    gid: int | None = None

    @property
    def owner(self) -> tuple[int, int] | None:
        """The ids of an ordinary user; None for the one who runs the tests."""
        return None if self.uid is None or self.gid is None else (self.uid, self.gid)

    def popen(
        self,
        arguments: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start castoff in a process group of its own."""
        return subprocess.Popen(
            [*self.command, *arguments],
            cwd=cwd,
            env={**self.environment, **env},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )


class Running:
    """A castoff that runs; what it prints is collected, and can be waited for."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._output = bytearray()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        if process.stderr is not None:
            self._thread.start()

    @property
    def text(self) -> str:
        """What it has printed to standard error so far."""
        return self._output.decode("utf-8", "replace")

    def _read(self) -> None:
        assert self.process.stderr is not None
        while data := os.read(self.process.stderr.fileno(), 1 << 16):
            with self._changed:
                self._output += data
                self._changed.notify_all()

    def wait_for(self, text: str) -> None:
        """Wait until it has printed a text."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while text not in self.text:
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._thread.is_alive()):
                    raise AssertionError(f"{text!r} never came:\n{self.text}")
                self._changed.wait(min(left, 0.2))

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to it, or to its whole process group, as a terminal does."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def end(self) -> Outcome:
        """Wait for its end and return what came of it."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it does not end:\n{self.text}") from None
        if self._thread.is_alive():
            self._thread.join(PATIENCE)
        out = b""
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                out += stream.read() if stream is self.process.stdout else b""
                stream.close()
        return Outcome(code, out.decode("utf-8", "replace"), self.text)


@dataclass
class Bench(Engine):
    """An engine whose builds can be started, interrupted, and looked for afterwards."""

    account: Account = field(default_factory=lambda: Account([], {}))
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def fresh(self) -> str:
        """Return a word that no earlier build has seen."""
        return uuid.uuid4().hex[:12]

    def step(self, text: str) -> str:
        """Return the lines of a stage on ``busybox`` with a mark in the environment of what its steps leave running."""
        return f"FROM busybox\nENV CASTOFF_TEST_STEP={self.mark}\n{text}"

    def start(
        self,
        *arguments: str,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> Running:
        """Start castoff on the store."""
        marked = {"CASTOFF_TEST_STEP": self.mark, **(env or {})}
        command = ["--root", self.store, *arguments]
        return Running(self.account.popen(command, cwd=cwd or self.folder, env=marked, stdout=stdout, stderr=stderr))

    def start_build(self, context: str, *arguments: str, tag: str = "t", **options: int) -> Running:
        """Start the build of a context, with plain progress."""
        return self.start("build", "--progress=plain", "-t", tag, *arguments, context, **options)  # type: ignore[arg-type]

    def copy(self) -> Bench:
        """Return an engine with a copy of the store, to be broken."""
        folder = os.path.join(self.folder, uuid.uuid4().hex[:8])
        os.mkdir(folder)
        self.give(folder)
        subprocess.run(["cp", "-a", self.store, f"{folder}/store"], check=True)
        return replace(self, folder=folder, store=f"{folder}/store")

    def left(self) -> list[str]:
        """Wait until nothing is left that a build started, and return what does not go: processes and mounts."""
        deadline = time.monotonic() + 10
        while (found := [*marked_processes(self.mark), *self._mounts()]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def _mounts(self) -> list[str]:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            return [line for line in file if f"{self.store}/" in line]

    def check_clean(self) -> None:
        """Fail if a build left a process, a mount, or a temporary file."""
        assert self.left() == []
        assert self.temporary() == []

    def check_next(self) -> None:
        """Fail if the store is not as good as new for a further build."""
        context = self.context({"Dockerfile": "FROM busybox\nRUN cat /f > /g\n", "f": "x"})
        with open(os.path.join(context, "Dockerfile"), "w", encoding="utf-8") as file:
            file.write(f"FROM busybox\nCOPY f /\nRUN cat /f > /g && : {uuid.uuid4().hex}\n")
        outcome = self.good(context, tag="next")
        assert "error" not in outcome.err.lower()
        assert self.read("next", "g") == b"x"
        self.check_clean()

    def fails(self, files: Mapping[str, str | bytes] | str, *arguments: str, code: int) -> str:
        """Build something that must fail with a code, check how it says so, and return what it printed."""
        context = self.context({"Dockerfile": files} if isinstance(files, str) else files)
        return self.refused("build", "--progress=plain", "-t", "t", *arguments, context, code=code)

    def refused(self, *arguments: str, code: int) -> str:
        """Run castoff, which must fail with a code and one sentence, and return what it printed."""
        running = self.start(*arguments)
        outcome = running.end()
        assert outcome.code == code, outcome.err
        one_sentence(outcome.err)
        assert self.left() == []
        if os.path.isdir(f"{self.store}/tmp"):
            assert self.temporary() == []
        return outcome.err


def one_sentence(text: str) -> str:
    """Return the sentence of an error; fail unless there is exactly one, and no traceback."""
    assert "Traceback" not in text, text
    assert "inside castoff" not in text, text
    sentences = re.findall(r"^(?:error|ERROR): (.+)$", text, re.MULTILINE)
    assert len(sentences) == 1, text
    return str(sentences[0])


def marked_processes(mark: str) -> list[str]:
    """Return the processes that have a mark in their environment, but for those that have ended."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if f"CASTOFF_TEST_STEP={mark}".encode() not in file.read():
                    continue
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                found.append(f"{entry}: {file.read().decode('utf-8', 'replace')!r}")
        except OSError:
            continue
    return [item for item in found if not item.endswith(": ''")]


def find_process(mark: str, wanted: Callable[[str], bool]) -> int:
    """Wait for a marked process whose command line is wanted, and return its id."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for item in marked_processes(mark):
            pid, _, command = item.partition(": ")
            if wanted(command):
                return int(pid)
        time.sleep(0.02)
    raise AssertionError(f"no such process: {marked_processes(mark)}")


def make_bench(request: pytest.FixtureRequest, kind: str) -> Iterator[Bench]:
    """Yield a bench of ``root`` or of an ordinary ``user`` that has the image ``busybox``."""
    require = request.getfixturevalue("require")
    require.file(BUSYBOX, "busybox-static")
    if kind == "root":
        require.root()
        account = Account(request.getfixturevalue("castoff_command"), dict(os.environ))
        folder = tempfile.mkdtemp(prefix="castoff-bench-")
    else:
        user = request.getfixturevalue("ordinary_user")
        require.subordinate_ids(user)
        command, settings = request.getfixturevalue("user_castoff")
        marker = {"CASTOFF_TEST_SESSION": os.environ.get("CASTOFF_TEST_SESSION", "")}
        other = os.geteuid() == 0
        environment = {**user.environment(), **settings, **marker}
        account = Account(command, environment, user.uid if other else None, user.gid if other else None)
        folder = tempfile.mkdtemp(prefix="bench-", dir=user.home)
        os.chown(folder, user.uid, user.gid)

    def run(
        arguments: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        process = account.popen(arguments, cwd=cwd or folder, env=env or {})
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(list(arguments), process.returncode, out, err)

    bench = Bench(folder, run, account.owner, account=account)
    try:
        bench.make_base()
        yield bench
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def peak_memory(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process and return the most memory that it had, in bytes.

    The kernel's account of an ended process also has what its parent held when it was forked, which is the tests' own
    memory; so its high-water mark is read while it runs.
    """
    most = 0
    while process.poll() is None:
        with contextlib.suppress(OSError), open(f"/proc/{process.pid}/status", encoding="ascii") as file:
            found = re.search(r"^VmHWM:\s+(\d+) kB", file.read(), re.MULTILINE)
            most = max(most, int(found[1]) * 1024 if found else 0)
        time.sleep(0.01)
    assert most, "the process ended before its memory was looked at"
    return most


SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
