"""docs/policies.md: its rules are those of the code, and its examples are policies."""

from __future__ import annotations

import re
from pathlib import Path

from castoff.inspect.audit.finding import RULES, Level
from castoff.inspect.audit.policy import Policy

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")


def test_the_table_has_every_rule_in_order() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (.+) \|$", PAGE, re.MULTILINE)
    assert rows == [(rule.id, rule.level.word, rule.title) for rule in RULES]


def test_the_examples_are_policies() -> None:
    first, second = (Policy.parse(text.encode()) for text in re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S))
    assert (first.budget, first.unpacked_budget, first.user) == (20_000_000, 60_000_000, "65532")
    assert first.levels["dynamic-binary"] is Level.ERROR
    assert first.allowances[0].reason
    assert second.levels["shell"] is Level.OFF
