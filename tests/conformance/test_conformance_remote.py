"""Recorded builds that fetch something, built again with servers on loopback, and compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import conformance_builds as builds
import conformance_servers
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.needs_root]


@pytest.fixture(scope="module")
def runner(castoff_command: list[str], require: Any) -> Iterator[conformance_servers.RemoteRunner]:
    """Give what runs cases, with the stand-ins for base images in its store."""
    require.root()
    require.file("/bin/busybox", "busybox-static")
    require.file("/bin/bash-static", "bash-static")
    with builds.work_folder() as work:
        builds.make_bases(f"{work}/bases")
        yield conformance_servers.RemoteRunner(castoff_command, f"{work}/bases", f"{work}/store")


@pytest.mark.conformance("dockerfile_integration")
def test_remote_case(case: builds.Case, runner: conformance_servers.RemoteRunner) -> None:
    builds.check("dockerfile_integration", case, runner.run)
