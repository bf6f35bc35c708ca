"""castoff doctor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from castoff.cli.doctor import report
from castoff.cli.main import main
from castoff.sandbox.probe import Fact

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LACKING = Fact("overlay", False, "the store is on an overlay", "use --root")
FINE = Fact("kernel", True, "Linux", "never shown")
OPTIONAL = Fact("pasta", False, "not installed", "apt-get install passt", needed=False)


def test_what_is_lacking_has_a_remedy() -> None:
    assert report([FINE, LACKING, OPTIONAL]) == (
        "ok       kernel   Linux\n"
        "LACKING  overlay  the store is on an overlay\n"
        "                  → use --root\n"
        "without  pasta    not installed\n"
        "                  → apt-get install passt\n"
    )


def test_doctor_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--root", str(tmp_path / "store"), "doctor", "--format", "json"])
    value = json.loads(capsys.readouterr().out)
    assert code == (4 if value["Tier"] == "none" else 0)
    assert value["Store"] == str(tmp_path / "store")
    assert {"kernel", "tier", "seccomp", "gpgv"} <= {fact["Feature"] for fact in value["Facts"]}
    assert list(tmp_path.iterdir()) == []
    assert main(["--root", str(tmp_path / "store"), "doctor"]) == code
    assert "RUN: " in capsys.readouterr().out
    assert main(["doctor", "--format", "xml"]) == 2
