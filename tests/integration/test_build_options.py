"""Options of ``castoff build`` in real builds: what steps see of them, annotations, platforms, several outputs."""

from __future__ import annotations

import json
import os
import platform
import struct
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from engine_rig import BUSYBOX, Engine, root_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

FOREIGN, MACHINE = ("arm64", 183) if platform.machine() == "x86_64" else ("amd64", 62)


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest, castoff_command: list[str]) -> Iterator[Engine]:
    """Give an engine that has the image ``busybox``."""
    require = request.getfixturevalue("require")
    require.root()
    require.file(BUSYBOX, "busybox-static")
    for made in root_engine(castoff_command):
        made.make_base()
        yield made


def run_step(engine: Engine, command: str, *arguments: str) -> str:
    """Return what a RUN wrote into the file /out."""
    engine.good(engine.context({"Dockerfile": f"FROM busybox\nRUN {command}\n"}), "--no-cache", *arguments)
    return engine.read("t", "out").decode()


def test_hosts(engine: Engine) -> None:
    hosts = run_step(
        engine,
        "cat /etc/hosts > /out",
        "--add-host=db:10.1.2.3",
        "--add-host=six=[::1]",
        "--add-host=me:host-gateway",
    )
    lines = [line.split() for line in hosts.splitlines()]
    assert ["10.1.2.3", "db"] in lines
    assert ["::1", "six"] in lines
    assert ["127.0.0.1", "me"] in lines


def test_limits(engine: Engine) -> None:
    limits = run_step(
        engine,
        "{ ulimit -Sn; ulimit -Hn; ulimit -Hc; } > /out",
        "--ulimit=nofile=100:200",
        "--ulimit=core=0",
    )
    assert limits.split() == ["100", "200", "0"]


def test_the_size_of_shared_memory(engine: Engine) -> None:
    assert run_step(engine, "df -k /dev/shm | tail -1 | awk '{print $2}' > /out", "--shm-size=3m").strip() == "3072"


@pytest.mark.parametrize(("mode", "alone"), [("none", True), ("host", False), ("default", False)])
def test_the_network(engine: Engine, mode: str, alone: bool) -> None:
    seen = run_step(engine, "readlink /proc/self/ns/net > /out", f"--network={mode}").strip()
    assert (seen != os.readlink("/proc/self/ns/net")) == alone


def test_network_none_of_the_request_gives_way_to_the_step(engine: Engine) -> None:
    seen = run_step(engine, "--network=host readlink /proc/self/ns/net > /out", "--network=none").strip()
    assert seen == os.readlink("/proc/self/ns/net")


def test_labels(engine: Engine) -> None:
    context = engine.context({"Dockerfile": "FROM scratch\nLABEL a=1 b=2\n"})
    engine.good(context, "--label", "b=3", "--label", "c=x=y", "--label", "d")
    config = engine.config()["config"]
    assert isinstance(config, dict)
    assert config["Labels"] == {"a": "1", "b": "3", "c": "x=y", "d": ""}


def test_only_the_stages_of_a_filter_run_anew(engine: Engine) -> None:
    context = engine.context({"Dockerfile": "FROM busybox AS one\nRUN echo 1\nFROM one AS two\nRUN echo 2\n"})
    engine.good(context)
    outcome = engine.good(context, "--no-cache-filter", "two")
    assert outcome.steps("CACHED") == ["RUN echo 1"]
    assert outcome.steps("DONE")[-1] == "RUN echo 2"


def test_insecure_steps_want_leave(engine: Engine) -> None:
    context = engine.context({"Dockerfile": "FROM busybox\nRUN --security=insecure grep CapEff /proc/self/status\n"})
    assert engine.build(context).code == 1
    assert engine.build(context, "--allow", "security.insecure").code == 0
    assert engine.build(context).code == 1  # the cache does not hand out what was not allowed


@pytest.mark.parametrize(
    "arguments",
    [
        ("--cgroup-parent=/x",),
        ("--ulimit=nofiles=1",),
        ("--ulimit=nofile=2:1",),
        ("--shm-size=big",),
        ("--network=bridge",),
        ("--add-host=db",),
        ("--add-host=db:host",),
        ("--allow=all",),
        ("--annotation=a",),
        ("--annotation=index:a=b",),
        ("--platform=a/b/c/d",),
        ("--platform=linux/amd64,linux/arm64", "--output=type=docker,dest=x"),
        ("--output=type=oci,dest=a,compression=gzip", "--output=type=oci,dest=b,compression=zstd"),
    ],
)
def test_what_is_refused_before_anything_is_built(engine: Engine, arguments: tuple[str, ...]) -> None:
    context = engine.context({"Dockerfile": "FROM busybox\nRUN echo not reached\n"})
    outcome = engine.build(context, *arguments)
    assert outcome.code == 2, outcome.err
    assert "not reached\n" not in outcome.err.partition("error:")[0]
    assert len([line for line in outcome.err.splitlines() if line.lower().startswith("error:")]) == 1


