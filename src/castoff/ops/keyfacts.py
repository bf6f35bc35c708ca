"""What a step's key was made of, as short texts that can be kept, compared and shown."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from castoff.solve.explain import KeyParts

Facts = dict[str, str]
"""By name: ``kind`` or ``kind:subject``, such as ``variable:PATH`` or ``mount:/src``."""

_SHOWN = 120
_SECRET_NAME = re.compile(r"(?i)(?:^|_)(?:api_?key|auth|credentials?|key|pass(?:wd|word)?|pat|secret|token)s?(?:_|$)")
_HIDDEN = "#"


def facts_of(parts: KeyParts, arguments: Iterable[str] = ()) -> Facts:
    """Return the parts of a key as facts; `arguments` are the names of the variables that are ARGs.

    Long values are kept as digests, and so are those of variables whose names say that they are secret: these are in
    the image's history, but they have no place in a message.
    """
    facts: Facts = {}
    names = frozenset(arguments)
    for name, value in parts:
        match name, value:
            case "environment", tuple():
                facts.update(_variables(value, names))
            case "mounts", tuple():
                facts.update(_mounts(value))
            case "heredocs", tuple():
                for file_name, data, mode in value:
                    facts[f"heredoc:{file_name}"] = _digest(f"{mode:o} ".encode() + data)
            case "hosts", tuple():
                facts.update((f"host:{host}", "") for host in value)
            case "command", tuple():
                facts["command"] = shown(_command(value))
            case "below" | "files", _:
                facts[name] = "" if value is None else str(value)
            case _:
                facts[name] = "" if value is None else shown(str(value))
    return facts


def shown(text: str) -> str:
    """Return a text as it is kept: itself where it is short, else its digest."""
    if len(text) <= _SHOWN and not text.startswith(_HIDDEN):
        return text
    return _hidden(text)


def is_hidden(value: str) -> bool:
    """Tell whether the value of a fact is only a digest of what it was."""
    return value.startswith(_HIDDEN)


def _hidden(text: str) -> str:
    return _HIDDEN + _digest(text.encode("utf-8", "surrogateescape"))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _command(argv: tuple[str, ...]) -> str:
    """Return a command as it is written in shell form; the shell in front of it where it is not the usual one."""
    if len(argv) == 3 and argv[:2] == ("/bin/sh", "-c"):
        return argv[2]
    return " ".join(argv)


def _variables(pairs: Iterable[str], arguments: frozenset[str]) -> Iterator[tuple[str, str]]:
    for pair in pairs:
        name, _, value = pair.partition("=")
        kept = _hidden(value) if _SECRET_NAME.search(name) else shown(value)
        yield f"{'argument' if name in arguments else 'variable'}:{name}", kept


def _mounts(mounts: Iterable[tuple[object, ...]]) -> Iterator[tuple[str, str]]:
    for mount in mounts:
        kind, *rest = mount
        if kind == "bind":
            target, read_only, content = rest
            yield f"mount:{target}", f"bind{'' if read_only else ' rw'}"
            yield f"files:{target}", str(content)
        elif kind in ("secret", "ssh"):
            name, target, *more = rest
            yield f"mount:{target or name}", shown(" ".join(map(str, (kind, name, *more))))
        else:
            yield f"mount:{rest[0]}", shown(" ".join(map(str, (kind, *rest[1:]))))
