"""The README's tour: what stands in it shows what it says it shows. Whether it is true is tested in tests/e2e."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tour() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_tour", ROOT / "scripts" / "tour.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up there.
    import sys

    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


@pytest.fixture(scope="module")
def builds(tour: ModuleType) -> list[dict[str, str]]:
    """Give the steps of the four builds with their status."""
    block = tour.block_of((ROOT / "README.md").read_text(encoding="utf-8"))
    return [dict(item) for item in tour.shape(block) if isinstance(item, frozenset)]


def test_four_builds(builds: list[dict[str, str]]) -> None:
    cold, again, code, comment = builds

    def ran(build: dict[str, str], beginning: str) -> bool:
        """Tell whether the one step of that beginning was run and not cached."""
        (mark,) = [mark for name, mark in build.items() if name.partition("] ")[2].startswith(beginning)]
        return not mark

    assert len(cold) == len(again) == 15
    assert not any(cold.values())
    assert all(mark == "CACHED" for name, mark in again.items() if "] RUN" in name or "] COPY" in name)
    steps = ("RUN go mod download", "RUN CGO_ENABLED=0", "COPY --from=builder")
    assert [ran(code, step) for step in steps] == [False, True, True]
    assert [ran(comment, step) for step in steps] == [True, True, False]


def test_shape_forgets_digits_and_order_but_no_status(tour: ModuleType) -> None:
    frame = (
        "$ castoff build x\n[+] Building 1.0s (2/2) FINISHED\n => [a 1/2] RUN x  0.1s\n => CACHED [b 1/1] RUN y  2.0s\n"
    )
    other = (
        "$ castoff build x\n[+] Building 9.0s (2/2) FINISHED\n => CACHED [b 1/1] RUN y  0.0s\n => [a 1/2] RUN x 31.0s\n"
    )
    assert tour.shape(f"{frame}```\n") == tour.shape(f"{other}```\n")
    assert tour.shape(f"{frame}```\n") != tour.shape(f"{other}```\n".replace("CACHED ", ""))
    assert tour.shape(f"{frame}```\n") != tour.shape(f"{frame}```\n".replace("2/2", "1/2"))


def test_a_block_goes_between_its_markers(tour: ModuleType) -> None:
    text = "before\n<!-- tour -->\nold\n<!-- /tour -->\nafter\n"
    replaced = tour.with_block(text, "new\n")
    assert replaced == "before\n<!-- tour -->\n\nnew\n\n<!-- /tour -->\nafter\n"
    assert tour.block_of(replaced) == "new\n"
    assert tour.with_block(replaced, "new\n") == replaced
    with pytest.raises(tour.TourError):
        tour.with_block("no markers", "new\n")
