"""A kill, or a used-up quota, before each single call with which castoff changes a store: nothing is ever lost.

Each test takes a few moments, other ones in every run; ``CASTOFF_TEST_MOMENTS=all`` has it take each of them.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from failure_rig import Bench, make_bench, one_sentence
from fault_rig import TAKING_SPACE, Supervisor, Watched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.integration

MOMENTS = os.environ.get("CASTOFF_TEST_MOMENTS", "2")
DOCKERFILE = """\
FROM busybox AS builder
COPY f /f
RUN cat /f > /built
FROM busybox
RUN echo runtime > /runtime
COPY --from=builder /built /built
WORKDIR /w
RUN cat /built /runtime > /both
"""


class Victim:
    """A store whose castoff is interfered with, and what an undisturbed one makes."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.context = bench.context({"Dockerfile": DOCKERFILE, "f": "content\n"})
        self.image = bench.good(self.context, tag="t").image
        self.archive = f"{bench.folder}/saved.tar"
        assert bench.castoff("save", "-o", self.archive, "t", "busybox").code == 0
        self.other = f"{bench.folder}/other"
        self.exports = f"{bench.folder}/exports"
        os.mkdir(self.exports)
        bench.give(self.exports)
        self.supervisor = Supervisor([bench.store, self.exports], bench.owner if os.geteuid() == 0 else None)

    def run(self, *arguments: str, kill_at: int = 0, fail_from: int = 0) -> Watched:
        """Run castoff on the store under supervision."""
        account = self.bench.account
        program = shutil.which(account.command[0]) or account.command[0]
        command = [program, *account.command[1:], "--root", self.bench.store]
        command += [self.bench.fresh() if argument == "NEW" else argument for argument in arguments]
        env = {**account.environment, "CASTOFF_TEST_STEP": self.bench.mark}
        watched = self.supervisor.run(
            command, env=env, cwd=self.bench.folder, kill_at=kill_at, fail_from=fail_from, error=errno.EDQUOT
        )
        assert "Traceback" not in watched.err
        assert self.bench.left() == []
        return watched

    def check(self, moment: str) -> None:
        """Fail unless the store is whole, and the next build makes what it always makes."""
        found = self.doctor()
        assert found["Problems"] == [], moment
        again = self.bench.build(self.context, "-t", "t", tag=self.bench.fresh())  # never the answer of an earlier one
        assert (again.code, again.image) == (0, self.image), f"{moment}: {again.err}"
        assert self.bench.temporary() == [], moment
        found = self.doctor("--repair")
        assert (found["Problems"], found["Leftovers"]) == ([], []), moment

    def doctor(self, *arguments: str) -> dict[str, Any]:
        """Return what castoff says of the store."""
        done = self.bench.castoff("doctor", "--store", "--format", "json", *arguments)
        assert done.code in (0, 6), done.err
        return dict(json.loads(done.out))


@pytest.fixture(scope="module", params=["root", "user"])
def victim(request: pytest.FixtureRequest) -> Iterator[Victim]:
    """Give a store to be interfered with; only root can supervise."""
    request.getfixturevalue("require").root()
    for bench in make_bench(request, request.param):
        yield Victim(bench)


@pytest.fixture(scope="module")
def roots_victim(request: pytest.FixtureRequest) -> Iterator[Victim]:
    """Give a store of root's, for what does not depend on who does it."""
    for bench in make_bench(request, "root"):
        yield Victim(bench)


