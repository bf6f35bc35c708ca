"""Says why steps ran: compares what their keys are made of with what those of the last build were made of."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.ops.buildnotes import BuildNotes, StepNote
from castoff.ops.compose import stage_chain
from castoff.ops.filesystem import FileSystem
from castoff.ops.keyfacts import Facts, facts_of, is_hidden
from castoff.ops.listing import Listing
from castoff.plan.stage import ImageBase
from castoff.plan.step import RunStep
from castoff.solve.explain import Decision, Explanation, HasParts, Outcome, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from castoff.ops.buildnotes import NoteStore
    from castoff.ops.listing import FileChange, ListingStore
    from castoff.ops.sources import Result
    from castoff.ops.vertices import GraphVertices
    from castoff.plan.graph import StageGraph
    from castoff.solve.vertex import Vertex

_MAX_REASONS = 1000
_SHORT = 4


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a step is in its build, and what its messages need of the plan."""

    index: int
    stage: str
    text: str
    arguments: tuple[str, ...]
    base: str
    base_digest: str
    no_cache_stage: bool


class Explainer:
    """Watches a solver, explains what it decides, and keeps the notes for the next build. Safe for several threads.

    Args:
        notes: where the notes of builds are kept.
        listings: where the listings of selections are kept.
        subject: what is built: context, Dockerfile and target.
        graphs: the plans, each with its vertices.
        tell: is given an explanation as soon as a step's fate is known, before it runs; None where nobody asks.
    """

    def __init__(
        self,
        notes: NoteStore,
        listings: ListingStore,
        subject: tuple[str, ...],
        graphs: Iterable[tuple[StageGraph, GraphVertices]],
        tell: Callable[[Explanation], None] | None = None,
    ) -> None:
        self._notes = notes
        self._listings = listings
        self._subject = subject
        self._tell = tell
        self._places = dict(_places(graphs))
        self._present = frozenset((place.stage, place.text) for place in self._places.values())
        self._last = notes.load(subject)
        self._decisions: dict[str, Decision[Result]] = {}
        self._lock = threading.Lock()

    def decided(self, decision: Decision[Result]) -> None:
        """Note a decision, and tell of it."""
        with self._lock:
            self._decisions[decision.vertex.id] = decision
        place = self._places.get(decision.vertex.id)
        if self._tell is not None and place is not None:
            vertex = decision.vertex
            reasons = () if decision.outcome is Outcome.CACHED else tuple(self._reasons(decision, place))
            explanation = Explanation(place.index, vertex.id, vertex.name, decision.outcome, reasons[:_MAX_REASONS])
            with self._lock:
                self._tell(explanation)

    def save(self, has_result: Callable[[Vertex[Result]], bool], *, complete: bool) -> None:
        """Keep what this build was keyed by. Steps that it did not get to keep what was known of them.

        Args:
            has_result: whether a vertex was solved.
            complete: whether the build got to its end.
        """
        last = self._last or BuildNotes()
        steps: dict[str, StepNote] = {}
        for vertex, place in self._places.items():
            decision = self._decisions.get(vertex)
            known = last.steps.get(vertex)
            if decision is None:
                if known is not None and not complete:
                    steps[vertex] = known
                continue
            succeeded = has_result(decision.vertex)
            same = known is not None and known.key == decision.key and known.succeeded == succeeded
            if known is not None and same and (known.stage, known.text) == (place.stage, place.text):
                steps[vertex] = known
            else:
                facts = _facts(decision, place)
                steps[vertex] = StepNote(vertex, place.stage, place.text, decision.key, succeeded, facts)
        notes = BuildNotes(steps, complete)
        if notes != self._last:
            self._notes.save(self._subject, notes)
            self._listings.trim()

    def _reasons(self, decision: Decision[Result], place: _Place) -> Iterator[Reason]:
        """Yield why a step ran, most telling first."""
        if decision.outcome is Outcome.IGNORED:
            option = f"--no-cache-filter {place.stage}" if place.no_cache_stage else "--no-cache"
            yield Reason("no-cache", option, "", "", option)
            return
        if decision.outcome is Outcome.LOST:
            yield self._lost(decision)
            return
        if self._last is None:
            yield Reason("first-build", "", "", "", "first build")
            return
        note = self._last.counterpart(decision.vertex.id, place.stage, place.text, self._present)
        if note is None and not self._last.complete:
            yield Reason("first-build", "", "", "", "the last build did not get to it")
        elif note is None:
            yield Reason("instruction", "", "", place.text, "the instruction is new")
        elif note.key == decision.key:
            yield _without_record(note)
        else:
            found = list(self._differences(decision, place, note))
            yield from found or [Reason("instruction", "", note.text, place.text, "the instruction is another one")]

    def _lost(self, decision: Decision[Result]) -> Reason:
        below = self._below(decision)
        parent = decision.inputs[0]
        assert decision.record is not None
        moved = isinstance(parent, FileSystem) and decision.record.parent != parent.name
        if moved and below is not None and below.outcome is not Outcome.CACHED:
            return Reason("step", below.vertex.name, "", "", "the step before it ran")
        if moved:
            return Reason("step", "", "", "", "the step before it ran again since then")
        return Reason("lost", "", "", "", "its snapshot is gone")

    def _below(self, decision: Decision[Result]) -> Decision[Result] | None:
        """Return the decision about the step before; None where that is a base."""
        return self._decisions.get(decision.vertex.inputs[0].id)

    def _differences(self, decision: Decision[Result], place: _Place, note: StepNote) -> Iterator[Reason]:
        before, after = note.facts, _facts(decision, place)
        names = dict.fromkeys((*after, *before))
        for name in names:
            old, new = before.get(name), after.get(name)
            if old == new or name in ("below", "base", "base image"):
                continue
            kind, _, subject = name.partition(":")
            if kind == "files":
                yield from self._file_reasons(old or "", new or "", subject)
            else:
                yield _fact_reason(kind, subject, old, new)
        if before.get("below") != after.get("below"):
            yield self._below_reason(decision, before, after)

    def _below_reason(self, decision: Decision[Result], before: Facts, after: Facts) -> Reason:
        below = self._below(decision)
        if below is not None:
            words = "ran" if below.outcome is not Outcome.CACHED else "is another one than in the last build"
            return Reason("step", below.vertex.name, "", "", f"the step before it {words}")
        old, new = before.get("base", ""), after.get("base", "")
        if old != new and old and new:
            return Reason("base", new, old, new, f"the base is {new} and was {old}")
        text = f"base {new} is another image" if new else "what it stands on is another file system"
        return Reason("base", new, before.get("base image", ""), after.get("base image", ""), text)

    def _file_reasons(self, old: str, new: str, mount: str) -> Iterator[Reason]:
        """Yield what is different between two selections, of a mount or of what is copied."""
        where = f" (mounted at {mount})" if mount else ""
        olds, news = old.split(","), new.split(",")  # one digest for each place that files come from
        before = self._listing(digest for digest in olds if digest not in news)
        after = self._listing(digest for digest in news if digest not in olds)
        changes = list(before.changes(after)) if before is not None and after is not None else []
        if not changes:
            yield Reason("file", mount, old, new, f"other files{where} ({_digests(old, new)})")
        for change in changes[:_MAX_REASONS]:
            yield Reason("file", change.path, change.before, change.after, _file_text(change) + where)

    def _listing(self, digests: Iterable[str]) -> Listing | None:
        """Return what selections held, given their digests; None where one is not known."""
        rows: dict[str, tuple[int, str, str]] = {}
        complete = True
        for digest in digests:
            listing = self._listings.load(digest) if digest else Listing()
            if listing is None:
                return None
            rows.update(listing.rows)
            complete = complete and listing.complete
        return Listing(rows, complete)


