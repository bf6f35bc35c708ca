"""A small root file system and a way to run processes on it, as root or as an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from ordinary_user import OrdinaryUser

HERE = os.path.dirname(os.path.abspath(__file__))
SRC = os.path.join(os.path.dirname(os.path.dirname(HERE)), "src")


@dataclass
class Result:
    code: int | None
    out: str
    err: str
    error: list[str] | None


class Rig:
    """Owns a folder with a root file system, snapshots and the executor's folder."""

    def __init__(self, folder: str, user: OrdinaryUser | None, python: str, source: str, tier: str = "") -> None:
        self.folder = folder
        self.user = user
        self.python = python
        self.source = source
        self.tier = tier or ("root" if user is None else "subuid")
        self.driver = shutil.copy(os.path.join(HERE, "sandbox_driver.py"), folder)
        self.base = os.path.join(folder, "base")
        self.state = os.path.join(folder, "state")
        self._count = 0
        os.makedirs(os.path.join(self.base, "bin"))
        os.mkdir(self.state)
        busybox = shutil.which("busybox") or ""
        shutil.copy(busybox, os.path.join(self.base, "bin", "busybox"))
        for name in subprocess.check_output([busybox, "--list"], text=True).split():
            if name != "busybox":
                os.symlink("busybox", os.path.join(self.base, "bin", name))
        self.give(folder)

    def give(self, path: str) -> None:
        """Let a tree belong to the user whom the sandbox sees as root."""
        if self.user is not None and os.geteuid() == 0:
            subprocess.run(["chown", "-R", "-h", f"{self.user.uid}:{self.user.gid}", path], check=True)

    def identity(self) -> dict[str, Any]:
        """Return the arguments with which subprocess starts a process as the user of this rig."""
        if self.user is None or os.geteuid() != 0:
            return {}
        return {"user": self.user.uid, "group": self.user.gid, "extra_groups": []}

    def layer(self, files: dict[str, str | None]) -> str:
        """Make a lower directory: path → content, None for a folder, "-> x" for a symlink, "!" for a whiteout."""
        path = tempfile.mkdtemp(prefix="layer-", dir=self.folder)
        os.chmod(path, 0o755)
        for name, content in files.items():
            full = os.path.join(path, name)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            if content is None:
                os.makedirs(full, exist_ok=True)
            elif content == "!":
                os.mknod(full, 0o20000, 0)
            elif content.startswith("-> "):
                os.symlink(content[3:], full)
            else:
                with open(full, "w", encoding="utf-8") as file:
                    file.write(content)
        self.give(path)
        return path

    def root(self, *lowers: str, **options: Any) -> dict[str, Any]:
        self._count += 1
        folder = os.path.join(self.folder, f"snapshot-{self._count}")
        os.makedirs(os.path.join(folder, "upper"))
        os.makedirs(os.path.join(folder, "work"))
        os.chmod(os.path.join(folder, "upper"), 0o755)
        self.give(folder)
        return {
            "lowers": [*lowers, self.base],
            "upper": os.path.join(folder, "upper"),
            "work": os.path.join(folder, "work"),
            **options,
        }

    def request(self, *steps: dict[str, Any], parallel: bool = False) -> str:
        values = {"src": self.source, "tier": self.tier, "state": self.state, "steps": steps, "parallel": parallel}
        return json.dumps(values)

    def run_all(self, *steps: dict[str, Any], parallel: bool = False) -> list[Result]:
        done = subprocess.run(
            [self.python, "-B", self.driver],
            input=self.request(*steps, parallel=parallel),
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            **self.identity(),
        )
        assert done.returncode == 0, done.stderr
        return [Result(**result) for result in json.loads(done.stdout)]

    def run(self, *argv: str, root: dict[str, Any] | None = None, **options: Any) -> Result:
        return self.run_all(self.step(*argv, root=root, **options))[0]

    def step(self, *argv: str, root: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        return {"argv": argv, "env": ["PATH=/bin"], "root": root or self.root(), **options}

    def shell(self, script: str, **options: Any) -> Result:
        return self.run("sh", "-c", script, **options)


def make_rig(tier: str, request: pytest.FixtureRequest) -> Rig:
    """Make a rig, or skip with the name of what is missing."""
    require = request.getfixturevalue("require")
    require.command("busybox", "busybox-static")
    public = request.getfixturevalue("public_dir")
    user: OrdinaryUser | None = None
    python, source = sys.executable, SRC
    if tier == "root":
        require.root()
    else:
        user = request.getfixturevalue("ordinary_user")
        if tier != "single":
            require.subordinate_ids(user)
        command, environment = request.getfixturevalue("user_castoff")
        python, source = command[0], environment["PYTHONPATH"]
    folder = tempfile.mkdtemp(prefix="rig-", dir=public)
    os.chmod(folder, 0o755)
    return Rig(folder, user, python, source, tier)


def remove_rig(rig: Rig) -> None:
    """Remove a rig's files, those of subordinate users included."""
    if os.geteuid() == 0:
        shutil.rmtree(rig.folder)
        return
    script = (
        f"import sys, shutil; sys.path.insert(0, {rig.source!r}); from castoff.sandbox.userns import"
        f" enter_user_namespace; enter_user_namespace(); shutil.rmtree({rig.folder!r})"
    )
    subprocess.run([rig.python, "-B", "-c", script], check=True)
