"""Paths inside images, as text: joined and cleaned without a look at any file system."""

from __future__ import annotations

import re
from typing import Literal

from castoff.errors import PlanError

SourceKind = Literal["local", "http", "git"]

_SCHEME = re.compile(r"([a-zA-Z0-9]+)://")
_SCP = re.compile(r"[a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:.+")
_SYMBOLIC_MODE = re.compile(r"[augo]*(?:[-+=][rwxXstugo]*)+(?:,[augo]*(?:[-+=][rwxXstugo]*)+)*")
_OCTAL_MODE = re.compile(r"[0-7]{1,20}")


def clean(path: str) -> str:
    """Return `path` without ``.``, ``..`` and doubled slashes; "." for an empty one."""
    rooted = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if parts and parts[-1] != "..":
                parts.pop()
            elif not rooted:
                parts.append(part)
            continue
        parts.append(part)
    text = "/".join(parts)
    return "/" + text if rooted else text or "."


def join(folder: str, path: str) -> str:
    """Return `path`, or `path` within `folder` if it is relative; the result is absolute."""
    if path.startswith("/"):
        return path
    return clean(f"/{folder}/{path}")


def destination(folder: str, path: str) -> str:
    """Return the destination of COPY or ADD: absolute, with a trailing ``/`` or ``/.`` kept."""
    if path in ("", "."):
        path = "./"
    if path.startswith("/"):
        return path
    joined = join(folder, path)
    if path.endswith("/"):
        return joined if joined.endswith("/") else joined + "/"
    if path.endswith("/."):
        return joined + "." if joined == "/" else joined + "/."
    return joined


def source_kind(source: str) -> SourceKind:
    """Say whether a source of ADD is a path of the context, a URL, or a git repository."""
    scheme = _SCHEME.match(source)
    if scheme is None:
        is_scp = not source.startswith(("./", "../", "/")) and _SCP.match(source) is not None
        return "git" if is_scp else "local"
    name = scheme[1].lower()
    if name in ("git", "ssh"):
        return "git"
    if name not in ("http", "https"):
        return "local"
    path = re.split(r"[?#]", source, maxsplit=1)[0]
    if path.endswith(".git"):
        return "git"
    return "http" if source.startswith(("http://", "https://")) else "local"


def check_mode(mode: str) -> None:
    """Refuse a ``--chmod`` that is neither octal nor symbolic.

    Raises:
        PlanError: it is neither.
    """
    if _OCTAL_MODE.fullmatch(mode) and int(mode, 8) <= 0o7777:
        return
    if _SYMBOLIC_MODE.fullmatch(mode):
        return
    raise PlanError(
        f"invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777",
        hint="write --chmod=755, or a symbolic mode such as --chmod=u=rwX,go=rX",
    )
