"""Answers are compared, but for what is never the same twice."""

from __future__ import annotations

import json

from castoff_freeze.answers import difference, expectation, volatile
from castoff_freeze.session import Answer
from castoff_freeze.smoke import Command, Request
from hypothesis import given
from hypothesis import strategies as st

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def as_json(value: object) -> Answer:
    return Answer(200, "application/json", json.dumps(value).encode())


def text(body: str, kind: str = "text/plain", status: int = 200) -> Answer:
    return Answer(status, kind, body.encode())


@given(values)
def test_an_answer_equals_itself(value: object) -> None:
    assert not volatile(as_json(value), as_json(value))
    assert not difference(Request("GET", "/"), as_json(value), as_json(value), frozenset())


@given(values, values)
def test_what_differed_before_may_differ_again(one: object, other: object) -> None:
    allowed = volatile(as_json(one), as_json(other))
    if type(one) is type(other):
        assert not difference(Request("GET", "/"), as_json(one), as_json(one), allowed)
    if one != other:
        assert difference(Request("GET", "/"), as_json(one), as_json(other), frozenset())


def test_a_member_that_changes_may_change_and_the_others_may_not() -> None:
    allowed = volatile(as_json({"now": "12:00", "name": "a"}), as_json({"now": "12:01", "name": "a"}))
    asked, expected = Request("GET", "/"), as_json({"now": "12:00", "name": "a"})
    assert not difference(asked, expected, as_json({"now": "13:30", "name": "a"}), allowed)
    assert "name is b instead of a" in difference(asked, expected, as_json({"now": "12:00", "name": "b"}), allowed)
    assert difference(asked, expected, as_json({"now": None, "name": "a"}), allowed)
    assert difference(asked, expected, as_json({"now": "12:00"}), allowed)


def test_members_can_be_ignored_by_name() -> None:
    asked = Request("GET", "/", ignore=("items.*.id",))
    one, other = as_json({"items": [{"id": 1, "n": 1}]}), as_json({"items": [{"id": 2, "n": 1}]})
    assert not difference(asked, one, other, frozenset())
    assert difference(asked, one, as_json({"items": [{"id": 2, "n": 3}]}), frozenset())


def test_a_point_in_time_is_one_word_of_a_text() -> None:
    allowed = volatile(text("at 2026-01-02T10:59:59Z ok"), text("at 2026-01-02T10:59:58Z ok"))
    assert not difference(
        Request("GET", "/"), text("at 2026-01-02T10:59:59Z ok"), text("at 2026-01-03T11:00:00Z ok"), allowed
    )
    assert difference(
        Request("GET", "/"), text("at 2026-01-02T10:59:59Z ok"), text("at 2026-01-02T10:59:59Z no"), allowed
    )


def test_status_type_and_silence_are_differences() -> None:
    asked = Request("GET", "/", whole=False)
    assert "status 500 instead of 200 (oh)" in difference(asked, text("a"), text("oh", status=500), frozenset())
    assert "content type" in difference(asked, text("a"), text("a", "text/html"), frozenset())
    assert "reset" in difference(asked, text("a"), Answer(0, "", b"", "reset"), frozenset())
    assert not difference(asked, text("a"), text("b"), frozenset())


def test_the_unshrunk_service_is_held_to_the_description() -> None:
    assert "status 200 instead of 404" in expectation(Request("GET", "/", status=404), text("x"))
    assert "exit code 1 instead of 0" in expectation(Command(), Answer(1, "", b""))
    assert not expectation(Command(exit=3), Answer(3, "", b""))
