"""The results: a Markdown table with ratios, and JSON with every sample."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.builders import Builder
    from benchmarks.measure import Sample
    from benchmarks.scenarios import Scenario

REFERENCE = "castoff"


@dataclass(slots=True)
class Result:
    """All samples of one scenario on one builder; memory in bytes, 0 where it was not measured."""

    samples: list[Sample] = field(default_factory=list)
    memory: int = 0
    error: str = ""

    @property
    def wall(self) -> float:
        """The best wall time in seconds."""
        return min(sample.wall for sample in self.samples)

    @property
    def cpu(self) -> float:
        """The least CPU time in seconds."""
        return min(sample.cpu for sample in self.samples)


Results = dict[str, dict[str, Result]]


def machine() -> str:
    """Describe the machine in one line."""
    model = platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{len(os.sched_getaffinity(0))} cores ({names[0] if names else model}), Linux {kernel}"


def markdown(scenarios: Sequence[Scenario], versions: dict[str, str], results: Results, runs: int) -> str:
    """Return the table: a row for each scenario and builder, best of the runs."""
    tools = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [
        f"{tools}; best of {runs}; {machine()}.",
        "",
        "| scenario | builder | wall | median | CPU | peak memory | castoff is faster |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for scenario in scenarios:
        row = results.get(scenario.name, {})
        reference = row.get(REFERENCE)
        for number, (name, result) in enumerate(row.items()):
            title = f"**{scenario.name}** {scenario.title}" if number == 0 else ""
            if result.error or not result.samples:
                lines.append(f"| {title} | {name} | {result.error or '–'} | | | | |")
                continue
            faster = ""
            if name != REFERENCE and reference and reference.samples:
                faster = f"{ratio(result.wall / reference.wall)}×"
            median = statistics.median(sample.wall for sample in result.samples)
            memory = f"{result.memory / 1e6:.0f} MB" if result.memory else ""
            lines.append(
                f"| {title} | {name} | {seconds(result.wall)} | {seconds(median)} | {seconds(result.cpu)} "
                f"| {memory} | {faster} |"
            )
    return "\n".join(lines)


def as_json(versions: dict[str, str], results: Results) -> str:
    """Return every sample; seconds and bytes."""
    table = {
        scenario: {
            name: {
                "wall": [round(sample.wall, 4) for sample in result.samples],
                "cpu": [round(sample.cpu, 4) for sample in result.samples],
                "memory": result.memory,
                "error": result.error,
            }
            for name, result in row.items()
        }
        for scenario, row in results.items()
    }
    return json.dumps({"machine": machine(), "versions": versions, "results": table}, indent=1) + "\n"


def versions_of(builders: Sequence[Builder]) -> dict[str, str]:
    """Return each builder's version."""
    return {builder.name: builder.version() for builder in builders}


def seconds(value: float) -> str:
    """Write a time with three digits that mean something."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def ratio(value: float) -> str:
    """Write a ratio: whole from ten on."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
