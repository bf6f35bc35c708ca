"""The state that requests share: what the service is, since when, and whether it is being stopped."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from devops_info_service.facts import system_facts
from devops_info_service.log import Log
from devops_info_service.metrics import Metrics
from devops_info_service.page import Page


@dataclass(slots=True)
class Service:
    """One running service.

    Attributes:
        log: takes its records.
        endpoints: what GET / lists.
        draining: whether it is being stopped: it is not ready any more, and closes connections that it has answered.
    """

    log: Log
    endpoints: list[dict[str, object]]
    draining: bool = False
    metrics: Metrics = field(default_factory=Metrics)
    page: Page = field(default_factory=Page.load)
    system: dict[str, object] = field(default_factory=system_facts)
    started: float = field(default_factory=time.monotonic)

    @property
    def uptime(self) -> float:
        """Return the seconds since the service started."""
        return time.monotonic() - self.started
