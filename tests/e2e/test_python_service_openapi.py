"""The Python service against its own OpenAPI document: schemathesis asks, and compares answers with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from contract_launch import launch
from contract_python import COMMAND, environment

pytestmark = pytest.mark.integration

# An older description of a service whose answers have changed since: what the tool must find.
BROKEN = """\
{"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, "paths": {"/health": {"get": {"responses": {"200": {
 "description": "x", "content": {"application/json": {"schema": {"type": "object", "required": ["state"]}}}}}}}}}
"""


def schemathesis(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", *arguments]
    argv += ["--checks=all", "--max-examples=10", "--seed=1", "--generation-database=none", "--no-color"]
    variables = os.environ | environment("requirements-dev.lock")
    return subprocess.run(argv, cwd=folder, env=variables, capture_output=True, text=True, timeout=120, check=False)


def test_every_answer_is_as_described(tmp_path: Path) -> None:
    with launch(COMMAND, environment()) as started:
        done = schemathesis(tmp_path, f"{started.url}/openapi.json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", done.stdout)
    assert found is not None, done.stdout
    assert found[1] == found[2] == found[3]
    assert int(found[3]) >= 10


def test_a_wrong_description_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_text(BROKEN)
    with launch(COMMAND, environment()) as started:
        done = schemathesis(tmp_path, "wrong.json", f"--url={started.url}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert '"state" is a required property' in done.stdout, done.stdout
