"""castoff prune on stores that builds have filled: what it frees, and that builds beside and after it are right."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from failure_rig import Bench, make_bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_rig import Outcome

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["root", "user"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Give a bench."""
    yield from make_bench(request, request.param)


def pruned(bench: Bench, *arguments: str) -> dict[str, Any]:
    """Prune, and return the report."""
    outcome = bench.castoff("prune", "--force", "--format", "json", *arguments)
    assert outcome.code == 0, outcome.err
    assert "warning" not in outcome.err
    return dict(json.loads(outcome.out))


def project(bench: Bench) -> str:
    """Return a context whose build fills the cache: two stages, files of other owners, a cache mount."""
    return bench.context(
        {
            "Dockerfile": f"""\
FROM busybox AS builder
ENV CASTOFF_TEST_STEP={bench.mark} N={bench.fresh()}
WORKDIR /src
COPY f .
RUN --mount=type=cache,target=/cache date +%s%N >> /cache/log && cat f > made && chown 1234:1235 made
FROM busybox
COPY --from=builder /src/made /made
RUN cat /made > /copy && mkdir -m 0500 /closed && touch /closed/file
USER app
""",
            "f": "content\n",
        }
    )


def ran(outcome: Outcome) -> list[str]:
    """Return the RUN steps of a build that were not cached."""
    return [step for step in outcome.steps("DONE") if step.startswith("RUN")]


def snapshots(bench: Bench) -> list[str]:
    """Return the names of the store's snapshots."""
    return os.listdir(os.path.join(bench.store, "snapshots"))


def test_a_build_after_pruning_is_the_build_before(bench: Bench) -> None:
    context = project(bench)
    first = bench.good(context, tag="app")
    assert len(ran(first)) == 2
    assert not ran(bench.good(context, tag="app"))
    report = pruned(bench)
    assert report["Freed"] > 0
    assert report["Refused"] == []
    assert {"snapshot", "cache-mount", "record"} <= {item["Kind"] for item in report["Removed"]}
    assert os.listdir(os.path.join(bench.store, "cache-mounts")) == []
    again = bench.good(context, tag="app")
    assert len(ran(again)) == 2
    assert again.image == first.image
    assert bench.read("app", "copy") == b"content\n"
    assert not ran(bench.good(context, tag="app"))
    bench.check_clean()


def test_named_images_still_run_and_can_be_built_on(bench: Bench) -> None:
    context = project(bench)
    bench.good(context, tag="app")
    pruned(bench, "--all")
    assert snapshots(bench) == []
    assert bench.castoff("run", "--rm", "app", "cat", "/copy").out == "content\n"
    above = bench.context({"Dockerfile": "FROM app\nUSER root\nRUN cat /copy /closed/file > /twice\n"})
    bench.good(above, tag="above")
    assert bench.read("above", "twice") == b"content\n"
    bench.check_clean()


def test_images_without_a_name_go_with_their_blobs(bench: Bench) -> None:
    context = bench.context({"Dockerfile": "FROM scratch\nCOPY f /\n", "f": bench.fresh()})
    bench.good(context, tag="same")
    old = bench.castoff("images", "--no-trunc", "-q", "same").out.strip()
    with open(os.path.join(context, "f"), "w", encoding="ascii") as file:
        file.write(bench.fresh())
    bench.good(context, tag="same")
    assert bench.castoff("inspect", old).code == 0
    report = pruned(bench)
    assert [item["Kind"] for item in report["Removed"]].count("image") == 1
    assert bench.castoff("inspect", old).code == 6
    assert bench.castoff("inspect", "same").code == 0
    assert pruned(bench)["Removed"] == []


def test_pruning_beside_a_build_waits_for_another_time(bench: Bench) -> None:
    text = (
        f"FROM busybox\nENV CASTOFF_TEST_STEP={bench.mark}\nRUN echo reached {bench.fresh()}; sleep 1.5; echo 1 > /f\n"
    )
    building = bench.start_build(bench.context({"Dockerfile": text + "RUN cat /f > /g\n"}), tag="beside")
    building.wait_for(" reached ")
    before = sorted(snapshots(bench))
    report = pruned(bench, "--all")
    assert report["Deferred"]
    assert report["Removed"] == []
    assert sorted(snapshots(bench)) == before
    outcome = building.end()
    assert outcome.code == 0, outcome.err
    assert bench.read("beside", "g") == b"1\n"
    assert not pruned(bench, "--all")["Deferred"]
    bench.check_clean()


def test_builds_and_prunings_in_turn(bench: Bench) -> None:
    """Whatever is pruned between two builds is made again, and no build meets half of it."""
    contexts = [project(bench) for _ in range(2)]
    for _turn in range(3):
        builds = [bench.start_build(context, tag=f"turn{number}") for number, context in enumerate(contexts)]
        pruning = [bench.start("prune", "--force", *options) for options in ((), ("--all",), ("--keep-storage", "50k"))]
        for build in builds:
            outcome = build.end()
            assert outcome.code == 0, outcome.err
        for prune in pruning:
            outcome = prune.end()
            assert outcome.code == 0, outcome.err
            assert "Traceback" not in outcome.err
    for number in range(2):
        bench.good(contexts[number], tag=f"turn{number}")
        assert bench.read(f"turn{number}", "copy") == b"content\n"
    bench.check_clean()


def builder(bench: Bench) -> str:
    """Return a context with a builder stage of 300 kB that no layer ships."""
    run = f"RUN head -c 300000 /dev/urandom > /f && : {bench.fresh()}"
    return bench.context(
        {"Dockerfile": f"FROM busybox AS builder\n{run}\nFROM scratch\nCOPY --from=builder /etc/group /\n"}
    )


def test_what_was_used_last_stays_cached(bench: Bench) -> None:
    pruned(bench, "--all")
    contexts = [builder(bench) for _ in range(2)]
    for number, context in enumerate(contexts):
        bench.good(context, tag=f"used{number}")
    # Each was used after the other once; the first one is used again, by a build that is not the recorded one.
    assert ran(bench.good(contexts[0], "--label", "again=1", tag="used0")) == []
    report = pruned(bench, "--keep-storage", "450k")
    assert 0 < report["Kept"] <= 450 * 1024
    assert ran(bench.good(contexts[0], tag="used0")) == []
    assert len(ran(bench.good(contexts[1], tag="used1"))) == 1


def test_what_an_image_ships_stays_cached(bench: Bench) -> None:
    context = bench.context({"Dockerfile": f"FROM busybox\nRUN echo {bench.fresh()} > /f\n"})
    bench.good(context, tag="shipped")
    pruned(bench, "--keep-storage", "1")
    assert ran(bench.good(context, "--label", "a=1", tag="shipped")) == []
    assert bench.castoff("run", "--rm", "shipped", "cat", "/f").code == 0


def test_the_automatic_limit_is_off_unless_it_is_asked_for(bench: Bench) -> None:
    context = builder(bench)
    bench.good(context, tag="limited")
    assert ran(bench.good(context, "--label", "a=1", tag="limited")) == []
    bench.good(context, "--label", "a=2", tag="limited", env={"CASTOFF_KEEP_STORAGE": "1k"})
    assert len(ran(bench.good(context, "--label", "a=3", tag="limited"))) == 1
    wrong = bench.build(context, "--label", "a=4", env={"CASTOFF_KEEP_STORAGE": "lots"})
    assert wrong.code == 2
    assert "CASTOFF_KEEP_STORAGE" in wrong.err
    bench.check_clean()
