"""``castoff build --explain`` and ``castoff context ls``, with real builds."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from engine_rig import BUSYBOX, Engine, root_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.integration

DOCKERFILE = """\
FROM busybox AS builder
ARG VERSION=1
ENV MODE=fast
WORKDIR /build
COPY src src
RUN --mount=type=bind,source=conf,target=/conf cat /conf > conf.out
RUN cat src/* > artefact; echo $VERSION > version

FROM scratch
COPY --from=builder /build/artefact /
"""
FILES = {"Dockerfile": DOCKERFILE, "src/main.go": "one", "src/x.go": "x", "conf": "c"}
COPY_SRC, RUN_CONF, RUN_CAT, COPY_FROM = "COPY src src", "RUN --mount", "RUN cat src", "COPY --from"


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest, castoff_command: list[str]) -> Iterator[Engine]:
    """Give an engine that has the image ``busybox``."""
    require = request.getfixturevalue("require")
    require.root()
    require.file(BUSYBOX, "busybox-static")
    for made in root_engine(castoff_command):
        made.make_base()
        yield made


class Project:
    """A context that is built with --explain again and again."""

    def __init__(self, engine: Engine, files: Mapping[str, str] = FILES) -> None:
        self.engine = engine
        self.folder = engine.context(files)

    def change(self, name: str, text: str) -> None:
        """Write a file."""
        self.engine.write(self.folder, {name: text})

    def edit(self, old: str, new: str) -> None:
        """Replace a text in the Dockerfile."""
        with open(os.path.join(self.folder, "Dockerfile"), encoding="utf-8") as file:
            text = file.read()
        assert old in text
        self.change("Dockerfile", text.replace(old, new))

    def lines(self, *arguments: str, code: int = 0) -> list[str]:
        """Build, and return the lines of the explanation."""
        outcome = self.engine.build(self.folder, "--explain", *arguments)
        assert outcome.code == code, outcome.err
        return [line for line in outcome.err.splitlines() if " ran: " in line or line.startswith("nothing ran")]

    def reasons(self, *arguments: str, code: int = 0) -> dict[str, str]:
        """Build, and return why each step ran, by the instruction."""
        lines = [line.partition(" ran: ") for line in self.lines(*arguments, code=code) if " ran: " in line]
        return {name.partition("] ")[2]: text for name, _ran, text in lines}

    def reason(self, start: str, *arguments: str) -> str:
        """Build, and return why the step ran whose instruction starts so."""
        reasons = self.reasons(*arguments)
        (found,) = (text for name, text in reasons.items() if name.startswith(start))
        return found

    def document(self, *arguments: str) -> list[dict[str, Any]]:
        """Build, and return the steps of the JSON form."""
        done = self.engine.castoff("build", "--explain=json", "--progress=plain", *arguments, self.folder)
        assert done.code == 0, done.err
        return list(json.loads(done.out)["steps"])


@pytest.fixture
def project(engine: Engine) -> Project:
    """Give a project that was built once."""
    made = Project(engine)
    engine.good(made.folder)
    return made


def test_the_first_build(engine: Engine) -> None:
    made = Project(engine, {"Dockerfile": "FROM busybox\nRUN echo first >/f\nCMD x\n"})
    assert made.lines() == ["[2/2] RUN echo first >/f ran: first build"]


def test_a_file_that_changed_and_what_follows(project: Project) -> None:
    project.change("src/main.go", "two")
    lines = project.lines()
    assert lines == [
        "[builder 3/5] COPY src src ran: src/main.go changed (sha256 7692… → 3fc4…)",
        "[builder 4/5] RUN --mount=type=bind,source=conf,target=/conf cat /conf > conf.out ran: the step before it ran",
        "[builder 5/5] RUN cat src/* > artefact; echo 1 > version ran: the step before it ran",
        "[stage-1 1/1] COPY --from=builder /build/artefact / ran: build/artefact changed (sha256 aa40… → 753b…)",
    ]


def test_files_that_are_new_gone_or_of_another_mode(project: Project) -> None:
    project.change("src/new.go", "")
    os.unlink(os.path.join(project.folder, "src/x.go"))
    os.chmod(os.path.join(project.folder, "src/main.go"), 0o700)
    reason = project.reason(COPY_SRC)
    assert reason == "src/main.go changed (mode 0644 → mode 0700); src/new.go is new; src/x.go is gone"


def test_a_stage_that_gives_the_same_files(project: Project) -> None:
    project.change("conf", "another")
    reasons = project.reasons()
    assert len(reasons) == 2
    assert COPY_FROM not in " ".join(reasons)


def test_the_content_of_a_mount(project: Project) -> None:
    project.change("conf", "other than before")
    assert project.reason(RUN_CONF) == "conf changed (sha256 2e7d… → 2022…) (mounted at /conf)"


def test_an_argument(project: Project) -> None:
    assert project.reason(RUN_CAT, "--build-arg", "VERSION=2") == (
        'ARG VERSION changed: "1" → "2"; the step before it ran'
    )


def test_a_variable(project: Project) -> None:
    project.edit("MODE=fast", "MODE=slow")
    assert project.reason(RUN_CONF) == 'the environment variable MODE changed: "fast" → "slow"'


def test_the_value_of_a_secret_argument_is_in_no_message_and_no_note(engine: Engine) -> None:
    made = Project(engine, {"Dockerfile": "FROM busybox\nARG API_TOKEN\nRUN true\n"})
    engine.good(made.folder, "--build-arg", "API_TOKEN=hunter2")
    assert made.reasons("--build-arg", "API_TOKEN=hunter3") == {"RUN true": "ARG API_TOKEN changed"}
    folder = os.path.join(engine.store, "cache/explain/builds")
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            assert b"hunter" not in file.read()


def test_a_command(project: Project) -> None:
    project.edit("cat /conf > conf.out", "cat /conf > conf.txt")
    assert project.reason(RUN_CONF) == 'the command changed: "cat /conf > conf.out" → "cat /conf > conf.txt"'


def test_an_instruction_that_was_put_in_and_taken_out(project: Project) -> None:
    project.edit("WORKDIR /build\n", "WORKDIR /build\nRUN true\n")
    reasons = project.reasons()
    assert reasons["RUN true"] == "the instruction is new"
    assert reasons[COPY_SRC] == "the step before it ran"
    assert len(reasons) == 4
    project.edit("RUN true\n", "")
    assert project.lines() == ["nothing ran: all 5 steps cached"]


def test_another_base(engine: Engine) -> None:
    engine.good(engine.context({"Dockerfile": "FROM busybox\nENV A=1\nRUN echo a > /base\n"}), tag="base1")
    made = Project(engine, {"Dockerfile": "FROM base1 AS one\nENV X=1\nFROM one\nRUN true\n"})
    engine.good(made.folder)
    engine.good(engine.context({"Dockerfile": "FROM busybox\nENV A=1\nRUN echo b > /base\n"}), tag="base1")
    assert made.reasons() == {"RUN true": "base base1 is another image"}
    made.edit("FROM base1", "FROM busybox")
    assert made.reason("RUN true").endswith("the base is busybox and was base1")


def test_no_cache(project: Project) -> None:
    assert set(project.reasons("--no-cache").values()) == {"--no-cache"}
    reasons = project.reasons("--no-cache-filter", "builder")
    assert set(reasons.values()) == {"--no-cache-filter builder"}
    assert len(reasons) == 4


def test_a_snapshot_that_is_gone(project: Project) -> None:
    snapshots = os.path.join(project.engine.store, "snapshots")
    for name in os.listdir(snapshots):
        shutil.rmtree(os.path.join(snapshots, name))
    reasons = project.reasons("--label", "a=b")
    assert "its snapshot is gone" in reasons.values()


def test_cache_records_that_are_gone(project: Project) -> None:
    shutil.rmtree(os.path.join(project.engine.store, "cache/records"))
    assert set(project.reasons("--label", "a=b").values()) == {"its cache record is gone"}


def test_a_step_that_failed(engine: Engine) -> None:
    made = Project(engine, {"Dockerfile": "FROM busybox\nCOPY f /\nRUN test -e /g\nRUN true\n", "f": "1"})
    assert made.reasons(code=1) == {"COPY f /": "first build", "RUN test -e /g": "first build"}
    assert made.reasons(code=1) == {"RUN test -e /g": "it did not succeed in the last build"}
    made.edit("test -e /g", "test -e /f")
    assert made.reasons() == {
        "RUN test -e /f": 'the command changed: "test -e /g" → "test -e /f"',
        "RUN true": "the last build did not get to it",
    }


def test_nothing_ran(project: Project) -> None:
    assert project.lines() == ["nothing ran: all 5 steps cached"]
    assert project.lines() == ["nothing ran: all 8 inputs unchanged"]  # by the fast path
    assert [step["outcome"] for step in project.document()] == ["cached"] * 5
    again = project.document()
    assert [step["ran"] for step in again] == [False] * 5


def test_the_json_form(project: Project) -> None:
    project.change("src/main.go", "two")
    steps = project.document()
    assert [step["ran"] for step in steps] == [False, True, True, True, True]
    assert steps[1] == {
        "name": "[builder 3/5] COPY src src",
        "ran": True,
        "outcome": "missing",
        "reasons": [
            {
                "kind": "file",
                "subject": "src/main.go",
                "before": "sha256 7692c3ad3540",
                "after": "sha256 3fc4ccfe7458",
                "text": "src/main.go changed (sha256 7692… → 3fc4…)",
            }
        ],
    }


def test_the_json_form_shares_standard_output_with_nothing(project: Project) -> None:
    for argument in ("-q", "--output=type=tar,dest=-"):
        done = project.engine.castoff("build", "--explain=json", argument, project.folder)
        assert done.code == 2, argument
        assert "standard output" in done.err


def test_a_dockerfile_from_standard_input_has_notes_of_its_own(project: Project) -> None:
    # The rig's standard input is empty: what counts here is that the notes of the file are left alone.
    assert project.engine.castoff("build", "--explain", "-f", "-", project.folder).code != 0
    assert project.lines() == ["nothing ran: all 5 steps cached"]


def test_notes_that_are_damaged_cost_only_the_explanation(project: Project) -> None:
    folder = os.path.join(project.engine.store, "cache/explain")
    for root, _folders, names in os.walk(folder):
        for name in names:
            with open(os.path.join(root, name), "wb") as file:
                file.write(b"\0{")
    project.change("src/main.go", "this after the damage")
    assert project.reason(COPY_SRC) == "first build"
    shutil.rmtree(folder)
    project.change("src/main.go", "that after the damage")
    assert project.reason(COPY_SRC) == "first build"


def test_what_a_build_learns_is_not_written_again_where_nothing_changed(project: Project) -> None:
    folder = os.path.join(project.engine.store, "cache/explain/builds")
    before = {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in os.listdir(folder)}
    time.sleep(0.02)
    project.engine.good(project.folder, "--label", "other=command")
    assert {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in os.listdir(folder)} == before


def test_context_ls(engine: Engine) -> None:
    context = engine.context({".dockerignore": "*.log\n", "a.log": "12345", "main.go": "12"})
    table = engine.castoff("context", "ls", context)
    assert table.out == (
        "SIZE      PATH\n6B        .dockerignore\n2B        main.go\n\n"
        "2 files, 8B in the context; 1 left out (5B): see --excluded\n"
    )
    excluded = engine.castoff("context", "ls", "--excluded", context)
    assert excluded.out.splitlines()[1].split() == ["5B", ".dockerignore:1", "*.log", "a.log"]
    document = json.loads(engine.castoff("context", "ls", "--format=json", cwd=context).out)
    assert document["context"] == os.path.realpath(context)
    assert [item["path"] for item in document["entries"]] == [".dockerignore", "main.go"]
    assert document["excluded"] == [
        {"path": "a.log", "type": "file", "size": 5, "rule": {"line": 1, "pattern": "*.log"}}
    ]


def test_context_ls_is_what_copy_takes(engine: Engine) -> None:
    context = engine.context(
        {
            "Dockerfile": "FROM scratch\nCOPY . /\n",
            "Dockerfile.dockerignore": "d\n!d/keep\n**/*.tmp\n",
            "d/keep": "",
            "d/no": "",
            "e/f.tmp": "",
            "e/g": "",
        }
    )
    engine.good(context)
    taken = {name for layer in engine.layers() for name in engine.entries(layer)}
    document = json.loads(engine.castoff("context", "ls", "--format=json", context).out)
    assert {item["path"] for item in document["entries"]} == taken


@pytest.mark.parametrize(("arguments", "code"), [(("--format=xml",), 2), (("nowhere",), 1)])
def test_context_ls_of_what_is_not_there(engine: Engine, arguments: tuple[str, ...], code: int) -> None:
    done = engine.castoff("context", "ls", *arguments)
    assert done.code == code
    assert done.err.startswith("error: ")


def test_several_sources_of_one_add(engine: Engine) -> None:
    made = Project(engine, {"Dockerfile": "FROM scratch\nADD one two /d/\n", "one": "1a", "two": "2a"})
    engine.good(made.folder)
    made.change("two", "2b")
    reason = made.reason("ADD one two")
    assert reason.startswith("two changed (sha256 ")
    assert "one" not in reason
