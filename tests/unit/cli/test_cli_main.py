"""What becomes of a command that a signal tears out of its work."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

import pytest

from castoff.cli import main as door


def test_a_signal_is_the_end_even_where_tidying_up_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_arguments: object) -> NoReturn:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the signal did not come")
        finally:
            raise AttributeError("half made")

    monkeypatch.setattr(door, "_run", work)
    assert door.main(["images"]) == 128 + signal.SIGTERM
    assert "half made" not in capsys.readouterr().err


def test_an_error_without_a_signal_stays_what_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_arguments: object) -> NoReturn:
        raise AttributeError("half made")

    monkeypatch.setattr(door, "_run", work)
    assert door.main(["images"]) == 70
    assert "half made" in capsys.readouterr().err