def layout(path: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the index of an archived layout, and its files."""
    with tarfile.open(path) as archive:
        files = {}
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                files[member.name] = content.read()
    return json.loads(files["index.json"]), files


def blob(files: dict[str, bytes], descriptor: dict[str, Any]) -> dict[str, Any]:
    """Return a document of a layout."""
    return dict(json.loads(files["blobs/" + descriptor["digest"].replace(":", "/")]))


def test_annotations_of_one_platform(engine: Engine) -> None:
    context = engine.context({"Dockerfile": "FROM scratch\nLABEL a=1\n"})
    out = os.path.join(engine.folder, "annotated.tar")
    engine.good(
        context,
        "--annotation=org.a=1",
        "--annotation=manifest-descriptor:org.b=2:3",
        f"--output=type=oci,dest={out},annotation.org.c=4",
    )
    index, files = layout(out)
    (entry,) = index["manifests"]
    assert entry["annotations"]["org.b"] == "2:3"
    assert blob(files, entry)["annotations"] == {"org.a": "1", "org.c": "4"}


def test_annotations_of_several_platforms(engine: Engine) -> None:
    context = engine.context({"Dockerfile": "FROM scratch\nLABEL a=1\n"})
    out = os.path.join(engine.folder, "index.tar")
    engine.good(
        context,
        "--platform=linux/amd64,linux/arm64",
        "--annotation=index,manifest:both=1",
        "--annotation=manifest[linux/arm64]:arm=2",
        "--annotation=manifest-descriptor:each=3",
        "--annotation=index-descriptor:top=4",
        f"--output=type=oci,dest={out}",
    )
    layout_index, files = layout(out)
    (entry,) = layout_index["manifests"]
    assert entry["annotations"]["top"] == "4"
    index = blob(files, entry)
    assert index["annotations"] == {"both": "1"}
    found = {item["platform"]["architecture"]: (item, blob(files, item)) for item in index["manifests"]}
    assert {item["annotations"]["each"] for item, _manifest in found.values()} == {"3"}
    assert found["amd64"][1]["annotations"] == {"both": "1"}
    assert found["arm64"][1]["annotations"] == {"both": "1", "arm": "2"}


def test_several_outputs_at_once(engine: Engine) -> None:
    context = engine.context({"Dockerfile": "FROM scratch\nCOPY f /d/\n", "f": "content"})
    outs = {
        name: os.path.join(engine.folder, f"several-{name}") for name in ("oci", "docker", "tar", "local", "layout")
    }
    outcome = engine.good(
        context,
        f"--output=type=oci,dest={outs['oci']}",
        f"--output=type=docker,dest={outs['docker']}",
        f"--output=type=tar,dest={outs['tar']}",
        "-o",
        outs["local"],
        f"--output=type=oci,tar=false,dest={outs['layout']}",
        "--output=type=image,name=other:1",
    )
    index, files = layout(outs["oci"])
    assert blob(files, index["manifests"][0])["config"]["digest"] == outcome.image
    with tarfile.open(outs["docker"]) as archive:
        assert "manifest.json" in archive.getnames()
    with tarfile.open(outs["tar"]) as archive:
        assert [name for name in archive.getnames() if name.strip("/.")] == ["d", "d/f"]
    with open(os.path.join(outs["local"], "d/f"), encoding="ascii") as file:
        assert file.read() == "content"
    assert os.path.isfile(os.path.join(outs["layout"], "oci-layout"))
    assert engine.castoff("inspect", "other:1").code == 0


def test_an_output_that_fails_leaves_those_before_it_and_the_image(engine: Engine) -> None:
    context = engine.context({"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "1"})
    good = os.path.join(engine.folder, "good.tar")
    outcome = engine.build(context, f"--output=type=tar,dest={good}", "--output=type=tar,dest=/nowhere/x.tar")
    assert outcome.code == 6
    assert tarfile.is_tarfile(good)
    assert "/nowhere/x.tar" in outcome.err


def foreign_base(engine: Engine) -> None:
    """Make the image ``foreign``, whose programs are made for another machine."""
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, MACHINE, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    context = engine.context({"Dockerfile": "FROM scratch\nCOPY sh /bin/sh\n", "sh": header + bytes(56)})
    os.chmod(os.path.join(context, "sh"), 0o755)
    engine.good(context, f"--platform=linux/{FOREIGN}", tag="foreign")


def test_another_platform_without_run(engine: Engine) -> None:
    foreign_base(engine)
    context = engine.context(
        {"Dockerfile": "FROM foreign\nARG TARGETARCH\nWORKDIR /w\nCOPY f /$TARGETARCH\nENV A=$TARGETARCH\n", "f": "1"}
    )
    engine.good(context, f"--platform=linux/{FOREIGN}")
    assert engine.config()["architecture"] == FOREIGN
    assert engine.read("t", FOREIGN) == b"1"


def test_another_platform_with_run_names_what_is_missing(engine: Engine) -> None:
    handlers = "/proc/sys/fs/binfmt_misc"
    if os.path.isdir(handlers) and any(name.startswith("qemu-") for name in os.listdir(handlers)):
        pytest.skip("this machine has emulators registered")
    foreign_base(engine)
    context = engine.context({"Dockerfile": "FROM foreign\nRUN true\n"})
    outcome = engine.build(context, f"--platform=linux/{FOREIGN}")
    assert outcome.code == 4, outcome.err
    assert f"seems to be made for linux/{FOREIGN}" in outcome.err
    assert "qemu-user-static" in outcome.err
    assert "binfmt" in outcome.err


CROSS = """\
FROM --platform=$BUILDPLATFORM busybox AS tools
RUN echo run >> /log
FROM --platform=$BUILDPLATFORM busybox AS build
ARG TARGETARCH
COPY --from=tools /log /
RUN echo "for $TARGETARCH" > /artefact
FROM scratch
COPY --from=build /artefact /log /
"""


def test_several_platforms_from_the_one_that_builds(engine: Engine) -> None:
    context = engine.context({"Dockerfile": CROSS})
    out = os.path.join(engine.folder, "cross")
    outcome = engine.good(
        context, "--platform=linux/amd64,linux/arm64", "--platform=linux/arm/v7", "--output", out, tag="cross"
    )
    # What does not depend on the target is done once, the rest once for each.
    assert len([line for line in outcome.steps("DONE") if line.startswith("RUN echo run")]) == 1
    assert len([line for line in outcome.steps("CACHED") if line.startswith("RUN echo run")]) == 2
    for name, text in (("linux_amd64", "amd64"), ("linux_arm64", "arm64"), ("linux_arm_v7", "arm")):
        with open(os.path.join(out, name, "artefact"), encoding="ascii") as file:
            assert file.read() == f"for {text}\n"
        with open(os.path.join(out, name, "log"), encoding="ascii") as file:
            assert file.read() == "run\n"
    with open(os.path.join(engine.store, "index.json"), encoding="utf-8") as index:
        names = [item["annotations"].get("io.containerd.image.name") for item in json.load(index)["manifests"]]
    assert "docker.io/library/cross:latest" in names


def test_an_image_for_several_platforms_is_a_base_for_each(engine: Engine) -> None:
    source = engine.context(
        {"Dockerfile": "FROM scratch\nARG TARGETARCH\nENV BASE=$TARGETARCH\nCOPY f /$TARGETARCH\n", "f": ""}
    )
    engine.good(source, "--platform=linux/amd64,linux/arm64", tag="several")
    context = engine.context({"Dockerfile": "FROM several\nLABEL base=$BASE\n"})
    for architecture in ("amd64", "arm64"):
        engine.good(context, f"--platform=linux/{architecture}")
        config = engine.config()
        assert config["architecture"] == architecture
        assert isinstance(config["config"], dict)
        assert config["config"]["Labels"] == {"base": architecture}


def test_the_same_platforms_give_the_same_index(engine: Engine) -> None:
    context = engine.context({"Dockerfile": CROSS})
    first = engine.good(context, "--platform=linux/amd64,linux/arm64", tag="a")
    again = engine.good(context, "--platform=linux/amd64,linux/arm64", "--no-cache", tag="b")
    assert first.image == again.image


def test_several_platforms_with_nothing_to_do(engine: Engine) -> None:
    context = engine.context(
        {"Dockerfile": CROSS + "ARG TARGETARCH\nCOPY f$TARGETARCH /\n", "farm64": "1", "famd64": "2"}
    )
    arguments = ("--platform=linux/amd64,linux/arm64", "--explain")
    first = engine.good(context, *arguments, tag="noop")
    again = engine.good(context, *arguments, tag="noop")
    assert again.image == first.image
    assert "inputs unchanged" in again.err
    engine.write(context, {"farm64": "3"})
    changed = engine.good(context, *arguments, tag="noop")
    assert changed.image != first.image
    assert "farm64 changed" in changed.err


def test_a_target_that_names_its_platform(engine: Engine) -> None:
    context = engine.context({"Dockerfile": "FROM --platform=linux/arm64 scratch\nCOPY f /\n", "f": "1"})
    assert engine.build(context, "--platform=linux/amd64,linux/arm64").code == 0
