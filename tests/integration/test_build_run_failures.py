"""RUN steps that fail, or misbehave: what is said of them, what stays cached, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from failure_rig import Bench, find_process, make_bench, one_sentence, peak_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

MEMORY = 150_000_000
"""Bytes of memory that castoff may use, whatever is built."""


@pytest.fixture(scope="module", params=["root", "user"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Give a bench."""
    yield from make_bench(request, request.param)


@pytest.fixture(scope="module")
def root_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Give a bench of root, for what does not depend on who builds."""
    yield from make_bench(request, "root")


def test_a_step_that_fails(bench: Bench) -> None:
    text = bench.step("RUN echo first > /first\nRUN for n in 1 2 3; do echo line $n; done; echo bad >&2; exit 7\n")
    said = bench.fails(text, code=1)
    assert one_sentence(said).startswith("failed to solve: process ")
    assert one_sentence(said).endswith("did not complete successfully: exit code: 7")
    assert " 4 | >>> RUN for n in 1 2 3" in said
    report = said.partition("------\n > [3/3] RUN for")[2]
    for line in ("line 1", "line 3", "bad"):
        assert f" {line}\n" in report
    again = bench.build(bench.context({"Dockerfile": text}))
    assert again.code == 1
    assert "RUN echo first > /first" in again.steps("CACHED")
    mended = bench.good(bench.context({"Dockerfile": text.replace("exit 7", "exit 0")}))
    assert "RUN echo first > /first" in mended.steps("CACHED")
    bench.check_clean()


@pytest.mark.parametrize(
    ("command", "code", "hint"),
    [
        ("nosuchcommand", 127, "not found"),
        ('["/nosuch/program"]', 127, "not found"),
        ('["/etc/passwd"]', 126, "can't be executed"),
        ("sh -c 'kill -9 $$'; exit $?", 137, "killed"),
        ("sh -c 'kill -TERM $$'; exit $?", 143, ""),
    ],
)
def test_the_code_of_a_step(root_bench: Bench, command: str, code: int, hint: str) -> None:
    said = root_bench.fails(root_bench.step(f"RUN {command}\n"), code=1)
    assert one_sentence(said).endswith(f"exit code: {code}")
    if hint:
        assert hint in said.partition("hint: ")[2]


def test_a_base_without_a_shell(root_bench: Bench) -> None:
    said = root_bench.fails("FROM scratch\nRUN echo\n", code=1)
    assert '"/bin/sh": no such file or directory' in said
    assert one_sentence(said).endswith("exit code: 127")


def test_a_working_directory_that_is_gone(root_bench: Bench) -> None:
    said = root_bench.fails(root_bench.step("WORKDIR /w\nRUN rmdir /w\nRUN true\n"), code=1)
    assert 'working directory "/w": no such file or directory' in said


def test_a_step_that_is_killed_from_outside(bench: Bench) -> None:
    running = bench.start_build(bench.context({"Dockerfile": bench.step("RUN echo reached; exec sleep 1000\n")}))
    running.wait_for(" reached\n")
    os.kill(find_process(bench.mark, lambda command: "sleep" in command), signal.SIGKILL)
    outcome = running.end()
    assert outcome.code == 1
    assert one_sentence(outcome.err).endswith("exit code: 137")
    bench.check_clean()


def test_a_step_that_leaves_a_daemon(bench: Bench) -> None:
    text = bench.step("RUN sleep 1000 & echo one\nRUN (setsid sleep 1000 </dev/null >/dev/null 2>&1 &); touch /two\n")
    bench.good(bench.context({"Dockerfile": text}))
    bench.check_clean()
    assert "two" in bench.entries(bench.layers()[-1])


def test_a_step_that_closes_its_output(bench: Bench) -> None:
    bench.good(bench.context({"Dockerfile": bench.step("RUN exec >&- 2>&- <&-; sleep 0.3; : > /made\n")}))
    assert "made" in bench.entries(bench.layers()[-1])
    failed = bench.fails(bench.step("RUN exec >&- 2>&-; sleep 0.1; exit 9\n"), code=1)
    assert one_sentence(failed).endswith("exit code: 9")


def test_output_that_is_no_text(root_bench: Bench) -> None:
    script = "printf 'a\\000\\377\\303\\050b\\r\\n'; head -c 20000 /bin/busybox; echo; echo end; exit 5"
    said = root_bench.fails(root_bench.step(f"RUN {script}\n"), code=1)
    assert "(b" in said
    assert " end\n" in said.partition("------\n >")[2]


def test_lines_without_an_end(root_bench: Bench) -> None:
    script = "yes | tr -d '\\n' | head -c 3000000; printf '\\nlast words'; exit 5"
    said = root_bench.fails(root_bench.step(f"RUN {script}\n"), code=1)
    assert said.partition("------\n >")[0].count("y") > 2_900_000
    assert " last words\n" in said.partition("------\n >")[2]
    # The report shows the last lines, and a long one is broken into pieces.
    assert len(said.partition("------\n >")[2]) < 1_000_000


@pytest.mark.parametrize("progress", ["plain", "tty", "rawjson", "quiet"])
def test_a_step_that_prints_without_end(root_bench: Bench, progress: str) -> None:
    size = 50_000_000
    context = root_bench.context({"Dockerfile": root_bench.step(f"RUN yes 0123456789 | head -c {size}\n")})
    with open(os.devnull, "wb") as null:
        running = root_bench.start(
            "build", "--no-cache", f"--progress={progress}", context, stdout=null.fileno(), stderr=null.fileno()
        )
        assert peak_memory(running.process) < MEMORY
    assert running.process.returncode == 0
    root_bench.check_clean()


def test_the_steps_of_other_stages_end_with_the_one_that_fails(bench: Bench) -> None:
    text = f"""\
{bench.step("RUN echo reached; exec sleep 1000")}
FROM busybox AS failing
RUN sleep 0.5; exit 4
FROM scratch
COPY --from=0 /bin/sh /a
COPY --from=failing /bin/sh /b
"""
    said = bench.fails(text, code=1)
    assert one_sentence(said).endswith("exit code: 4")
    assert "CANCELED" in said


def test_a_cache_mount_survives_a_failure(bench: Bench) -> None:
    mount = f"RUN --mount=type=cache,target=/c,id={bench.mark}"
    text = bench.step(f"{mount} echo kept > /c/f\n{mount} exit 3\n")
    bench.fails(text, code=1)
    bench.good(bench.context({"Dockerfile": text.replace("exit 3", "cat /c/f > /seen")}))
    assert bench.read("t", "seen") == b"kept\n"


@pytest.mark.parametrize("command", ['["/proc/self/exe", "-c", "1"]', '["/script"]', '["/link"]'])
def test_no_step_runs_the_hosts_interpreter(bench: Bench, command: str) -> None:
    text = bench.step(
        f"RUN printf '#!/proc/self/exe\\n' > /script && chmod 755 /script && ln -s /proc/1/exe /link\nRUN {command}\n"
    )
    said = bench.fails(text, code=1)
    assert "is a program of the host, not of the image" in said
    assert one_sentence(said).endswith("exit code: 126")
