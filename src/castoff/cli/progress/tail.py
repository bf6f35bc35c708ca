"""What a line of a step's output looks like on a screen, for the tail below a running step."""

from __future__ import annotations

import re

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movements
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC and other strings
    r"|\x1b[ -/]*[0-~]"  # other escapes
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
_TAB = 8


def screen_line(data: bytes) -> str:
    """Return what a terminal shows for one line: the text after the last carriage return, no control characters."""
    text = _ESCAPES.sub("", data.decode("utf-8", "replace"))
    text = text.rstrip("\r").rpartition("\r")[2]
    return "".join(c for c in text.expandtabs(_TAB) if c.isprintable()).rstrip()
