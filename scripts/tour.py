"""The README's tour: runs its commands for real and prints them, with what they printed, as Markdown.

The two bases are assembled in the store that is named, or found there. Everything after that happens in a store of its
own that has nothing but the bases, so that the first build is one that nothing of is cached. Ports, clocks and the
container's addresses are shown as the examples of the documentation; everything else is what castoff printed.

    .venv/bin/python scripts/tour.py .demo/store --update README.md
"""

from __future__ import annotations

import argparse
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BEGIN, END = "<!-- tour -->", "<!-- /tour -->"
STATIC, GOLANG = "castoff/static:nonroot", "castoff/golang:1.22"
IMAGE = "devops-info-service"
BUILD = (
    f"castoff build -t {IMAGE}",
    f"--build-context golang:1.22-alpine=docker-image://{GOLANG}",
    f"--build-context gcr.io/distroless/static:nonroot=docker-image://{STATIC}",
    "service",
)
AGAIN = f"castoff build -t {IMAGE} … service"
PORT = 8000
START_SECONDS = 60.0
STOP_SECONDS = 30.0

_STAMP = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d")
_CLOCK = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_STEP = re.compile(r" => (?P<mark>(?:CACHED |ERROR |CANCELED )?)(?P<name>.+?) +\d+\.\d+s")
_HEADING = re.compile(r"\[\+\] Building [\d.]+s (?P<count>\(\d+/\d+\) \w+)")
_NAME = 56  # What a frame shows of a name depends on how long the step took; its beginning does not.
_SET_ASIDE = ("CASTOFF_ROOT", "SOURCE_DATE_EPOCH", "BUILDKIT_PROGRESS", "CASTOFF_DEBUG")


class TourError(Exception):
    """A command of the tour did not do what it is there to show."""


