"""Places in a source text, for messages that point at the line and the word."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceRange:
    """A range of a source file.

    Lines count from 1 and are inclusive. Columns count characters from 0, the end column is exclusive; None where
    only the lines are known.
    """

    file: str
    start_line: int
    end_line: int
    start_column: int | None = None
    end_column: int | None = None

    def __str__(self) -> str:
        """Return ``file:line`` (or ``file:first-last``), as an editor reads it."""
        if self.start_line == self.end_line:
            return f"{self.file}:{self.start_line}"
        return f"{self.file}:{self.start_line}-{self.end_line}"
