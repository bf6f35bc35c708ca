"""What builds give, with the real sandbox, snapshots and store: as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest
from engine_rig import BUSYBOX, Engine, root_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from subprocess import CompletedProcess

pytestmark = pytest.mark.integration

TWO_STAGES = """\
FROM busybox AS builder
WORKDIR /build
COPY deps .
RUN cat deps > fetched
COPY main .
RUN cat main > artefact

FROM scratch
WORKDIR /app
COPY --from=builder /build/artefact .
USER 65532
ENTRYPOINT ["/app/artefact"]
"""


def _user_engine(request: pytest.FixtureRequest) -> Engine:
    require = request.getfixturevalue("require")
    user = request.getfixturevalue("ordinary_user")
    require.subordinate_ids(user)
    command, settings = request.getfixturevalue("user_castoff")
    folder = os.path.join(user.home, "engine")
    os.makedirs(folder, exist_ok=True)
    os.chown(folder, user.uid, user.gid)

    def run(
        arguments: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> CompletedProcess[bytes]:
        done: CompletedProcess[bytes] = user.run([*command, *arguments], cwd=cwd, env={**settings, **(env or {})})
        return done

    return Engine(folder, run, (user.uid, user.gid))


@pytest.fixture(scope="module", params=["root", "user"])
def engine(request: pytest.FixtureRequest, castoff_command: list[str]) -> Iterator[Engine]:
    """Give an engine that has the image ``busybox``."""
    require = request.getfixturevalue("require")
    require.file(BUSYBOX, "busybox-static")
    if request.param == "root":
        require.root()
        for made in root_engine(castoff_command):
            made.make_base()
            yield made
    else:
        made = _user_engine(request)
        made.make_base()
        yield made


def test_two_stages_give_the_artefact_and_nothing_else(engine: Engine) -> None:
    context = engine.context({"Dockerfile": TWO_STAGES, "deps": "one", "main": "hello"})
    engine.good(context)
    first, second = (engine.entries(layer) for layer in engine.layers())
    assert set(first) == {"app"}
    assert set(second) == {"app", "app/artefact"}
    assert engine.read("t", "app/artefact") == b"hello"
    config = engine.config()
    assert config["config"] == {
        "User": "65532",
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Entrypoint": ["/app/artefact"],
        "WorkingDir": "/app",
    }
    assert config["created"] == "1980-01-01T00:00:00Z"
    assert {entry.mtime for entry in (*first.values(), *second.values())} == {315532800}
    assert engine.temporary() == []


def test_only_what_changed_runs_again(engine: Engine) -> None:
    context = engine.context({"Dockerfile": TWO_STAGES, "deps": "d1", "main": "m1"})
    first = engine.good(context)
    again = engine.good(context)
    assert again.image == first.image
    assert len(again.steps("CACHED")) == 7
    engine.write(context, {"main": "m2"})
    changed = engine.good(context)
    assert "RUN cat deps > fetched" in changed.steps("CACHED")
    assert "RUN cat main > artefact" in changed.steps("DONE")
    assert any(step.startswith("COPY --from") for step in changed.steps("DONE"))
    assert changed.image != first.image


def test_a_step_that_gives_the_same_files_leaves_its_consumers_cached(engine: Engine) -> None:
    context = engine.context({"Dockerfile": TWO_STAGES, "deps": "e1", "main": "x"})
    first = engine.good(context)
    engine.write(context, {"deps": "e2"})
    changed = engine.good(context)
    assert "RUN cat deps > fetched" in changed.steps("DONE")
    assert "RUN cat main > artefact" in changed.steps("DONE")
    assert any(step.startswith("COPY --from") for step in changed.steps("CACHED"))
    assert changed.image == first.image


def test_times_of_files_do_not_matter_and_their_modes_do(engine: Engine) -> None:
    context = engine.context({"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "x"})
    first = engine.good(context)
    os.utime(os.path.join(context, "f"), (1, 1))
    assert engine.good(context).image == first.image
    os.chmod(os.path.join(context, "f"), 0o755)
    assert engine.good(context).image != first.image


def test_stages_that_the_target_does_not_need_are_not_built(engine: Engine) -> None:
    text = "FROM busybox AS a\nRUN exit 3\nFROM busybox AS b\nRUN true\nFROM scratch AS c\nCOPY --from=b /bin/sh /sh\n"
    outcome = engine.good(engine.context({"Dockerfile": text}))
    assert not any("exit 3" in name for name in (*outcome.done, *outcome.cached))


def test_owners_of_the_image(engine: Engine) -> None:
    text = """\
