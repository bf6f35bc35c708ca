"""Maps of sparse files in tar archives, in GNU's four formats (GNU tar manual, "Storing Sparse Files")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from castoff.errors import InvalidImageError
from castoff.layer.paxrecords import parse_number
from castoff.layer.tarfields import parse_field

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_PIECES = 1 << 17

Piece = tuple[int, int]
"""Offset and length of some data within a file."""


def check_map(pieces: Sequence[Piece], size: int, stored: int) -> tuple[Piece, ...]:
    """Return a map that is in order, within the file, and as long as what is stored.

    Args:
        pieces: as read.
        size: bytes of the file.
        stored: bytes in the archive.

    Raises:
        InvalidImageError: it is not.
    """
    end = 0
    total = 0
    kept: list[Piece] = []
    for offset, length in pieces:
        if offset < end or offset + length > size:
            raise InvalidImageError("the map of a sparse file in the archive is not in order, or leaves the file")
        end = offset + length
        total += length
        if length:
            kept.append((offset, length))
    if total != stored:
        raise InvalidImageError("the map of a sparse file in the archive does not fit its data")
    return tuple(kept)


def from_pairs(pairs: Sequence[tuple[bytes, bytes]]) -> list[Piece]:
    """Read the map of pax format 0.0: pairs of records.

    Raises:
        InvalidImageError: the records do not alternate, or are too many.
    """
    if len(pairs) > 2 * MAX_PIECES or len(pairs) % 2:
        raise InvalidImageError("the map of a sparse file in the archive is not well formed")
    pieces: list[Piece] = []
    for (first, offset), (second, length) in zip(pairs[::2], pairs[1::2], strict=True):
        if not first.endswith(b"offset") or not second.endswith(b"numbytes"):
            raise InvalidImageError("the map of a sparse file in the archive is not well formed")
        pieces.append((parse_number(offset, "offset"), parse_number(length, "length")))
    return pieces


def from_list(text: bytes) -> list[Piece]:
    """Read the map of pax format 0.1: numbers between commas.

    Raises:
        InvalidImageError: it is not well formed, or too long.
    """
    numbers = [parse_number(part, "offset") for part in text.split(b",")] if text else []
    if len(numbers) > 2 * MAX_PIECES or len(numbers) % 2:
        raise InvalidImageError("the map of a sparse file in the archive is not well formed")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def from_data(read_block: Callable[[], bytes]) -> tuple[list[Piece], int]:
    """Read the map of pax format 1.0, decimal lines in front of the data, and return it with the blocks it took.

    Args:
        read_block: returns the next 512 bytes of the entry.

    Raises:
        InvalidImageError: it is not well formed, or too long.
    """
    text = b""
    position = 0
    blocks = 0

    def number() -> int:
        nonlocal text, position, blocks
        while (end := text.find(b"\n", position)) < 0:
            if len(text) - position > 32:
                raise InvalidImageError("the map of a sparse file in the archive is not well formed")
            text = text[position:] + read_block()
            position = 0
            blocks += 1
        value = parse_number(text[position:end], "offset")
        position = end + 1
        return value

    count = number()
    if count > MAX_PIECES:
        raise InvalidImageError(f"the map of a sparse file in the archive has {count} pieces")
    return [(number(), number()) for _ in range(count)], blocks


def from_header(block: bytes, start: int, count: int) -> list[Piece]:
    """Read the pairs of one header block of the old GNU format; an empty pair ends them.

    Args:
        block: the 512 bytes.
        start: where the pairs begin.
        count: how many there may be.

    Raises:
        InvalidImageError: a number is not valid.
    """
    pieces: list[Piece] = []
    for index in range(count):
        at = start + 24 * index
        if not block[at]:
            break
        pieces.append((parse_field(block[at : at + 12], "offset"), parse_field(block[at + 12 : at + 24], "length")))
    return pieces
