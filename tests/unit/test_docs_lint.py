"""docs/lint.md has one section for each rule, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from castoff.dockerfile.lint.rules import RULES

PAGE = Path(__file__).parents[2] / "docs" / "lint.md"


def test_every_rule_has_its_section() -> None:
    sections = re.findall(r"^### (\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == sorted(rule.name for rule in RULES)
