"""The cached Go build and other builds, as plain and tty progress show them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from castoff.cli.progress.frame import frame
from castoff.cli.progress.plain import PlainDisplay
from castoff.cli.progress.recording import cached_records
from castoff.cli.progress.state import BuildState
from castoff.cli.progress.terminal import TtyDisplay

DATA = Path(__file__).parents[2] / "data" / "progress"
IMAGE = "sha256:4a5bd9a9b2ef1c41b2c4bcd4dd0a9d1ee3eebf4d9a2f8c61c45c4d1ab8d3e8f7"
START = 1_700_000_000.0

Record = tuple[Any, ...]

GO_BUILD: tuple[tuple[str, str, tuple[tuple[str, int | None], ...]], ...] = (
    ("[internal] load build definition from Dockerfile", "done", (("transferring dockerfile:", 412),)),
    ("[internal] load metadata for gcr.io/distroless/static:nonroot", "done", ()),
    ("[internal] load metadata for docker.io/library/golang:1.22-alpine", "done", ()),
    ("[internal] load .dockerignore", "done", (("transferring context:", 120),)),
    ("[builder 1/6] FROM docker.io/library/golang:1.22-alpine", "done", ()),
    ("[internal] load build context", "done", (("transferring context:", 54),)),
    ("[stage-1 1/3] FROM gcr.io/distroless/static:nonroot", "done", ()),
    ("[stage-1 2/3] WORKDIR /app", "cached", ()),
    ("[builder 2/6] WORKDIR /build", "cached", ()),
    ("[builder 3/6] COPY go.mod .", "cached", ()),
    ("[builder 4/6] RUN go mod download", "cached", ()),
    ("[builder 5/6] COPY main.go .", "cached", ()),
    (
        '[builder 6/6] RUN CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -ldflags="-w -s" -o devops-info-service .',
        "cached",
        (),
    ),
    ("[stage-1 3/3] COPY --from=builder /build/devops-info-service .", "cached", ()),
    (
        "exporting to image",
        "done",
        (
            ("exporting layers", None),
            (f"writing image {IMAGE}", None),
            ("naming to docker.io/library/devops-info-service-go", None),
        ),
    ),
)


def go_records(start: float = START) -> list[Record]:
    found: list[Record] = []
    time = start
    for number, (name, state, statuses) in enumerate(GO_BUILD):
        key = f"v{number}"
        found.append(("v", key, name, "started", time, ""))
        for status, size in statuses:
            found.append(("s", key, status, time, size, size, True))
        time += 0.004
        found.append(("v", key, name, state, time, ""))
    return found


def plain(records: list[Record], *, end: float | None = None) -> str:
    parts: list[str] = []
    display = PlainDisplay(parts.append, START)
    for record in records:
        display.apply(record)
    display.finish(START + 0.1 if end is None else end)
    return "".join(parts)


def tty(records: list[Record], *, end: float | None = None) -> str:
    parts: list[str] = []
    display = TtyDisplay(parts.append, START, descriptor=-1, colour=False)
    for record in records:
        display.apply(record)
    display.finish(START + 0.1 if end is None else end)
    return "".join(parts)


def failing() -> list[Record]:
    name = "[builder 4/6] RUN go mod download"
    return [
        ("v", "a", "[builder 3/6] COPY go.mod .", "started", START, ""),
        ("v", "a", "[builder 3/6] COPY go.mod .", "done", START + 0.02, ""),
        ("v", "b", name, "started", START + 0.02, ""),
        ("v", "c", "[stage-1 2/3] WORKDIR /app", "started", START + 0.02, ""),
        ("l", "b", b"go: downloading example.com/x v1.0.0\ngo: exam", 2, START + 0.233),
        ("l", "b", b"ple.com/x@v1.0.0: no such host\n", 2, START + 12.5),
        ("v", "c", "[stage-1 2/3] WORKDIR /app", "canceled", START + 12.6, ""),
        (
            "v",
            "b",
            name,
            "failed",
            START + 12.7,
            'process "/bin/sh -c go mod download" did not complete successfully: exit code: 1',
        ),
    ]


def parallel() -> list[Record]:
    return [
        ("v", "a", "[a 2/2] RUN make a", "started", START, ""),
        ("v", "b", "[b 2/2] RUN make b", "started", START, ""),
        ("l", "a", b"a one\n", 1, START + 0.5),
        ("l", "b", b"b one\n", 1, START + 1.0),
        ("l", "a", b"a two\n", 1, START + 1.5),
        ("l", "b", b"b two\n", 1, START + 6.0),
        ("l", "a", b"a three\n", 1, START + 6.5),
        ("v", "b", "[b 2/2] RUN make b", "done", START + 7.0, ""),
        ("l", "a", b"a four, no line feed", 1, START + 7.5),
        ("v", "a", "[a 2/2] RUN make a", "done", START + 8.0, ""),
    ]


def transfers() -> list[Record]:
    name = "[internal] load build context"
    found: list[Record] = [("v", "a", name, "started", START, "")]
    found += [
        ("s", "a", "transferring context:", START + step / 20, step * 1_050_000, 105_000_000, step == 100)
        for step in range(101)
    ]
    found.append(("v", "a", "[internal] load build context", "done", START + 5.1, ""))
    found.append(("w", "Stage name 'Builder' should be lowercase", "StageNameCasing", "Dockerfile:1"))
    return found


CASES = {"go-cached": go_records(), "failing": failing(), "parallel": parallel(), "transfers": transfers()}


@pytest.mark.parametrize("name", CASES)
def test_plain_golden(name: str) -> None:
    expected = (DATA / f"{name}.plain.txt").read_text(encoding="utf-8")
    assert plain(CASES[name], end=START + 13) == expected


@pytest.mark.parametrize("name", CASES)
def test_tty_golden(name: str) -> None:
    expected = (DATA / f"{name}.tty.txt").read_text(encoding="utf-8")
    assert tty(CASES[name], end=START + (0.1 if name == "go-cached" else 13)) == expected


def test_go_build_has_the_fifteen_vertices_and_is_finished() -> None:
    lines = tty(go_records()).splitlines()
    assert lines[0] == "[+] Building 0.1s (15/15) FINISHED"
    vertices = [line for line in lines[1:] if not line.startswith(" => => ")]
    assert len(vertices) == 15
    assert all(len(line) == 79 for line in lines[1:])
    assert lines[-3].startswith(" => => exporting layers ")
    assert lines[-1].split("  ")[0] == " => => naming to docker.io/library/devops-info-service-go"


def test_recorded_cold_build_becomes_the_cached_one() -> None:
    state = BuildState(START)
    for record in go_records():
        state.apply((*record[:3], "done", *record[4:]) if record[0] == "v" and record[3] == "cached" else record)
    state.apply(("l", "v10", b"go: downloading\n", 1, START))
    state.apply(("s", "v4", "extracting sha256:abc", START, 10, 10, True))
    records = cached_records(state)
    replayed = [("v", *r[1:4], START, r[5]) if r[0] == "v" else (*r[:3], START, *r[4:]) for r in records]
    assert plain(replayed) == (DATA / "go-cached.plain.txt").read_text(encoding="utf-8")


def state_of(records: list[Record]) -> BuildState:
    state = BuildState(START)
    for record in records:
        state.apply(record)
    return state


def test_frame_fits_the_terminal_and_keeps_what_runs() -> None:
    records = go_records()[:-1]
    state = state_of(records)
    for height in (5, 8, 12, 40):
        lines = frame(state, 80, height, START + 1)
        assert len(lines) <= height - 1
        assert any("exporting to image" in line for line in lines)
    assert frame(state, 80, 40, START + 1)[0] == "[+] Building 1.0s (14/15)"


def test_frame_is_never_wider_than_the_terminal() -> None:
    state = state_of([*go_records(), ("v", "x", "[x] RUN echo 你好世界你好世界你好世界你好世界", "started", START, "")])
    for width in (20, 30, 41, 80, 200):
        for line in frame(state, width, 50, START + 1):
            columns = sum(2 if ord(c) > 0x2E80 else 1 for c in line)
            assert columns <= width - 1, (width, line)
    assert frame(state, 10, 50, START + 1) == ["[+] Build"]


def test_frame_shows_the_tail_of_what_runs() -> None:
    records: list[Record] = [("v", "a", "[1/2] RUN make", "started", START, "")]
    records += [("l", "a", f"\x1b[32mline {n}\x1b[0m\r\n".encode(), 1, START + n) for n in range(9)]
    records += [("l", "a", b"10%\r20%\rhalf a li", 1, START + 10)]
    lines = frame(state_of(records), 80, 30, START + 11)
    assert lines[2:] == [f" => => # line {n}" for n in range(4, 9)] + [" => => # half a li"]
    assert len(frame(state_of(records), 80, 8, START + 11)) == 2
    assert lines[1].endswith(" 11.0s")


def test_control_characters_of_a_name_do_not_reach_the_terminal() -> None:
    records: list[Record] = [("v", "a", "RUN \x1b[2J\nx", "started", START, ""), ("v", "a", "x", "done", START, "")]
    assert "\x1b" not in plain(records)
    assert plain(records).splitlines()[0] == "#1 RUN ?[2J x"
    assert "\x1b" not in tty(records)


def test_a_vertex_that_runs_twice_counts_once() -> None:
    state = state_of(
        [
            ("v", "a", "x", "started", START, ""),
            ("v", "a", "x", "done", START + 1, ""),
            ("v", "a", "x", "started", START + 5, ""),
            ("v", "a", "x", "done", START + 7, ""),
        ]
    )
    assert state.counts == (1, 1)
    assert state.vertices["a"].seconds(0) == pytest.approx(3.0)
