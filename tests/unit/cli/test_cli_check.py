"""castoff check, and castoff build with --check and --call: what they print, and their exit codes."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from castoff.cli.call import Call
from castoff.cli.main import main
from castoff.dockerfile.lint.rules import RULES
from castoff.errors import UsageError

FINE = 'FROM scratch\nCMD ["/app"]\n'
CASING = "FROM scratch as base\n"
BROKEN = "FROM scratch as base\nRUNN x\n"
CYCLE = "FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nCOPY --from=a /x /\n"
TARGETS = """\
# fetch where sources are had
FROM --platform=$BUILDPLATFORM scratch AS fetch

ARG UNUSED
FROM scratch
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one; there is no store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CASTOFF_ROOT", str(tmp_path / "store"))
    return tmp_path


def write(folder: Path, text: str) -> None:
    (folder / "Dockerfile").write_text(text, encoding="utf-8")


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("text", "code"),
    [(FINE, 0), (CASING, 1), ("# check=error=true\n" + CASING, 1), (BROKEN, 3), (CYCLE, 3), ("", 3), ("FROM\n", 3)],
)
@pytest.mark.parametrize("command", [["check"], ["check", "Dockerfile"], ["build", "--check", "."]])
def test_the_exit_code_tells_what_was_found(folder: Path, text: str, code: int, command: list[str]) -> None:
    write(folder, text)
    assert main(command) == code
    assert not (folder / "store").exists()


def test_findings_are_shown_with_their_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, CASING)
    main(["check"])
    assert capsys.readouterr().out == (
        "Check complete, 1 warning has been found!\n"
        "\n"
        "WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/\n"
        "'as' and 'FROM' keywords' casing do not match\n"
        "Dockerfile:1\n"
        "--------------------\n"
        "   1 | >>> FROM scratch as base\n"
        "--------------------\n"
    )


def test_an_error_comes_after_the_findings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, BROKEN)
    main(["check"])
    shown = capsys.readouterr()
    assert shown.out.startswith("Check complete, 1 warning has been found!\n")
    assert "error: unknown instruction: RUNN (did you mean RUN?)\n" in shown.err
    assert "   2 | >>> RUNN x\n     |     ^^^^\n" in shown.err


def test_nothing_found_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, FINE)
    main(["check"])
    assert capsys.readouterr() == ("Check complete, no warnings found.\n", "")


def test_a_base_that_is_not_in_the_store_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "FROM alpine:3\nUSER $SOMEBODY\n")
    assert main(["check"]) == 0
    assert "the base alpine:3 is not in the store" in capsys.readouterr().err


def test_a_base_that_is_no_reference_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "ARG v\nFROM alpine:$v\n")
    assert main(["check"]) == 3
    assert "Dockerfile:2" in capsys.readouterr().err


def test_every_stage_is_checked_unless_one_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "FROM scratch AS a\nENV a b\nFROM scratch AS b\nEXPOSE http\nFROM scratch\n")
    assert main(["check"]) == 3
    assert main(["check", "--target", "a"]) == 1
    assert main(["check", "--target", "2"]) == 0
    assert main(["check", "--target", "c"]) == 3
    assert 'target stage "c" could not be found' in capsys.readouterr().err


def test_the_ignore_file_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "FROM scratch\nCOPY a /\n")
    (folder / ".dockerignore").write_text("a\n")
    assert main(["check"]) == 1
    assert "CopyIgnoredFile" in capsys.readouterr().out
    (folder / "Dockerfile.dockerignore").write_text("b\n")
    assert main(["check"]) == 0


