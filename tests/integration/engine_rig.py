"""Builds in a store of its own, as root and as an ordinary user, on a small base that castoff itself makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSYBOX = "/bin/busybox"
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1234:1235:app:/home/app:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1235:\nextra:x:77:app\n"
BASE = """\
FROM scratch
COPY busybox /bin/busybox
COPY passwd group /etc/
RUN ["/bin/busybox", "mkdir", "-p", "/root", "/tmp", "/home/app", "/usr/bin", "/usr/sbin", "/sbin"]
RUN ["/bin/busybox", "--install", "-s"]
RUN chmod 1777 /tmp && chown app:app /home/app
CMD ["sh"]
"""


class Runner(Protocol):
    """Runs castoff."""

    def __call__(
        self, arguments: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run castoff with these arguments."""


@dataclass
class Outcome:
    """What a run of castoff gave."""

    code: int
    out: str
    err: str
    image: str = ""

    @property
    def cached(self) -> list[str]:
        """The names of the vertices that were cached."""
        return self._named("CACHED")

    @property
    def done(self) -> list[str]:
        """The names of the vertices that ran."""
        return self._named("DONE")

    def _named(self, state: str) -> list[str]:
        names: dict[str, str] = {}
        found = []
        for line in self.err.splitlines():
            number, _, rest = line.partition(" ")
            if not number.startswith("#"):
                continue
            if number not in names:
                names[number] = rest
            elif rest.startswith(state):
                found.append(names[number])
        return found

    def steps(self, state: str) -> list[str]:
        """Return the texts of instructions with a state, without their numbers."""
        return [name.partition("] ")[2] for name in self._named(state) if name.startswith("[") and "/" in name]


@dataclass
class Engine:
    """A store, and a folder for contexts, of one user."""

    folder: str
    runner: Runner
    owner: tuple[int, int] | None = None
    store: str = ""
    _count: int = field(default=0)

    def __post_init__(self) -> None:
        self.store = self.store or os.path.join(self.folder, "store")

    def castoff(self, *arguments: str, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Outcome:
        """Run castoff on the store."""
        done = self.runner(["--root", self.store, *arguments], env=env, cwd=cwd or self.folder)
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode("utf-8", "replace"))

    def context(self, files: Mapping[str, str | bytes]) -> str:
        """Make a folder with these files and return its path."""
        self._count += 1
        folder = os.path.join(self.folder, f"context{self._count}")
        self.write(folder, files)
        return folder

    def write(self, folder: str, files: Mapping[str, str | bytes]) -> None:
        """Write files below a folder, all of them the user's."""
        for name, content in files.items():
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
        self.give(folder)

    def give(self, folder: str) -> None:
        """Make everything below a folder the user's."""
        if self.owner is None or os.geteuid() != 0:
            return
        os.chown(folder, *self.owner)
        for root, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(os.path.join(root, name), *self.owner, follow_symlinks=False)

    def build(self, context: str, *arguments: str, tag: str = "t", env: Mapping[str, str] | None = None) -> Outcome:
        """Build a context with plain progress; the outcome has the image id."""
        iid = os.path.join(self.folder, "iid")
        if os.path.exists(iid):
            os.unlink(iid)
        command = ["build", "--progress=plain", "--iidfile", iid, "-t", tag, *arguments, context]
        outcome = self.castoff(*command, env=env)
        if outcome.code == 0:
            with open(iid, encoding="ascii") as file:
                outcome.image = file.read().strip()
        return outcome

    def good(self, context: str, *arguments: str, tag: str = "t", env: Mapping[str, str] | None = None) -> Outcome:
        """Build a context that must succeed."""
        outcome = self.build(context, *arguments, tag=tag, env=env)
        assert outcome.code == 0, outcome.err
        return outcome

    def make_base(self) -> None:
        """Make the image ``busybox``."""
        with open(BUSYBOX, "rb") as file:
            binary = file.read()
        folder = self.context({"Dockerfile": BASE, "busybox": binary, "passwd": PASSWD, "group": GROUP})
        os.chmod(os.path.join(folder, "busybox"), 0o755)
        self.good(folder, tag="busybox")
        shutil.rmtree(folder)

    def config(self, image: str = "t") -> dict[str, object]:
        """Return the config document of an image."""
        return dict(json.loads(self._blob(self._manifest(image)["config"]["digest"])))

    def _manifest(self, image: str) -> dict[str, dict[str, str]]:
        with open(os.path.join(self.store, "index.json"), encoding="utf-8") as file:
            index = json.load(file)
        name = image if ":" in image else image + ":latest"
        for item in index["manifests"]:
            if item.get("annotations", {}).get("org.opencontainers.image.ref.name") == name:
                return dict(json.loads(self._blob(item["digest"])))
        raise AssertionError(f"no image {image}")

    def _blob(self, digest: str) -> bytes:
        with open(os.path.join(self.store, "blobs", *digest.split(":")), "rb") as file:
            return file.read()

    def layers(self, image: str = "t") -> list[tarfile.TarFile]:
        """Return the layers of an image as open archives, bottom first."""
        manifest = self._manifest(image)
        return [
            tarfile.open(os.path.join(self.store, "blobs", *layer["digest"].split(":")))  # type: ignore[index]
            for layer in manifest["layers"]
        ]

    def entries(self, layer: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
        """Return the entries of a layer by path."""
        return {member.name.rstrip("/"): member for member in layer}

    def read(self, image: str, path: str) -> bytes:
        """Return the content of a file of an image, from its topmost layer that has it."""
        for layer in reversed(self.layers(image)):
            for member in layer:
                if member.name == path:
                    content: IO[bytes] | None = layer.extractfile(member)
                    assert content is not None
                    return content.read()
        raise AssertionError(f"{image} has no {path}")

    def temporary(self) -> list[str]:
        """Return what is left in the store's folder of temporary files, but for its note of what is not synced yet."""
        return [name for name in os.listdir(os.path.join(self.store, "tmp")) if not name.startswith("unsynced-")]


def root_engine(command: Sequence[str]) -> Iterator[Engine]:
    """Yield an engine of the user who runs the tests."""
    folder = tempfile.mkdtemp(prefix="castoff-engine-")

    def run(
        arguments: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*command, *arguments],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    yield Engine(folder, run)
    subprocess.run(["rm", "-rf", folder], check=False, capture_output=True)
