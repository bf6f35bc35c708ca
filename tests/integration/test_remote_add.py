"""ADD of URLs and of git repositories, from servers on loopback."""

from __future__ import annotations

import hashlib
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
        server.commit("app", {"a": "one\n", "sub/b": "first\n", "sub/.hidden": "h\n"})
        server.git("app", "tag", "v1")
        server.git("app", "tag", "-a", "v1a", "-m", "annotated")
        server.commit("app", {"a": "two\n", "sub/b": "second\n"})
        server.git("app", "branch", "dev")
        yield server


def archive(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """Return a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def test_a_url_is_roots_file_named_as_the_url_ends(engine: Engine, files: FileServer) -> None:
    files.answers["/some/foo.txt"] = Answer(b"content", modified=1_600_000_000)
    files.answers["/"] = Answer(b"index")
    context = engine.context(
        {
            "Dockerfile": "FROM scratch\n"
            f"ADD {files.url}/some/foo.txt?x=1 /d/\n"
            f"ADD {files.url}/some/foo.txt /renamed\n"
            f"ADD --chmod=4755 --chown=3:4 {files.url}/some/foo.txt local /both/\n"
            f"ADD {files.url}/ /unnamed/\n",
            "local": "mine",
        }
    )
    engine.good(context)
    first, second, both, unnamed = engine.layers()
    entry = engine.entries(first)["d/foo.txt"]
    assert (entry.mode, entry.uid, entry.gid) == (0o600, 0, 0)
    assert engine.entries(second)["renamed"].size == 7
    entry = engine.entries(both)["both/foo.txt"]
    assert (entry.mode, entry.uid, entry.gid) == (0o4755, 3, 4)
    assert engine.read("t", "both/local") == b"mine"
    assert "unnamed/__unnamed__" in engine.entries(unnamed)


def test_an_unchanged_url_is_asked_about_and_not_fetched_again(engine: Engine, files: FileServer) -> None:
    files.answers["/f"] = Answer(b"1")
    context = engine.context({"Dockerfile": f"FROM scratch\nADD {files.url}/f /f\n"})
    first = engine.good(context)
    assert files.statuses() == [200]
    again = engine.good(context)
    assert files.statuses() == [304]
    assert again.image == first.image
    assert f"ADD {files.url}/f /f" in again.steps("CACHED")
    files.answers["/f"] = Answer(b"2")
    changed = engine.good(context)
    assert files.statuses() == [200]
    assert changed.image != first.image
    assert engine.read("t", "f") == b"2"


def test_what_was_fetched_serves_while_the_server_is_away(engine: Engine) -> None:
    with remote_servers.file_server() as server:
        server.answers["/f"] = Answer(b"kept")
        context = engine.context({"Dockerfile": f"FROM scratch\nADD {server.url}/f /f\n"})
        first = engine.good(context)
    offline = engine.good(context)
    assert offline.image == first.image
    assert "/f is taken from the cache" in offline.err
    fresh = engine.context({"Dockerfile": f"FROM scratch\nADD {server.url}/g /f\n"})
    assert "can't be reached" in engine.build(fresh).err


def test_a_checksum_is_verified_and_then_nothing_is_asked(engine: Engine, files: FileServer) -> None:
    files.answers["/f"] = Answer(b"promised")
    good = hashlib.sha256(b"promised").hexdigest()
    line = "FROM scratch\nADD --checksum=sha256:{} {}/f /f\n"
    wrong = engine.build(engine.context({"Dockerfile": line.format("0" * 64, files.url)}))
    assert wrong.code
    assert good in wrong.err
    bad = engine.build(engine.context({"Dockerfile": line.format("12", files.url)}))
    assert "is not of the form sha256:" in bad.err
    context = engine.context({"Dockerfile": line.format(good, files.url)})
    engine.good(context)
    files.asked.clear()
    engine.good(context)
    engine.good(context, "--no-cache")
    assert files.asked == []


def test_redirections_are_followed_within_http_and_take_no_credentials_along(engine: Engine, files: FileServer) -> None:
    with remote_servers.file_server() as other:
        other.answers["/there"] = Answer(b"moved")
        files.answers["/here"] = Answer(status=302, location=f"{other.url}/there", authorization="Bearer hush")
        files.answers["/file"] = Answer(status=302, location="file:///etc/passwd")
        files.answers["/loop"] = Answer(status=302, location=f"{files.url}/loop")
        host = files.url.removeprefix("http://")
        context = engine.context({"Dockerfile": f"FROM scratch\nADD {files.url}/here /f\n", "token": "hush\n"})
        secret = f"id=HTTP_AUTH_TOKEN_{host},src={context}/token"
        assert f"HTTP_AUTH_TOKEN_{host}" in engine.build(context).err
        outcome = engine.good(context, "--secret", secret)
        assert engine.read("t", "f") == b"moved"
        assert "authorization" not in other.asked[-1].headers
        assert "hush" not in outcome.err
    for name, message in (("file", "edirection to"), ("loop", "302")):
        context = engine.context({"Dockerfile": f"FROM scratch\nADD {files.url}/{name} /f\n"})
        refused = engine.build(context)
        assert refused.code
        assert message in refused.err


def test_an_archive_at_a_url_is_unpacked_only_where_asked(engine: Engine, files: FileServer) -> None:
    files.answers["/t.tgz"] = Answer(archive({"in": b"side"}))
    context = engine.context(
        {
            "Dockerfile": f"FROM scratch\nADD {files.url}/t.tgz /whole/\nADD --unpack {files.url}/t.tgz /open/\n",
        }
    )
    engine.good(context)
    whole, opened = engine.layers()
    assert "whole/t.tgz" in engine.entries(whole)
    assert engine.read("t", "open/in") == b"side"
    assert "open/t.tgz" not in engine.entries(opened)


def test_a_transfer_that_breaks_off_is_an_error(engine: Engine, files: FileServer) -> None:
    files.answers["/f"] = Answer(b"some", declared=100)
    broken = engine.build(engine.context({"Dockerfile": f"FROM scratch\nADD {files.url}/f /f\n"}))
    assert broken.code
    assert "broke off" in broken.err
    assert engine.temporary() == []


@pytest.mark.parametrize(
    ("tail", "content"),
    [
        ("", b"two\n"),
        ("#dev", b"two\n"),
        ("#v1", b"one\n"),
        ("#v1a", b"one\n"),
        ("#refs/tags/v1", b"one\n"),
        ("?tag=v1", b"one\n"),
        ("?branch=dev", b"two\n"),
    ],
)
def test_a_repository_by_its_references(engine: Engine, repositories: GitServer, tail: str, content: bytes) -> None:
    context = engine.context({"Dockerfile": f"FROM scratch\nADD {repositories.url}/app/.git{tail} /src/\n"})
    engine.good(context)
    assert engine.read("t", "src/a") == content
    (layer,) = engine.layers()
    entries = engine.entries(layer)
    assert {"src/a", "src/sub", "src/sub/b", "src/sub/.hidden"} <= entries.keys()
    assert not any(".git" in name for name in entries)
    assert {(entry.uid, entry.gid) for entry in entries.values()} == {(0, 0)}


def test_a_repositorys_folder_and_a_short_commit(engine: Engine, repositories: GitServer) -> None:
    first = repositories.git("app", "rev-parse", "v1")
    for reference in (first, first[:9]):
        context = engine.context({"Dockerfile": f"FROM scratch\nADD {repositories.url}/app/.git#{reference}:sub /s\n"})
        engine.good(context)
        assert engine.read("t", "s/b") == b"first\n"
    escape = engine.context({"Dockerfile": f"FROM scratch\nADD {repositories.url}/app/.git#:../.. /s\n"})
    assert "leads out of the repository" in engine.build(escape).err
    missing = engine.context({"Dockerfile": f"FROM scratch\nADD {repositories.url}/app/.git#:nothing /s\n"})
    assert "has no folder nothing" in engine.build(missing).err


def test_a_whole_commit_is_never_asked_about_again(engine: Engine, repositories: GitServer) -> None:
    first = repositories.git("app", "rev-parse", "v1")
    for source, options in ((f"#{first}", ""), ("#v1", f"--checksum={first} ")):
        context = engine.context({"Dockerfile": f"FROM scratch\nADD {options}{repositories.url}/app/.git{source} /s\n"})
        engine.good(context)
        repositories.asked.clear()
        engine.good(context, tag="other")
        assert repositories.asked == []
    moved = engine.context({"Dockerfile": f"FROM scratch\nADD --checksum={first} {repositories.url}/app/.git#dev /s\n"})
    assert engine.build(moved, "--no-cache").code == 0  # the commit is known, whatever the branch is now
    wrong = engine.context(
        {"Dockerfile": f"FROM scratch\nADD --checksum={'1' * 40} {repositories.url}/app/.git#dev /s\n"}
    )
    assert "not the commit that is promised" in engine.build(wrong).err


def test_a_branch_that_moves_is_another_source(engine: Engine, repositories: GitServer) -> None:
    context = engine.context({"Dockerfile": f"FROM scratch\nADD {repositories.url}/app/.git#main /s\n"})
    first = engine.good(context)
    assert engine.good(context).image == first.image
    repositories.commit("app", {"a": "three\n"})
    assert engine.good(context).image != first.image
    assert engine.read("t", "s/a") == b"three\n"


def test_keep_git_dir_gives_a_repository_that_tells_nothing_of_the_machine(
    engine: Engine, repositories: GitServer
) -> None:
    line = f"FROM scratch\nADD --keep-git-dir {repositories.url}/app/.git#v1 /s\n"
    engine.good(engine.context({"Dockerfile": line}))
    (layer,) = engine.layers()
    entries = engine.entries(layer)
    assert {"s/.git/HEAD", "s/.git/config", "s/.git/index"} <= entries.keys()
    assert not any(name.startswith(("s/.git/logs", "s/.git/hooks")) for name in entries)
    content = engine.read("t", "s/.git/config").decode()
    assert repositories.url in content
    assert engine.store not in content


def test_submodules_come_along_unless_told_not_to(engine: Engine, repositories: GitServer) -> None:
    repositories.repository("part")
    repositories.commit("part", {"p": "inner\n"})
    repositories.git("app", "submodule", "--quiet", "add", f"{repositories.url}/part/.git", "deps/part")
    repositories.commit("app", {"a": "with a part\n"})
    engine.good(engine.context({"Dockerfile": f"FROM scratch\nADD {repositories.url}/app/.git /s\n"}))
    assert engine.read("t", "s/deps/part/p") == b"inner\n"
    assert "s/deps/part/.git" not in engine.entries(engine.layers()[0])
    without = f"FROM scratch\nADD {repositories.url}/app/.git?submodules=false /s\n"
    engine.good(engine.context({"Dockerfile": without}))
    assert "s/deps/part/p" not in engine.entries(engine.layers()[0])


def test_a_submodule_can_not_read_this_machine(engine: Engine, repositories: GitServer, tmp_path: Path) -> None:
    repositories.repository("victim")
    repositories.commit("victim", {"secret": "private\n"})
    repositories.git(
        "app", "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"file://{tmp_path}/victim", "v"
    )
    repositories.commit("app", {"a": "evil\n"})
    refused = engine.build(engine.context({"Dockerfile": f"FROM scratch\nADD {repositories.url}/app/.git /s\n"}))
    assert refused.code
    assert "file" in refused.err
    assert "not allowed" in refused.err


def test_a_hostile_repository_gives_links_and_no_files_of_this_machine(engine: Engine, repositories: GitServer) -> None:
    os.symlink("/etc", f"{repositories.folder}/app/etc")
    repositories.commit("app", {".gitattributes": "* filter=evil\n", "-option": "x\n"})
    engine.good(engine.context({"Dockerfile": f"FROM scratch\nADD {repositories.url}/app/.git /s\n"}))
    entries = engine.entries(engine.layers()[0])
    assert entries["s/etc"].issym()
    assert "s/-option" in entries
    leak = engine.build(engine.context({"Dockerfile": f"FROM scratch\nADD {repositories.url}/app/.git#:etc /s\n"}))
    assert "has no folder etc" in leak.err


def test_a_token_opens_a_repository_and_is_shown_nowhere(engine: Engine, repositories: GitServer) -> None:
    import base64

    token = base64.b64encode(b"x-access-token:s3same-0pen").decode()
    repositories.handler.authorization = f"Basic {token}"
    context = engine.context(
        {"Dockerfile": f"FROM scratch\nADD {repositories.url}/app/.git /s\n", "token": "s3same-0pen"}
    )
    closed = engine.build(context)
    assert "GIT_AUTH_TOKEN" in closed.err
    opened = engine.good(context, "--secret", f"id=GIT_AUTH_TOKEN,src={context}/token")
    assert engine.read("t", "s/a") == b"two\n"
    assert "s3same-0pen" not in opened.err
    assert token not in opened.err
    for folder, _folders, names in os.walk(engine.store):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                content = file.read()
            assert b"s3same-0pen" not in content
            assert token.encode() not in content


def test_a_repository_over_ssh_gets_the_agent_and_asks_nobody(
    engine: Engine, repositories: GitServer, tmp_path: Path
) -> None:
    """The other end is run by a stand-in for ssh, which writes down how it was called."""
    tools = os.path.join(engine.folder, f"tools-{tmp_path.name}")
    engine.write(
        tools,
        {
            "ssh": '#!/bin/sh\nprintf "%s|" "$SSH_AUTH_SOCK" "$@" >> "$(dirname "$0")/called"\n'
            'for last; do :; done\nexec env GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0="*" '
            'GIT_PROTOCOL= sh -c "$last"\n',
            "agent": "",
        },
    )
    os.chmod(f"{tools}/ssh", 0o755)
    subprocess.run(["cp", "-R", f"{repositories.folder}/app", f"{tools}/app"], check=True)
    engine.give(tools)
    context = engine.context({"Dockerfile": f"FROM scratch\nADD ssh://git@example.invalid{tools}/app/.git#v1 /s\n"})
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "SSH_AUTH_SOCK": f"{tools}/agent"}
    engine.good(context, env=environment)
    assert engine.read("t", "s/a") == b"one\n"
    with open(f"{tools}/called", encoding="utf-8") as file:
        called = file.read()
    assert called.startswith(f"{tools}/agent|")
    assert "BatchMode=yes" in called
    assert "ForwardAgent=no" in called