FROM busybox
COPY f /zero
COPY --chown=app f /named
COPY --chown=7:extra f /mixed
COPY --chown=55 --chmod=4711 f /made/dir/number
USER app
COPY f /still-zero
WORKDIR /of/app
RUN touch mine && id -u > id && id -G > groups
"""
    engine.good(engine.context({"Dockerfile": text, "f": "x"}))
    found = {name: entry for layer in engine.layers() for name, entry in engine.entries(layer).items()}
    owners = {name: (entry.uid, entry.gid) for name, entry in found.items()}
    assert owners["zero"] == owners["still-zero"] == (0, 0)
    assert owners["named"] == (1234, 1235)
    assert owners["mixed"] == (7, 77)
    assert owners["made"] == owners["made/dir"] == owners["made/dir/number"] == (55, 55)
    assert found["made/dir/number"].mode == 0o4711
    assert found["made/dir"].mode == 0o711  # BuildKit gives octal permissions to the parents that it makes, too
    assert owners["of"] == owners["of/app"] == owners["of/app/mine"] == (1234, 1235)
    assert engine.read("t", "of/app/id") == b"1234\n"
    assert engine.read("t", "of/app/groups") == b"1235 77\n"


def test_what_run_removes_is_a_whiteout(engine: Engine) -> None:
    text = "FROM busybox\nRUN mkdir /d && touch /d/a /d/b\nRUN rm /d/a\nRUN rm -r /d && mkdir /d && touch /d/c\n"
    engine.good(engine.context({"Dockerfile": text}))
    _base, one, two = [set(engine.entries(layer)) for layer in engine.layers()][-3:]
    assert one == {"d", "d/.wh.a"}
    assert "d/.wh..wh..opq" in two
    assert "d/c" in two


def test_nothing_of_the_sandbox_stays_in_a_layer(engine: Engine) -> None:
    text = "FROM scratch\nCOPY busybox /bin/sh\nRUN echo x > /made\n"
    with open(BUSYBOX, "rb") as file:
        context = engine.context({"Dockerfile": text, "busybox": file.read()})
    os.chmod(os.path.join(context, "busybox"), 0o755)
    engine.good(context)
    assert set(engine.entries(engine.layers()[-1])) == {"made"}


def test_the_environment_of_a_step(engine: Engine) -> None:
    text = "FROM busybox\nARG A=1\nENV B=$A-2\nARG C\nRUN env | sort > /env\n"
    context = engine.context({"Dockerfile": text})
    engine.good(context, "--build-arg", "C=3", env={"SECRET_OF_HOST": "x", "http_proxy": "http://127.0.0.1:9"})
    lines = engine.read("t", "env").decode().splitlines()
    kept = {line for line in lines if not line.startswith(("PWD=", "SHLVL=", "OLDPWD="))}
    assert kept == {
        "A=1",
        "B=1-2",
        "C=3",
        "HOME=/root",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SOURCE_DATE_EPOCH=315532800",
        "http_proxy=http://127.0.0.1:9",
        "HTTP_PROXY=http://127.0.0.1:9",
    }
    again = engine.good(context, "--build-arg", "C=3", env={"http_proxy": "http://127.0.0.1:10"})
    assert any(step.startswith("RUN env") for step in again.steps("CACHED"))
    assert "127.0.0.1" not in json.dumps(engine.config())


def test_every_kind_of_mount(engine: Engine) -> None:
    text = """\
FROM busybox AS source
RUN mkdir -p /s/deep && echo from-stage > /s/deep/f
FROM busybox
RUN --mount=type=bind,source=ctx,target=/c cat /c/file > /bound && ! touch /c/no
RUN --mount=type=bind,from=source,source=/s,target=/m cat /m/deep/f > /staged
RUN --mount=type=bind,source=ctx,target=/c,rw echo changed > /c/file && cat /c/file > /changed
RUN --mount=type=cache,target=/cache,uid=1234,mode=0700 echo $(cat /cache/n 2>/dev/null)x > /cache/n \\
    && cp /cache/n /count && stat -c %u:%a /cache > /mode
RUN --mount=type=tmpfs,target=/t touch /t/f
RUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null && stat -c %a /run/secrets/s > /secretmode
RUN --mount=type=secret,id=s,env=S test "${#S}" = 12
RUN ls / > /left
"""
    context = engine.context({"Dockerfile": text, "ctx/file": "from-context\n"})
    secret = os.path.join(engine.folder, "secret")
    engine.write(engine.folder + "/s", {"secret": "hidden-value"})
    os.replace(engine.folder + "/s/secret", secret)
    first = engine.good(context, "--secret", f"id=s,src={secret}")
    assert engine.read("t", "bound") == b"from-context\n"
    assert engine.read("t", "staged") == b"from-stage\n"
    assert engine.read("t", "changed") == b"changed\n"
    assert engine.read("t", "mode") == b"1234:700\n"
    assert engine.read("t", "secretmode") == b"400\n"
    left = set(engine.read("t", "left").split())
    assert not left & {b"c", b"m", b"t", b"cache"}
    with open(os.path.join(context, "ctx/file"), encoding="utf-8") as file:
        assert file.read() == "from-context\n"
    again = engine.good(context, "--secret", f"id=s,src={secret}", "--no-cache")
    assert again.code == first.code
    assert engine.read("t", "count") == b"xx\n"
    for root, _folders, files in os.walk(engine.store):
        for name in files:
            path = os.path.join(root, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as stored:
                    assert b"hidden-value" not in stored.read(), path


def test_heredocs(engine: Engine) -> None:
    text = """\