def moments(count: int) -> list[int]:
    """Return the numbers of the calls before which this run interferes: spread over all, and one behind the last."""
    if MOMENTS == "all":
        return list(range(1, count + 2))
    parts = min(int(MOMENTS), count)
    return sorted({random.randint(1 + count * part // parts, count * (part + 1) // parts) for part in range(parts)})


def build(victim: Victim, *more: str) -> list[str]:
    """Return the command line of a build in which nothing is cached and whose blobs and tag are new."""
    victim.bench.write(victim.other, {"Dockerfile": DOCKERFILE, "f": victim.bench.fresh()})
    return ["build", "--no-cache", "--progress=plain", "-t", victim.bench.fresh(), *more, victim.other]


def test_what_is_interfered_with(victim: Victim) -> None:
    """The supervisor sees the calls that matter, or the tests below would show nothing."""
    seen = victim.run(*build(victim))
    assert seen.code == 0, seen.err
    assert {"write", "openat", "mkdir", "rename", "unlink", "rmdir"} <= set(seen.calls)
    assert {"fsync", "fdatasync"} <= set(seen.calls)
    assert len(seen.calls) > 100
    victim.check("nowhere")


def test_a_build_is_killed_before_any_call(victim: Victim) -> None:
    output = f"type=oci,dest={victim.exports}/o.tar"
    folder = f"type=oci,tar=false,dest={victim.exports}/o"
    count = len(victim.run(*build(victim, "-o", output, "-o", folder)).calls)
    for moment in moments(count):
        watched = victim.run(*build(victim, "-o", output, "-o", folder), kill_at=moment)
        assert watched.code in (-signal.SIGKILL, 0), watched.err
        victim.check(f"build, before call {moment}, {watched.calls[moment - 1 : moment]}")
    done = victim.bench.good(victim.context, "-o", output, "-o", folder)
    assert done.image == victim.image
    assert sorted(os.listdir(victim.exports)) == ["o", "o.tar"], "what killed exports left is swept by the next one"
    blobs = os.listdir(f"{victim.exports}/o/blobs/sha256")
    assert all(len(name) == 64 for name in blobs)
    shutil.rmtree(f"{victim.exports}/o")


@pytest.mark.parametrize("arguments", [["tag", "t", "NEW"], ["rmi", "t"], ["prune", "--force"]], ids=lambda a: a[0])
def test_small_changes_are_killed_before_any_call(roots_victim: Victim, arguments: list[str]) -> None:
    victim = roots_victim
    _repeat(victim, arguments, lambda watched: watched.code in (-signal.SIGKILL, 0))


def test_a_new_store_is_killed_before_any_call(roots_victim: Victim) -> None:
    """The very first command, which makes the store."""
    victim = roots_victim
    bench = replace(victim.bench, store=f"{victim.bench.folder}/new")
    fresh = object.__new__(Victim)
    fresh.__dict__.update(victim.__dict__, bench=bench, supervisor=Supervisor([bench.store]))
    count = len(fresh.run("load", "-i", victim.archive).calls)
    for moment in moments(count):
        shutil.rmtree(bench.store)
        fresh.run("load", "-i", victim.archive, kill_at=moment)
        if os.path.exists(f"{bench.store}/index.json"):
            assert fresh.doctor()["Problems"] == [], moment
        loaded = bench.castoff("load", "-i", victim.archive)
        assert loaded.code == 0, f"{moment}: {loaded.err}"
        fresh.check(f"load, before call {moment}")
    shutil.rmtree(bench.store)


def test_the_quota_is_used_up_at_any_call(victim: Victim) -> None:
    """From some call on nothing can be written any more: one sentence says so, and nothing is harmed."""
    output = f"type=oci,dest={victim.exports}/o.tar"
    count = len(victim.run(*build(victim, "-o", output)).calls)
    for moment in moments(count):
        watched = victim.run(*build(victim, "-o", output), fail_from=moment)
        assert watched.code in (0, 6), watched.err
        if watched.code:
            check_full(watched)
        else:
            assert not any(name in TAKING_SPACE for name in watched.calls[moment - 1 :]) or "warning" in watched.err
        assert [name for name in os.listdir(victim.exports) if name.startswith(".")] == []
        victim.check(f"build, no quota from call {moment}, {watched.calls[moment - 1 : moment]}")


@pytest.mark.parametrize("arguments", [["tag", "t", "NEW"], ["rmi", "t"], ["prune", "--force"]], ids=lambda a: a[0])
def test_the_quota_is_used_up_by_small_changes(roots_victim: Victim, arguments: list[str]) -> None:
    victim = roots_victim
    count = _count(victim, arguments)
    for moment in moments(count):
        watched = victim.run(*arguments, fail_from=moment)
        assert watched.code in (0, 6), watched.err
        if watched.code:
            check_full(watched)
        _restore(victim, moment)


def check_full(watched: Watched) -> None:
    """Fail unless one sentence tells of the quota, and the hint what to do."""
    said = one_sentence(watched.err).lower()
    assert "quota" in said, watched.err
    assert "free some space" in watched.err.partition("hint: ")[2], watched.err


def _repeat(victim: Victim, arguments: Sequence[str], good: Any) -> None:
    for moment in moments(_count(victim, arguments)):
        watched = victim.run(*arguments, kill_at=moment)
        assert good(watched), watched.err
        _restore(victim, moment)


def _count(victim: Victim, arguments: Sequence[str]) -> int:
    count = len(victim.run(*arguments).calls)
    assert count
    _restore(victim, 0)
    return count


def _restore(victim: Victim, moment: int) -> None:
    assert victim.doctor()["Problems"] == [], moment
    assert victim.bench.castoff("load", "-q", "-i", victim.archive).code == 0
    victim.check(f"before call {moment}")
