"""The repetition of a build that has nothing to do: whatever changed since must be noticed."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from failure_rig import Bench, make_bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine_rig import Outcome

pytestmark = pytest.mark.integration

COPY_ALL = "FROM busybox\nCOPY . /c/\n"
WITNESS = {"PYTHONPROFILEIMPORTTIME": "1"}
"""Makes Python list what it imports: the builder is imported only if there is something to build."""


@pytest.fixture(scope="module", params=["root", "user"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Give a bench."""
    yield from make_bench(request, request.param)


@pytest.fixture(scope="module")
def root_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Give a bench of root, for what does not depend on who builds."""
    yield from make_bench(request, "root")


def was_repeated(outcome: Outcome) -> bool:
    """Tell whether a build was answered from its record."""
    return "castoff.builder" not in outcome.err


class Case:
    """A context that was built, so that the next build may be a repetition."""

    def __init__(self, bench: Bench, files: dict[str, str], *arguments: str, env: dict[str, str] | None = None) -> None:
        self.bench, self.arguments, self.env = bench, arguments, env or {}
        self.context = bench.context({"Dockerfile": COPY_ALL, **files})
        self.first = bench.good(self.context, *arguments, env=self.env)

    def again(self, env: dict[str, str] | None = None) -> Outcome:
        """Build again."""
        return self.bench.good(self.context, *self.arguments, env={**self.env, **WITNESS, **(env or {})})

    def check_repeated(self) -> None:
        """Fail unless the next build is a repetition."""
        outcome = self.again()
        assert was_repeated(outcome)
        assert outcome.image == self.first.image

    def check_noticed(self, env: dict[str, str] | None = None) -> Outcome:
        """Fail if the next build is a repetition; its image must differ."""
        outcome = self.again(env)
        assert not was_repeated(outcome)
        assert outcome.image != self.first.image
        return outcome

    def path(self, name: str) -> str:
        """Return the path of a file of the context."""
        return os.path.join(self.context, name)


def test_nothing_changed(bench: Bench) -> None:
    case = Case(bench, {"f": "1", "d/g": "2"})
    for _ in range(3):
        case.check_repeated()
    shown = case.again().err
    assert f"writing image {case.first.image} done" in shown
    assert "naming to docker.io/library/t" in shown
    assert bench.temporary() == []


def keep_times(path: str, change: Callable[[str], None]) -> None:
    """Change a file and give it its old times again."""
    status = os.stat(path)
    change(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert os.stat(path).st_mtime_ns == status.st_mtime_ns


def overwrite(path: str) -> None:
    """Give a file other content of the same size."""
    size = os.stat(path).st_size
    with open(path, "r+b") as file:
        file.write(b"#" * size)


def replace_file(path: str) -> None:
    """Put another file of the same size in the place of one."""
    with open(path + ".new", "wb") as file:
        file.write(b"#" * os.stat(path).st_size)
    os.utime(path + ".new", ns=(0, os.stat(path).st_mtime_ns))
    os.rename(path + ".new", path)


@pytest.mark.parametrize("change", [overwrite, replace_file])
@pytest.mark.parametrize("name", ["f", "d/deep/g"])
def test_content_of_the_same_size_and_time(bench: Bench, change: Callable[[str], None], name: str) -> None:
    case = Case(bench, {"f": "12345", "d/deep/g": "67890"})
    case.check_repeated()
    keep_times(case.path(name), change)
    bench.give(case.context)
    case.check_noticed()
    assert bench.read("t", f"c/{name}") == b"#####"


def make_link(case: Case, name: str, target: str) -> None:
    """Put a link in the place of a file or link."""
    os.unlink(case.path(name))
    os.symlink(target, case.path(name))


CHANGES: dict[str, Callable[[Case], object]] = {
    "file added": lambda case: case.bench.write(case.context, {"new": "x"}),
    "file added below": lambda case: case.bench.write(case.context, {"d/new": "x"}),
    "folder added": lambda case: os.mkdir(case.path("d/e")),
    "file removed": lambda case: os.unlink(case.path("f")),
    "file renamed": lambda case: os.rename(case.path("f"), case.path("moved")),
    "file became a link": lambda case: make_link(case, "d/g", "../f"),
    "link leads elsewhere": lambda case: make_link(case, "l", "d/g"),
    "mode": lambda case: os.chmod(case.path("f"), 0o755),
    "mode of a folder": lambda case: os.chmod(case.path("d"), 0o700),
    "file grew": lambda case: case.bench.write(case.context, {"f": "longer"}),
    "Dockerfile": lambda case: case.bench.write(case.context, {"Dockerfile": COPY_ALL + "ENV A=1\n"}),
    "ignore file": lambda case: case.bench.write(case.context, {".dockerignore": "f\n"}),
    "the Dockerfile's ignore file": lambda case: case.bench.write(case.context, {"Dockerfile.dockerignore": "f\n"}),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_of_the_context(root_bench: Bench, change: str) -> None:
    files = {"f": "12345", "d/g": "67890"}
    case = Case(root_bench, files)
    os.symlink("f", case.path("l"))
    case.first = root_bench.good(case.context)
    case.check_repeated()
    CHANGES[change](case)
    case.check_noticed()


def test_what_is_ignored_may_change(root_bench: Bench) -> None:
    files = {".dockerignore": "log\n.dockerignore\nDockerfile\n", "log/a": "1", "f": "x"}
    case = Case(root_bench, files)
    case.check_repeated()
    root_bench.write(case.context, {"log/a": "2", "log/b": "3"})
    case.check_repeated()


def test_a_missing_source_that_appears(root_bench: Bench) -> None:
    text = "FROM busybox\nCOPY a* /c/\nCOPY f /f\n"
    case = Case(root_bench, {"Dockerfile": text, "f": "x"})
    case.check_repeated()
    root_bench.write(case.context, {"apple": "x"})
    case.check_noticed()


def test_a_dockerfile_behind_a_link(root_bench: Bench) -> None:
    files = {"one/Dockerfile": COPY_ALL, "two/Dockerfile": COPY_ALL + "ENV A=2\n", "f": "x"}
    case = Case(root_bench, files)
    os.unlink(case.path("Dockerfile"))
    os.symlink("one/Dockerfile", case.path("Dockerfile"))
    case.first = root_bench.good(case.context)
    case.check_repeated()
    keep_times(case.path("one/Dockerfile"), overwrite_with_comment)
    assert not was_repeated(case.again())
    case.first = case.again()
    os.unlink(case.path("Dockerfile"))
    os.symlink("two/Dockerfile", case.path("Dockerfile"))
    case.check_noticed()


def overwrite_with_comment(path: str) -> None:
    """Change a Dockerfile, but not its size."""
    with open(path, "r+b") as file:
        file.write(b"from")


def test_a_context_behind_a_link(root_bench: Bench) -> None:
    one, two = (root_bench.context({"Dockerfile": COPY_ALL, "f": text}) for text in ("1", "2"))
    link = os.path.join(root_bench.folder, "current")
    os.symlink(one, link)
    first = root_bench.good(link)
    assert was_repeated(root_bench.good(link, env=WITNESS))
    os.unlink(link)
    os.symlink(two, link)
    changed = root_bench.good(link, env=WITNESS)
    assert not was_repeated(changed)
    assert changed.image != first.image


def test_a_named_context(root_bench: Bench) -> None:
    other = root_bench.context({"f": "12345"})
    text = "FROM busybox\nCOPY --from=other f /f\n"
    case = Case(root_bench, {"Dockerfile": text}, "--build-context", f"other={other}")
    case.check_repeated()
    keep_times(f"{other}/f", overwrite)
    case.check_noticed()
    assert root_bench.read("t", "f") == b"#####"


def test_another_image_takes_the_name_of_the_base(bench: Bench) -> None:
    bases = [bench.context({"Dockerfile": f"FROM busybox\nENV BASE={number}\n"}) for number in range(2)]
    bench.good(bases[0], tag="based-on")
    bench.good(bases[1], tag="other")
    case = Case(bench, {"Dockerfile": "FROM based-on\nCOPY f /f\n", "f": "x"})
    case.check_repeated()
    assert bench.castoff("tag", "other", "based-on").code == 0
    case.check_noticed()
    config = bench.config()["config"]
    assert isinstance(config, dict)
    assert "BASE=1" in config["Env"]


def test_the_base_is_loaded_anew(root_bench: Bench) -> None:
    newer = root_bench.context({"Dockerfile": "FROM busybox\nENV NEWER=1\n"})
    root_bench.good(root_bench.context({"Dockerfile": "FROM busybox\n"}), tag="loaded")
    case = Case(root_bench, {"Dockerfile": "FROM loaded\nCOPY f /f\n", "f": "x"})
    archive = f"{newer}.tar"
    fresh = root_bench.copy()
    fresh.good(newer, tag="loaded")
    saved = fresh.castoff("save", "-o", archive, "loaded")
    assert saved.code == 0, saved.err
    case.check_repeated()
    loaded = root_bench.castoff("load", "-i", archive)
    assert loaded.code == 0, loaded.err
    case.check_noticed()


def test_the_result_is_removed(bench: Bench) -> None:
    case = Case(bench, {"f": bench.fresh()})
    case.check_repeated()
    removed = bench.castoff("rmi", "t")
    assert removed.code == 0, removed.err
    outcome = case.again()
    assert not was_repeated(outcome)
    assert outcome.image == case.first.image
    assert bench.castoff("inspect", "t").code == 0


def test_blobs_are_removed_by_hand(root_bench: Bench) -> None:
    case = Case(root_bench, {"f": root_bench.fresh()})
    manifest = root_bench._manifest("t")
    digests = [manifest["config"]["digest"], manifest["layers"][-1]["digest"]]  # type: ignore[index]
    for digest in digests:
        case.check_repeated()
        os.unlink(os.path.join(root_bench.store, "blobs", *digest.split(":")))
        outcome = case.again()
        assert not was_repeated(outcome)
        assert outcome.image == case.first.image
        assert os.path.exists(os.path.join(root_bench.store, "blobs", *digest.split(":")))


def test_a_tag_goes_to_another_image(root_bench: Bench) -> None:
    case = Case(root_bench, {"f": root_bench.fresh()})
    assert root_bench.castoff("tag", "busybox", "t").code == 0
    assert case.again().image == case.first.image
    assert root_bench.read("t", "c/f")


def test_the_environment(root_bench: Bench) -> None:
    text = "FROM busybox\nARG NAME\nENV NAME=$NAME\nCOPY f /f\n"
    case = Case(root_bench, {"Dockerfile": text, "f": "x"}, "--build-arg", "NAME", env={"NAME": "one"})
    case.check_repeated()
    assert not was_repeated(case.again({"http_proxy": "http://127.0.0.1:9"}))
    case.check_noticed({"NAME": "two"})
    case.check_noticed({"SOURCE_DATE_EPOCH": "1000000000"})


def test_another_working_directory(root_bench: Bench) -> None:
    one, two = (root_bench.context({"sub/Dockerfile": COPY_ALL, "sub/f": text}) for text in ("1", "2"))
    images = []
    for folder in (one, two, one, two):
        outcome = root_bench.castoff("build", "-q", "-t", "t", "sub", cwd=folder)
        assert outcome.code == 0
        images.append(outcome.out)
    assert images[:2] == images[2:]
    assert images[0] != images[1]


def test_files_are_written_each_time(root_bench: Bench) -> None:
    metadata = os.path.join(root_bench.folder, "metadata.json")
    case = Case(root_bench, {"f": root_bench.fresh()}, "--metadata-file", metadata)
    with open(metadata, "rb") as file:
        expected = file.read()
    os.unlink(metadata)
    case.check_repeated()
    with open(metadata, "rb") as file:
        assert file.read() == expected


def test_without_the_cache_nothing_is_repeated(root_bench: Bench) -> None:
    case = Case(root_bench, {"Dockerfile": "FROM busybox\nRUN echo x > /x\n"}, "--no-cache")
    outcome = case.again()
    assert not was_repeated(outcome)
    assert "RUN echo x > /x" in outcome.steps("DONE")


def test_an_output_is_written_each_time(root_bench: Bench) -> None:
    target = os.path.join(root_bench.folder, "out.tar")
    case = Case(root_bench, {"f": root_bench.fresh()}, "-o", f"type=oci,dest={target}")
    os.unlink(target)
    case.again()
    assert os.path.exists(target)


def test_a_file_that_is_written_all_the_time(bench: Bench) -> None:
    """Whenever it is read, and whatever its times say: in the end the image has what it has."""
    case = Case(bench, {"f": "00000000"})
    program = """
