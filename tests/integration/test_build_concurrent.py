"""Several builds at once on one store, and builds beside other work on it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from failure_rig import Bench, make_bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_rig import Outcome
    from failure_rig import Running

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["root", "user"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Give a bench."""
    yield from make_bench(request, request.param)


def all_good(builds: list[Running]) -> list[Outcome]:
    """Wait for builds that must all succeed."""
    outcomes = [build.end() for build in builds]
    for outcome in outcomes:
        assert outcome.code == 0, outcome.err
        assert "rror" not in outcome.err
    return outcomes


def image_id(outcome: Outcome) -> str:
    """Return the image id that a build with plain progress showed."""
    return outcome.err.partition("writing image ")[2].split()[0]


def tags(bench: Bench) -> dict[str, str]:
    """Return the digest of the manifest of every tag of the store."""
    with open(f"{bench.store}/index.json", encoding="utf-8") as file:
        manifests = json.load(file)["manifests"]
    name = "org.opencontainers.image.ref.name"
    return {item["annotations"][name]: item["digest"] for item in manifests if name in item.get("annotations", {})}


def stages(bench: Bench) -> str:
    """Return a Dockerfile with two independent stages and one that copies from both; nothing of it is cached."""
    return f"""\
FROM busybox AS one
ENV CASTOFF_TEST_STEP={bench.mark} N={bench.fresh()}
COPY source /source
RUN cat /source > /made && sleep 0.2
FROM busybox AS two
RUN sleep 0.2; echo two > /made
FROM busybox
COPY --from=one /made /one
COPY --from=two /made /two
RUN cat /one /two > /both
"""


def test_the_same_build_twice_at_once(bench: Bench) -> None:
    context = bench.context({"Dockerfile": stages(bench), "source": "s\n"})
    outcomes = all_good([bench.start_build(context, tag=f"same{number}") for number in range(2)])
    assert image_id(outcomes[0]) == image_id(outcomes[1])
    found = tags(bench)
    assert found["same0:latest"] == found["same1:latest"]
    assert bench.read("same0", "both") == b"s\ntwo\n"
    bench.check_clean()
    again = bench.good(context)
    assert again.image == image_id(outcomes[0])
    assert not any(step.startswith("RUN") for step in again.steps("DONE"))


def test_builds_that_overlap(bench: Bench) -> None:
    text = stages(bench)
    one = bench.context({"Dockerfile": text, "source": "s\n"})
    other = bench.context({"Dockerfile": text + "RUN echo more > /more\n", "source": "s\n"})
    changed = bench.context({"Dockerfile": text, "source": "changed\n"})
    builds = [bench.start_build(folder, tag=f"over{n}") for n, folder in enumerate((one, other, changed))]
    all_good(builds)
    assert bench.read("over0", "both") == bench.read("over1", "both") == b"s\ntwo\n"
    assert bench.read("over1", "more") == b"more\n"
    assert bench.read("over2", "both") == b"changed\ntwo\n"
    bench.check_clean()


def test_every_tag_of_many_builds_is_there(bench: Bench) -> None:
    context = bench.context({"Dockerfile": stages(bench), "source": "s\n"})
    all_good([bench.start_build(context, "-t", f"second:{n}", tag=f"many:{n}") for n in range(4)])
    found = tags(bench)
    assert {f"many:{n}" for n in range(4)} | {f"second:{n}" for n in range(4)} <= set(found)
    assert len({found[f"many:{n}"] for n in range(4)}) == 1
    bench.check_clean()


def test_one_tag_of_different_builds(bench: Bench) -> None:
    contexts = [bench.context({"Dockerfile": "FROM scratch\nCOPY f /\n", "f": str(number)}) for number in range(3)]
    outcomes = all_good([bench.start_build(context, tag="fought-for") for context in contexts])
    assert bench.read("fought-for", "f").decode() in {"0", "1", "2"}
    for number, outcome in enumerate(outcomes):
        assert bench.castoff("inspect", image_id(outcome)).code == 0, number


def test_images_are_removed_while_a_build_needs_them(bench: Bench) -> None:
    base = bench.context({"Dockerfile": f"FROM busybox\nRUN echo {bench.fresh()} > /based\n"})
    bench.good(base, tag="doomed")
    text = f"FROM doomed\nENV CASTOFF_TEST_STEP={bench.mark}\nRUN echo reached; sleep 1; cat /based > /copy\n"
    context = bench.context({"Dockerfile": text})
    building = bench.start_build(context, tag="survivor")
    building.wait_for(" reached\n")
    removed = bench.castoff("rmi", "doomed")
    assert removed.code == 0, removed.err
    all_good([building])
    assert "doomed:latest" not in tags(bench)
    assert bench.read("survivor", "copy") == bench.read("survivor", "based")
    for layer in bench.layers("survivor"):
        assert layer.getmembers()
    archive = os.path.join(bench.folder, "survivor.tar")
    saved = bench.castoff("save", "-o", archive, "survivor")
    assert saved.code == 0, saved.err
    bench.check_clean()


def test_builds_and_removals_in_turn(bench: Bench) -> None:
    """Whatever is removed between two builds is made again, and no build meets half of it."""
    contexts = [bench.context({"Dockerfile": stages(bench), "source": str(number)}) for number in range(2)]
    for turn in range(3):
        builds = [bench.start_build(context, tag=f"turn{n}") for n, context in enumerate(contexts)]
        removing = bench.start("rmi", f"turn{turn % 2}") if turn else None
        all_good(builds)
        if removing is not None:
            outcome = removing.end()
            assert outcome.code in (0, 1, 6), outcome.err
            assert "Traceback" not in outcome.err
    for number in range(2):
        bench.good(contexts[number], tag=f"turn{number}")
        assert bench.read(f"turn{number}", "both") == f"{number}two\n".encode()
    bench.check_clean()


def test_a_cache_mount_shared_by_two_builds(bench: Bench) -> None:
    mount = f"RUN --mount=type=cache,id={bench.fresh()},target=/c,sharing=locked"
    script = "n=$(cat /c/n 2>/dev/null || echo 0); sleep 0.3; echo $((n + 1)) > /c/n; cat /c/n > /count"
    contexts = [bench.context({"Dockerfile": f"FROM busybox\nENV N={n}\n{mount} {script}\n"}) for n in range(2)]
    all_good([bench.start_build(context, tag=f"count{n}") for n, context in enumerate(contexts)])
    assert sorted(bench.read(f"count{n}", "count") for n in range(2)) == [b"1\n", b"2\n"]
