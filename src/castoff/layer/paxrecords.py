"""Pax extended header records: ``length key=value`` lines (POSIX.1-2017 "pax", section "pax Extended Header")."""

from __future__ import annotations

from castoff.errors import InvalidImageError

MAX_HEADER = 1 << 20
"""How many bytes of extended headers one entry may have."""
XATTR_PREFIX = b"SCHILY.xattr."

_SPARSE_PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_MAX_DIGITS = 20


def parse_records(body: bytes) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
    """Return the records of an extended header, later ones over earlier ones, and those of sparse pairs in order.

    Raises:
        InvalidImageError: a record is not well formed.
    """
    records: dict[bytes, bytes] = {}
    pairs: list[tuple[bytes, bytes]] = []
    start = 0
    while start < len(body):
        space = body.find(b" ", start, start + _MAX_DIGITS)
        digits = body[start:space]
        if space < 0 or not digits.isdigit():
            if not body[start:].strip(b"\0"):
                break
            raise InvalidImageError("a pax header of the archive has a record without a length")
        end = start + int(digits)
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(body) or body[end - 1] != 10 or not equals or not key:
            raise InvalidImageError("a pax header of the archive has a record that is not well formed")
        if key in _SPARSE_PAIR:
            pairs.append((key, value))
        else:
            records[key] = value
        start = end
    return records, pairs


def parse_number(value: bytes, what: str) -> int:
    """Return a record's value as a number that is not negative.

    Raises:
        InvalidImageError: it is none.
    """
    if not value.isdigit() or len(value) > _MAX_DIGITS:
        raise InvalidImageError(f"a pax header of the archive has the {what} {value[:40]!r}, which is no valid number")
    return int(value)


def parse_time(value: bytes) -> int:
    """Return a time in nanoseconds; fractions may have any number of digits.

    Raises:
        InvalidImageError: it is not a decimal number.
    """
    sign = -1 if value.startswith(b"-") else 1
    seconds, _, fraction = value.removeprefix(b"-").partition(b".")
    if not seconds.isdigit() or len(seconds) > _MAX_DIGITS or (fraction and not fraction.isdigit()):
        raise InvalidImageError(f"a pax header of the archive has the time {value[:40]!r}, which is no valid number")
    return sign * (int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0")))