import os, sys, time
number = 0
while True:
    number += 1
    with open(sys.argv[1], "r+b") as file:
        file.write(b"%08d" % number)
    os.utime(sys.argv[1], ns=(0, 0))
"""
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", program, case.path("f")])
        time.sleep(0.1)
        bench.build(case.context)
        writer.kill()
        writer.wait()
        with open(case.path("f"), "rb") as file:
            expected = file.read()
        for _ in range(2):
            case.again()
            assert bench.read("t", "c/f") == expected


def test_changes_just_after_a_build(bench: Bench) -> None:
    case = Case(bench, {"f": "00000000"})
    for number in range(1, 9):
        case.again()
        keep_times(case.path("f"), lambda path: open_and_write(path, b"%08d" % number))  # noqa: B023 (called at once)
        case.again()
        assert bench.read("t", "c/f") == b"%08d" % number


def open_and_write(path: str, data: bytes) -> None:
    """Write data at the start of a file."""
    with open(path, "r+b") as file:
        file.write(data)


def test_a_reader_that_goes_away(root_bench: Bench) -> None:
    case = Case(root_bench, {"f": root_bench.fresh()})
    case.check_repeated()
    command = ["--root", root_bench.store, "build", "--progress=plain", "--iidfile", f"{root_bench.folder}/iid"]
    reader, writer = os.pipe()
    os.close(reader)
    process = root_bench.account.popen(
        [*command, "-t", "t", case.context], cwd=root_bench.folder, env={}, stdout=writer, stderr=writer
    )
    os.close(writer)
    assert process.wait(60) == 0
    quiet = ["--root", root_bench.store, "build", "-q", case.context]
    for _ in range(2):
        reader, writer = os.pipe()
        os.close(reader)
        process = root_bench.account.popen(quiet, cwd=root_bench.folder, env={}, stdout=writer)
        os.close(writer)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        process.stderr.close()
        assert process.wait(60) == 128 + signal.SIGPIPE
        assert said == ""


def test_a_working_directory_that_is_gone(root_bench: Bench) -> None:
    case = Case(root_bench, {"f": root_bench.fresh()})
    gone = os.path.join(root_bench.folder, "gone")
    os.mkdir(gone)
    script = f"rmdir {gone}; exec {shlex.join([*root_bench.account.command, '--root', root_bench.store])} build -q "
    for context, code in ((case.context, 0), (case.context, 0), (".", 1)):
        os.makedirs(gone, exist_ok=True)
        done = subprocess.run(["sh", "-c", script + context], cwd=gone, capture_output=True, check=False)
        assert done.returncode == code
        assert done.stderr.startswith(b"error: " if code else b"")
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(root_bench: Bench, closed: str) -> None:
    """No file of the store may take the number of a standard stream, built or repeated."""
    context = root_bench.context({"Dockerfile": "FROM busybox\nCOPY . /c/\nRUN echo said\n", "f": root_bench.fresh()})
    command = shlex.join([*root_bench.account.command, "--root", root_bench.store, "build", "-q", "-t", "t", context])
    for _ in range(3):
        done = subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, check=False)
        assert done.returncode == 0
        assert done.stderr == b""
    root_bench.check_next()


def test_a_device_that_is_full(root_bench: Bench) -> None:
    context = root_bench.context({"Dockerfile": COPY_ALL, "f": root_bench.fresh()})
    command = [*root_bench.account.command, "--root", root_bench.store, "build", "-q", "-t", "t", context]
    with open("/dev/full", "wb") as full:
        for _ in range(2):
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
            assert done.returncode == 6
            assert b"error: no space left on device\n" in done.stderr
            assert b"Traceback" not in done.stderr
