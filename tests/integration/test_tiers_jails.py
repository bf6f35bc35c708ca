"""Builds in containers as other runtimes start them: which tier is chosen there, what it gives, and what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from engine_rig import BUSYBOX, Engine, root_engine
from jail_rig import Jail, JailedEngine, require_jail

pytestmark = pytest.mark.integration

USER = (31001, 31001)
PLAIN = Jail()
"""As Docker starts it by default."""
LOCKED = Jail(user=USER, capabilities=(), seccomp="", no_new_privileges=True, read_only=True)
"""A locked-down pod, but for its seccomp profile, which allows user namespaces."""
KINDS = {
    "plain": PLAIN,
    "plain user": Jail(user=USER),
    "podman": Jail(seccomp="podman"),
    "locked": LOCKED,
    "capless root": Jail(seccomp="podman", capabilities=()),
}

MANY_FACES = """\
FROM scratch AS base
COPY --chmod=755 busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /tree/deep /old/a /gone /etc && echo one > /tree/one && ln /tree/one /tree/two \
 && ln -s ../one /tree/deep/link && echo a > /old/a/a && echo b > /old/b && echo g > /gone/g && echo t > /tree/three \
 && printf 'root:x:0:0::/root:/bin/sh\\napp:x:1234:1235::/app:/bin/sh\\n' > /etc/passwd && mkfifo /tree/fifo \
 && chown -R 5:6 /tree/deep && chown -h 7:8 /tree/deep/link && mkdir /app && chown 1234:1235 /app
FROM base AS built
RUN rm -r /gone && rm /old/b && rm -r /old/a && echo new > /old/c && mv /tree/deep /tree/moved \
 && chmod 4755 /bin/busybox && touch -d @0 /tree/three
RUN --mount=type=bind,from=base,source=/tree,target=/from cp -a /from/one /copied && chown 9:10 /copied
RUN --mount=type=bind,source=input,target=/input --mount=type=tmpfs,target=/scratch \
    cat /input > /read && echo x > /scratch/x && test -s /scratch/x
