"""What ``build --explain`` prints."""

from __future__ import annotations

import json

import pytest

from castoff.cli.explain import explanation_document, explanation_text, unchanged_text
from castoff.cli.parser import Parser
from castoff.context.digests import Fingerprint
from castoff.errors import UsageError
from castoff.ops.inputs import BuildInputs, TreeInput
from castoff.solve.explain import Explanation, Outcome, Reason

BELOW = Reason("step", "[1/3] RUN a", "", "", "the step before it ran")


def changed(path: str) -> Reason:
    return Reason("file", path, "sha256 aa", "sha256 bb", f"{path} changed")


def test_steps_that_ran_are_told_in_their_order() -> None:
    made = [
        Explanation(2, "v2", "[3/3] RUN b", Outcome.MISSING, (BELOW,)),
        Explanation(0, "v0", "[1/3] WORKDIR /a", Outcome.CACHED),
        Explanation(1, "v1", "[2/3] COPY a .", Outcome.MISSING, (changed("a"),)),
    ]
    assert explanation_text(made) == (
        "[2/3] COPY a . ran: a changed\n[3/3] RUN b ran: the step before it ran\n2 of 3 steps ran, 1 cached\n"
    )


def test_many_files_are_counted_and_the_step_before_is_said_all_the_same() -> None:
    reasons = (*(changed(f"f{number}") for number in range(8)), BELOW)
    text = explanation_text([Explanation(0, "v", "[1/1] COPY . .", Outcome.MISSING, reasons)])
    assert text.startswith("[1/1] COPY . . ran: f0 changed; f1 changed; ")
    assert "f5" not in text
    assert "; and 3 more; the step before it ran\n" in text


def test_control_characters_of_names_are_not_printed() -> None:
    reason = Reason("file", "x", "", "", "a\x1b[2J\nb is new")
    assert "\x1b" not in explanation_text([Explanation(0, "v", "COPY", Outcome.MISSING, (reason,))])
    assert explanation_text([Explanation(0, "v", "COPY", Outcome.MISSING, (reason,))]).count("\n") == 2


def test_where_nothing_ran() -> None:
    cached = [Explanation(number, str(number), "RUN", Outcome.CACHED) for number in range(3)]
    assert explanation_text(cached) == "nothing ran: all 3 steps cached\n"
    assert explanation_text(cached[:1]) == "nothing ran: its only step cached\n"
    assert explanation_text([]) == "nothing ran: there are no steps to run\n"


def test_the_document_has_all_steps() -> None:
    made = [
        Explanation(1, "v1", "RUN b", Outcome.IGNORED, (Reason("no-cache", "--no-cache", "", "", "--no-cache"),)),
        Explanation(0, "v0", "RUN a", Outcome.CACHED),
    ]
    assert json.loads(json.dumps(explanation_document(made))) == {
        "steps": [
            {"name": "RUN a", "ran": False, "outcome": "cached", "reasons": []},
            {
                "name": "RUN b",
                "ran": True,
                "outcome": "ignored",
                "reasons": [
                    {"kind": "no-cache", "subject": "--no-cache", "before": "", "after": "", "text": "--no-cache"}
                ],
            },
        ]
    }


def test_inputs_are_counted_once() -> None:
    mark = Fingerprint(1, 1, 1, 1, 1, 1)
    tree = TreeInput("/c", {b"a": mark, b"gone": None}, {b"": (mark, {b"a": mark, b"b": mark}, frozenset({b"no"}))})
    inputs = BuildInputs({"/c/Dockerfile": mark}, (tree,), {}, (), 0)
    assert unchanged_text(inputs) == "nothing ran: all 3 inputs unchanged\n"


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        ([], ""),
        (["--explain"], "text"),
        (["--explain=json"], "json"),
        (["--explain=text"], "text"),
        (["--explain", "--explain=false"], ""),
        (["--explain=true"], "text"),
    ],
)
def test_the_option_and_its_forms(argv: list[str], value: str) -> None:
    parser = Parser("castoff build", "build")
    parser.form("--explain", "text", "json", text="x")
    assert parser.parse(argv).explain == value


def test_a_form_that_there_is_not() -> None:
    parser = Parser("castoff build", "build")
    parser.form("--explain", "text", "json", text="x")
    with pytest.raises(UsageError, match="one of text, json, true or false, not 'xml'"):
        parser.parse(["--explain=xml"])