@dataclass
class Tour:
    """Runs commands and writes down what they printed.

    Attributes:
        store: folder of the store.
        castoff: the start of castoff's command line.
        folder: the folder in which the commands are given.
    """

    store: str
    castoff: list[str]
    folder: str
    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a paragraph."""
        self.lines += [*textwrap.wrap(text, 120, break_long_words=False), ""]

    def block(self, *parts: str) -> None:
        """Add a block of commands and their output."""
        self.lines += ["```console", *(line.rstrip() for part in parts for line in part.splitlines()), "```", ""]

    def command(self, arguments: list[str]) -> list[str]:
        """Return a command line of castoff with the tour's store."""
        return [*self.castoff, "--root", self.store, *arguments]

    def run(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        """Run castoff.

        Raises:
            TourError: it failed.
        """
        done = subprocess.run(
            self.command(arguments), cwd=self.folder, env=environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise TourError(f"castoff {' '.join(arguments)} ended with exit code {done.returncode}:\n{done.stderr}")
        return done

    def shell(self, line: str) -> str:
        """Run a line of shell and return it as it is typed.

        Raises:
            TourError: it failed.
        """
        if subprocess.run(["sh", "-c", line], cwd=self.folder, check=False).returncode:
            raise TourError(f"{line!r} failed")
        return f"$ {line}"

    def build(self) -> str:
        """Build the service and return the frame that a terminal shows at the end."""
        arguments = [word for part in BUILD for word in part.split()][1:]
        return self.run([*arguments[:-1], "--progress=tty", arguments[-1]]).stderr


def environment() -> dict[str, str]:
    """Return the environment of the commands: this one, without what would change their output."""
    return {key: value for key, value in os.environ.items() if key not in _SET_ASIDE}


def steps_only(frame: str) -> str:
    """Return a frame without the lines that are the same in every build: what is loaded, and what is written."""
    lines = frame.splitlines()
    return "\n".join(line for line in lines if _HEADING.match(line) or re.match(r" => (CACHED )?\[(?!internal)", line))


def assemble(tour: Tour) -> None:
    """Show the two bases."""
    shown = []
    for recipe, reference in (("static", STATIC), ("golang-1.22", GOLANG)):
        arguments = ["base", "assemble", f"bases/{recipe}.toml", "-t", reference]
        shown += [f"$ castoff {' '.join(arguments)}", tour.run(arguments).stdout]
    tour.say("Two bases, made of Debian packages: next to nothing to run on, and a Go toolchain to build with.")
    tour.block(*shown)


def move_bases(tour: Tour, store: str) -> None:
    """Go on in another store, which has the bases and nothing else."""
    archive = os.path.join(tour.folder, "bases.tar")
    tour.run(["save", "--format", "oci", "-o", archive, STATIC, GOLANG])
    tour.store = store
    tour.run(["load", "-q", "-i", archive])
    os.unlink(archive)


def first_build(tour: Tour) -> None:
    """Show the two-stage build."""
    copied = tour.shell("cp -r services/devops-info-service-go service")
    frame = tour.build()
    tour.say(
        "The service's Dockerfile names `golang:1.22-alpine` and `gcr.io/distroless/static:nonroot`. What stands in for"
        " them is said on the command line."
    )
    tour.block(copied, "$ " + " \\\n    ".join(BUILD), frame)


def run_and_ask(tour: Tour) -> None:
    """Show the image running, and its answer.

    Raises:
        TourError: it does not start, answer or stop.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    arguments = ["run", "--rm", "-p", f"127.0.0.1:{port}:{PORT}", IMAGE]
    process = subprocess.Popen(tour.command(arguments), cwd=tour.folder, env=environment(), stderr=subprocess.PIPE)
    try:
        log = _read_log(process, "Press Ctrl+C to stop")
        answer = _get(port, "/health")
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_SECONDS)
        if code:
            raise TourError(f"the container ended with exit code {code}")
    finally:
        if process.poll() is None:
            # Killed, it would leave the container: one with a published port lives on its own.
            subprocess.run(tour.command(["stop", *_running(tour)]), cwd=tour.folder, capture_output=True, check=False)
            process.wait(STOP_SECONDS)
        assert process.stderr is not None
        process.stderr.close()
    tour.say("It runs, answers, and ends with exit code 0 when it is told to stop.")
    tour.block(
        f"$ castoff run --rm -p 127.0.0.1:{PORT}:{PORT} {IMAGE} &",
        _STAMP.sub("2026/02/02 11:18:39", log),
        f"$ curl -s http://127.0.0.1:{PORT}/health",
        _CLOCK.sub("2026-02-02T11:18:40Z", re.sub(r'("uptime_seconds": )\d+', r"\g<1>1", answer)),
        "$ kill %1; wait %1; echo $?",
        str(code),
    )


def _running(tour: Tour) -> list[str]:
    """Return the ids of the containers that run in the tour's store, which is nobody else's."""
    line = tour.command(["ps", "-q"])
    return subprocess.run(line, cwd=tour.folder, capture_output=True, text=True, check=False).stdout.split()


def _read_log(process: subprocess.Popen[bytes], last: str) -> str:
    """Return what a container printed, up to a line that ends with `last`; castoff's own warnings are left out."""
    assert process.stderr is not None
    descriptor, data = process.stderr.fileno(), b""
    deadline = time.monotonic() + START_SECONDS
    while not data.decode(errors="replace").rstrip().endswith(last):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(descriptor, 4096) if ready else b""
        if not chunk:
            raise TourError(f"the container did not start:\n{data.decode(errors='replace')}")
        data += chunk
    lines = data.decode(errors="replace").splitlines()
    return "\n".join(line for line in lines if not line.startswith("warning: "))


def _get(port: int, path: str) -> str:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=STOP_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200:
        raise TourError(f"GET {path} gave {answer.status}")
    return body


def weigh(tour: Tour) -> None:
    """Show what the stages weigh."""
    arguments = ["size", "--stages", IMAGE]
    tour.say("What the stages weigh, and what of the builder did not come along:")
    tour.block(f"$ castoff {' '.join(arguments)}", tour.run(arguments).stdout)


def audit(tour: Tour) -> None:
    """Show what the image does not hold."""
    tour.say("What an image holds is shown rather than said:")
    tour.block(f"$ castoff audit {IMAGE}", tour.run(["audit", IMAGE]).stdout)


def rebuilds(tour: Tour) -> None:
    """Show what runs again: nothing; compile and copy; download and compile."""
    tour.say("The same command again. Nothing has changed, so nothing runs.")
    tour.block(f"$ {AGAIN}", tour.build())
    changed = tour.shell("sed -i 's/Press Ctrl+C to stop/Ctrl+C stops it/' service/main.go")
    tour.say(
        "A text in `main.go` changed: the download of dependencies stays cached, compile and copy run. (From here on,"
        " only the lines of the steps are shown.)"
    )
    tour.block(changed, f"$ {AGAIN}", steps_only(tour.build()))
    changed = tour.shell("echo '// a comment' >> service/go.mod")
    tour.say(
        "A comment in `go.mod`: download and compile run, and give the same binary. The runtime stage goes by the"
        " content of what it copies, so it stays cached."
    )
    tour.block(changed, f"$ {AGAIN}", steps_only(tour.build()))


def take(store: str, castoff: list[str]) -> str:
    """Return the whole tour as Markdown.

    Args:
        store: the store that has the bases, or gets them.
        castoff: the start of castoff's command line.

    Raises:
        TourError: a command failed.
    """
    # Not a TemporaryDirectory: a store of an ordinary user holds files that only a user namespace can remove.
    folder = tempfile.mkdtemp(prefix="castoff-tour-")
    try:
        for name in ("bases", "services"):
            os.symlink(os.path.join(HERE, name), os.path.join(folder, name))
        tour = Tour(os.path.abspath(store), castoff, folder)
        assemble(tour)
        move_bases(tour, os.path.join(folder, "store"))
        for show in (first_build, run_and_ask, weigh, audit, rebuilds):
            show(tour)
        return "\n".join(tour.lines).rstrip("\n") + "\n"
    finally:
        remove(folder)


def remove(folder: str) -> None:
    """Remove a folder, with the files of subordinate users in it."""
    if subprocess.run(["rm", "-rf", folder], stderr=subprocess.DEVNULL, check=False).returncode:
        subprocess.run(["unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf", folder], check=False)


def shape(markdown: str) -> list[object]:
    """Return what must be the same each time: the commands in order, and after each build its steps with their status.

    Steps are a set: independent ones may begin in another order.
    """
    found: list[object] = []
    steps: set[tuple[str, str]] = set()
    for line in markdown.splitlines():
        if line.startswith(("$ ", "    --")) or line == "```":
            if steps:
                found.append(frozenset(steps))
                steps = set()
            if line != "```":
                found.append(line)
        elif match := _HEADING.match(line):
            found.append(match["count"])
        elif (match := _STEP.match(line)) and not match["name"].startswith("=> "):
            steps.add((match["name"][:_NAME].rstrip(), match["mark"].strip()))
        elif match := re.match(r"(builder|stage-1 \(final\)) ", line):
            found.append(match[1])
        elif line.startswith(("PASSED", "kept (")):
            found.append(line.split(":")[0])
        elif re.match(r'\s*("status"|"timestamp"|"uptime_seconds"|Assembled )', line):
            found.append(line.split(":")[0].strip())
    return found


def block_of(text: str) -> str:
    """Return what stands between the markers of a text.

    Raises:
        TourError: it has no markers.
    """
    before, begin, rest = text.partition(f"{BEGIN}\n")
    block, end, _ = rest.partition(f"{END}\n")
    if not begin or not end:
        raise TourError(f"there are no markers {BEGIN} and {END}")
    del before
    return block.strip("\n") + "\n"


def with_block(text: str, block: str) -> str:
    """Return a text with something else between its markers."""
    block_of(text)
    before, _, rest = text.partition(f"{BEGIN}\n")
    _, _, after = rest.partition(f"{END}\n")
    return f"{before}{BEGIN}\n\n{block}\n{END}\n{after}"


def default_command() -> list[str]:
    """Return castoff beside this Python, or else the one that it can import."""
    path = os.path.join(os.path.dirname(sys.executable), "castoff")
    return [path] if os.path.exists(path) else [sys.executable, "-m", "castoff"]


def main(argv: list[str]) -> int:
    """Take the tour and print it, or put it into a file."""
    parser = argparse.ArgumentParser(prog="tour.py", description="Run the README's tour and print it as Markdown.")
    parser.add_argument("store", help="a store that has the two bases, or gets them")
    parser.add_argument("--update", metavar="FILE", help=f"write it between {BEGIN} and {END} of this file")
    options = parser.parse_args(argv)
    try:
        block = take(options.store, default_command())
        if not options.update:
            sys.stdout.write(block)
            return 0
        with open(options.update, encoding="utf-8") as file:
            text = with_block(file.read(), block)
    except TourError as error:
        sys.stderr.write(f"tour.py: {error}\n")
        return 1
    with open(options.update, "w", encoding="utf-8") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