RUN --mount=type=cache,target=/cache echo x >> /cache/x
RUN <<EOF
echo from a script > /script
EOF
WORKDIR /app/work
USER app
RUN id -u > /app/me && umask 077 && mkdir /app/own
FROM built
COPY --from=base --chown=3:4 /tree /again
RUN --mount=type=secret,id=word,env=WORD test "$WORD" = open-sesame
"""


@pytest.fixture(scope="module")
def jails(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> JailedEngine:
    require = request.getfixturevalue("require")
    require_jail(require)
    require.file(BUSYBOX, "busybox-static")
    public = request.getfixturevalue("public_dir")
    command, settings = request.getfixturevalue("user_castoff")
    return JailedEngine(public, command, settings, public)


@pytest.fixture
def plain(jails: JailedEngine) -> Iterator[Engine]:
    """Give an engine of root in a plain container, with the image ``busybox``."""
    engine = jails.make(PLAIN)
    engine.make_base()
    yield engine


def faces(engine: Engine) -> str:
    with open(BUSYBOX, "rb") as file:
        binary = file.read()
    return engine.context({"Dockerfile": MANY_FACES, "busybox": binary, "input": "input\n"})


def doctor(engine: Engine) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(engine.castoff("doctor", "--format", "json").out)
    value["By"] = {fact["Feature"]: fact for fact in value["Facts"]}
    return value


@pytest.mark.parametrize(
    ("kind", "tier", "feature", "remedy"),
    [
        ("plain", "chroot", "tier subuid", "seccompProfile.type: Unconfined"),
        ("plain user", "none", "tier", "seccompProfile.type: Unconfined"),
        ("podman", "subuid", "tier root", ""),
        ("locked", "single", "tier subuid", "/etc/subuid"),
        ("capless root", "none", "tier", "runAsUser: 1000"),
    ],
)
def test_doctor_names_the_tier_and_what_would_give_a_better_one(
    jails: JailedEngine, kind: str, tier: str, feature: str, remedy: str
) -> None:
    engine = jails.make(KINDS[kind])
    value = doctor(engine)
    assert value["Tier"] == tier, value
    assert value["By"][feature]["Ok"] is False
    assert remedy in value["By"][feature]["Remedy"]
    assert engine.castoff("doctor").code == (4 if tier == "none" else 0)


@pytest.fixture(scope="module")
def usual(castoff_command: list[str]) -> Iterator[str]:
    """Give the image that root builds outside of any container."""
    for engine in root_engine(castoff_command):
        yield engine.good(faces(engine), "--secret", "id=word,env=WORD", env={"WORD": "open-sesame"}).image


@pytest.mark.parametrize("kind", ["plain", "podman", "locked"])
def test_every_tier_builds_the_same_image(jails: JailedEngine, kind: str, usual: str) -> None:
    engine = jails.make(KINDS[kind])
    assert engine.good(faces(engine), "--secret", "id=word,env=WORD", env={"WORD": "open-sesame"}).image == usual


@pytest.mark.parametrize(
    ("place", "copies"),
    [
        ({"overlays": {"/place": "{folder}"}}, True),
        ({"tmpfs": {"/place": "mode=1777"}}, False),
        ({"tmpfs": {"/place": "mode=1777,noexec"}}, False),
    ],
    ids=["overlay", "tmpfs", "noexec"],
)
@pytest.mark.parametrize("kind", ["podman", "locked"])
def test_the_store_may_be_on_any_file_system(
    jails: JailedEngine, kind: str, place: dict[str, dict[str, str]], copies: bool, tmp_path: Any, usual: str
) -> None:
    places = {name: {path: text.format(folder=tmp_path) for path, text in each.items()} for name, each in place.items()}
    if "overlays" in places:
        for name in ("lower", "upper"):
            os.mkdir(tmp_path / name)
            os.chmod(tmp_path / name, 0o777)
    engine = jails.make(KINDS[kind], "/place/store", **places)
    context = faces(engine)
    done = engine.build(context, "--secret", "id=word,env=WORD", env={"WORD": "open-sesame"})
    assert done.code == 0, done.err
    assert done.err.count("works on a copy") == copies
    assert done.image == usual


def test_a_user_without_namespaces_builds_what_needs_no_process(jails: JailedEngine) -> None:
    engine = jails.make(Jail(user=USER))
    files = {"Dockerfile": "FROM scratch AS a\nCOPY --chown=5:6 x /d/x\nWORKDIR /w\nFROM a\nCOPY --from=a /d /e\n"}
    built = engine.good(engine.context({**files, "x": "x"}))
    assert engine.entries(engine.layers()[-1])["e/x"].uid == 5
    assert engine.castoff("save", "t", "-o", f"{engine.folder}/t.tar").code == 0
    # An image from elsewhere is unpacked: its owners are kept, though the user can give files to nobody.
    other = jails.make(Jail(user=USER))
    os.rename(f"{engine.folder}/t.tar", f"{other.folder}/t.tar")
    assert other.castoff("load", "-i", f"{other.folder}/t.tar").code == 0
    again = other.good(
        other.context({"Dockerfile": "FROM t\nCOPY --from=t --chmod=600 /d /f\nWORKDIR /d/g\n"}), tag="u"
    )
    assert again.image != built.image
    layers = [other.entries(layer) for layer in other.layers("u")]
    assert (layers[0]["d/x"].uid, layers[0]["d/x"].gid) == (5, 6)
    refused = other.build(other.context({"Dockerfile": "FROM t\nRUN true\n"}), tag="v")
    assert refused.code == 4
    assert "a seccomp filter refuses namespaces" in refused.err
    assert "seccompProfile.type: Unconfined" in refused.err


def test_steps_without_namespaces(plain: Engine) -> None:
    dockerfile = (
        "FROM busybox\nCOPY own /dev/own\nCOPY hosts /etc/hosts\n"
        "RUN env > /env; ls /dev > /seen; ls /proc /sys > /none 2>&1; id -u > /id; cat /dev/null /etc/hosts > /read\n"
        "RUN (sleep 1000 &) ; setsid sh -c 'sleep 1000 & sleep 1000' >/dev/null 2>&1 & echo left\n"
        "RUN rm -rf /dev && ln -s /tmp /dev && rm /etc/hosts && ln -s /env /etc/hosts\n"
        "RUN ls /dev /etc > /after\n"
    )
    files = {"Dockerfile": dockerfile, "own": "own", "hosts": "hosts\n"}
    done = plain.good(plain.context(files), env={"LEAK": "1"})
    assert done.err.count("there are no namespaces here") == 1
    environment = plain.read("t", "env").decode().split("\n")
    names = {line.partition("=")[0] for line in environment if line}
    assert names == {"HOME", "PATH", "PWD", "SHLVL", "SOURCE_DATE_EPOCH"}
    assert plain.read("t", "seen").decode().split() == "fd full null pts random shm tty urandom zero".split()
    assert b"127.0.0.1" in plain.read("t", "read")
    layers = [plain.entries(layer) for layer in plain.layers()]
    assert plain.read("t", "etc/hosts") == b"hosts\n"
    assert [path for layer in layers[-4:] for path in layer if path.startswith(("dev", "etc"))] == []


def test_what_there_is_no_way_to_give_is_refused(plain: Engine) -> None:
    cases = {
        "RUN --network=none true": "a network of its own",
        "RUN --mount=type=secret,id=s true": "a secret as a file (/run/secrets/s)",
        "RUN --security=insecure true": "without limits",
    }
    for line, sentence in cases.items():
        done = plain.build(
            plain.context({"Dockerfile": f"FROM busybox\n{line}\n"}),
            *("--secret", "id=s,env=S", "--allow", "security.insecure"),
            env={"S": "sesame"},
        )
        assert (done.code, sentence in done.err) == (4, True), done.err
        assert "hint: " in done.err
    assert plain.castoff("run", "--rm", "busybox", "true").code == 125
    assert "seccompProfile" in plain.castoff("run", "--rm", "busybox", "true").err


def test_a_secret_is_a_file_where_the_store_is_in_memory(jails: JailedEngine) -> None:
    engine = jails.make(PLAIN, "/memory/store", tmpfs={"/memory": "mode=755"})
    with open(BUSYBOX, "rb") as file:
        files = {"busybox": file.read()}
    dockerfile = (
        "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\n"
        "RUN --mount=type=secret,id=s,mode=0400,uid=7 read -r word < /run/secrets/s; test $word = sesame\n"
        "RUN test ! -e /run\n"
    )
    context = engine.context({"Dockerfile": dockerfile, **files})
    done = engine.build(
        context, "--secret", "id=s,env=S", "-o", f"type=tar,dest={engine.folder}/t.tar", env={"S": "sesame"}
    )
    assert done.code == 0, done.err
    with open(f"{engine.folder}/t.tar", "rb") as file:
        assert b"sesame\n" not in file.read()


def test_a_cache_stays_and_is_in_no_layer(plain: Engine) -> None:
    dockerfile = "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c echo $N >> /c/n; wc -l < /c/n > /n\n"
    context = plain.context({"Dockerfile": dockerfile})
    for number in ("1", "2", "3"):
        plain.good(context, "--build-arg", f"N={number}")
        assert plain.read("t", "n").decode().strip() == number
    assert set(plain.entries(plain.layers()[-1])) == {"n"}


def test_escapes_from_a_changed_root_fail(plain: Engine) -> None:
    dockerfile = (
        "FROM busybox\n"
        "RUN chroot / true; echo chroot $? ; mknod /disk b 8 0; echo mknod $?; mount -t tmpfs x /tmp; echo mount $?;"
        " unshare -U true; echo unshare $?; cat /proc/1/environ; echo proc $?; su app -c true; echo su $?\n"
    )
    done = plain.good(plain.context({"Dockerfile": dockerfile}))
    said = dict(line.split()[2:] for line in done.err.splitlines() if len(line.split()) == 4 and line.startswith("#"))
    wanted = {"chroot": "1", "mknod": "1", "mount": "1", "unshare": "1", "proc": "1", "su": "0"}
    assert {name: said[name] for name in wanted} == wanted, done.err


def test_a_device_of_an_image_is_out_of_reach_without_namespaces(plain: Engine) -> None:
    import io
    import tarfile

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, kind in (("disk", tarfile.BLKTYPE), ("null", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.devmajor, member.devminor, member.mode = kind, 8, 0, 0o666
            tar.addfile(member)
    context = plain.context(
        {"Dockerfile": "FROM busybox\nADD d.tar /d/\nRUN ls /d > /seen\n", "d.tar": archive.getvalue()}
    )
    plain.good(context)
    assert plain.read("t", "seen") == b""
    assert {"d/disk", "d/null"} <= set(plain.entries(plain.layers()[-2]))


def test_a_step_sees_the_processes_of_its_container_and_can_do_nothing_to_them(jails: JailedEngine) -> None:
    engine = jails.make(LOCKED)
    engine.make_base()
    dockerfile = (
        "FROM busybox\n"
        "RUN for p in /proc/[0-9]*; do n=${p#/proc/}; cat $p/environ 2>/dev/null | grep -q PYTHONPATH && echo leak $n;"
        " readlink $p/exe | grep python && echo program $n; done; kill -9 1 2 3 4 5 6 7 8 9; ls /proc/self/fd/0\n"
    )
    done = engine.good(engine.context({"Dockerfile": dockerfile}))
    said = [line.split() for line in done.err.splitlines() if line.startswith("#5 ")]
    assert not [words for words in said if words[2:3] in (["leak"], ["program"])], done.err
    assert ["/proc/self/fd/0"] in [words[2:] for words in said]
    value = doctor(engine)
    assert value["By"]["proc"]["Ok"] is False
    assert "procMount: Unmasked" in value["By"]["proc"]["Remedy"]
