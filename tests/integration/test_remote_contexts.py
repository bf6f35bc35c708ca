"""Build contexts that are not folders: archives on standard input, URLs, git repositories; also as named ones."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import remote_servers
from remote_engine import engines
from remote_servers import Answer, FileServer, GitServer

if TYPE_CHECKING:
    from engine_rig import Engine

pytestmark = pytest.mark.integration

DOCKERFILE = b"FROM scratch\nCOPY . /c/\n"


@pytest.fixture(scope="module", params=["root", "user"])
def engine(request: pytest.FixtureRequest, castoff_command: list[str]) -> Iterator[Engine]:
    """Give an engine that has the image ``busybox``."""
    yield from engines(request, castoff_command, request.param)


@pytest.fixture
def files() -> Iterator[FileServer]:
    """Give a server of files."""
    with remote_servers.file_server() as server:
        yield server


@pytest.fixture
def repositories(tmp_path: Path) -> Iterator[GitServer]:
    """Give a server of repositories, with one called ``app``."""
    with remote_servers.git_server(str(tmp_path)) as server:
        server.repository("app")
        server.commit(
            "app",
            {
                "Dockerfile": "FROM scratch\nCOPY . /c/\n",
                "docker/Dockerfile.dev": "FROM scratch\nCOPY a /dev-a\n",
                ".dockerignore": "docker\nDockerfile\n.dockerignore\n",
                "a": "one\n",
                "sub/Dockerfile": "FROM scratch\nCOPY b /sub-b\n",
                "sub/b": "inner\n",
            },
        )
        yield server


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """Return one entry for an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.uid, info.mode = kind, len(content), link, 77, 0o640
    if kind == tarfile.DIRTYPE:
        info.mode = 0o755
    return info, content


