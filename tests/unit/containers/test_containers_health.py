"""Health checks: what an image asks for, and what results make of it."""

from __future__ import annotations

import pytest

from castoff.cli.parser import parse_verb
from castoff.cli.run_life import LifeOptions, duration
from castoff.containers.health import HEALTHY, STARTING, UNHEALTHY, Health, health_plan
from castoff.containers.record import HealthPlan, Limits, RestartPolicy
from castoff.errors import UsageError
from castoff.oci.config import ContainerConfig, Healthcheck

PLAN = HealthPlan(("check",), retries=2, start_period=10, interval=30, start_interval=5)


def test_failures_in_a_row_make_it_unhealthy() -> None:
    health = Health()
    health = health.after(passed=False, age=1, plan=PLAN)
    assert health == Health(STARTING, 0)  # in the start period
    assert health.pause(1, PLAN) == 5
    health = health.after(passed=False, age=11, plan=PLAN)
    assert health == Health(STARTING, 1)
    assert health.pause(11, PLAN) == 30
    health = health.after(passed=False, age=41, plan=PLAN)
    assert health == Health(UNHEALTHY, 2)
    health = health.after(passed=True, age=71, plan=PLAN)
    assert health == Health(HEALTHY, 0)
    assert health.after(passed=False, age=1, plan=PLAN) == Health(HEALTHY, 1)  # once healthy, failures count


@pytest.mark.parametrize(
    ("check", "shell", "argv"),
    [
        (None, None, None),
        (Healthcheck(()), None, None),
        (Healthcheck(("NONE",)), None, None),
        (Healthcheck(("CMD", "a", "b")), None, ("a", "b")),
        (Healthcheck(("CMD",)), None, None),
        (Healthcheck(("CMD-SHELL", "a || b")), None, ("/bin/sh", "-c", "a || b")),
        (Healthcheck(("CMD-SHELL", "a")), ("/bin/ash", "-ec"), ("/bin/ash", "-ec", "a")),
    ],
)
def test_plan_of_an_image(
    check: Healthcheck | None, shell: tuple[str, ...] | None, argv: tuple[str, ...] | None
) -> None:
    plan = health_plan(check, shell)
    assert (plan.argv if plan else None) == argv


def test_times_of_an_image() -> None:
    plan = health_plan(Healthcheck(("CMD", "a"), 1_500_000_000, 2_000_000_000, 3_000_000_000, 0, 7), None)
    assert plan == HealthPlan(("a",), 1.5, 2.0, 3.0, 5.0, 7)


def life(*argv: str) -> LifeOptions:
    return LifeOptions.read(parse_verb("run", [*argv, "image"], None).args)


def test_command_line_wins() -> None:
    config = ContainerConfig(healthcheck=Healthcheck(("CMD", "a"), retries=9))
    plan = life("--health-interval", "1m30s", "--health-start-period", "500ms").health(config)
    assert plan == HealthPlan(("a",), interval=90, start_period=0.5, retries=9)
    assert life("--no-healthcheck").health(config) is None
    mine = life("--health-cmd", "mine", "--health-retries", "2").health(ContainerConfig())
    assert mine == HealthPlan(("/bin/sh", "-c", "mine"), retries=2)
    assert life().health(ContainerConfig()) is None


def test_how_it_lives() -> None:
    plain = life()
    assert (plain.has_monitor, plain.remove, plain.restart, plain.limits) == (False, True, RestartPolicy(), Limits())
    assert life("-it").has_monitor
    assert life("-d").has_monitor
    assert not life("-d").remove
    assert life("-d", "--rm").remove
    limited = life("-m", "64m", "--cpus", "1.5", "--pids-limit", "10", "--stop-timeout", "3", "--label", "a")
    assert limited.limits == Limits(64 << 20, 1.5, 10)
    assert (limited.has_monitor, limited.remove, limited.stop_timeout) == (True, True, 3)
    assert limited.labels == (("a", ""),)
    assert life("--pids-limit", "-1").limits == Limits()


@pytest.mark.parametrize(
    "argv",
    [
        ["--rm", "--restart", "always"],
        ["--no-healthcheck", "--health-cmd", "x"],
        ["-m", "1k"],
        ["-m", "much"],
        ["--cpus", "-1"],
        ["--cpus", "nan"],
        ["--cpus", "x"],
        ["--pids-limit", "x"],
        ["--stop-timeout", "x"],
        ["--health-interval", "5"],
        ["--health-retries", "0"],
        ["--restart", "maybe"],
    ],
)
def test_what_makes_no_sense(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        life(*argv)


def test_durations() -> None:
    assert duration("1h2m3s", "x") == 3723
    assert duration("1.5ms", "x") == 0.0015
    for text in ("", "s", "1", "1s2", "-1s", "1 s"):
        with pytest.raises(UsageError):
            duration(text, "x")