def test_build_arguments_and_platforms_are_regarded(folder: Path) -> None:
    write(folder, "ARG v=1\nFROM a:$v\n")
    assert main(["check", "--build-arg", "v="]) == 3
    assert main(["check", "--build-arg", "v=2", "--platform", "linux/arm64"]) == 0
    write(folder, CASING)
    assert main(["check", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"]) == 0


def test_json_is_that_of_the_reference(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, BROKEN)
    assert main(["check", "--format", "json"]) == 3
    value = printed(capsys)
    assert value["warnings"] == [
        {
            "ruleName": "FromAsCasing",
            "description": "The 'as' keyword should match the case of the 'from' keyword",
            "url": "https://docs.docker.com/go/dockerfile/rule/from-as-casing/",
            "detail": "'as' and 'FROM' keywords' casing do not match",
            "location": {"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]},
        }
    ]
    assert value["buildError"]["message"] == "unknown instruction: RUNN (did you mean RUN?)"
    assert value["buildError"]["location"]["ranges"][0]["start"] == {"line": 2}
    (source,) = value["sources"]
    assert source["filename"] == "Dockerfile"
    assert base64.b64decode(source["data"]) == BROKEN.encode()


def test_findings_that_are_errors_are_one_in_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "# check=error=true\n" + CASING)
    main(["build", "--call=check,format=json", "."])
    assert printed(capsys)["buildError"]["message"].startswith("lint violation found for rules: FromAsCasing")


def test_sarif_names_rules_lines_and_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a b").mkdir()
    write(folder / "a b", BROKEN)
    assert main(["check", "a b", "--format=sarif"]) == 3
    value = printed(capsys)
    assert value["version"] == "2.1.0"
    (run,) = value["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == [rule.name for rule in RULES]
    finding, error = run["results"]
    assert (finding["ruleId"], finding["level"]) == ("FromAsCasing", "warning")
    place = error["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "a%20b/Dockerfile"
    assert place["region"] == {"startLine": 2, "endLine": 2, "startColumn": 1, "endColumn": 5}


def test_standard_input_can_be_checked(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del folder
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CASING.encode())))
    assert main(["check", "-"]) == 1
    assert "Dockerfile:1\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        ["check", "nowhere"],
        ["check", "--format", "xml"],
        ["check", "Dockerfile", "-f", "Dockerfile"],
        ["build", "--call=nothing", "."],
        ["build", "--call=targets,format=sarif", "."],
        ["build", "--check", "--call=targets", "."],
    ],
)
def test_wrong_usage_is_refused(folder: Path, command: list[str]) -> None:
    write(folder, FINE)
    assert main(command) in (1, 2)


def test_targets_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, TARGETS)
    assert main(["build", "--call=targets", "."]) == 0
    assert capsys.readouterr().out == "TARGET    DESCRIPTION\nfetch     where sources are had\n(default) \n"
    assert main(["build", "--call=targets,format=json", "."]) == 0
    first, last = printed(capsys)["targets"]
    assert (first["base"], first["platform"]) == ("scratch", "$BUILDPLATFORM")
    assert last["default"] is True
    assert "name" not in last


def test_an_outline_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        folder,
        "FROM scratch AS app\nARG A=1\n# LONGER what for\nARG LONGER=2\nRUN --mount=type=secret,id=key,required x\n",
    )
    assert main(["build", "--call=outline", "."]) == 0
    assert capsys.readouterr().out == (
        "TARGET: app\n"
        "\n"
        "BUILD ARG   VALUE   DESCRIPTION\n"
        "A           1       \n"
        "LONGER      2       what for\n"
        "\n"
        "SECRET   REQUIRED\n"
        "key      true\n"
        "\n"
    )
    assert main(["build", "--call=outline,format=json", "."]) == 0
    value = printed(capsys)
    assert [item["name"] for item in value["args"]] == ["A", "LONGER"]
    assert value["secrets"][0]["required"] is True
    assert "ssh" not in value


def test_the_text_of_a_call_is_read() -> None:
    assert Call.parse("") == Call()
    assert Call.parse("lint,ignorestatus=true") == Call("check", "text", ignore_status=True)
    assert Call.parse("format=json,outline") == Call("outline", "json")
    with pytest.raises(UsageError):
        Call.parse("check,colour=red")


def test_the_status_can_be_ignored(folder: Path) -> None:
    write(folder, CASING)
    assert main(["build", "--call=check,ignorestatus=true", "."]) == 0
    write(folder, BROKEN)
    assert main(["build", "--call=check,ignorestatus=true", "."]) == 3
