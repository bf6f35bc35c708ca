"""The text of a Dockerfile: bytes in, lines out."""

from __future__ import annotations

from dataclasses import dataclass

from castoff.errors import ParseError
from castoff.location import SourceRange

MAX_LINE = 65536
"""The longest line that the reference reads, in bytes with its line feed."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Source:
    r"""The lines of a file.

    Bytes that are not UTF-8 are kept as lone surrogates (PEP 383), so that what was read can be written again.

    Attributes:
        file: the name for messages.
        lines: with their line ends (``\\n`` or ``\\r\\n``); the byte-order mark is gone.
        too_long: the number, from 0, of the first line that is too long to be read; None where all are fine.
    """

    file: str
    lines: tuple[str, ...]
    too_long: int | None = None

    @classmethod
    def read(cls, data: bytes, file: str) -> Source:
        """Split `data` into lines."""
        too_long = None
        lines = []
        for number, line in enumerate(data.split(b"\n")):
            ended = line + b"\n"
            lines.append(ended)
            if too_long is None and len(ended) > MAX_LINE:
                too_long = number
        last = lines.pop()[:-1]
        if last:
            lines.append(last)
            if too_long == len(lines):
                too_long = None
        if lines and lines[0].startswith(_BOM):
            lines[0] = lines[0][len(_BOM) :]
        return cls(file, tuple(line.decode("utf-8", "surrogateescape") for line in lines), too_long)

    def range(self, first: int, last: int | None = None) -> SourceRange:
        """Return the range of the lines `first` to `last`, which count from 1."""
        return SourceRange(self.file, first, max(first, last or first))

    def find(self, where: SourceRange, word: str) -> SourceRange:
        """Return the place of `word` within the lines of `where`, or `where` itself if it can't be told."""
        if not word or "\n" in word:
            return where
        for number in range(where.start_line, min(where.end_line, len(self.lines)) + 1):
            column = self.lines[number - 1].find(word)
            if column >= 0:
                return SourceRange(self.file, number, number, column, column + len(word))
        return where

    def check_line(self, number: int) -> None:
        """Refuse the line `number` (from 0) if it is too long to be read.

        Raises:
            ParseError: it is.
        """
        if self.too_long is not None and number >= self.too_long:
            raise ParseError(
                f"dockerfile line greater than max allowed size of {MAX_LINE - 1}",
                hint="continue the line with a backslash, or move the text into a file",
                location=self.range(self.too_long + 1),
            )
