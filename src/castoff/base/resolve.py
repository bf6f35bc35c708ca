"""Which packages a base needs: the names that are wanted and, where asked for, all that they depend on.

The rules are those of Debian policy, chapter 7: Depends and Pre-Depends with alternatives, version relations and
(versioned) Provides; Conflicts and Breaks are checked at the end. Recommends are never followed. The same indexes give
the same answer always.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from debian.debian_support import Version

from castoff.base.lockfile import LockedPackage, pool_path
from castoff.errors import UsageError

if TYPE_CHECKING:
    from castoff.base.archive import SuiteIndex

_RELATION = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9+.-]*)(?::(?P<qualifier>[a-z0-9-]+))?"
    r"(?:\s*\(\s*(?P<operator><<|<=|=|>=|>>|<|>)\s*(?P<version>[^\s)]+)\s*\))?(?:\s*\[(?P<only>[^\]]*)\])?"
)
_PACKAGE = re.compile(rb"^Package: *(\S+)", re.MULTILINE)
_PROVIDES = re.compile(rb"^Provides: *(.*)", re.MULTILINE)
_REQUIRED = re.compile(rb"^(?:Essential: yes|Priority: required)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Relation:
    """One alternative of a relation between packages; `operator` is "" where any version will do."""

    name: str
    operator: str
    version: str

    def admits(self, version: str) -> bool:
        """Tell whether a version fulfils the relation."""
        if not self.operator:
            return True
        have, want = Version(version), Version(self.version)
        if self.operator == "=":
            return bool(have == want)
        if self.operator in ("<<", "<=", "<"):
            return bool(have < want) or (self.operator != "<<" and bool(have == want))
        return bool(have > want) or (self.operator != ">>" and bool(have == want))

    def __str__(self) -> str:
        """Return it as a control file has it."""
        return f"{self.name} ({self.operator} {self.version})" if self.operator else self.name


def parse_relations(text: str) -> tuple[tuple[Relation, ...], ...]:
    """Read a relation field: a conjunction of alternatives. What is for other architectures only is left in."""
    groups = []
    for clause in text.split(","):
        alternatives = []
        for word in clause.split("|"):
            found = _RELATION.fullmatch(word.strip())
            if found:
                alternatives.append(Relation(found["name"], found["operator"] or "", found["version"] or ""))
        if alternatives:
            groups.append(tuple(alternatives))
    return tuple(groups)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A package that can be chosen: its paragraph of an index, and the index that it is from."""

    name: str
    version: str
    paragraph: str
    index: SuiteIndex

    def field(self, key: str) -> str:
        """Return a field of the paragraph, continuation lines joined; "" where it is absent."""
        found = re.search(rf"^{key}:[ \t]*(.*(?:\n[ \t].*)*)", self.paragraph, re.MULTILINE | re.IGNORECASE)
        return " ".join(found[1].split()) if found else ""

    def relations(self, *keys: str) -> tuple[tuple[Relation, ...], ...]:
        """Return the groups of alternatives of some relation fields."""
        return tuple(group for key in keys for group in parse_relations(self.field(key)))

    def locked(self) -> LockedPackage:
        """Return it as a lock holds it.

        Raises:
            UsageError: the index gives a path or a digest that is not well formed.
        """
        sha256, size = self.field("SHA256"), self.field("Size")
        if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not size.isdigit():
            raise UsageError(f"the index gives no SHA256 or size of the package {self.name} {self.version}")
        return LockedPackage(
            self.name,
            self.version,
            self.field("Architecture"),
            self.index.archive,
            self.index.suite,
            self.index.component,
            pool_path(self.field("Filename")),
            int(size),
            sha256,
        )


