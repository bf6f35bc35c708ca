"""What the steps of the last build of a Dockerfile were keyed by, kept so that the next one can tell what changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from castoff.ops.keyfacts import Facts

_FORMAT = 1
_FOLDER = "explain/builds"
_LIMIT = 16 << 20
_MAX_NOTES = 512


@dataclass(frozen=True, slots=True)
class StepNote:
    """What is remembered of a step.

    Attributes:
        id: its vertex.
        stage: what tells its stage from others: the name, or the number.
        text: the instruction as progress shows it, without numbers.
        key: its cache key.
        succeeded: whether its result was there in the end.
        facts: what its key was made of.
    """

    id: str
    stage: str
    text: str
    key: str
    succeeded: bool
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BuildNotes:
    """What is remembered of a build.

    Attributes:
        steps: by vertex.
        complete: whether it got to its end.
    """

    steps: dict[str, StepNote] = field(default_factory=dict)
    complete: bool = True

    def counterpart(self, vertex: str, stage: str, text: str, present: frozenset[tuple[str, str]]) -> StepNote | None:
        """Return what is remembered of a step that is now at `vertex`; None for one that is new.

        It is the one that was at the same place, if it reads the same, or else one of its stage that does: lines may
        have been put in or taken out above. Where neither is, the instruction itself was changed, and the one that was
        at its place is meant, unless that has only moved.

        Args:
            vertex: the step's vertex.
            stage: its stage.
            text: the instruction.
            present: stage and text of all steps there are now.
        """
        here = self.steps.get(vertex)
        if here is not None and (here.stage, here.text) == (stage, text):
            return here
        same = [note for note in self.steps.values() if (note.stage, note.text) == (stage, text)]
        if same:
            return same[0]
        if here is None or here.stage != stage or (here.stage, here.text) in present:
            return None
        return here


class NoteStore:
    """The notes of builds, by what they built. What can't be read is not there; nothing of it is an error."""

    def __init__(self, cache: str) -> None:
        """Take the folder of the store's caches."""
        self._folder = f"{cache}/{_FOLDER}"

    def _path(self, subject: Iterable[str]) -> str:
        text = "\0".join(subject).encode("utf-8", "surrogateescape")
        return f"{self._folder}/{hashlib.sha256(text).hexdigest()[:40]}"

    def load(self, subject: Iterable[str]) -> BuildNotes | None:
        """Return the notes of the last build of a subject: context, Dockerfile and target."""
        try:
            with open(self._path(subject), "rb") as file:
                value = json.loads(file.read(_LIMIT))
            if value["format"] != _FORMAT:
                return None
            notes = (_note(item) for item in value["steps"])
            return BuildNotes({note.id: note for note in notes}, bool(value["complete"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, subject: Iterable[str], notes: BuildNotes) -> None:
        """Keep the notes of a build in place of those of the one before. Atomic."""
        path = self._path(subject)
        rows = [[note.id, note.stage, note.text, note.key, note.succeeded, note.facts] for note in notes.steps.values()]
        value = {"format": _FORMAT, "complete": notes.complete, "steps": rows}
        temporary = f"{path}.{os.getpid()}.{id(rows):x}"
        with contextlib.suppress(OSError):
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(json.dumps(value, separators=(",", ":")).encode())
            os.rename(temporary, path)
            self._trim()

    def _trim(self) -> None:
        names = os.listdir(self._folder)
        if len(names) <= _MAX_NOTES:
            return
        paths = [f"{self._folder}/{name}" for name in names]
        paths.sort(key=lambda path: os.stat(path).st_mtime_ns)
        for path in paths[: len(paths) - _MAX_NOTES // 2]:
            os.unlink(path)


def _note(item: list[Any]) -> StepNote:
    vertex, stage, text, key, succeeded, facts = item
    if not isinstance(facts, dict):
        raise TypeError("facts are an object")
    return StepNote(
        str(vertex),
        str(stage),
        str(text),
        str(key),
        bool(succeeded),
        {str(name): str(value) for name, value in facts.items()},
    )
