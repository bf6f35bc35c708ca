"""Reads the values of the options of `castoff run`."""

from __future__ import annotations

import os
import posixpath
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from castoff.cli.values import byte_size
from castoff.containers.volumes import VOLUME_NAME
from castoff.errors import UsageError

_READ_ONLY = {"ro": True, "readonly": True}
_NO_EFFECT = frozenset({"rw", "z", "Z", "cached", "delegated", "consistent"})
"""Options of volumes that name what is the case anyway, or mean something elsewhere only (SELinux, macOS)."""


@dataclass(frozen=True, slots=True)
class Volume:
    """One ``-v``.

    Attributes:
        source: an absolute host path; "" for a fresh folder, or a named one.
        target: absolute and clean, inside.
        readonly: whether it is mounted read-only.
        name: of a volume of the store; "" for none.
    """

    source: str
    target: str
    readonly: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """One ``--tmpfs``: an empty file system in memory; `size` in bytes and permission bits, None for the default."""

    target: str
    size: int | None = None
    mode: int | None = None
    readonly: bool = False


def target_path(text: str, option: str) -> str:
    """Return an absolute, clean path inside the container.

    Raises:
        UsageError: it is relative, or the root.
    """
    path = posixpath.normpath(text)
    if not text.startswith("/") or path in ("/", "//"):
        raise UsageError(f"{option}: {text!r} is no absolute path inside the container")
    return "/" + path.lstrip("/")


def volume(text: str) -> Volume:
    """Read ``SOURCE:TARGET[:OPTIONS]`` with a path or a volume's name, or ``TARGET`` for a fresh folder.

    Raises:
        UsageError: it is not of that form, or the source does not exist.
    """
    parts = text.split(":")
    if len(parts) == 1:
        return Volume("", target_path(text, "-v"))
    if len(parts) > 3 or not parts[0] or not parts[1]:
        raise UsageError(f"-v {text!r} is no volume", hint="write -v SOURCE:TARGET or -v SOURCE:TARGET:ro")
    readonly = False
    for option in parts[2].split(",") if len(parts) == 3 else ():
        if option in _READ_ONLY:
            readonly = True
        elif option not in _NO_EFFECT:
            raise UsageError(f"-v {text!r} has the unknown option {option!r}", hint="there are ro and rw")
    source = parts[0]
    if not source.startswith(("/", ".", "~")):
        if not VOLUME_NAME.fullmatch(source):
            raise UsageError(
                f"-v {text!r}: {source!r} is no name for a volume", hint=f"for the folder write ./{source}:{parts[1]}"
            )
        return Volume("", target_path(parts[1], "-v"), readonly, source)
    source = os.path.abspath(os.path.expanduser(source))
    if not os.path.lexists(source):
        raise UsageError(f"-v {text!r}: there is no {source} on this machine", hint=f"make it: mkdir -p {source}")
    return Volume(source, target_path(parts[1], "-v"), readonly)


def tmpfs(text: str) -> Tmpfs:
    """Read ``TARGET[:size=SIZE,mode=MODE,ro]``.

    Raises:
        UsageError: it is not of that form.
    """
    path, _, options = text.partition(":")
    size: int | None = None
    mode: int | None = None
    readonly = False
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key == "size":
            size = byte_size(value, "--tmpfs")
        elif key == "mode" and value and not value.strip("01234567") and len(value) <= 5:
            mode = int(value, 8)
        elif option in _READ_ONLY:
            readonly = True
        elif option != "rw":
            raise UsageError(f"--tmpfs {text!r} has the unknown option {option!r}", hint="there are size, mode and ro")
    return Tmpfs(target_path(path, "--tmpfs"), size, mode, readonly)


def stop_signal(text: str) -> int:
    """Return the number of a signal by name (``SIGTERM``, ``TERM``) or number; SIGTERM for "".

    Raises:
        UsageError: there is no such signal.
    """
    if not text:
        return signal.SIGTERM
    if text.isascii() and text.isdigit():
        number = int(text)
    else:
        name = text.upper()
        name = name if name.startswith("SIG") else f"SIG{name}"
        if name.startswith("SIGRTMIN+") and name[9:].isdigit():
            number = signal.SIGRTMIN + int(name[9:])
        else:
            number = getattr(signal, name, 0) if name[3:4] != "_" else 0
    if not 0 < int(number) < signal.NSIG:
        raise UsageError(f"there is no signal {text!r}")
    return int(number)


def workdir(text: str) -> str:
    """Return a working directory as it is.

    Raises:
        UsageError: it is not absolute.
    """
    if not text.startswith("/"):
        raise UsageError(f"-w: the working directory {text!r} is not absolute")
    return text


def environment(
    image: Iterable[str], files: Iterable[str], given: Iterable[str], host: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables of a container: the image's, those of files, those that were given, each over the last.

    Args:
        image: ``KEY=value``.
        files: host paths of files with ``KEY=value`` or ``KEY`` lines; ``#`` begins a comment.
        given: ``KEY=value``, or ``KEY`` for the host's value (left out where the host has none).
        host: the caller's environment.

    Raises:
        UsageError: a file can't be read, or a key is empty or holds blanks.
    """
    result = dict(item.partition("=")[::2] for item in image if "=" in item)
    lines = [(line, f"--env-file {path}") for path in files for line in _env_lines(path)]
    for line, option in [*lines, *((item, "-e") for item in given)]:
        key, equals, value = line.partition("=")
        if not key or any(c.isspace() for c in key):
            raise UsageError(f"{option}: {line!r} is not KEY=VALUE or KEY")
        if equals:
            result[key] = value
        elif key in host:
            result[key] = host[key]
    return result


def _env_lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = file.read(1 << 20).splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"--env-file {path} can't be read: {(reason or '').lower()}") from error
    stripped = (line.lstrip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]
