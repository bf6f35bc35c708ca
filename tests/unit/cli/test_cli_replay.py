"""The replay of a recorded build, and what it may import."""

from __future__ import annotations

import io
import json
import marshal
import subprocess
import sys
from typing import Any

import pytest

from castoff.cli.progress.rawjson import timestamp
from castoff.cli.progress.recording import cached_records
from castoff.cli.progress.state import BuildState
from castoff.cli.replay import replay, resolve_mode

HEAVY = (
    "dataclasses",
    "enum",
    "typing",
    "re",
    "json",
    "argparse",
    "rich",
    "threading",
    "castoff.events",
    "castoff.errors",
)


def recorded() -> list[tuple[Any, ...]]:
    state = BuildState(10.0)
    for record in (
        ("v", "a", "[internal] load build context", "started", 10.0, ""),
        ("s", "a", "transferring context:", 10.5, 5000, 5000, True),
        ("v", "a", "[internal] load build context", "done", 11.0, ""),
        ("v", "b", "[2/2] RUN make", "started", 11.0, ""),
        ("l", "b", b"output\n", 1, 12.0),
        ("v", "b", "[2/2] RUN make", "done", 31.0, ""),
        ("w", "a warning", "Rule", "Dockerfile:2"),
    ):
        state.apply(record)
    return cached_records(state)


def shown(mode: str) -> str:
    out = io.StringIO()
    records = marshal.loads(marshal.dumps(recorded()))
    replay(records, mode, out)
    return out.getvalue()


def test_plain_replay_is_cached() -> None:
    assert shown("plain") == (
        "#1 [internal] load build context\n#1 transferring context: 5.00kB done\n#1 DONE 0.0s\n\n"
        "#2 [2/2] RUN make\n#2 CACHED\n\n 1 warning found:\n - Rule: a warning (Dockerfile:2)\n"
    )


def test_tty_replay_without_a_terminal_is_the_last_frame() -> None:
    lines = shown("tty").splitlines()
    assert lines[0] == "[+] Building 0.0s (2/2) FINISHED"
    assert lines[3].startswith(" => CACHED [2/2] RUN make ")


def test_quiet_replay_is_silent() -> None:
    assert shown("quiet") == ""


def test_rawjson_replay_is_a_solve_status_a_line() -> None:
    statuses = [json.loads(line) for line in shown("rawjson").splitlines()]
    vertexes = [vertex for status in statuses for vertex in status.get("vertexes", [])]
    assert [vertex["name"] for vertex in vertexes] == ["[internal] load build context"] * 2 + ["[2/2] RUN make"] * 2
    assert vertexes[-1]["cached"] is True
    assert vertexes[-1]["completed"].endswith("Z")
    assert all(vertex["digest"].startswith("sha256:") for vertex in vertexes)
    assert statuses[1]["statuses"][0]["current"] == 5000
    assert statuses[-1]["warnings"]


def test_auto_is_plain_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    assert resolve_mode("auto", out, {}) == "plain"
    assert resolve_mode("auto", out, {"BUILDKIT_PROGRESS": "rawjson"}) == "rawjson"
    assert resolve_mode("auto", out, {"BUILDKIT_PROGRESS": "colourful"}) == "plain"
    assert resolve_mode("tty", out, {"BUILDKIT_PROGRESS": "rawjson"}) == "tty"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert resolve_mode("auto", Terminal(), {"TERM": "xterm"}) == "tty"
    assert resolve_mode("auto", Terminal(), {"TERM": "dumb"}) == "plain"


def test_timestamps_have_nanoseconds() -> None:
    assert timestamp(1_700_000_000.25) == "2023-11-14T22:13:20.250000000Z"


@pytest.mark.parametrize("mode", ["plain", "tty", "quiet"])
def test_replay_imports_nothing_heavy(mode: str) -> None:
    script = (
        "import sys\n"
        "from castoff.cli.replay import replay\n"
        f"replay({recorded()!r}, {mode!r}, sys.stderr)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    source = __import__("castoff").__path__[0].rpartition("/")[0]
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {source!r})\n{script}"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
