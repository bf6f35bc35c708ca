"""``castoff build --explain``: prints, after a build, why each of its steps ran."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from castoff.cli.progress.state import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from castoff.ops.inputs import BuildInputs
    from castoff.solve.explain import Explanation

FORMS = ("text", "json")
_SHOWN = 5
"""How many reasons of a step the text names."""


def explanation_text(explanations: Sequence[Explanation]) -> str:
    """Return a line for each step that ran, in the order of the Dockerfile, and one that counts."""
    ran = [item for item in sorted(explanations, key=lambda item: item.index) if item.ran]
    total = len(explanations)
    if not ran:
        return f"nothing ran: {_all(total, 'step')} cached\n" if total else "nothing ran: there are no steps to run\n"
    lines = [_line(item) for item in ran]
    lines.append(f"{len(ran)} of {total} {_plural(total, 'step')} ran, {total - len(ran)} cached")
    return "".join(f"{line}\n" for line in lines)


def _line(item: Explanation) -> str:
    texts = [reason.text for reason in item.reasons]
    # That the step before ran is said last, and always, however many files there are.
    own, below = texts[:-1], texts[-1:]
    if item.reasons and item.reasons[-1].kind not in ("step", "base"):
        own, below = texts, []
    more = [f"and {len(own) - _SHOWN} more"] if len(own) > _SHOWN else []
    return printable(f"{item.name} ran: {'; '.join((*own[:_SHOWN], *more, *below))}")


def explanation_document(explanations: Sequence[Explanation]) -> dict[str, Any]:
    """Return the JSON document of an explanation, with all steps, cached ones too."""
    return {
        "steps": [
            {
                "name": item.name,
                "ran": item.ran,
                "outcome": item.outcome.value,
                "reasons": [
                    {
                        "kind": reason.kind,
                        "subject": reason.subject,
                        "before": reason.before,
                        "after": reason.after,
                        "text": reason.text,
                    }
                    for reason in item.reasons
                ],
            }
            for item in sorted(explanations, key=lambda item: item.index)
        ]
    }


def unchanged_text(inputs: BuildInputs) -> str:
    """Return the line for a build that has nothing to do, for the no-op check looked at all that decided it."""
    count = len(inputs.files)
    for tree in inputs.trees:
        seen = {path for path, mark in tree.seen.items() if mark is not None}
        for folder, (_own, used, _rest) in tree.listed.items():
            seen.update(folder + b"/" + name if folder else name for name in used)
        count += len(seen)
    return f"nothing ran: {_all(count, 'input')} unchanged\n"


def _all(count: int, what: str) -> str:
    return f"its only {what}" if count == 1 else f"all {count} {what}s"


def _plural(count: int, what: str) -> str:
    return what if count == 1 else f"{what}s"


class ExplanationPrinter:
    """Collects the explanations of a build, and prints them when it has ended.

    Text goes to standard error, below the progress that it belongs to; JSON goes to standard output.
    """

    def __init__(self, form: str) -> None:
        """Take a form: ``text``, ``json``, or "" to do nothing."""
        self._form = form
        self._explanations: list[Explanation] = []

    @property
    def sink(self) -> Callable[[Explanation], None] | None:
        """What a build is given to tell its explanations to; None where nobody asks for them."""
        return self._explanations.append if self._form else None

    def print_(self) -> None:
        """Print what was collected."""
        if self._form == "text":
            with suppress(OSError):  # that nobody looks on is no failure
                sys.stderr.write(explanation_text(self._explanations))
                sys.stderr.flush()
        elif self._form == "json":
            sys.stdout.write(dump(explanation_document(self._explanations)))

    def repeated(self, inputs: BuildInputs) -> tuple[str, str]:
        """Return what the fast path prints to standard output and to standard error once nothing has changed."""
        if self._form == "text":
            return "", unchanged_text(inputs)
        if self._form == "json":
            cached = [{"name": item.name, "ran": False, "outcome": "cached", "reasons": []} for item in self._sorted()]
            return dump({"steps": cached}), ""
        return "", ""

    def _sorted(self) -> list[Explanation]:
        return sorted(self._explanations, key=lambda item: item.index)


def dump(document: dict[str, Any]) -> str:
    """Return a JSON document as it is printed: one line."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"
