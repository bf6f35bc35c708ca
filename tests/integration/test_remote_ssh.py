"""``RUN --mount=type=ssh`` and ``--ssh``, with a real agent and real keys."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from remote_engine import engines

if TYPE_CHECKING:
    from engine_rig import Engine

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["root", "user"])
def engine(request: pytest.FixtureRequest, castoff_command: list[str]) -> Iterator[Engine]:
    """Give an engine that has the image ``busybox``."""
    require = request.getfixturevalue("require")
    require.command("ssh-agent", "openssh-client")
    require.command("ssh-keygen", "openssh-client")
    yield from engines(request, castoff_command, request.param)


@pytest.fixture(scope="module")
def key(engine: Engine) -> str:
    """Give the path of a key file of the engine's user."""
    path = os.path.join(engine.folder, "id_test")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test-key", "-f", path], check=True)
    engine.give(engine.folder)
    return path


@pytest.fixture(scope="module", autouse=True)
def tools(engine: Engine, key: str) -> None:
    """Make the image ``sshtools``: busybox with this machine's ssh-add and what it is linked with."""
    found = subprocess.run(["which", "ssh-add"], check=True, capture_output=True, text=True).stdout.strip()
    listed = subprocess.run(["ldd", found], check=True, capture_output=True, text=True).stdout
    libraries = [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
    content: dict[str, str | bytes] = {}
    for path in (found, *libraries):
        with open(path, "rb") as file:
            content[f"root{path}"] = file.read()
    with open(f"{key}.pub", "rb") as file:
        content["root/key.pub"] = file.read()
    content["Dockerfile"] = "FROM busybox\nCOPY --chmod=755 root /\n"
    engine.good(engine.context(content), tag="sshtools")


def _as_owner(engine: Engine) -> list[str]:
    """Return the start of a command that runs as the engine's user, who may be the one that runs the tests."""
    if engine.owner is None or os.geteuid() != 0:
        return []
    uid, gid = engine.owner
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]


@pytest.fixture
def agent(engine: Engine, key: str, tmp_path: Path) -> Iterator[str]:
    """Give the socket of an agent that holds the key, run as the engine's user."""
    folder = os.path.join(engine.folder, f"agent-{tmp_path.name}")
    os.mkdir(folder)
    engine.give(folder)
    socket = f"{folder}/socket"
    # Its own programs get a relative path: that of a socket has 107 bytes at most, and this folder's may have more.
    serve = [*_as_owner(engine), "ssh-agent", "-D", "-a", "socket"]
    process = subprocess.Popen(serve, cwd=folder, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()  # It says where it listens once it does.
        add = [*_as_owner(engine), "ssh-add", "-q", key]
        subprocess.run(add, cwd=folder, env={**os.environ, "SSH_AUTH_SOCK": "socket"}, check=True)
        yield socket
    finally:
        process.terminate()
        process.communicate()


def step(engine: Engine, line: str, user: str = "") -> str:
    """Return a context whose Dockerfile has one step."""
    return engine.context({"Dockerfile": f"FROM sshtools\n{user}{line}\n"})


def test_a_step_lists_keys_and_signs_and_changes_nothing(engine: Engine, agent: str) -> None:
    line = (
        "RUN --mount=type=ssh ssh-add -l > /listed && ssh-add -T /key.pub && "
        "if ssh-add -D; then exit 1; fi && ssh-add -l > /still && echo $SSH_AUTH_SOCK > /where"
    )
    context = step(engine, line)
    engine.good(context, "--ssh", "default", env={"SSH_AUTH_SOCK": agent})
    assert b"test-key" in engine.read("t", "listed")
    assert engine.read("t", "still") == engine.read("t", "listed")
    assert engine.read("t", "where") == b"/run/buildkit/ssh_agent.0\n"
    names = set(engine.entries(engine.layers()[-1]))
    assert not any("buildkit" in name or "ssh_agent" in name for name in names)
    assert agent not in str(engine.config())


def test_a_socket_has_the_owner_mode_and_place_that_are_asked_for(engine: Engine, agent: str) -> None:
    line = (
        "RUN --mount=type=ssh,id=one,target=/s/a,uid=1234,gid=1235,mode=0600 --mount=type=ssh,id=two,target=/s/b "
        "ssh-add -l && stat -c %u:%g:%a /s/a > /tmp/a && echo $SSH_AUTH_SOCK >> /tmp/a && "
        "if SSH_AUTH_SOCK=/s/b ssh-add -l; then exit 1; fi"
    )
    engine.good(step(engine, line, "USER app\n"), "--ssh", f"one={agent}", "--ssh", f"two={agent}")
    assert engine.read("t", "tmp/a") == b"1234:1235:600\n/s/a\n"


def test_key_files_are_loaded_for_the_build(engine: Engine, key: str) -> None:
    line = "RUN --mount=type=ssh,id=keys,required=true ssh-add -T /key.pub && ssh-add -l > /listed"
    outcome = engine.good(step(engine, line), "--ssh", f"keys={key}", env={"SSH_AUTH_SOCK": ""})
    assert b"ED25519" in engine.read("t", "listed")
    with open(key, encoding="ascii") as file:
        secret = file.read().splitlines()[1]
    assert secret not in outcome.err
    for folder, _folders, names in os.walk(engine.store):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as stored:
                    assert secret.encode() not in stored.read()


def test_a_key_with_a_passphrase_is_refused_with_a_way_out(engine: Engine) -> None:
    path = os.path.join(engine.folder, "id_locked")
    if not os.path.exists(path):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "closed", "-f", path], check=True)
        engine.give(engine.folder)
    refused = engine.build(step(engine, "RUN --mount=type=ssh,id=locked ssh-add -l"), "--ssh", f"locked={path}")
    assert refused.code == 2
    assert "ssh-add" in refused.err


def test_an_agent_that_was_not_given_is_an_error_only_where_required(engine: Engine) -> None:
    required = engine.build(step(engine, "RUN --mount=type=ssh,required=true true"))
    assert required.code
    assert "--ssh default" in required.err
    engine.good(step(engine, 'RUN --mount=type=ssh test -z "$SSH_AUTH_SOCK"'))
    none = engine.build(step(engine, "RUN true"), "--ssh", "default", env={"SSH_AUTH_SOCK": ""})
    assert none.code == 2
    gone = engine.build(step(engine, "RUN true"), "--ssh", "default=/nowhere/socket")
    assert gone.code == 2


def test_another_agent_is_no_other_step(engine: Engine, agent: str, key: str) -> None:
    context = step(engine, "RUN --mount=type=ssh ssh-add -l && echo cached > /c")
    first = engine.good(context, "--ssh", f"default={agent}")
    again = engine.good(context, "--ssh", f"default={key}")
    assert again.image == first.image
    assert any(line.startswith("RUN --mount=type=ssh") for line in again.steps("CACHED"))
