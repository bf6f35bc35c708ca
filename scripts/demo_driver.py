"""Runs castoff for the demo: each command is shown as a person would type it, and must end as was expected."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PORT = 8000
"""Where the services listen in their containers."""
START_SECONDS = 30.0
_STEP = re.compile(r"\[[^\]]+ \d+/\d+\] (?!FROM )")
_SHOWN = 100


class DemoError(Exception):
    """Something that the demo promises did not come true."""


@dataclass(frozen=True)
class Service:
    """One of the two services.

    Attributes:
        name: of its folder, its image and its container.
        stand_ins: references of its Dockerfile, and the bases that stand in for them.
        wheels: whether its build is given a folder with the wheels of its lock.
    """

    name: str
    stand_ins: dict[str, str]
    wheels: bool = False


@dataclass(frozen=True)
class Build:
    """What one build printed: the names of the steps that were cached, and of those that ran."""

    cached: tuple[str, ...]
    ran: tuple[str, ...]

    def expect(self, *, cached: tuple[str, ...] = (), ran: tuple[str, ...] = ()) -> None:
        """Check that steps were cached, or ran.

        Raises:
            DemoError: one was not.
        """
        for words, group, verb in ((cached, self.cached, "cached"), (ran, self.ran, "run")):
            for word in words:
                if not any(word in name for name in group):
                    raise DemoError(f"the step {word!r} should have been {verb}")


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n=== {text}", flush=True)


def say(text: str) -> None:
    """Print a line."""
    print(text, flush=True)


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Driver:
    """castoff on the demo's store, and the copies of the services that it builds.

    Args:
        castoff: the start of castoff's command line.
        store: folder of the store; the copies and the wheels are beside it.
    """

    def __init__(self, castoff: list[str], store: str) -> None:
        self.castoff = castoff
        self.store = store
        self.work = os.path.dirname(store)

    def command(self, *arguments: str) -> list[str]:
        """Return a command line with the demo's store."""
        return [*self.castoff, "--root", self.store, *arguments]

    def show(self, *arguments: str) -> None:
        """Print a command as a person would type it."""
        shown = [_quoted(item.replace(f"{HERE}/", "")) for item in arguments]
        print(f"$ castoff {' '.join(shown)}", flush=True)

    def run(self, *arguments: str, code: int = 0) -> None:
        """Run castoff, its output on this terminal.

        Raises:
            DemoError: it did not end with the code.
        """
        self.show(*arguments)
        done = subprocess.run(self.command(*arguments), stdin=subprocess.DEVNULL, check=False)
        if done.returncode != code:
            raise DemoError(f"castoff {arguments[0]} ended with exit code {done.returncode}, and not {code}")
        if code:
            say(f"(exit code {code})")

    def quietly(self, *arguments: str) -> str:
        """Run castoff without showing it, whatever comes of it, and return what it printed."""
        line = self.command(*arguments)
        return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout

    # Building

    def copy(self, service: Service) -> None:
        """Copy the service's folder, so that the demo may change it."""
        target = self.folder(service)
        shutil.rmtree(target, ignore_errors=True)
        made = shutil.ignore_patterns("__pycache__", ".*_cache", ".venv", ".hypothesis")
        shutil.copytree(os.path.join(HERE, "services", service.name), target, ignore=made)

    def folder(self, service: Service) -> str:
        """Return the folder of the service's copy."""
        return os.path.join(self.work, service.name)

    def provide_wheels(self, service: Service) -> None:
        """Download what the service's lock names, unless it is there; pip refuses what has another hash.

        Raises:
            DemoError: pip can't get it.
        """
        lock = os.path.join(HERE, "services", service.name, "requirements.lock")
        wheels = os.path.join(self.work, "wheels")
        mark = f"{wheels}.lock"  # beside the folder, all of which is the build's
        if os.path.exists(mark) and _read(mark) == _read(lock):
            return
        shutil.rmtree(wheels, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(mark)
        say("$ pip download --require-hashes --only-binary=:all: -r requirements.lock -d wheels")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        pip += ["--require-hashes", "--only-binary=:all:", "--python-version=3.11", "-r", lock, "-d", wheels]
        done = subprocess.run(pip, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise DemoError(f"pip can't download the wheels of {service.name}:\n{done.stderr}")
        shutil.copyfile(lock, mark)

    def build_arguments(self, service: Service, *options: str, tag: str = "") -> list[str]:
        """Return the arguments that build a service, its stand-ins named openly."""
        arguments = ["build", "-t", tag or service.name, *options]
        for name, reference in service.stand_ins.items():
            arguments += ["--build-context", f"{name}=docker-image://{reference}"]
        if service.wheels:
            arguments += ["--build-context", f"wheels={os.path.join(self.work, 'wheels')}"]
        return [*arguments, self.folder(service)]

    def build(self, service: Service, *options: str, tag: str = "") -> None:
        """Build a service, its progress on this terminal."""
        self.run(*self.build_arguments(service, *options, tag=tag))

    def rebuild(self, service: Service) -> Build:
        """Build a service as it now stands, say of each step whether it ran, and return which did.

        Raises:
            DemoError: the build failed.
        """
        arguments = self.build_arguments(service)
        self.show("build", "-t", service.name, "…", arguments[-1])
        line = self.command(*arguments[:-1], "--progress=rawjson", arguments[-1])
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        seen: dict[str, bool] = {}
        complaints: list[str] = []
        for row in process.stderr:
            if not row.startswith("{"):
                complaints.append(row)
                continue
            for vertex in json.loads(row).get("vertexes") or ():
                name = vertex["name"]
                if not vertex.get("completed") or not _STEP.match(name) or name in seen:
                    continue
                seen[name] = bool(vertex.get("cached"))
                text = name if len(name) < _SHOWN else name[: _SHOWN - 3] + "..."
                say(f"   {'CACHED' if seen[name] else 'RAN   '} {text}")
        if process.wait():
            sys.stderr.writelines(complaints)
            raise DemoError(f"the build ended with exit code {process.returncode}")
        return Build(
            tuple(name for name, cached in seen.items() if cached),
            tuple(name for name, cached in seen.items() if not cached),
        )

    def change(self, service: Service, name: str, old: str, new: str) -> None:
        """Replace a text that occurs once in a file of the service's copy.

        Raises:
            DemoError: it does not.
        """
        path = os.path.join(self.folder(service), name)
        text = _read(path)
        if text.count(old) != 1:
            raise DemoError(f"{name} does not have {old!r} once")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text.replace(old, new))

    def append(self, service: Service, name: str, text: str) -> None:
        """Add to a file of the service's copy."""
        with open(os.path.join(self.folder(service), name), "a", encoding="utf-8") as file:
            file.write(text)

    # Running

    def ask(self, port: int, path: str, *, wait: bool = False) -> str:
        """Return the body of an answer of a service; with `wait` it is given time to start.

        Raises:
            DemoError: it gives none, or not with status 200.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read().decode()
                break
            except (OSError, http.client.HTTPException):
                if not wait or time.monotonic() > deadline:
                    raise DemoError(f"GET {path} on port {port} was not answered") from None
                time.sleep(0.05)
            finally:
                connection.close()
        if answer.status != 200:
            raise DemoError(f"GET {path} gave {answer.status}")
        return body


def _quoted(word: str) -> str:
    return word if re.fullmatch(r"[\w@%+=:,./…~-]+", word) else "'" + word.replace("'", "'\\''") + "'"


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
