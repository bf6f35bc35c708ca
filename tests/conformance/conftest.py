"""Gives each conformance test its cases, and counts them suite by suite."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from typing import Any

import conformance_data
import pytest

COUNTS = pytest.StashKey[dict[str, list[int]]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each case of the suite that a test is marked with."""
    marker = metafunc.definition.get_closest_marker("conformance")
    if marker is None or "case" not in metafunc.fixturenames:
        return
    suite = str(marker.args[0])
    cases = conformance_data.load(suite)
    if cases is None:
        reason = f"conformance suite {suite} is absent ({conformance_data.folder()}, or ${conformance_data.VARIABLE})"
        metafunc.parametrize("case", [pytest.param({}, marks=pytest.mark.skip(reason=reason))], ids=[suite])
        return
    names = [conformance_data.name_of(case, number) for number, case in enumerate(cases)]
    metafunc.parametrize("case", cases, ids=names)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and a place for the counts."""
    config.addinivalue_line("markers", "conformance(suite): one test for each case of a conformance suite")
    config.stash[COUNTS] = defaultdict(lambda: [0, 0])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a case once it has run."""
    report = yield
    marker = item.get_closest_marker("conformance")
    if marker is not None and call.when == "call":
        counts = item.config.stash.setdefault(COUNTS, defaultdict(lambda: [0, 0]))[str(marker.args[0])]
        counts[0] += report.passed
        counts[1] += not report.skipped or hasattr(report, "wasxfail")
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print how many cases of each suite passed."""
    counts = config.stash.get(COUNTS, {})
    if counts:
        terminalreporter.section("conformance")
        for suite, (passed, total) in counts.items():
            terminalreporter.write_line(f"{suite}: {passed} passed of {total}")
