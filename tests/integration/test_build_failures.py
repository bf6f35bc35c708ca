"""What builds say that can't succeed: one sentence, the place, a hint, the right exit code, and nothing left behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from failure_rig import Bench, make_bench, one_sentence

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["root", "user"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Give a bench."""
    yield from make_bench(request, request.param)


@pytest.fixture(scope="module")
def root_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Give a bench of root, for what does not depend on who builds."""
    yield from make_bench(request, "root")


TWO = "FROM busybox AS builder\nRUN true\nFROM scratch\n"


@pytest.mark.parametrize(
    ("text", "sentence", "line", "hint"),
    [
        ("", "the Dockerfile cannot be empty", 1, ""),
        ("# nothing\n\n", "no instructions", 2, "begins with FROM"),
        ("RUN true\n", "no build stage", 1, "FROM"),
        ("FROM busybox\nCOPY one\n", "COPY requires at least two arguments", 2, ""),
        ("FROM busybox\nCOPPY a b\n", "unknown instruction: COPPY", 2, "did you mean COPY?"),
        ("FROM busybox\nRUN --mont=type=cache,target=/c true\n", "unknown flag: --mont", 2, "mount"),
        (TWO + "COPY --from=buidler /x /x\n", "no stage is named buidler", 4, "did you mean builder?"),
        ("FROM busybox AS builder\nFROM bulder\n", "no stage is named bulder", 2, "did you mean builder?"),
        (TWO + "COPY --from=9 /x /x\n", "invalid stage index 9", 4, "from 0 to"),
        ("FROM busybox AS a\nCOPY --from=a /x /x\n", "circular dependency", 2, "a needs a"),
        ("FROM busybox AS a\nCOPY --from=b /x /x\nFROM a AS b\n", "circular dependency", None, "needs"),
        ("FROM busybox\nCOPY --chmod=99x Dockerfile /\n", "99x", 2, "--chmod=755"),
        ('FROM busybox\nARG N\nENV A="${N:?must be set}"\n', "N: must be set", 3, ""),
        ("FROM Upper:1\n", "not valid", 1, "lower case"),
    ],
)
def test_a_dockerfile_that_is_not_valid(
    root_bench: Bench, text: str, sentence: str, line: int | None, hint: str
) -> None:
    said = root_bench.fails(text, code=3)
    assert sentence in one_sentence(said)
    assert f"Dockerfile:{line}\n" in said if line else "Dockerfile:" in said
    if hint:
        assert hint in said.rpartition("error: ")[2]


def test_the_line_is_shown_and_marked(bench: Bench) -> None:
    said = bench.fails("FROM busybox\n\nRUN true\nCOPPY a b\nRUN true\n", code=3)
    assert " 4 | >>> COPPY a b\n" in said
    assert "     |     ^^^^^\n" in said
    assert " 3 |     RUN true\n" in said


def test_a_dockerfile_of_binary_data(root_bench: Bench) -> None:
    said = root_bench.fails({"Dockerfile": b"\x7fELF\x00\x1b[31m\xff\xfe"}, code=3)
    assert "\x1b" not in said
    assert "unknown instruction" in said


@pytest.mark.parametrize(
    ("arguments", "code", "sentence", "hint"),
    [
        (["--target", "biulder"], 3, 'target stage "biulder"', "did you mean builder?"),
        (["--target", "none"], 3, 'target stage "none"', "builder"),
        (["-t", "UPPER:x"], 2, "UPPER", "upper"),
        (["-t", "a@sha256:" + "0" * 64], 2, "digest", "tag"),
        (["-o", "type=magic,dest=x"], 2, "magic", "oci"),
        (["-o", "type=oci,dset=x"], 2, "dset", "dest"),
        (["--secret", "env=x"], 2, "the environment has no variable x", ""),
        (["--secret", "id=x,src=/nonexistent/secret"], 2, "/nonexistent/secret", ""),
        (["--build-context", "x=/nonexistent/folder"], 2, "no such folder", ""),
        (["--no-chace"], 2, "--no-chace", "did you mean --no-cache?"),
        (["--network", "bridge"], 2, "bridge", "host"),
        (["-f", "/nonexistent/Dockerfile"], 1, "no Dockerfile at /nonexistent/Dockerfile", ""),
    ],
)
def test_an_option_that_makes_no_sense(
    root_bench: Bench, arguments: list[str], code: int, sentence: str, hint: str
) -> None:
    said = root_bench.fails("FROM busybox AS builder\n", *arguments, code=code)
    assert sentence in one_sentence(said)
    if hint:
        assert hint in said.rpartition("error: ")[2]


def test_a_context_that_is_not_one(bench: Bench) -> None:
    folder = bench.context({"file": "x"})
    assert "no folder" in bench.refused("build", f"{folder}/none", code=1)
    assert "is not a folder" in bench.refused("build", f"{folder}/file", code=1)
    assert "no Dockerfile" in bench.refused("build", folder, code=1)
    os.mkdir(f"{folder}/Dockerfile")
    bench.give(folder)
    assert "Dockerfile" in bench.refused("build", folder, code=1)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nothere", '"nothere" is not there in the build context'),
        ("readme.md", "did you mean 'README.md'?"),
        ("a.log", ".dockerignore leaves it out"),
        ("../outside", '"../outside"'),
        ("README.md/x", "README.md"),
    ],
)
def test_a_source_that_is_not_there(root_bench: Bench, source: str, sentence: str) -> None:
    files = {"Dockerfile": f"FROM busybox\nRUN true\nCOPY {source} /\n", "README.md": "", "a.log": ""}
    said = root_bench.fails({**files, ".dockerignore": "*.log\n"}, code=1)
    assert sentence in one_sentence(said)
    assert f" 3 | >>> COPY {source} /" in said


def test_nothing_outside_of_the_context_is_copied(root_bench: Bench) -> None:
    outer = root_bench.context({"secret": "s", "inner/Dockerfile": "FROM scratch\nCOPY ../secret /\n"})
    assert "secret" in root_bench.refused("build", f"{outer}/inner", code=1)
    os.symlink("../secret", f"{outer}/inner/link")
    root_bench.write(f"{outer}/inner", {"Dockerfile": "FROM scratch\nCOPY link /copied\n"})
    outcome = root_bench.build(f"{outer}/inner", tag="escape")
    assert outcome.code != 0 or root_bench.entries(root_bench.layers("escape")[-1])["copied"].issym()


@pytest.mark.needs_root
def test_a_file_that_may_not_be_read(request: pytest.FixtureRequest) -> None:
    for bench in make_bench(request, "user"):
        context = bench.context({"Dockerfile": "FROM scratch\nCOPY . /\n", "closed": "x", "open": "y"})
        os.chmod(f"{context}/closed", 0)
        os.chown(f"{context}/closed", 0, 0)
        said = bench.refused("build", context, code=1)
        assert "closed can't be read" in one_sentence(said).lower()
        os.mkdir(f"{context}/folder", 0o700)
        bench.write(context, {".dockerignore": "closed\n"})
        for name in ("closed", "folder"):
            os.chown(f"{context}/{name}", 0, 0)
        said = bench.refused("build", context, code=1)
        assert "folder can't be read" in one_sentence(said).lower()
        assert ".dockerignore" in said.partition("hint: ")[2]
        bench.write(context, {".dockerignore": "closed\nfolder\n"})
        for name in ("closed", "folder"):
            os.chown(f"{context}/{name}", 0, 0)
        bench.good(context)


def test_files_and_directories_in_the_way(bench: Bench) -> None:
    files = {"d/f/g": "1", "f": "2"}
    over_folder = "FROM scratch\nCOPY d /x/\nCOPY f /x/\n"
    assert "cannot replace" in one_sentence(bench.fails({"Dockerfile": over_folder, **files}, code=1))
    over_file = "FROM scratch\nCOPY f /x\nCOPY d /x\n"
    assert "/x" in one_sentence(bench.fails({"Dockerfile": over_file, **files}, code=1))
    below_file = "FROM scratch\nCOPY f /x\nCOPY f /x/y\n"
    assert "/x" in one_sentence(bench.fails({"Dockerfile": below_file, **files}, code=1))


def test_an_unknown_base_says_how_to_get_it(root_bench: Bench) -> None:
    said = root_bench.fails("FROM golang:1.22-alpine\nRUN go build\n", "--pull=never", code=6)
    assert one_sentence(said) == "the image golang:1.22-alpine is not in the store"
    assert " 1 | >>> FROM golang:1.22-alpine" in said
    assert "#2 ERROR: the image golang:1.22-alpine is not in the store" in said
    for way in ("castoff load", "castoff base assemble", "--build-context golang:1.22-alpine="):
        assert way in said.partition("hint: ")[2]
    assert "did you mean busybox:latest?" in root_bench.fails("FROM busybux\n", code=5)
    assert "nginx:1" in one_sentence(root_bench.fails("FROM scratch\nCOPY --from=nginx:1 /x /\n", code=5))


def test_an_unknown_user(root_bench: Bench) -> None:
    assert "'nobdy'" in one_sentence(root_bench.fails("FROM busybox\nUSER nobdy\nRUN true\n", code=1))


def test_a_secret_that_is_required(bench: Bench) -> None:
    text = "FROM busybox\nRUN --mount=type=secret,id=tok,required cat /run/secrets/tok\n"
    said = bench.fails(text, code=1)
    assert "secret tok: not found" in one_sentence(said)  # the words of BuildKit, which its cases look for
    assert "--secret id=tok,src=FILE" in said


def test_a_mount_that_can_not_be(root_bench: Bench) -> None:
    text = "FROM busybox\nRUN --mount=type=bind,source=none,target=/m true\n"
    said = root_bench.fails(text, code=1)
    assert "none" in one_sentence(said)
    assert " 2 | >>> RUN" in said


def test_an_output_that_can_not_be_written(bench: Bench) -> None:
    text = "FROM scratch\nCOPY Dockerfile /\n"
    for place in (f"{bench.folder}/none/image.tar", "/proc/image.tar", bench.folder):
        said = bench.fails(text, "-o", f"type=oci,dest={place}", code=6)
        assert place in one_sentence(said)
    folder = one_sentence(bench.fails(text, "-o", f"type=oci,dest={bench.folder}/none/i.tar", code=6))
    assert folder == f"can't write {bench.folder}/none/i.tar: the folder {bench.folder}/none does not exist"
    said = bench.fails(text, "-o", "type=local,dest=/proc/folder", code=6)
    assert "/proc/folder" in one_sentence(said)
    said = bench.fails(text, "--iidfile", f"{bench.folder}/none/iid", code=6)
    assert f"{bench.folder}/none/iid can't be written" in one_sentence(said)
    assert [name for name in os.listdir(bench.folder) if name.startswith(".")] == []


def test_a_failure_leaves_no_image(bench: Bench) -> None:
    bench.fails("FROM busybox\nRUN false\n", "-t", "never", code=1)
    assert "never" not in bench.castoff("images").out
    bench.check_next()


@pytest.mark.parametrize("arguments", [["--build-arg", "A=\udcff"], ["--label", "l=\udcff"]])
def test_values_that_are_no_text(root_bench: Bench, arguments: list[str]) -> None:
    said = root_bench.fails("FROM busybox\nARG A\nENV A=$A\n", *arguments, code=2)
    assert "not UTF-8 text" in one_sentence(said)