def packed(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    """Return an archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def on_stdin(
    castoff_command: list[str], store: str, data: bytes, *arguments: str
) -> subprocess.CompletedProcess[bytes]:
    """Build what is on standard input."""
    command = [*castoff_command, "--root", store, "build", "--progress=plain", "-t", "t", *arguments, "-"]
    return subprocess.run(command, input=data, capture_output=True, check=False)


def exported(castoff_command: list[str], store: str, data: bytes, out: Path, *arguments: str) -> dict[str, bytes]:
    """Build what is on standard input and return the files of the result."""
    done = on_stdin(castoff_command, store, data, "-o", f"type=local,dest={out}", *arguments)
    assert done.returncode == 0, done.stderr.decode()
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.needs_root
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_an_archive_on_standard_input(castoff_command: list[str], store_dir: str, tmp_path: Path, mode: str) -> None:
    data = packed(
        member("./Dockerfile", DOCKERFILE),
        member(".dockerignore", b"no\nDockerfile\n.dockerignore\n"),
        member("no", b"ignored"),
        member("yes", b"taken"),
        member("deep/er/file", b"made its own parents"),
        member("hard", kind=tarfile.LNKTYPE, link="yes"),
        mode=mode,
    )
    found = exported(castoff_command, store_dir, data, tmp_path / "out")
    assert found == {"c/yes": b"taken", "c/hard": b"taken", "c/deep/er/file": b"made its own parents"}
    assert os.stat(tmp_path / "out/c/yes").st_mode & 0o777 == 0o640
    assert os.stat(tmp_path / "out/c/yes").st_uid == os.getuid()


@pytest.mark.needs_root
def test_a_dockerfile_in_an_archive_by_name(castoff_command: list[str], store_dir: str, tmp_path: Path) -> None:
    data = packed(member("d/other", b"FROM scratch\nCOPY x /\n"), member("x", b"1"))
    assert exported(castoff_command, store_dir, data, tmp_path / "out", "-f", "d/other") == {"x": b"1"}
    missing = on_stdin(castoff_command, store_dir, data)
    assert missing.returncode
    assert b"the build context has no file Dockerfile" in missing.stderr
    wrong = packed(member("Dockerfile", b"FROM scratch\nCOPPY x /\n"))
    refused = on_stdin(castoff_command, store_dir, wrong)
    assert refused.returncode == 3
    assert b"COPPY x /" in refused.stderr


@pytest.mark.needs_root
def test_a_lone_dockerfile_is_still_one(castoff_command: list[str], store_dir: str) -> None:
    assert on_stdin(castoff_command, store_dir, b"FROM scratch\nENV A=b\n").returncode == 0


HOSTILE = {
    "a path up": [member("../escaped", b"x")],
    "an absolute path": [member("/tmp/../../escaped", b"x")],
    "through a link": [member("d", kind=tarfile.SYMTYPE, link="/tmp"), member("d/escaped", b"x")],
    "through a link up": [member("d", kind=tarfile.SYMTYPE, link="../.."), member("d/escaped", b"x")],
    "a hard link out": [member("p", kind=tarfile.LNKTYPE, link="/etc/passwd")],
    "a hard link through a link": [
        member("d", kind=tarfile.SYMTYPE, link="/etc"),
        member("p", kind=tarfile.LNKTYPE, link="d/passwd"),
    ],
}


@pytest.mark.needs_root
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_writes_and_reads_nothing_outside(
    castoff_command: list[str], store_dir: str, tmp_path: Path, name: str
) -> None:
    data = packed(member("Dockerfile", DOCKERFILE), *HOSTILE[name])
    done = on_stdin(castoff_command, store_dir, data, "-o", f"type=local,dest={tmp_path}/out")
    assert not os.path.exists("/tmp/escaped")
    assert not os.path.exists("/escaped")
    assert not list(tmp_path.parent.rglob("escaped"))
    assert done.returncode
    assert b"can't be unpacked" in done.stderr


@pytest.mark.needs_root
@pytest.mark.parametrize("target", ["/etc/shadow", "../../../../../../../../etc/shadow"])
def test_links_of_an_archive_show_nothing_of_this_machine(
    castoff_command: list[str], store_dir: str, target: str
) -> None:
    for name in ("Dockerfile", ".dockerignore"):
        entries = [member(name, kind=tarfile.SYMTYPE, link=target)]
        if name != "Dockerfile":
            entries.append(member("Dockerfile", DOCKERFILE))
        done = on_stdin(castoff_command, store_dir, packed(*entries))
        assert b"root:" not in done.stderr
        assert (done.returncode != 0) == (name == "Dockerfile")
    up = on_stdin(castoff_command, store_dir, packed(member("x", b"")), "-f", "../../etc/passwd")
    assert up.returncode
    assert b"leads out of the build context" in up.stderr


def test_an_archive_at_a_url(engine: Engine, files: FileServer) -> None:
    files.answers["/ctx.tar.gz"] = Answer(
        packed(member("Dockerfile", DOCKERFILE), member("a", b"1"), member("d/Other", b"FROM scratch\n"), mode="w:gz")
    )
    first = engine.good(f"{files.url}/ctx.tar.gz")
    assert engine.read("t", "c/a") == b"1"
    again = engine.good(f"{files.url}/ctx.tar.gz")
    assert files.statuses() == [200, 304]
    assert again.image == first.image
    assert "COPY . /c/" in again.steps("CACHED")
    engine.good(f"{files.url}/ctx.tar.gz", "-f", "d/Other")
    files.answers["/ctx.tar.gz"] = Answer(packed(member("Dockerfile", DOCKERFILE), member("a", b"2")))
    assert engine.good(f"{files.url}/ctx.tar.gz").image != first.image


def test_a_dockerfile_at_a_url(engine: Engine, files: FileServer) -> None:
    files.answers["/Dockerfile"] = Answer(b"FROM busybox\nRUN echo made > /made\n")
    engine.good(f"{files.url}/Dockerfile")
    assert engine.read("t", "made") == b"made\n"
    files.answers["/bad"] = Answer(b"FROM scratch\nCOPPY a b\n")
    bad = engine.build(f"{files.url}/bad")
    assert bad.code == 3
    assert "COPPY a b" in bad.err
    files.answers["/copy"] = Answer(b"FROM scratch\nCOPY a b\n")
    assert "there is none" in engine.build(f"{files.url}/copy").err


def test_a_git_repository_as_context(engine: Engine, repositories: GitServer) -> None:
    url = f"{repositories.url}/app/.git"
    engine.good(url)
    (layer,) = engine.layers()
    assert {"c/a", "c/sub/b"} <= engine.entries(layer).keys()
    assert not {"c/Dockerfile", "c/docker", "c/.dockerignore", "c/.git"} & engine.entries(layer).keys()
    engine.good(f"{url}#main:sub")
    assert engine.read("t", "sub-b") == b"inner\n"
    engine.good(f"{url}#main", "-f", "docker/Dockerfile.dev")
    assert engine.read("t", "dev-a") == b"one\n"
    first = engine.good(url)
    repositories.commit("app", {"a": "two\n"})
    assert engine.good(url).image != first.image
    assert "has no branch, tag or commit nowhere" in engine.build(f"{url}#nowhere").err
    listed = engine.castoff("build", "--call=targets,format=json", url)
    assert listed.code == 0
    assert "targets" in listed.out


def test_named_contexts_from_elsewhere(engine: Engine, files: FileServer, repositories: GitServer) -> None:
    files.answers["/ctx.tgz"] = Answer(packed(member("t", b"from an archive"), mode="w:gz"))
    files.answers["/file"] = Answer(b"from a file")
    context = engine.context(
        {
            "Dockerfile": "FROM busybox AS build\n"
            "COPY --from=repo a /out/a\n"
            "COPY --from=tar t /out/t\n"
            "COPY --from=file context /out/f\n"
            "RUN --mount=from=repo,target=/repo cat /repo/sub/b > /out/b\n"
            "FROM repo AS base\n"
            "FROM scratch\n"
            "COPY --from=build /out /\n"
            "COPY --from=base /sub/b /base-b\n"
        }
    )
    options = (
        *("--build-context", f"repo={repositories.url}/app/.git#main"),
        *("--build-context", f"tar={files.url}/ctx.tgz"),
        *("--build-context", f"file={files.url}/file"),
    )
    first = engine.good(context, *options)
    for name, content in (("a", b"one\n"), ("t", b"from an archive"), ("f", b"from a file"), ("b", b"inner\n")):
        assert engine.read("t", name) == content
    assert engine.read("t", "base-b") == b"inner\n"
    again = engine.good(context, *options)
    assert again.image == first.image
    repositories.commit("app", {"a": "two\n"})
    assert engine.good(context, *options).image != first.image


def test_what_no_context_can_be_is_refused_with_a_way_out(engine: Engine) -> None:
    context = engine.context({"Dockerfile": "FROM scratch\nCOPY --from=x a /\n"})
    target = engine.build(context, "--build-context", "x=target:base")
    assert target.code == 2
    assert "docker-image://REFERENCE" in target.err
    unused = engine.build(context, "--build-context", "x=ftp://example.invalid/x")
    assert unused.code == 2


def test_a_source_gives_the_time_of_the_image(engine: Engine, files: FileServer, repositories: GitServer) -> None:
    files.answers["/ctx.tar"] = Answer(packed(member("t", b"1")), modified=1_700_000_601)
    named = engine.context(
        {
            "Dockerfile": "ARG SOURCE_DATE_EPOCH=src\nFROM busybox\n"
            "ARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /e\n"
        }
    )
    engine.good(named, "--build-context", f"src={files.url}/ctx.tar")
    assert engine.config()["created"] == "2023-11-14T22:23:21Z"
    assert engine.read("t", "e") == b"1700000601\n"
    stage = engine.context(
        {
            "Dockerfile": "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\n"
            f"ADD {files.url}/ctx.tar /\nFROM scratch\nCOPY Dockerfile /\n"
        }
    )
    engine.good(stage)
    assert engine.config()["created"] == "2023-11-14T22:23:21Z"
    engine.good(f"{repositories.url}/app/.git", "--build-arg", "SOURCE_DATE_EPOCH=context")
    assert engine.config()["created"] == "2023-11-14T22:13:20Z"
