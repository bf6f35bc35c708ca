"""The command line on the real engine: builds as people see them, containers as they use them."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

CASTOFF = [sys.executable, "-c", "import sys; from castoff.cli.main import main; sys.exit(main(sys.argv[1:]))"]
DOCKERFILE = """\
FROM scratch AS builder
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN echo out && echo err >&2 && mkdir /data && echo kept > /data/file && chown 7:8 /data
FROM scratch
COPY --from=builder /bin /bin
COPY --from=builder /data /data
COPY passwd /etc/passwd
WORKDIR /app
VOLUME /data
ENV A=image
USER app
CMD ["sh", "-c", "echo $A $(id -u):$(id -g) $PWD $HOME $(cat /data/file)"]
"""


class Castoff:
    """Runs castoff on one store."""

    def __init__(self, root: str) -> None:
        self.root = root

    def __call__(self, *argv: str) -> subprocess.CompletedProcess[str]:
        command = [*CASTOFF, "--root", self.root, *argv]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL
        )

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*CASTOFF, "--root", self.root, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def in_terminal(self, *argv: str, typed: bytes = b"") -> tuple[int, bytes]:
        """Run castoff on a terminal of its own, and return its exit code and what it showed."""
        pid, master = pty.fork()
        if pid == 0:
            os.execvp(CASTOFF[0], [*CASTOFF, "--root", self.root, *argv])
        shown = bytearray()
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data
            if typed and b"$ " in shown:
                os.write(master, typed)
                typed = b""
        os.close(master)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), bytes(shown)


@pytest.fixture(scope="module")
def castoff(tmp_path_factory: pytest.TempPathFactory, require: Any) -> Castoff:
    busybox = require.command("busybox", "busybox-static")
    require.user_namespaces()
    folder = tmp_path_factory.mktemp("cli")
    require.overlay(folder)
    context = folder / "context"
    context.mkdir()
    shutil.copy(busybox, context / "busybox")
    (context / "passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:12:13::/home/app:/bin/sh\n")
    (context / "Dockerfile").write_text(DOCKERFILE)
    run = Castoff(str(folder / "store"))
    built = run("build", "-t", "app", "--progress", "plain", str(context))
    if "no such file" in built.stderr and "busybox" in built.stderr:
        pytest.skip("busybox is not statically linked (Debian package busybox-static)")
    assert built.returncode == 0, built.stderr
    assert built.stdout == ""
    return run


@pytest.fixture
def context(castoff: Castoff, tmp_path: Path) -> Callable[[str], str]:
    """Give a function that makes a context with a Dockerfile, on top of the image that was built."""

    def make(text: str) -> str:
        (tmp_path / "Dockerfile").write_text(text)
        return str(tmp_path)

    return make


def test_image_is_honoured(castoff: Castoff) -> None:
    done = castoff("run", "--rm", "--network", "none", "app")
    assert (done.returncode, done.stdout) == (0, "image 12:13 /app /home/app kept\n")
    assert done.stderr == ""


def test_options_win_over_the_image(castoff: Castoff, tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("from the host\n")
    tmp_path.chmod(0o755)
    script = "echo $A $(id -u):$(id -g) $PWD; cat /mnt/seen; touch /mnt/x || touch /y || df /tmpfs | tail -1; exit 42"
    done = castoff(
        *["run", "--network", "none", "-u", "5:6", "-w", "/new/dir", "-e", "A=given", "--read-only"],
        *["-v", f"{tmp_path}:/mnt:ro", "--tmpfs", "/tmpfs:size=1m", "--entrypoint", "sh", "app", "-c", script],
    )
    assert done.returncode == 42
    lines = done.stdout.splitlines()
    assert lines[:2] == ["given 5:6 /new/dir", "from the host"]
    assert lines[2].split()[1] == "1024"
    assert done.stderr.count("Read-only file system") == 2


def test_volumes_are_fresh_each_time(castoff: Castoff) -> None:
    script = "ls -ld /data | cut -c1-10; ls /data; echo more > /data/more"
    for _ in range(2):
        done = castoff("run", "--network", "none", "-u", "root", "-v", "/other", "app", "sh", "-c", script)
        assert (done.returncode, done.stdout) == (0, "drwxr-xr-x\nfile\n"), done.stderr


def test_exit_codes_of_run(castoff: Castoff) -> None:
    assert castoff("run", "--network", "none", "app", "nosuch").returncode == 127
    assert castoff("run", "--network", "none", "app", "/etc/passwd").returncode == 126
    assert castoff("run", "--network", "none", "gone").returncode == 125
    assert castoff("run", "--bogus", "app").returncode == 125
    assert castoff("run", "--network", "none", "-u", "nobody-here", "app").returncode == 125


def test_ports_signals_and_exit(castoff: Castoff, free_port: Callable[[], int]) -> None:
    port = free_port()
    script = "mkdir -p /tmp/www; echo served > /tmp/www/f; httpd -p 80 -h /tmp/www;"
    script += ' trap "exit 7" TERM; while :; do sleep 0.1; done'
    process = castoff.start("run", "-u", "root", "-p", f"127.0.0.1:{port}:80", "app", "sh", "-c", script)
    try:
        deadline = time.monotonic() + 60
        body = b""
        while not body and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/f", timeout=5) as answer:
                    body = answer.read()
            except OSError:
                time.sleep(0.1)
        assert body == b"served\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 7
    finally:
        process.kill()
        process.communicate()


def test_interactive_terminal(castoff: Castoff) -> None:
    code, shown = castoff.in_terminal(
        "run", "--network", "none", "-it", "-e", "PS1=$ ", "app", "sh", typed=b"tty; exit 5\r"
    )
    assert code == 5
    assert b"/dev/" in shown


def test_piped_input(castoff: Castoff) -> None:
    command = [*CASTOFF, "--root", castoff.root, "run", "--network", "none", "-i", "app", "cat"]
    done = subprocess.run(command, input=b"piped\0bytes", capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"piped\0bytes")


def test_terminal_shows_the_last_frame(castoff: Castoff, context: Callable[[str], str]) -> None:
    folder = context("FROM app\nUSER root\nRUN echo one; sleep 0.3; echo two\n")
    code, shown = castoff.in_terminal("build", "--build-context", "app=docker-image://app", "-t", "framed", folder)
    assert code == 0, shown
    last = shown.rpartition(b"[+] Building")[2].decode()
    assert "FINISHED" in last
    assert "naming to docker.io/library/framed" in last
    assert "\x1b[?25h" in last


def test_failing_step_tells_all(castoff: Castoff, context: Callable[[str], str]) -> None:
    folder = context("FROM app\nUSER root\n# why\nRUN echo before; echo oops >&2; exit 3\nRUN never\n")
    failed = castoff("build", "--progress", "plain", folder)
    assert failed.returncode == 1
    message = 'process "/bin/sh -c echo before; echo oops >&2; exit 3" did not complete successfully: exit code: 3'
    report = failed.stderr.partition("ERROR: " + message + "\n")[2].splitlines()
    assert report[0] == "------"
    assert report[1].endswith("RUN echo before; echo oops >&2; exit 3:")
    assert sorted(line.split()[-1] for line in report[2:4]) == ["before", "oops"]
    assert report[4:] == [
        "------",
        "Dockerfile:4",
        "--------------------",
        "   2 |     USER root",
        "   3 |     # why",
        "   4 | >>> RUN echo before; echo oops >&2; exit 3",
        "   5 |     RUN never",
        "--------------------",
        f"ERROR: failed to solve: {message}",
    ]


@pytest.mark.parametrize(
    ("text", "code", "message", "hint"),
    [
        ("FROM app\nRUNN x\n", 3, "error: unknown instruction: RUNN (did you mean RUN?)\nDockerfile:2\n", ""),
        ("FROM app\nCOPY gone /x\n", 1, "gone", "hint: "),
        ("FROM nowhere:1\n", 5, "error: the image nowhere:1 is not in the store, and ", "registries.toml"),
        ("FROM app AS builder\nFROM app\nCOPY --from=biulder x y\n", 3, "biulder", "Dockerfile:3\n"),
    ],
)
def test_mistakes_are_one_sentence_with_the_line(
    castoff: Castoff, context: Callable[[str], str], text: str, code: int, message: str, hint: str
) -> None:
    failed = castoff("build", "--progress", "plain", context(text))
    assert failed.returncode == code, failed.stderr
    assert message in failed.stderr
    assert hint in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_build_leaves_nothing(
    castoff: Castoff, context: Callable[[str], str], number: int, code: int
) -> None:
    folder = context("FROM app\nUSER root\nRUN echo started; sleep 600\n")
    before = sorted(os.listdir(f"{castoff.root}/snapshots"))
    process = castoff.start("build", "--progress", "plain", folder)
    assert process.stderr is not None
    try:
        seen = b""
        while b"started\n" not in seen.replace(b"echo started", b""):
            data = process.stderr.readline()
            assert data, seen
            seen += data
        process.send_signal(number)
        assert process.wait(60) == code
        assert b"Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
    assert sorted(os.listdir(f"{castoff.root}/snapshots")) == before
    assert castoff("images", "-q").returncode == 0


def test_quiet_and_files(castoff: Castoff, context: Callable[[str], str], tmp_path: Path) -> None:
    folder = context("FROM app\nENV X=1\n")
    out = [*["--iidfile", str(tmp_path / "iid")], "--metadata-file", str(tmp_path / "meta.json")]
    done = castoff("build", "-q", "-t", "quiet", *out, folder)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.strip() == (tmp_path / "iid").read_text()
    assert f'"containerimage.config.digest": "{done.stdout.strip()}"' in (tmp_path / "meta.json").read_text()
    assert castoff("images", "-q", "--no-trunc", "quiet").stdout == done.stdout


def test_dockerfile_on_standard_input_is_read_each_time(castoff: Castoff) -> None:
    ids = []
    for text in ("FROM scratch\nENV A=1\n", "FROM scratch\nENV A=2\n", "FROM scratch\nENV A=1\n"):
        command = [sys.executable, "-m", "castoff", "--root", castoff.root, "build", "-q", "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        ids.append(done.stdout)
    assert ids[0] != ids[1]
    assert ids[0] == ids[2]


def test_unchanged_build_shows_the_same_frame_again(castoff: Castoff, context: Callable[[str], str]) -> None:
    folder = context("FROM app\nUSER root\nRUN echo once\nENV B=1\n")
    shown = []
    for _ in range(3):
        command = [sys.executable, "-m", "castoff", "--root", castoff.root, "build", "-t", "same", folder]
        done = subprocess.run(
            [*command, "--progress", "tty"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
        )
        shown.append(done.stderr.splitlines()[1:])
    assert shown[1] == shown[2]
    assert any(line.startswith(" => CACHED ") and "RUN echo once" in line for line in shown[1])


def test_stages_are_weighed(castoff: Castoff) -> None:
    done = castoff("size", "--stages", "app")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["STAGE", "BASE", "BASE", "SIZE", "OWN", "TOTAL", "COMPRESSED"]
    assert lines[1].split()[:2] == ["builder", "scratch"]
    assert "(final)" in lines[2]
    assert "-" not in lines[1].split()[2:]
