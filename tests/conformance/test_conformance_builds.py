"""Builds that the reference implementations recorded, built again and compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import conformance_builds as builds
import conformance_data
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.needs_root]


@pytest.fixture(scope="session")
def conformance_work(require: Any) -> Iterator[str]:
    """Give a folder with the stand-ins for base images in ``bases``."""
    require.root()
    require.file("/bin/busybox", "busybox-static")
    require.file("/bin/bash-static", "bash-static")
    with builds.work_folder() as work:
        builds.make_bases(f"{work}/bases")
        yield work


@pytest.fixture(scope="session")
def integration_runner(castoff_command: list[str], conformance_work: str) -> builds.IntegrationRunner:
    return builds.IntegrationRunner(castoff_command, f"{conformance_work}/bases", f"{conformance_work}/store-i")


@pytest.fixture(scope="session")
def image_runner(castoff_command: list[str], conformance_work: str) -> builds.ImageRunner:
    return builds.ImageRunner(castoff_command, f"{conformance_work}/bases", f"{conformance_work}/store-b")


@pytest.mark.conformance("dockerfile_integration")
def test_integration_case(case: builds.Case, integration_runner: builds.IntegrationRunner) -> None:
    builds.check("dockerfile_integration", case, integration_runner.run)


@pytest.mark.conformance("buildah_conformance")
def test_image_case(case: builds.Case, image_runner: builds.ImageRunner) -> None:
    builds.check("buildah_conformance", case, image_runner.run)


def test_known_failures_are_cases() -> None:
    """Every row of the table of known failures names a case of the material."""
    for suite, name in builds.known_failures():
        cases = conformance_data.load(suite)
        if cases is None:
            pytest.skip(f"conformance suite {suite} is absent")
        assert name in {case["name"] for case in cases}
