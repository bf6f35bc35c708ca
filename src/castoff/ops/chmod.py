"""``--chmod``: octal and symbolic modes."""

from __future__ import annotations

import re
import stat

from castoff.errors import DockerfileError

_OCTAL = re.compile(r"[0-7]{1,20}")
_CLAUSE = re.compile(r"([ugoa]*)((?:[+=-][rwxXstugo]*)+)")
_ACTION = re.compile(r"([+=-])([rwxXstugo]*)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


def check(spec: str) -> None:
    """Raise a DockerfileError unless `spec` is an octal or symbolic mode."""
    apply(spec, stat.S_IFREG)


def octal(spec: str) -> int | None:
    """Return the permission bits that octal digits give; None for anything else."""
    if not _OCTAL.fullmatch(spec):
        return None
    number = int(spec, 8)
    return number if number <= 0o7777 else None


def apply(spec: str, mode: int) -> int:
    """Return `mode` (type and permission bits) changed as ``chmod spec`` would change it.

    Raises:
        DockerfileError: the spec is neither an octal nor a symbolic mode.
    """
    number = octal(spec)
    if number is not None:
        return stat.S_IFMT(mode) | number
    for clause in spec.split(","):
        match = _CLAUSE.fullmatch(clause)
        if not match:
            raise DockerfileError(
                f"--chmod={spec} is not a mode", hint="write octal digits such as 0755, or a form such as u=rwX,go=rX"
            )
        for action, permissions in _ACTION.findall(match[2]):
            mode = _change(mode, match[1] or "a", action, permissions)
    return mode


def _change(mode: int, who: str, action: str, permissions: str) -> int:
    classes = "ugo" if "a" in who else who
    wanted, cleared = 0, 0
    for name in classes:
        shift = _SHIFTS[name]
        cleared |= 7 << shift
        for letter in permissions:
            if letter in _BITS:
                wanted |= _BITS[letter] << shift
            elif letter == "X" and (stat.S_ISDIR(mode) or mode & 0o111):
                wanted |= 1 << shift
            elif letter in _SHIFTS:
                wanted |= (mode >> _SHIFTS[letter] & 7) << shift
    if "s" in permissions:
        wanted |= (stat.S_ISUID if "u" in classes else 0) | (stat.S_ISGID if "g" in classes else 0)
    if "t" in permissions:
        wanted |= stat.S_ISVTX
    if action == "+":
        return mode | wanted
    if action == "-":
        return mode & ~wanted
    cleared |= (stat.S_ISUID if "u" in classes else 0) | (stat.S_ISGID if "g" in classes else 0)
    return mode & ~cleared | wanted