def _places(graphs: Iterable[tuple[StageGraph, GraphVertices]]) -> Iterator[tuple[str, _Place]]:
    index = 0
    for graph, vertices in graphs:
        for stage in graph.stages:
            base = stage_chain(graph, stage)[0].base
            name = digest = ""
            if isinstance(base, ImageBase):
                name = base.name
                digest = str(base.resolved.manifest or "")
            for step in stage.steps:
                vertex = vertices.step(stage, step)
                if vertex is None:
                    continue
                payload = step.payload
                arguments = payload.arguments if isinstance(payload, RunStep) else ()
                text = step.name.partition("] ")[2] or step.created_by
                where = stage.name or str(stage.index)
                yield vertex.id, _Place(index, where, text, arguments, name, digest, stage.no_cache)
                index += 1


def _facts(decision: Decision[Result], place: _Place) -> Facts:
    op = decision.vertex.op
    facts = facts_of(op.parts if isinstance(op, HasParts) else (), place.arguments)
    return {**facts, "base": place.base, "base image": place.base_digest}


def _without_record(note: StepNote) -> Reason:
    """Return why there is no record of a key that the last build had too."""
    if not note.succeeded:
        return Reason("failed", "", "", "", "it did not succeed in the last build")
    return Reason("lost", "", "", "", "its cache record is gone")


def _file_text(change: FileChange) -> str:
    if not change.before:
        return f"{change.path} is new"
    if not change.after:
        return f"{change.path} is gone"
    old, new = change.before.removeprefix("sha256 "), change.after.removeprefix("sha256 ")
    if old != change.before and new != change.after:
        return f"{change.path} changed ({_digests(old, new)})"
    return f"{change.path} changed ({change.before} → {change.after})"


def _digests(old: str, new: str) -> str:
    """Return two digests in as few digits as tell them apart, four at least."""
    size = _SHORT
    while size < len(old) and old[:size] == new[:size]:
        size += _SHORT
    return f"sha256 {old[:size]}… → {new[:size]}…" if old and new else f"sha256 {(old or new)[:size]}…"


_TITLES = {
    "argument": "ARG {}",
    "variable": "the environment variable {}",
    "heredoc": "the heredoc {}",
    "mount": "the mount at {}",
    "host": "--add-host {}",
}
_PROPER = ("--chown", "--chmod", "--unpack", "SOURCE_DATE_EPOCH")


def _fact_reason(kind: str, subject: str, old: str | None, new: str | None) -> Reason:
    """Return the reason that a fact is another one; None is one that is not there."""
    title = _TITLES.get(kind, kind if kind in _PROPER else f"the {kind}").format(subject)
    category = kind if kind in _TITLES or kind == "command" else "option"
    plain = kind not in ("heredoc", "host")
    before = old if plain and old is not None and not is_hidden(old) else ""
    after = new if plain and new is not None and not is_hidden(new) else ""
    if old is None:
        text = f'{title} is new: "{after}"' if after else f"{title} is new"
    elif new is None:
        text = f"{title} is gone"
    elif before or after:
        text = f'{title} changed: "{before}" → "{after}"'
    else:
        text = f"{title} changed"
    return Reason(category, subject or kind, before, after, text)
