"""The values of the options of castoff run."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from castoff.cli.parser import parse_verb
from castoff.cli.run_request import RunOptions, command
from castoff.cli.run_values import Tmpfs, Volume, environment, stop_signal, tmpfs, volume
from castoff.errors import UsageError
from castoff.oci.config import ContainerConfig
from castoff.sandbox.spec import Network


def options(*argv: str) -> RunOptions:
    return RunOptions.read(parse_verb("run", argv, None).args)


def test_the_image_ends_the_options() -> None:
    read = options("--rm", "-it", "-e", "A=1", "image:1", "sh", "-c", "echo -e x", "--rm", "-t")
    assert read.arguments == ("sh", "-c", "echo -e x", "--rm", "-t")
    assert read.tty
    assert read.interactive
    assert read.env == ("A=1",)
    assert options("image").arguments == ()
    assert parse_verb("run", ["-h", "name", "image"], None).args.hostname == "name"


def test_everything_is_read(tmp_path: Path) -> None:
    read = options(
        *["-p", "8000:80", "-p", "127.0.0.1:1-2:3-4/udp", "-v", f"{tmp_path}:/data:ro", "--tmpfs", "/t:size=1m"],
        *["--network", "none", "-u", "1:2", "-w", "/w", "--read-only", "--stop-signal", "INT", "--shm-size", "1k"],
        *["--add-host", "h:1.1.1.1", "--ulimit", "core=0", "--entrypoint", "x", "image"],
    )
    assert [str(port) for port in read.ports] == ["8000:80/tcp", "127.0.0.1:1:3/udp", "127.0.0.1:2:4/udp"]
    assert read.volumes == (Volume(str(tmp_path), "/data", readonly=True),)
    assert read.tmpfs == (Tmpfs("/t", 1 << 20),)
    assert (read.network, read.user, read.workdir, read.read_only) == (Network.NONE, "1:2", "/w", True)
    assert (read.stop_signal, read.shm_size, read.entrypoint) == (signal.SIGINT, 1024, "x")
    assert read.hosts == (("h", "1.1.1.1"),)
    assert read.rlimits == (("core", 0, 0),)


@pytest.mark.parametrize(
    "argv",
    [
        ["--network", "container:x", "image"],
        ["-v", "na me:/data", "image"],
        ["-v", "/nowhere/at/all:/data", "image"],
        ["-v", "/tmp:relative", "image"],
        ["-v", "/tmp:/", "image"],
        ["-v", "/tmp:/x:rox", "image"],
        ["-v", "a:b:c:d", "image"],
        ["--tmpfs", "/x:noexec", "image"],
        ["--tmpfs", "x", "image"],
        ["-w", "relative", "image"],
        ["--stop-signal", "NOPE", "image"],
        ["--stop-signal", "_DFL", "image"],
        ["-p", "x", "image"],
        [],
        ["--rm"],
    ],
)
def test_what_makes_no_sense(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        options(*argv)


def test_volumes_and_tmpfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert volume("./:/x/../y/") == Volume(str(tmp_path), "/y")
    assert volume("/tmp:/x:rw,z") == Volume("/tmp", "/x")
    assert volume("/fresh") == Volume("", "/fresh")
    assert volume("name:/x:ro") == Volume("", "/x", readonly=True, name="name")
    assert tmpfs("/run") == Tmpfs("/run")
    assert tmpfs("/run:rw,size=64m,mode=1777") == Tmpfs("/run", 64 << 20, 0o1777)


def test_stop_signals() -> None:
    assert stop_signal("") == signal.SIGTERM
    assert stop_signal("SIGQUIT") == stop_signal("quit") == stop_signal("3") == signal.SIGQUIT
    assert stop_signal("SIGRTMIN+3") == signal.SIGRTMIN + 3
    for wrong in ("0", "999", "SIG", "SIGNOPE"):
        with pytest.raises(UsageError):
            stop_signal(wrong)


def test_environment(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\nB=file\n  C=with = sign\nHOSTED\n\n")
    got = environment(
        ["A=image", "B=image"], [str(file)], ["B=given", "HOST2", "GONE", "E="], {"HOSTED": "h", "HOST2": "2"}
    )
    assert got == {"A": "image", "B": "given", "C": "with = sign", "HOSTED": "h", "HOST2": "2", "E": ""}
    for wrong in ("=x", "a b=c"):
        with pytest.raises(UsageError):
            environment([], [], [wrong], {})
    with pytest.raises(UsageError):
        environment([], [str(tmp_path / "gone")], [], {})


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["i"], ("/e", "cmd")),
        (["i", "a", "b"], ("/e", "a", "b")),
        (["--entrypoint", "x", "i"], ("x",)),
        (["--entrypoint", "x", "i", "a"], ("x", "a")),
        (["--entrypoint", "", "i", "a"], ("a",)),
    ],
)
def test_entrypoint_and_command(argv: list[str], expected: tuple[str, ...]) -> None:
    assert command(options(*argv), ContainerConfig(entrypoint=("/e",), cmd=("cmd",))) == expected


def test_nothing_to_run() -> None:
    with pytest.raises(UsageError):
        command(options("i"), ContainerConfig())
    with pytest.raises(UsageError):
        command(options("--entrypoint", "", "i"), ContainerConfig(cmd=("x",)))
