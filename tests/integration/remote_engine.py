"""Engines of root and of the ordinary user for the tests of remote sources."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

from engine_rig import BUSYBOX, Engine, root_engine

if TYPE_CHECKING:
    import pytest


def engines(request: pytest.FixtureRequest, castoff_command: list[str], kind: str) -> Iterator[Engine]:
    """Yield an engine of ``root`` or ``user`` that has the image ``busybox``, or skip naming what is missing."""
    require = request.getfixturevalue("require")
    require.file(BUSYBOX, "busybox-static")
    require.command("git")
    if kind == "root":
        require.root()
        for made in root_engine(castoff_command):
            made.make_base()
            yield made
        return
    user = request.getfixturevalue("ordinary_user")
    require.subordinate_ids(user)
    command, settings = request.getfixturevalue("user_castoff")
    folder = os.path.join(user.home, f"remote-{os.getpid()}-{request.module.__name__}")
    os.makedirs(folder)
    os.chown(folder, user.uid, user.gid)

    def run(
        arguments: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> CompletedProcess[bytes]:
        done: CompletedProcess[bytes] = user.run([*command, *arguments], cwd=cwd, env={**settings, **(env or {})})
        return done

    engine = Engine(folder, run, (user.uid, user.gid))
    engine.make_base()
    yield engine
