"""Numbers of bytes, as people read them; imports nothing, since the replay of a cached build uses it."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def human_size(size: int | float, digits: int = 3) -> str:
    """Return a size of `size` bytes in decimal units with up to `digits` significant digits: ``7.73MB``, ``412B``."""
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    text = f"{value:.{digits}g}"
    if "e" in text:
        text = f"{value:.0f}"
    return text + _UNITS[unit]


def transfer_size(size: int) -> str:
    """Return a size of `size` bytes with two decimals above a kilobyte, as progress shows transfers: ``1.21kB``."""
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    return f"{value:.2f}{_UNITS[unit]}" if unit else f"{size}B"