FROM busybox
ARG WHO=you
RUN <<EOF
echo one > /one
echo two > /two
EOF
RUN <<EOF
#!/bin/busybox ash
echo three > /three
EOF
COPY <<EOF /hello
hello $WHO
EOF
COPY <<'EOF' <<"TWO" /d/
raw $WHO
EOF
second
TWO
"""
    engine.good(engine.context({"Dockerfile": text}))
    assert engine.read("t", "one") == b"one\n"
    assert engine.read("t", "two") == b"two\n"
    assert engine.read("t", "three") == b"three\n"
    assert engine.read("t", "hello") == b"hello you\n"
    assert engine.read("t", "d/EOF") == b"raw $WHO\n"
    assert engine.read("t", "d/TWO") == b"second\n"


def test_add_unpacks_archives_and_copy_does_not(engine: Engine) -> None:
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, uid in (("d/f", 42), ("d/g", 0)):
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.mode = 3, uid, 0o640
            archive.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("d/hard")
        link.type, link.linkname = tarfile.LNKTYPE, "d/f"
        archive.addfile(link)
    text = "FROM scratch\nADD x /added/\nCOPY x /copied/\nADD plain /added/\n"
    engine.good(engine.context({"Dockerfile": text, "x": buffer.getvalue(), "plain": "p"}))
    added, copied, plain = (engine.entries(layer) for layer in engine.layers())
    assert (added["added/d/f"].uid, added["added/d/f"].mode) == (42, 0o640)
    assert added["added/d/hard"].islnk()
    assert set(copied) == {"copied", "copied/x"}
    assert "added/plain" in plain


def test_onbuild_shell_and_volumes(engine: Engine) -> None:
    parent = 'FROM busybox\nONBUILD COPY f /from-onbuild\nONBUILD RUN echo ran > /ran\nSHELL ["/bin/sh", "-ec"]\n'
    engine.good(engine.context({"Dockerfile": parent}), tag="parent")
    child = "FROM parent\nVOLUME /data\nEXPOSE 8000 53/udp\nHEALTHCHECK --interval=5s CMD true\n"
    child += "RUN false || echo ok > /ok\n"
    engine.good(engine.context({"Dockerfile": child, "f": "x"}))
    config = engine.config()["config"]
    assert isinstance(config, dict)
    assert "OnBuild" not in config
    assert config["Volumes"] == {"/data": {}}
    assert config["ExposedPorts"] == {"53/udp": {}, "8000/tcp": {}}
    assert config["Shell"] == ["/bin/sh", "-ec"]
    assert engine.read("t", "ran") == b"ran\n"
    assert engine.read("t", "ok") == b"ok\n"


def test_the_ignore_file(engine: Engine) -> None:
    files = {
        "Dockerfile": "FROM scratch\nCOPY . /\n",
        ".dockerignore": "*.log\nsecret\n!keep.log\nsecret/**\n!secret/public\nDockerfile\n.dockerignore\n",
        "a.txt": "a",
        "b.log": "b",
        "keep.log": "k",
        "secret/private": "p",
        "secret/public": "p",
    }
    context = engine.context(files)
    engine.good(context)
    assert set(engine.entries(engine.layers()[0])) == {"a.txt", "keep.log", "secret", "secret/public"}
    engine.write(context, {"b.log": "changed", "secret/private": "changed"})
    assert engine.good(context).steps("CACHED") == ["COPY . /"]
    missing = engine.context({**files, "Dockerfile": "FROM scratch\nCOPY b.log /\n"})
    outcome = engine.build(missing)
    assert outcome.code == 1
    assert ".dockerignore" in outcome.err


def test_named_contexts(engine: Engine) -> None:
    other = engine.context({"lib/x": "from-other"})
    text = "FROM alias AS a\nCOPY --from=other lib/x /x\nFROM scratch\nCOPY --from=a /x /x\n"
    engine.good(
        engine.context({"Dockerfile": text}),
        "--build-context",
        f"other={other}",
        "--build-context",
        "alias=docker-image://busybox",
    )
    assert engine.read("t", "x") == b"from-other"
    folder = engine.context({"Dockerfile": "FROM tree\nCOPY --from=tree lib/x /again\n"})
    engine.good(folder, "--build-context", f"tree={other}")
    assert engine.read("t", "lib/x") == b"from-other"


def test_the_same_input_gives_the_same_image_elsewhere(engine: Engine) -> None:
    files = {"Dockerfile": TWO_STAGES, "deps": "same", "main": "same"}
    images = set()
    for number in range(2):
        context = engine.context(files)
        for name in files:
            os.utime(os.path.join(context, name), (number * 1000, number * 1000))
        fresh = Engine(engine.folder, engine.runner, engine.owner, store=f"{engine.folder}/fresh{number}")
        fresh.make_base()
        images.add((fresh.good(context).image, fresh._manifest("t")["layers"][-1]["digest"]))  # type: ignore[index]
    assert len(images) == 1
