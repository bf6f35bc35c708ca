"""Builds that are interrupted or killed: they end soon, leave nothing, and the next one goes on where they were."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from failure_rig import SIGNALS, Bench, find_process, make_bench, one_sentence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_rig import Outcome

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["root", "user"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Give a bench."""
    yield from make_bench(request, request.param)


@pytest.fixture(scope="module")
def root_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Give a bench of root, for what does not depend on who builds."""
    yield from make_bench(request, "root")


def once(bench: Bench, user: str = "root") -> str:
    """Return the context of a build that stops in its last step the first time, and not the second."""
    number = bench.fresh()
    text = f"""\
RUN echo {number} > /first
USER {user}
RUN --mount=type=cache,target=/c,id={number},mode=0777 \\
    if [ -e /c/again ]; then echo done; else touch /c/again; echo reached; sleep 1000 & sleep 1000; fi
"""
    return bench.context({"Dockerfile": bench.step(text)})


def check_interrupted(bench: Bench, outcome: Outcome, code: int) -> None:
    """Fail unless castoff ended with a code and without a word of error, and left nothing."""
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    assert "rror:" not in outcome.err
    bench.check_clean()


def check_resumed(bench: Bench, context: str) -> None:
    """Build again: what had been done is cached, and the rest is done."""
    again = bench.good(context)
    assert any(step.startswith("RUN echo") for step in again.steps("CACHED"))
    assert any(step.startswith("RUN --mount") for step in again.steps("DONE"))
    bench.check_clean()


@pytest.mark.parametrize("number", list(SIGNALS), ids=lambda number: number.name)
@pytest.mark.parametrize("group", [True, False], ids=["group", "alone"])
def test_a_signal_in_the_middle_of_a_step(bench: Bench, number: signal.Signals, group: bool) -> None:
    context = once(bench)
    running = bench.start_build(context)
    running.wait_for(" reached\n")
    running.signal(number, group=group)
    outcome = running.end()
    check_interrupted(bench, outcome, SIGNALS[number])
    assert "CANCELED" in outcome.err
    check_resumed(bench, context)


@pytest.mark.parametrize("times", [2, 3])
def test_an_impatient_interrupt(root_bench: Bench, times: int) -> None:
    """The third one ends castoff on the spot, if it is still there."""
    context = once(root_bench)
    running = root_bench.start_build(context)
    running.wait_for(" reached\n")
    for _ in range(times):
        running.signal(signal.SIGINT)
    outcome = running.end()
    assert outcome.code == 130 or (times == 3 and outcome.code == -signal.SIGINT)
    assert "Traceback" not in outcome.err
    assert root_bench.left() == []
    check_resumed(root_bench, context)


def test_an_interrupt_while_the_context_is_read(bench: Bench) -> None:
    context = bench.context({"Dockerfile": "FROM scratch\nCOPY big /\n", "big": ""})
    os.truncate(f"{context}/big", 1 << 40)  # a terabyte of nothing takes longer than any test waits
    running = bench.start_build(context)
    running.wait_for("load build context")
    running.signal(signal.SIGINT)
    check_interrupted(bench, running.end(), 130)
    bench.check_next()


def test_an_interrupt_while_a_layer_is_compressed(bench: Bench) -> None:
    context = bench.context({"Dockerfile": "FROM scratch\nCOPY big /\n", "big": os.urandom(1 << 20) * 200})
    running = bench.start_build(context, "-o", f"type=oci,compression=gzip,compression-level=9,dest={context}.tar")
    running.wait_for("exporting to image")
    running.signal(signal.SIGTERM)
    check_interrupted(bench, running.end(), 143)
    assert not os.path.exists(f"{context}.tar")
    assert [name for name in os.listdir(bench.folder) if name.startswith(".")] == []
    bench.check_next()
    os.unlink(f"{context}/big")


def test_an_interrupt_while_nobody_reads_the_export(root_bench: Bench) -> None:
    context = root_bench.context({"Dockerfile": "FROM scratch\nCOPY big /\n", "big": os.urandom(1 << 22)})
    running = root_bench.start_build(context, "-o", "type=tar,dest=-")
    running.wait_for("exporting to image")
    running.signal(signal.SIGINT)
    check_interrupted(root_bench, running.end(), 130)
    root_bench.check_next()


@pytest.mark.parametrize("redirected", ["stderr", "stdout"])
def test_a_reader_that_goes_away(root_bench: Bench, redirected: str) -> None:
    """A progress that nobody sees any more ends no build; an image that nobody takes does."""
    reader, writer = os.pipe()
    if redirected == "stderr":
        text = root_bench.step(f"RUN echo {root_bench.fresh()}; sleep 0.5; yes x | head -100000; touch /made\n")
        context = root_bench.context({"Dockerfile": text})
        running = root_bench.start_build(context, stdout=writer, stderr=writer)
    else:
        context = root_bench.context({"Dockerfile": "FROM scratch\nCOPY big /\n", "big": os.urandom(1 << 22)})
        running = root_bench.start_build(context, "-o", "type=tar", stdout=writer)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    outcome = running.end()
    assert "Traceback" not in outcome.err
    assert "inside castoff" not in outcome.err
    if redirected == "stderr":
        assert outcome.code == 0
        assert "made" in root_bench.entries(root_bench.layers()[-1])
    else:
        assert outcome.code in (6, 141)
    root_bench.check_clean()
    root_bench.check_next()


@pytest.mark.parametrize("user", ["root", "app"])
def test_castoff_is_killed_in_the_middle_of_a_step(bench: Bench, user: str) -> None:
    context = once(bench, user)
    running = bench.start_build(context)
    running.wait_for(" reached\n")
    running.signal(signal.SIGKILL)
    assert running.end().code == -signal.SIGKILL
    assert bench.left() == []
    check_resumed(bench, context)


@pytest.mark.parametrize("user", ["root", "app"])
def test_the_fork_server_is_killed_in_the_middle_of_a_step(bench: Bench, user: str) -> None:
    context = once(bench, user)
    running = bench.start_build(context)
    running.wait_for(" reached\n")
    os.kill(find_process(bench.mark, lambda command: "zygote.py" in command), signal.SIGKILL)
    outcome = running.end()
    assert outcome.code == 4
    assert "fork server ended unexpectedly" in one_sentence(outcome.err)
    bench.check_clean()
    check_resumed(bench, context)


def test_castoff_is_killed_while_it_exports(bench: Bench) -> None:
    context = bench.context({"Dockerfile": "FROM scratch\nCOPY big /\n", "big": os.urandom(1 << 20) * 100})
    for compression in ("gzip", "uncompressed"):
        target = f"{context}-{compression}.tar"
        running = bench.start_build(context, "-o", f"type=oci,compression={compression},dest={target}")
        running.wait_for("exporting to image")
        running.signal(signal.SIGKILL)
        assert running.end().code == -signal.SIGKILL
        assert bench.left() == []
        assert not os.path.exists(target)
    bench.good(context, "-o", f"type=oci,dest={context}.tar")
    bench.check_next()
    os.unlink(f"{context}/big")


def test_everything_is_killed_at_once(bench: Bench) -> None:
    context = once(bench)
    running = bench.start_build(context)
    running.wait_for(" reached\n")
    zygote = find_process(bench.mark, lambda command: "zygote.py" in command)
    running.signal(signal.SIGKILL)
    os.kill(zygote, signal.SIGKILL)
    running.end()
    assert bench.left() == []
    check_resumed(bench, context)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_an_end_at_any_moment(bench: Bench, number: signal.Signals) -> None:
    """However far a build came, the next one makes the image that an undisturbed one makes."""
    word = bench.fresh()
    text = f"""\
FROM busybox AS one
COPY f /f
RUN cat /f > /one; echo {word} >> /one
FROM busybox
RUN echo {word} > /two
COPY --from=one /one /one
WORKDIR /w
RUN cat /one /two > /three
"""
    context = bench.context({"Dockerfile": text, "f": os.urandom(1 << 20)})
    began = time.monotonic()
    expected = bench.good(context, "--no-cache").image
    whole = time.monotonic() - began
    moments = 12
    for moment in range(moments):
        running = bench.start_build(context, "--no-cache", tag="ended")
        time.sleep(whole * moment / moments)
        running.signal(number)
        outcome = running.end()
        assert outcome.code in (0, -number, 128 + number), outcome.err
        assert "Traceback" not in outcome.err
        assert bench.left() == []
    again = bench.good(context, tag="ended")
    assert again.image == expected
    assert bench.good(context, "--no-cache", tag="ended").image == expected
    for layer in bench.layers("ended"):
        assert layer.getmembers()
    bench.check_clean()