class Universe:
    """All packages of some indexes, of each name the newest version; the first index wins among equals.

    An index has tens of thousands of paragraphs: they are found by position, and read only where one is asked for.
    """

    def __init__(self, indexes: Sequence[SuiteIndex]) -> None:
        self._places: dict[str, list[tuple[SuiteIndex, int]]] = {}
        self._providers: dict[str, set[str]] = {}
        self._required = set[str]()
        self._chosen: dict[str, Candidate | None] = {}
        for index in indexes:
            starts: list[int] = []
            names: list[str] = []
            for found in _PACKAGE.finditer(index.text):
                name = found[1].decode("utf-8", "surrogateescape")
                self._places.setdefault(name, []).append((index, found.start()))
                starts.append(found.start())
                names.append(name)
            for found in _PROVIDES.finditer(index.text):
                name = names[bisect_right(starts, found.start()) - 1] if starts else ""
                for group in parse_relations(found[1].decode("utf-8", "surrogateescape")):
                    self._providers.setdefault(group[0].name, set()).add(name)
            for found in _REQUIRED.finditer(index.text):
                if starts and starts[0] < found.start():
                    self._required.add(names[bisect_right(starts, found.start()) - 1])

    def newest(self, name: str) -> Candidate | None:
        """Return the newest version of a package; None where there is none."""
        if name not in self._chosen:
            best: Candidate | None = None
            for index, start in self._places.get(name, ()):
                end = index.text.find(b"\n\n", start)
                paragraph = index.text[start : end if end >= 0 else None].decode("utf-8", "surrogateescape")
                candidate = Candidate(name, "", paragraph, index)
                candidate = replace(candidate, version=candidate.field("Version"))
                if best is None or Version(candidate.version) > Version(best.version):
                    best = candidate
            self._chosen[name] = best
        return self._chosen[name]

    def matches(self, relation: Relation) -> Iterator[Candidate]:
        """Yield the packages that fulfil a relation: the real one, then providers by name."""
        real = self.newest(relation.name)
        if real and relation.admits(real.version):
            yield real
        for name in sorted(self._providers.get(relation.name, ())):
            provider = self.newest(name)
            if provider and name != relation.name and _provides(provider, relation):
                yield provider

    def required(self) -> Iterator[str]:
        """Yield the names of the packages that a working system has: essential or of priority required."""
        for name in sorted(self._required):
            candidate = self.newest(name)
            if candidate and (candidate.field("Essential") == "yes" or candidate.field("Priority") == "required"):
                yield name


def _provides(provider: Candidate, relation: Relation) -> bool:
    """Tell whether a package provides what a relation asks for; an unversioned provision fulfils no version."""
    for group in provider.relations("Provides"):
        provided = group[0]
        if provided.name == relation.name and (
            not relation.operator or (provided.version and relation.admits(provided.version))
        ):
            return True
    return False


def resolve(
    universe: Universe, wanted: Iterable[str], *, dependencies: bool, exclude: frozenset[str] = frozenset()
) -> tuple[Candidate, ...]:
    """Return the packages that are needed, sorted by name.

    Of alternatives, one that is chosen already is taken, else the first that can be had.

    Raises:
        UsageError: a package does not exist, a dependency can't be met, or two packages conflict; the chain of
            packages that leads there is named.
    """
    chosen: dict[str, Candidate] = {}
    reasons: dict[str, str] = {}
    queue: list[str] = []
    for name in dict.fromkeys(wanted):
        candidate = universe.newest(name)
        if candidate is None:
            provided = next(universe.matches(Relation(name, "", "")), None)
            hint = f"it is provided by {provided.name}: name that" if provided else "look for another name of it"
            raise UsageError(f"the archive has no package {name!r}", hint=hint)
        chosen[name] = candidate
        queue.append(name)
    while dependencies and queue:
        current = chosen[queue.pop(0)]
        for group in current.relations("Pre-Depends", "Depends"):
            if _fulfilled(group, chosen) or any(relation.name in exclude for relation in group):
                continue
            found = next((c for r in group for c in universe.matches(r) if c.name not in exclude), None)
            if found is None:
                text = " | ".join(str(relation) for relation in group)
                raise UsageError(f"{_chain(current.name, reasons)} depends on {text}, which the archive does not have")
            if found.name not in chosen:
                chosen[found.name] = found
                reasons[found.name] = current.name
                queue.append(found.name)
    if dependencies:
        _check_conflicts(chosen)
    return tuple(chosen[name] for name in sorted(chosen))


def _chain(name: str, reasons: dict[str, str]) -> str:
    links = [name]
    while links[-1] in reasons and len(links) < 20:
        links.append(reasons[links[-1]])
    return " < ".join(links)


def _fulfilled(group: Sequence[Relation], chosen: dict[str, Candidate]) -> bool:
    for relation in group:
        real = chosen.get(relation.name)
        if real and relation.admits(real.version):
            return True
        if any(_provides(candidate, relation) for candidate in chosen.values() if "\nProvides:" in candidate.paragraph):
            return True
    return False


def _check_conflicts(chosen: dict[str, Candidate]) -> None:
    for name in sorted(chosen):
        candidate = chosen[name]
        for group in candidate.relations("Conflicts", "Breaks"):
            for relation in group:
                other = chosen.get(relation.name)
                clash = other if other and other is not candidate and relation.admits(other.version) else None
                if clash is None:
                    clash = next((c for c in chosen.values() if c is not candidate and _provides(c, relation)), None)
                if clash:
                    raise UsageError(
                        f"the packages {name} and {clash.name} can't be together: {name} refuses {relation}"
                    )
