"""What the results of health checks make of a container's health, as Docker does it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from castoff.containers.record import HealthPlan

if TYPE_CHECKING:
    from castoff.oci.config import Healthcheck

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
_SECOND = 1_000_000_000
_SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True, slots=True)
class Health:
    """A container's health.

    Attributes:
        status: ``starting``, ``healthy`` or ``unhealthy``.
        failures: failed checks in a row that count.
    """

    status: str = STARTING
    failures: int = 0

    def after(self, *, passed: bool, age: float, plan: HealthPlan) -> Health:
        """Return the health after a check that began `age` seconds after the start of the container."""
        if passed:
            return Health(HEALTHY, 0)
        if self.status == STARTING and age < plan.start_period:
            return self
        failures = self.failures + 1
        return Health(UNHEALTHY if failures >= plan.retries else self.status, failures)

    def pause(self, age: float, plan: HealthPlan) -> float:
        """Return how long to wait for the next check, in seconds."""
        return plan.start_interval if self.status == STARTING and age < plan.start_period else plan.interval


def health_plan(check: Healthcheck | None, shell: tuple[str, ...] | None) -> HealthPlan | None:
    """Return how an image wants its health checked; None for not at all.

    Args:
        check: of the image's config.
        shell: that of the image, for a check by command line.
    """
    if check is None or not check.test or check.test[0] == "NONE":
        return None
    kind, *words = check.test
    argv = (*(shell or _SHELL), " ".join(words)) if kind == "CMD-SHELL" else tuple(words)
    if not argv:
        return None
    plan = HealthPlan(argv)
    return replace(
        plan,
        interval=check.interval / _SECOND or plan.interval,
        timeout=check.timeout / _SECOND or plan.timeout,
        start_period=check.start_period / _SECOND,
        start_interval=check.start_interval / _SECOND or plan.start_interval,
        retries=check.retries or plan.retries,
    )
