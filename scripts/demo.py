"""castoff's main job, shown: a 300 MB builder becomes a runtime image of a few megabytes that answers on a port.

Run by ./run demo. Everything it makes stays in .demo/ of this folder; the second time it needs no network.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = os.path.join(HERE, ".demo")
STORE = os.path.join(WORK, "store")
SERVICE = os.path.join(WORK, "devops-info-service-go")
NAME = "devops-info-service-go"
BASES = {"static": "castoff/static:nonroot", "golang-1.22": "castoff/golang:1.22"}
STAND_INS = {
    "golang:1.22-alpine": BASES["golang-1.22"],
    "gcr.io/distroless/static:nonroot": BASES["static"],
}
START_SECONDS = 30.0
STEP = re.compile(r"\[[^\]]+ \d+/\d+\] (?!FROM )")


class DemoError(Exception):
    """Something that the demo promises did not come true."""


@dataclass(frozen=True)
class Build:
    """What one build printed: the names of the steps that were cached, and of those that ran."""

    cached: tuple[str, ...]
    ran: tuple[str, ...]


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n=== {text}", flush=True)


def command(*arguments: str) -> list[str]:
    """Return the command line of castoff with the demo's store."""
    return [os.path.join(os.path.dirname(sys.executable), "castoff"), "--root", STORE, *arguments]


def show(arguments: list[str]) -> None:
    """Print a command as a person would type it."""
    shown = ["castoff", *arguments[3:]]
    print("$ " + " ".join(os.path.relpath(item, HERE) if item.startswith(HERE) else item for item in shown), flush=True)


def castoff(*arguments: str) -> None:
    """Run castoff, its output on this terminal."""
    line = command(*arguments)
    show(line)
    done = subprocess.run(line, check=False)
    if done.returncode:
        raise DemoError(f"castoff {arguments[0]} ended with exit code {done.returncode}")


def assemble_bases() -> None:
    """Make the two bases from their locks, unless the store has them from the same locks."""
    for recipe, reference in BASES.items():
        path = os.path.join(HERE, "bases", f"{recipe}.toml")
        with open(path, "rb") as file, open(os.path.join(HERE, "bases", f"{recipe}.lock"), "rb") as lock:
            wanted = hashlib.sha256(file.read() + lock.read()).hexdigest()
        mark = os.path.join(WORK, f"{recipe}.made")
        if (
            _read(mark) == wanted
            and subprocess.run(
                command("inspect", reference), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
            ).returncode
            == 0
        ):
            print(f"{reference} is in the store already, made from bases/{recipe}.lock", flush=True)
            continue
        castoff("base", "assemble", path, "-t", reference)
        with open(mark, "w", encoding="ascii") as file_out:
            file_out.write(wanted)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def build_command() -> list[str]:
    """Return the command line that builds the service, its stand-ins named openly."""
    arguments = ["build", "-t", NAME]
    for name, reference in STAND_INS.items():
        arguments += ["--build-context", f"{name}=docker-image://{reference}"]
    return command(*arguments, SERVICE)


def rebuild() -> Build:
    """Build the service as it now stands, say of each step whether it ran, and return which did."""
    line = build_command()
    show(line)
    process = subprocess.Popen([*line[:-1], "--progress=rawjson", SERVICE], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    cached: list[str] = []
    ran: list[str] = []
    complaints: list[str] = []
    for row in process.stderr:
        if not row.startswith("{"):
            complaints.append(row)
            continue
        for vertex in json.loads(row).get("vertexes") or ():
            name = vertex["name"]
            if not vertex.get("completed") or not STEP.match(name) or name in cached or name in ran:
                continue
            (cached if vertex.get("cached") else ran).append(name)
            text = name if len(name) < 100 else name[:97] + "..."
            print(f"   {'CACHED' if vertex.get('cached') else 'RAN   '} {text}", flush=True)
    if process.wait():
        sys.stderr.writelines(complaints)
        raise DemoError(f"the build ended with exit code {process.returncode}")
    return Build(tuple(cached), tuple(ran))


def expect(build_: Build, *, cached: tuple[str, ...] = (), ran: tuple[str, ...] = ()) -> None:
    """Check that steps were cached, or ran."""
    for words, group, verb in ((cached, build_.cached, "cached"), (ran, build_.ran, "run")):
        for word in words:
            if not any(word in name for name in group):
                raise DemoError(f"the step {word!r} should have been {verb}")


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, path: str) -> str:
    """Return the body of an answer of the service."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        if answer.status != 200:
            raise DemoError(f"GET {path} gave {answer.status}")
        return body
    finally:
        connection.close()


@contextlib.contextmanager
def running(port: int) -> Iterator[None]:
    """Run the image for the time of the block; it must stop with exit code 0."""
    line = command("run", "--rm", "-p", f"127.0.0.1:{port}:8000", NAME)
    show(line)
    process = subprocess.Popen(line)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                ask(port, "/ready")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise DemoError("the container did not answer") from None
                time.sleep(0.1)
        yield
        process.send_signal(signal.SIGTERM)
        if process.wait(START_SECONDS):
            raise DemoError(f"the container ended with exit code {process.returncode}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def change(name: str, old: str, new: str) -> None:
    """Replace a text that occurs once in a file of the service's copy."""
    path = os.path.join(SERVICE, name)
    text = _read(path)
    if text.count(old) != 1:
        raise DemoError(f"{name} does not have {old!r} once")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace(old, new))


def tour() -> None:
    """Show everything, in order."""
    os.makedirs(WORK, exist_ok=True)
    title("Two bases from Debian packages: a toolchain to build with, next to nothing to run on")
    assemble_bases()

    shutil.rmtree(SERVICE, ignore_errors=True)
    shutil.copytree(os.path.join(HERE, "services", NAME), SERVICE)
    title("The two-stage build: no Docker, no daemon" + ("" if os.geteuid() == 0 else ", no root"))
    line = build_command()
    castoff(*line[3:])

    title("It answers")
    port = free_port()
    with running(port):
        for path in ("/health", "/"):
            print(f"$ curl http://127.0.0.1:{port}{path}\n{ask(port, path)}", flush=True)
    print("stopped: it drained and ended with exit code 0", flush=True)

    title("What the stages weigh")
    castoff("size", "--stages", NAME)

    title("Built again: nothing has changed, nothing runs")
    again = rebuild()
    if again.ran or len(again.cached) < 7:
        raise DemoError("a rebuild without a change should have been cached")

    title("A string in main.go changed: dependencies stay cached, compile and copy run")
    change("main.go", "Press Ctrl+C to stop", f"Press Ctrl+C to stop ({os.urandom(4).hex()})")
    expect(rebuild(), cached=("RUN go mod download",), ran=("go build", "COPY --from=builder"))

    title("A comment in go.mod: download and compile run, the binary is the same, the runtime stage stays cached")
    with open(os.path.join(SERVICE, "go.mod"), "a", encoding="utf-8") as file:
        file.write(f"// {os.urandom(4).hex()}\n")
    expect(rebuild(), cached=("COPY --from=builder",), ran=("RUN go mod download", "go build"))


def main() -> int:
    """Run the demo and return its exit code."""
    begun = time.monotonic()
    try:
        tour()
    except DemoError as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(
        f"\nShown in {time.monotonic() - begun:.0f} s: a builder with a whole toolchain became an image with one binary"
        f" that runs as nonroot,\nanswers, stops when told, and is built again only where something changed."
        f"\nThe store is .demo/store; ./run clean removes it. Try: .venv/bin/castoff --root .demo/store images",
        flush=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
