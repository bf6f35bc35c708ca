"""One frame of the tty progress: a pure function from the state of a build to lines.

The frame has a heading, and a line for each vertex and each of its parts, with seconds at the right edge. Below a
step that runs and prints stand its last lines, as many as the height allows. Lines are one column shorter than the
terminal, so that the cursor never wraps.
"""

from __future__ import annotations

from castoff.cli.progress.state import BuildState, printable
from castoff.cli.sizes import transfer_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from castoff.cli.progress.state import Status, VertexView

TAIL_HEIGHT = 6
"""How many of the last lines of a running step are shown."""
_MIN_NAME = 12
_MIN_NAME_BESIDE_BYTES = 20


class Row:
    """A line of the frame, and the style it is drawn in: "", "done", "failed", "canceled" or "faint"."""

    __slots__ = ("running", "style", "tail_of", "text")

    def __init__(self, text: str, style: str, *, running: bool = False, tail_of: VertexView | None = None) -> None:
        self.text = text
        self.style = style
        self.running = running
        self.tail_of = tail_of


def frame(state: BuildState, width: int, height: int, now: float, *, final: bool = False) -> list[str]:
    """Return the lines of a frame without colours; see `rows`."""
    return [row.text for row in rows(state, width, height, now, final=final)]


def rows(state: BuildState, width: int, height: int, now: float, *, final: bool = False) -> list[Row]:
    """Return the lines of a frame, each at most ``width - 1`` columns wide.

    Args:
        state: the build.
        width: columns of the terminal.
        height: lines of the terminal; the frame leaves two free. The final frame is as high as it must be.
        now: seconds since the epoch, for what still runs.
        final: whether the build has ended: nothing is left out and no tails are shown.
    """
    done, total = state.counts
    verb = "FINISHED" if final and done == total and total else ""
    seconds = max(0.0, (state.ended or now) - state.started)
    heading = f"[+] Building {seconds:.1f}s ({done}/{total}) {verb}".rstrip()
    jobs = [row for vertex in state.vertices.values() for row in _vertex_rows(vertex, width, now)]
    if not final:
        jobs = _fit(jobs, height - 2)
        jobs = _with_tails(jobs, width, height - 2)
    return [Row(_cut(heading, width - 1)[0], ""), *jobs]


def _vertex_rows(vertex: VertexView, width: int, now: float) -> list[Row]:
    running = vertex.ended is None
    style = {"started": "", "failed": "failed", "canceled": "canceled"}.get(vertex.state, "done")
    mark = {"cached": "CACHED ", "failed": "ERROR ", "canceled": "CANCELED "}.get(vertex.state, "")
    text = _line(f"{mark}{printable(vertex.name)}", "", vertex.seconds(now), width)
    found = [Row(text, style, running=running, tail_of=vertex if running and vertex.printed else None)] if text else []
    for status in vertex.statuses.values():
        end = now if status.ended is None else status.ended
        text = _line(f"=> {printable(status.name)}", _transferred(status), end - status.started, width)
        if text:
            found.append(Row(text, "" if status.ended is None else "done", running=status.ended is None))
    return found


def _transferred(status: Status) -> str:
    if status.total and (status.ended is None or status.current != status.total):
        return f"{transfer_size(status.current or 0)} / {transfer_size(status.total)}"
    return "" if status.current is None else transfer_size(status.current)


def _line(name: str, beside: str, seconds: float, width: int) -> str:
    """Return `` => name beside   0.1s``, or "" on a terminal too narrow for it."""
    timer = f" {0.0 if seconds < 0.05 else seconds:3.1f}s"
    left = width - len(" => ") - len(timer) - 2
    if beside and left + len(beside) > _MIN_NAME_BESIDE_BYTES and left - len(beside) - 1 >= _MIN_NAME:
        left -= len(beside) + 1
    else:
        beside = ""
    if left < _MIN_NAME:
        return ""
    name, columns = _cut(name, left)
    if beside:
        name, columns = f"{name} {beside}", columns + len(beside) + 1
    return f" => {name}{' ' * (width - 1 - len(' => ') - columns - len(timer))}{timer}"


def _fit(jobs: list[Row], limit: int) -> list[Row]:
    """Leave out rows until `limit` remain: the oldest ended ones first, then the oldest of all."""
    excess = len(jobs) - max(limit, 0)
    kept = []
    for row in jobs:
        if excess > 0 and not row.running:
            excess -= 1
        else:
            kept.append(row)
    return kept[excess:] if excess > 0 else kept


def _with_tails(jobs: list[Row], width: int, limit: int) -> list[Row]:
    """Put the last lines of running steps below them, where there is room (rows that have ended give way)."""
    running = sum(1 for row in jobs if row.running)
    free = limit - running
    shown: dict[str, list[Row]] = {}
    for row in reversed(jobs):
        if row.tail_of is not None and free > TAIL_HEIGHT:
            shown[row.tail_of.id] = _tail(row.tail_of, width)
            free -= len(shown[row.tail_of.id])
    if not shown:
        return jobs
    result = []
    for row in _fit(jobs, limit - sum(map(len, shown.values()))):
        result.append(row)
        if row.tail_of is not None:
            result += shown.get(row.tail_of.id, [])
    return result


def _tail(vertex: VertexView, width: int) -> list[Row]:
    from castoff.cli.progress.tail import screen_line

    lines = [line for _, line in vertex.lines[-TAIL_HEIGHT:]] + [vertex.partial]
    texts = [text for line in lines if (text := screen_line(line))][-TAIL_HEIGHT:]
    return [Row(f" => => # {_cut(text, width - 11)[0]}", "faint") for text in texts]


def _cut(text: str, columns: int) -> tuple[str, int]:
    """Return text cut to a number of columns, and the columns that it takes."""
    if text.isascii():
        return text[: max(columns, 0)], min(len(text), max(columns, 0))
    from unicodedata import combining, east_asian_width

    used = 0
    for index, char in enumerate(text):
        size = 0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1
        if used + size > columns:
            return text[:index], used
        used += size
    return text, used
