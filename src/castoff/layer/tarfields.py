"""The fields of tar headers, and what names in archives become."""

from __future__ import annotations

from castoff.errors import InvalidImageError
from castoff.fs.entry import display

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
_ENDS = b"\0 "


def plain_path(name: bytes) -> bytes:
    """Return an archive's name as a path: without leading slash, "." and empty parts.

    Raises:
        InvalidImageError: it has a ".." part.
    """
    if b"." not in name and b"//" not in name and name[:1] != b"/":
        return name[:-1] if name.endswith(b"/") else name
    parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise InvalidImageError(f"{display(name)[:200]} in the archive leads out of its directory ('..')")
    return b"/".join(parts)


def parse_field(field: bytes, what: str, *, signed: bool = False) -> int:
    """Return a number of a header: octal digits between spaces and zero bytes, or base-256.

    Args:
        field: the bytes of the field.
        what: its name, for the message.
        signed: whether it may be negative.

    Raises:
        InvalidImageError: it is not a number, or negative where it must not be.
    """
    plain = field[:-1]
    if field[-1] in _ENDS and plain.isdigit():
        try:
            return int(plain, 8)  # almost every field of almost every archive
        except ValueError:
            pass  # an 8 or a 9
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False)
        bits = 8 * len(field)
        if field[0] & 0x40:
            value -= 1 << bits
        else:
            value &= (1 << (bits - 1)) - 1
    else:
        digits = field.partition(b"\0")[0].strip(b" ")
        try:
            # Python's own int() would also take signs, underscores and a prefix.
            value = int(digits if digits.isdigit() else b"x", 8) if digits else 0
        except ValueError as error:
            raise InvalidImageError(f"a header of the archive has the {what} {digits!r}, which is no number") from error
    if value < 0 and not signed:
        raise InvalidImageError(f"a header of the archive has the negative {what} {value}")
    return value


def checksum_fits(block: bytes) -> bool:
    """Tell whether 512 bytes are a tar header by their checksum; old archives sum signed bytes."""
    try:
        wanted = parse_field(block[148:156], "checksum")
    except InvalidImageError:
        return False
    total = sum(block) - sum(block[148:156]) + 256
    if total == wanted:
        return True
    high = sum(byte >= 0x80 for byte in block[:148] + block[156:])
    return total - 256 * high == wanted


def looks_like_tar(head: bytes) -> bool:
    """Tell whether the first bytes of a stream are those of a tar archive: a header, or the end of an empty one."""
    if len(head) < BLOCK:
        return False
    block = head[:BLOCK]
    if block == ZERO_BLOCK:
        return head[BLOCK : 2 * BLOCK] == ZERO_BLOCK
    return checksum_fits(block)
