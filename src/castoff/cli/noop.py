"""Writes down a build that went well, so that the same build need not be done again if nothing changed."""

from __future__ import annotations

import contextlib
import marshal
import os
from typing import TYPE_CHECKING, Any

from castoff.cli import verify
from castoff.cli.progress.recording import cached_records
from castoff.context.digests import RACY_NS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from castoff.builder import BuildRequest, BuildResult
    from castoff.cli.progress.state import BuildState
    from castoff.context.digests import Fingerprint

_CONSULTED = (
    "CASTOFF_ROOT",
    "CASTOFF_USERNS",
    "XDG_DATA_HOME",
    "HOME",
    "SOURCE_DATE_EPOCH",
    "BUILDKIT_PROGRESS",
)


def write_record(
    arguments: list[str],
    request: BuildRequest,
    result: BuildResult,
    state: BuildState,
    presentation: tuple[str, Iterable[tuple[str, str]]],
    prints: tuple[str, str] = ("", ""),
) -> None:
    """Write the record of a build, or remove an earlier one where this build can't be told to be unchanged.

    That it can't be written is no error: the next build is only slower.

    Args:
        arguments: the command line.
        request: what was asked for.
        result: what came of it.
        state: what its progress showed.
        presentation: the mode of progress, and the (path, text) pairs of files that the command line writes.
        prints: what else is printed when it is shown again, to standard output and to standard error.
    """
    try:
        path = verify.record_path(request.store, arguments)
    except OSError:  # the current folder is gone
        return
    inputs = result.inputs
    if inputs is None:
        with contextlib.suppress(OSError):
            os.unlink(path)
        return
    mode, writes = presentation
    record: dict[str, Any] = {
        "format": verify.FORMAT,
        "code": verify.code_mark(),
        "uid": _host_uid(),
        "environ": _consulted(request),
        "generation": inputs.generation,
        "blobs": [(blob, os.stat(blob).st_size) for blob in inputs.blobs],
        "files": [(name, _plain(mark)) for name, mark in inputs.files.items()],
        "trees": [
            (
                os.fsencode(tree.root),
                [(name, _plain(mark)) for name, mark in tree.seen.items()],
                [
                    (name, tuple(own), {key: tuple(mark) for key, mark in used.items()}, set(rest))
                    for name, (own, used, rest) in tree.listed.items()
                ],
            )
            for tree in inputs.trees
        ],
        "digests": list(inputs.digests.items()),
        "young": 4 * RACY_NS,
        "writes": [(os.path.abspath(name), text.encode()) for name, text in writes],
        "events": cached_records(state),
        "mode": mode,
        "image_id": str(result.image_id),
        "prints": prints,
    }
    temporary = f"{path}.{os.getpid()}"
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(marshal.dumps(record))
        os.rename(temporary, path)


def _plain(mark: Fingerprint | None) -> tuple[int, ...] | None:
    return None if mark is None else tuple(mark)


def _consulted(request: BuildRequest) -> list[tuple[str, str | None]]:
    """Return the variables of the environment that the build depends on, each with its value."""
    from castoff.builder import PROXIES

    environment: Mapping[str, str] = dict(request.environment)
    names = [*_CONSULTED, *PROXIES, *(key for key, value in request.build_args if value is None)]
    return [(name, environment.get(name)) for name in dict.fromkeys(names)]


def _host_uid() -> int:
    """Return the user id that this process has outside of the user namespace that it entered."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            for line in file:
                inside, outside, _count = (int(field) for field in line.split())
                if inside == os.getuid():
                    return outside
    except (OSError, ValueError):
        pass
    return os.getuid()
