"""The README's tour, taken anew: the same commands give the same steps, statuses and answers."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from demo_store import ROOT, find_store

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def tour() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_tour", ROOT / "scripts" / "tour.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


def test_the_tour_in_the_readme_is_what_castoff_prints(
    tour: ModuleType, castoff_command: list[str], require: Any, tmp_path: Path
) -> None:
    require.user_namespaces()
    require.overlay(tmp_path)
    store = find_store(castoff_command, (tour.STATIC, tour.GOLANG))
    block = tour.block_of((ROOT / "README.md").read_text(encoding="utf-8"))
    taken = tour.take(store, castoff_command)
    (tmp_path / "tour.md").write_text(taken, encoding="utf-8")
    assert tour.shape(taken) == tour.shape(block)
    start = taken.index("{\n")
    answer = json.loads(taken[start : taken.index("\n}\n", start) + 2])
    assert answer["status"] == "healthy"
