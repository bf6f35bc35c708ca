"""castoff prune: its options, its question, its reports."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from castoff.cli import prune as verb
from castoff.cli.main import main
from castoff.errors import UsageError
from castoff.sandbox.userns import Tier
from castoff.store.directory import DirectoryStore
from castoff.testing.random_images import random_image


class Terminal(io.StringIO):
    """Standard input with somebody at it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = str(tmp_path / "store")
    monkeypatch.setenv("CASTOFF_ROOT", path)
    monkeypatch.setattr(verb, "enter_namespace", lambda _environ: Tier("root", (), (), userxattr=False))
    with DirectoryStore.open_(path) as store:
        random_image(store, "app:1", seed=1)
        store.images.keep(random_image(store, seed=2), 1000.0)
    return path


def images(root: str) -> int:
    with DirectoryStore.open_(root) as store:
        return len(list(store.images))


def test_the_report_says_what_was_freed(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", "-f"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["REMOVED", "NUMBER", "FREED"]
    assert out.splitlines()[1].split() == ["images", "1", "0B"]
    assert "blobs of images" in out
    assert out.endswith("The build cache has 0B left.\n")
    assert images(root) == 1
    assert main(["prune", "-f"]) == 0
    assert capsys.readouterr().out == "nothing to remove; the build cache has 0B\n"


def test_json(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["system", "prune", "--force", "--format=json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["Freed"] == sum(item["Size"] for item in report["Removed"]) > 1000
    assert report["Deferred"] is False
    assert images(root) == 1


def test_until_spares_young_images(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", "-f", "--filter", "until=1970-01-01T00:10:00Z"]) == 0
    assert images(root) == 2
    assert main(["prune", "-f", "--filter", "until=24h"]) == 0
    assert images(root) == 1
    capsys.readouterr()


@pytest.mark.parametrize(("answer", "left"), [("y\n", 1), ("yes\n", 1), ("n\n", 2), ("\n", 2), ("", 2)])
def test_it_asks(
    root: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, left: int
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert main(["prune", "--keep-storage", "10g"]) == 0
    assert "Go on? [y/N]" in capsys.readouterr().err
    assert images(root) == left


@pytest.mark.usefixtures("root")
def test_it_does_not_go_on_unasked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["prune"]) == 2
    assert "--force" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--filter", "label=x"], ["--filter", "until=soon"], ["--keep-storage", "much"], ["--format", "xml"]]
)
@pytest.mark.usefixtures("root")
def test_wrong_values(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", "-f", *options]) == 2
    assert capsys.readouterr().out == ""


def test_another_castoff_in_the_store(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    with DirectoryStore.open_(root) as other:
        other.session()
        assert main(["prune", "-f"]) == 0
    assert "another castoff is using the store" in capsys.readouterr().err
    assert images(root) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24h", 1e9 - 86400),
        ("1h30m", 1e9 - 5400),
        ("1.5h", 1e9 - 5400),
        ("10d", 1e9 - 864000),
        ("500ms", 1e9 - 0.5),
        ("999999999", 999999999.0),
        ("2001-09-09T01:46:40Z", 1e9),
    ],
)
def test_moments(text: str, expected: float) -> None:
    assert verb.moment(text, 1e9) == expected


@pytest.mark.parametrize("text", ["", "h", "1", "1x", "-1h", "yesterday"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(UsageError):
        verb.moment(text, 1e9)
