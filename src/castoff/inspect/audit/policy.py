"""Policies of an audit: a small TOML that says what counts, what is allowed, and what the image may weigh."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from castoff.errors import UsageError
from castoff.inspect.audit.finding import RULES, Level, rules_by_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from castoff.inspect.audit.finding import Observation, Rule

_TOP = ("version", "fail-on", "user", "budget", "unpacked-budget", "rules", "allow")
_ALLOW = ("rule", "rules", "path", "paths", "reason")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is allowed: the rules by id (none for every rule), and paths as patterns (none for the image itself)."""

    rules: frozenset[str]
    patterns: tuple[re.Pattern[bytes], ...]
    reason: str = ""

    def covers(self, observation: Observation) -> bool:
        """Tell whether a breach is allowed."""
        if self.rules and observation.rule not in self.rules:
            return False
        if not self.patterns:
            return True
        path = observation.path
        return path is not None and any(pattern.fullmatch(path) for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class Policy:
    """What an audit goes by.

    Attributes:
        levels: the levels that differ from the rules' own, by the rules' ids.
        allowances: breaches that are no findings.
        fail_on: the lowest level of a finding that makes the audit fail.
        user: what USER must be; "" for any.
        budget: how many bytes the layers may have as they are stored; None for any number.
        unpacked_budget: how many bytes the layers' tar streams may have; None for any number.
    """

    levels: Mapping[str, Level] = field(default_factory=dict)
    allowances: tuple[Allowance, ...] = ()
    fail_on: Level = Level.ERROR
    user: str = ""
    budget: int | None = None
    unpacked_budget: int | None = None

    @classmethod
    def parse(cls, data: bytes, name: str = "policy") -> Policy:
        """Read a policy.

        Args:
            data: the TOML document.
            name: what errors call it.

        Raises:
            UsageError: it is no TOML, or has a key or a value that means nothing.
        """
        try:
            value = tomllib.loads(data.decode("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"{name} is no TOML: {error}") from error
        return _Reader(name).policy(value)

    def level(self, rule: Rule) -> Level:
        """Return the level of a rule."""
        return self.levels.get(rule.id, rule.level)

    def allows(self, observation: Observation) -> bool:
        """Tell whether a breach is allowed."""
        return any(allowance.covers(observation) for allowance in self.allowances)


def glob_pattern(text: str) -> re.Pattern[bytes]:
    """Return what matches a glob on paths: ``*`` and ``?`` stay in a folder, ``**`` spans folders, ``[…]`` is a set.

    A leading slash is accepted; a pattern without any slash matches names in every folder; one that ends in a slash
    means all that is in the folder.
    """
    anywhere = "/" not in text
    text = text.lstrip("/")
    if text.endswith("/"):
        text += "**"
    out = "(?:.*/)?" if anywhere else ""
    i = 0
    while i < len(text):
        char = text[i]
        if text.startswith("**/", i):
            out, i = out + "(?:.*/)?", i + 3
        elif text.startswith("**", i):
            out, i = out + ".*", i + 2
        elif char in "*?":
            out, i = out + ("[^/]*" if char == "*" else "[^/]"), i + 1
        elif char == "[" and (end := text.find("]", i + 2)) > 0:
            body = text[i + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            body = "^/" + body[1:] if body[0] in "!^" else body
            out, i = out + f"[{body}]", end + 1
        else:
            out, i = out + re.escape(char), i + 1
    return re.compile(out.encode("utf-8", "surrogateescape"), re.DOTALL)


class _Reader:
    """Reads one policy; every error names it and the key."""

    def __init__(self, name: str) -> None:
        self._name = name

    def policy(self, value: dict[str, Any]) -> Policy:
        self._known(value, _TOP, "")
        if value.get("version", _VERSION) != _VERSION:
            raise self._error(f"version {value['version']!r} is not known", "this castoff reads version 1")
        levels = {}
        for rule, word in self._table(value, "rules").items():
            self._rule(rule)
            levels[rule] = self._level(word, f"rules.{rule}", off=True)
        allow = value.get("allow", [])
        if not isinstance(allow, list) or not all(isinstance(item, dict) for item in allow):
            raise self._error("allow is a list of tables", "write [[allow]]")
        return Policy(
            levels,
            tuple(self._allowance(item) for item in allow),
            self._level(value.get("fail-on", "error"), "fail-on", off=False),
            self._text(value.get("user", ""), "user"),
            self._size(value, "budget"),
            self._size(value, "unpacked-budget"),
        )

    def _allowance(self, value: dict[str, Any]) -> Allowance:
        self._known(value, _ALLOW, "allow.")
        rules = [*self._texts(value, "rule"), *self._texts(value, "rules")]
        paths = [*self._texts(value, "path"), *self._texts(value, "paths")]
        if not rules and not paths:
            raise self._error("an [[allow]] has neither rule nor path", "it would allow everything")
        for rule in rules:
            self._rule(rule)
        try:
            patterns = tuple(glob_pattern(path) for path in paths)
        except re.error as error:
            raise self._error(f"{paths!r} holds a pattern that can't be read: {error}") from error
        return Allowance(frozenset(rules), patterns, self._text(value.get("reason", ""), "allow.reason"))

    def _known(self, value: dict[str, Any], keys: Iterable[str], prefix: str) -> None:
        for key in value:
            if key not in keys:
                raise self._error(f"there is no key {prefix}{key}", f"there are {', '.join(keys)}")

    def _table(self, value: dict[str, Any], key: str) -> dict[str, Any]:
        found = value.get(key, {})
        if not isinstance(found, dict):
            raise self._error(f"{key} is a table", f"write [{key}]")
        return found

    def _texts(self, value: dict[str, Any], key: str) -> list[str]:
        found = value.get(key, [])
        if isinstance(found, str):
            return [found]
        if not isinstance(found, list) or not all(isinstance(item, str) and item for item in found):
            raise self._error(f"allow.{key} is a text or a list of texts")
        return found

    def _text(self, value: object, key: str) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise self._error(f"{key} is a text")
        return value

    def _rule(self, rule: str) -> None:
        if rule not in rules_by_id():
            from castoff.dockerfile.suggest import hint

            ids = [known.id for known in RULES]
            raise self._error(f"there is no rule {rule!r}", hint(rule, ids) or f"there are {', '.join(ids)}")

    def _level(self, word: object, key: str, *, off: bool) -> Level:
        levels = {level.word: level for level in Level if off or level is not Level.OFF}
        if not isinstance(word, str) or word not in levels:
            raise self._error(f"{key} has no level {word!r}", f"there are {', '.join(levels)}")
        return levels[word]

    def _size(self, value: dict[str, Any], key: str) -> int | None:
        """Return a size: bytes, or a text with a unit, of 1000 (``20MB``) or 1024 (``20MiB``)."""
        found = value.get(key)
        if found is None or (isinstance(found, int) and not isinstance(found, bool) and found >= 0):
            return found
        match = _SIZE.fullmatch(found.strip()) if isinstance(found, str) else None
        if match is None:
            raise self._error(f"{key} is a size such as 20MB, not {found!r}")
        return int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2].lower()])

    def _error(self, message: str, hint: str | None = None) -> UsageError:
        return UsageError(f"{self._name}: {message}", hint=hint)
