"""The command line: verbs, conventions, values."""

from __future__ import annotations

import io
import sys
import tarfile
from argparse import Namespace
from pathlib import Path

import pytest

from castoff.cli import values
from castoff.cli.build_request import find_dockerfile, make_request, secret_source, ssh_source
from castoff.cli.main import main
from castoff.cli.parser import VERBS, help_text, parse_verb, split_global, split_verb
from castoff.cli.root import store_root
from castoff.errors import CastoffError, ContextError, UsageError
from castoff.request import SshSource


def build_args(*argv: str) -> Namespace:
    return parse_verb("build", argv, None).args


@pytest.mark.parametrize(
    "argv", [["-t", "x", "."], [".", "-t", "x"], ["-tx", "."], ["--tag=x", "."], ["--tag", "x", "--", "."]]
)
def test_options_stand_before_or_after_the_context(argv: list[str]) -> None:
    args = build_args(*argv)
    assert args.tag == ["x"]
    assert args.context == "."


def test_options_stand_between_arguments() -> None:
    args = parse_verb("rmi", ["a", "-f", "b", "c"], None).args
    assert (args.image, args.force) == (["a", "b", "c"], True)
    assert parse_verb("images", ["-q", "a", "--no-trunc"], None).args.repository == ["a"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["."], (False, True)),
        (["--no-cache", "."], (True, True)),
        (["--no-cache=true", ".", "--reproducible=false"], (True, False)),
        (["--no-cache", "--no-cache=false", "--reproducible=0", "--reproducible=1", "."], (False, True)),
    ],
)
def test_boolean_options_take_values(argv: list[str], expected: tuple[bool, bool]) -> None:
    args = build_args(*argv)
    assert (args.no_cache, args.reproducible) == expected


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["--traget", "x", "."], "castoff build has no option --traget", "did you mean --target?"),
        (["--zzz", "."], "castoff build has no option --zzz", "--help"),
        (["-t"], "castoff build: -t/--tag needs a value", "--help"),
        ([], "castoff build needs PATH", "castoff build"),
        ([".", "extra"], "castoff build takes no argument 'extra' here", "--help"),
        (["--no-cache=maybe", "."], "--no-cache is either true or false, not 'maybe'", ""),
        (["--no-cac", "."], "castoff build has no option --no-cac", "did you mean --no-cache?"),
    ],
)
def test_wrong_usage_is_one_sentence_and_a_hint(argv: list[str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_args(*argv)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_root_stands_anywhere() -> None:
    assert split_global(["--root", "/r", "build", "."]) == ("/r", ["build", "."])
    assert split_global(["--root=/r", "images"]) == ("/r", ["images"])
    assert parse_verb("images", ["--root", "/s"], "/r").args.root == "/s"
    assert parse_verb("images", [], "/r").args.root == "/r"
    with pytest.raises(UsageError):
        split_global(["--root"])


def test_longer_forms_of_docker_stand_for_the_verbs() -> None:
    assert split_verb(["buildx", "build", "."]) == ("build", ["."])
    assert split_verb(["image", "ls", "-q"]) == ("images", ["-q"])
    with pytest.raises(UsageError) as caught:
        split_verb(["bild"])
    assert caught.value.hint == "did you mean build?"
    assert caught.value.exit_code == 2


def test_help_lists_every_verb_and_each_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        assert f"  {verb} " in help_text()
        assert main([verb, "--help"]) == 0
        shown = capsys.readouterr()
        assert shown.out.startswith(f"usage: castoff {verb}")
        assert "=true" not in shown.out


def test_main_answers_about_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("castoff 0.")
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("usage: castoff")
    assert main(["biuld"]) == 2
    assert capsys.readouterr().err == "error: castoff has no verb 'biuld' (did you mean build?)\n"


def test_store_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert store_root("/opt", {"CASTOFF_ROOT": "/env"}) == "/opt"
    assert store_root(None, {"CASTOFF_ROOT": "/env", "XDG_DATA_HOME": "/xdg"}) == "/env"
    assert store_root("", {"XDG_DATA_HOME": "/xdg", "HOME": "/home/u"}) == "/xdg/castoff"
    assert store_root("", {"XDG_DATA_HOME": "relative", "HOME": "/home/u"}) == "/home/u/.local/share/castoff"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert store_root("", {"XDG_DATA_HOME": "/xdg"}) == "/var/lib/castoff"


@pytest.mark.parametrize(
    ("text", "size"),
    [("64m", 64 << 20), ("1gb", 1 << 30), ("1.5GiB", 3 << 29), ("1024", 1024), ("0", 0), ("7 k", 7168)],
)
def test_byte_sizes(text: str, size: int) -> None:
    assert values.byte_size(text, "--shm-size") == size


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1mm", "one"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError):
        values.byte_size(text, "--shm-size")


def test_ulimits() -> None:
    assert values.ulimit("nofile=1024:2048") == ("nofile", 1024, 2048)
    assert values.ulimit("core=-1") == ("core", -1, -1)
    assert values.ulimit("core=0:-1") == ("core", 0, -1)
    for wrong in ("nofile", "nofile=", "nofile=2:1", "files=1", "nofile=-1:5", "nofile=-2"):
        with pytest.raises(UsageError):
            values.ulimit(wrong)


def test_host_entries() -> None:
    assert values.host_entry("db:10.0.0.1") == ("db", "10.0.0.1")
    assert values.host_entry("db=::1") == ("db", "::1")
    assert values.host_entry("db:[fe80::1]") == ("db", "fe80::1")
    for wrong in ("db", "db:", ":1.2.3.4", "db:nowhere", "a b:1.2.3.4"):
        with pytest.raises(UsageError):
            values.host_entry(wrong)


def test_request_has_what_was_said(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    args = build_args(
        *["-t", "a:1", "-t", "ghcr.io/o/b", "--target", "t", "--build-arg", "A=1=2", "--build-arg", "B"],
        *["--label", "l=v", "--label", "m", "--platform", "linux/amd64,linux/arm64", "--no-cache-filter", "x,y"],
        *["--build-context", "base=docker-image://b", "--network", "none", "--add-host", "h:1.2.3.4"],
        *["--ulimit", "nofile=5", "--shm-size", "1m", "--reproducible=false", "-o", "type=oci,dest=x.tar"],
        str(tmp_path),
    )
    request = make_request(
        args, {"CASTOFF_ROOT": "/r", "SOURCE_DATE_EPOCH": "77"}, find_dockerfile(args.context, args.file)
    )
    assert request.store == "/r"
    assert request.context == str(tmp_path)
    assert request.dockerfile == str(tmp_path / "Dockerfile")
    assert request.tags == ("a:1", "ghcr.io/o/b")
    assert request.build_args == (("A", "1=2"), ("B", None))
    assert request.labels == (("l", "v"), ("m", ""))
    assert request.platforms == ("linux/amd64", "linux/arm64")
    assert request.no_cache_filter == ("x", "y")
    assert request.build_contexts == (("base", "docker-image://b"),)
    assert (request.target, request.network, request.shm_size, request.reproducible) == ("t", "none", 1 << 20, False)
    assert request.add_hosts == (("h", "1.2.3.4"),)
    assert request.ulimits == (("nofile", 5, 5),)
    assert request.epoch == 77
    assert [output.dest for output in request.outputs] == ["x.tar"]
    assert ("SOURCE_DATE_EPOCH", "77") in request.environment


@pytest.mark.parametrize(
    "argv",
    [
        ["--registry-mirror", "docker.io"],
        ["--registry-ca", "/nowhere/at/all"],
        ["-t", "UPPER"],
        ["-t", "x@sha256:" + "0" * 64],
        ["--platform", "a/b/c/d"],
        ["--network", "bridge"],
        ["--build-arg", "=x"],
        ["--build-context", "name"],
        ["--allow", "everything"],
        ["-o", "type=floppy"],
        ["--secret", "id=x,src=/nowhere/at/all"],
        ["--secret", "id=x,colour=red"],
    ],
)
def test_values_that_make_no_sense(argv: list[str], tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    args = build_args(*argv, str(tmp_path))
    with pytest.raises(CastoffError) as caught:
        make_request(args, {}, find_dockerfile(args.context, args.file))
    assert caught.value.exit_code == 2


def test_epoch_of_the_environment_is_a_number_and_that_of_a_build_argument_is_for_the_plan(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    args = build_args(str(tmp_path))
    with pytest.raises(CastoffError, match="yesterday"):
        make_request(args, {"SOURCE_DATE_EPOCH": "yesterday"}, find_dockerfile(args.context, args.file))
    args = build_args("--build-arg", "SOURCE_DATE_EPOCH=context", str(tmp_path))
    request = make_request(args, {"SOURCE_DATE_EPOCH": "5"}, find_dockerfile(args.context, args.file))
    assert request.epoch is None
    assert request.build_args == (("SOURCE_DATE_EPOCH", "context"),)


def test_epoch_of_a_build_argument_wins(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    args = build_args("--build-arg", "SOURCE_DATE_EPOCH=5", str(tmp_path))
    source = find_dockerfile(args.context, args.file)
    assert make_request(args, {"SOURCE_DATE_EPOCH": "9"}, source).epoch == 5
    assert make_request(build_args(str(tmp_path)), {}, source).epoch is None


def test_secrets(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("t")
    environ = {"TOKEN": "from environment", "token": "lower"}
    assert secret_source(f"id=a,src={path}", environ).path == str(path)
    assert secret_source(f"type=file,id=a,source={path}", environ).path == str(path)
    assert secret_source("id=a,env=TOKEN", environ).value == b"from environment"
    assert secret_source("id=a,type=env,src=TOKEN", environ).value == b"from environment"
    assert secret_source("id=TOKEN", environ).value == b"from environment"
    assert secret_source(f'"id=a","src={path}"', environ).id == "a"
    assert "from environment" not in repr(secret_source("id=TOKEN", environ))
    for wrong in ("", "id=gone,env=GONE", "id=a,id=b", f"id=a,src={path},env=TOKEN", '"id=a'):
        with pytest.raises(UsageError):
            secret_source(wrong, environ)


def test_ssh_agents(tmp_path: Path) -> None:
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_text("k")
    other.write_text("k")
    environ = {"SSH_AUTH_SOCK": str(key)}
    assert ssh_source("default", environ).paths == (str(key),)
    assert ssh_source("deploy", environ).id == "deploy"
    assert ssh_source(f"a={key},{other}", {}) == SshSource("a", (str(key), str(other)))
    for wrong in ("", "=x", "a=", f"a={tmp_path}", f"a={tmp_path}/gone", "default"):
        with pytest.raises(UsageError):
            ssh_source(wrong, {})


def test_contexts_that_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("https://example.com/x.git#main", "http://h/ctx.tar", "git@h:x.git", "me@h:x.git", "github.com/a/b"):
        source = find_dockerfile(url, "d/Dockerfile", fetch=True)
        assert (source.context, source.path, source.data) == (url, "d/Dockerfile", None)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("Dockerfile"))
    monkeypatch.setattr(sys, "stdin", Input(archive.getvalue()))
    source = find_dockerfile("-", "other", fetch=True)
    assert source.stream is not None
    assert (source.path, source.context) == ("other", "")
    source.fetched.append(b"FROM scratch")
    assert source.read("Dockerfile") == b"FROM scratch"
    monkeypatch.setattr(sys, "stdin", Input(b"FROM scratch\n"))
    assert find_dockerfile("-", "", fetch=True).data == b"FROM scratch\n"


class Input:
    """Standard input that is not a terminal."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


def test_dockerfile_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Input(b"FROM scratch\n"))
    alone = find_dockerfile("-", "")
    assert (alone.data, alone.context, alone.path) == (b"FROM scratch\n", "", "")
    assert alone.read("Dockerfile") == b"FROM scratch\n"
    monkeypatch.setattr(sys, "stdin", Input(b"FROM x\n"))
    assert find_dockerfile(str(tmp_path), "-").context == str(tmp_path)
    monkeypatch.setattr(sys, "stdin", Input(b"\x1f\x8b\x08rest"))
    with pytest.raises(UsageError):
        find_dockerfile("-", "")
    monkeypatch.setattr(sys, "stdin", Input(bytes(257) + b"ustar"))
    with pytest.raises(UsageError):
        find_dockerfile("-", "")


def test_contexts_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "Dockerfile.dev"
    file.write_text("FROM scratch\n")
    for context, name in ((str(tmp_path / "gone"), ""), (str(file), ""), (str(tmp_path), ""), (str(tmp_path), "no")):
        with pytest.raises(ContextError):
            find_dockerfile(context, name)
    monkeypatch.chdir("/")
    with pytest.raises(ContextError) as caught:
        find_dockerfile(str(tmp_path), "Dockerfile.dev")
    assert str(file) in (caught.value.hint or "")
    with pytest.raises(UsageError):
        find_dockerfile("https://example.com/x.git", "")
    assert find_dockerfile(str(tmp_path), str(file)).read("Dockerfile.dev") == b"FROM scratch\n"
