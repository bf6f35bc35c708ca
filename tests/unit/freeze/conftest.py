"""The distribution castoff-freeze is tested from its source, which is not installed beside castoff."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("elftools", reason="pyelftools is not installed")
sys.path.insert(0, str(Path(__file__).parents[3] / "freeze" / "src"))
