"""What the benchmarks read from logs and files decides whether a number counts; here it is held to real output."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("needs the whole tree: benchmarks/ is not here", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import inputs, measure  # noqa: E402
from benchmarks.builders import ContainersTool, Steps, buildkit_steps, read_id  # noqa: E402
from benchmarks.report import ratio, seconds  # noqa: E402

BUILDKIT_LOG = """\
#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s

#5 [builder 1/3] FROM docker.io/library/golang:1.22-alpine
#5 CACHED

#6 [builder 2/3] WORKDIR /build
#6 CACHED

#7 [stage-1 2/3] COPY --from=builder /build/x .
#7 DONE 0.1s

#8 exporting to image
#8 DONE 0.0s
"""
BUILDAH_LOG = """\
[1/2] STEP 1/3: FROM golang:1.22-alpine AS builder
[1/2] STEP 2/3: WORKDIR /build
--> Using cache 0123456789ab
[1/2] STEP 3/3: COPY go.mod .
--> fedcba987654
[2/2] STEP 1/2: FROM scratch
[2/2] STEP 2/2: COPY --from=builder /build/x .
[2/2] COMMIT x
"""


def test_base_is_no_step_in_buildkit_output() -> None:
    assert buildkit_steps(BUILDKIT_LOG) == Steps(cached=1, total=2)


def test_base_and_commit_are_no_steps_in_buildah_output(tmp_path: Path) -> None:
    assert ContainersTool(str(tmp_path), "buildah").steps(BUILDAH_LOG) == Steps(cached=1, total=3)


@pytest.mark.parametrize("text", ["", "sha256:12", "sha256:" + "g" * 64, "latest"])
def test_what_is_no_image_id_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "iid"
    file.write_text(text, encoding="ascii")
    with pytest.raises(measure.CommandError, match="no image id"):
        read_id(str(file))


def test_image_id_is_read_with_and_without_algorithm(tmp_path: Path) -> None:
    file = tmp_path / "iid"
    for text in ("sha256:" + "a" * 64 + "\n", "a" * 64):
        file.write_text(text, encoding="ascii")
        assert read_id(str(file)) == "a" * 64


def test_failing_command_is_an_error_with_its_output(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    with pytest.raises(measure.CommandError, match=r"exit code 3\nwhy it failed"):
        measure.timed([["sh", "-c", "echo why it failed; exit 3"]], dict(os.environ), log)


def test_cpu_of_children_and_grandchildren_is_counted(tmp_path: Path) -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    commands = [["sh", "-c", f"{sys.executable} -S -c '{spin}'; true"]]
    sample = measure.timed(commands, dict(os.environ), str(tmp_path / "log"))
    assert sample.cpu >= 0.3


def test_memory_is_that_of_the_named_programs_only(tmp_path: Path) -> None:
    hold = "import time; held = bytearray(60_000_000); time.sleep(0.3)"
    commands = [[sys.executable, "-S", "-c", hold]]
    log = str(tmp_path / "log")
    own = measure.peak_memory(commands, dict(os.environ), log, {os.path.realpath(sys.executable)})
    other = measure.peak_memory(commands, dict(os.environ), log, {"/no/such/program"})
    assert own >= 60_000_000
    assert other == 0


def test_inputs_are_made_once_and_again_after_an_interruption(tmp_path: Path) -> None:
    made: list[str] = []

    def make(path: str) -> None:
        made.append(path)
        (Path(path) / "file").write_text("x", encoding="ascii")
        if len(made) == 1:
            raise KeyboardInterrupt

    path = str(tmp_path / "input")
    with pytest.raises(KeyboardInterrupt):
        inputs.once(path, make)
    assert inputs.once(path, make) == path
    assert inputs.once(path, make) == path
    assert len(made) == 2


def test_numbers_are_written_with_three_digits() -> None:
    assert [seconds(0.0456), seconds(1.234), seconds(17.26)] == ["46 ms", "1.23 s", "17.3 s"]
    assert [ratio(4.56), ratio(15.4)] == ["4.6", "15"]
