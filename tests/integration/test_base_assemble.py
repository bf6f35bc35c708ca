"""Bases of real Debian packages: the committed recipes and locks, dpkg in the real sandbox, root and ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

import castoff
from castoff.base.assemble import AssembleRequest, LockRequest, assemble, lock
from castoff.base.download import NotThereError
from castoff.base.lockfile import Lock, locked_path
from castoff.base.recipe import Recipe
from castoff.errors import RegistryError
from castoff.events import NullObserver
from castoff.oci.manifest import Manifest
from castoff.store.directory import DirectoryStore

pytestmark = pytest.mark.integration

BASES = Path(__file__).parents[2] / "bases"
MAX_COMPRESSED = 1_000_000
FULL = """\
format = 1
variant = "full"
suite = "bookworm"
packages = ["ca-certificates"]
"""
PYTHON = """\
format = 1
variant = "distroless"
suite = "bookworm"
packages = ["base-files", "python3.11-minimal"]
exclude = ["awk", "debconf"]
"""
# Assembles a recipe in a process of its own, which enters a user namespace where it must; prints the digests.
PROGRAM = """\
import json, sys
from castoff.base.assemble import AssembleRequest, assemble
from castoff.events import NullObserver
from castoff.oci.manifest import Manifest
from castoff.sandbox.userns import enter_user_namespace
from castoff.sandbox.zygote_executor import ZygoteExecutor
from castoff.store.directory import DirectoryStore

tier = enter_user_namespace()
with DirectoryStore.open_(sys.argv[1]) as store:
    executor = ZygoteExecutor(store.session().new_dir())
    try:
        request = AssembleRequest(sys.argv[2], userxattr=tier.userxattr)
        found = assemble(request, store, executor, NullObserver())
    finally:
        executor.close()
    layer = Manifest.parse(store.blobs.read(found.digest)).layers[0]
    print(json.dumps({"manifest": str(found.digest), "layer": str(layer.digest)}))
"""


class Runner(Protocol):
    """Runs commands as the ordinary user; see conftest."""

    user: Any

    def __call__(self, argv: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        """Run any command."""


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the store whose downloads all tests of this module share."""
    return str(tmp_path_factory.mktemp("bases") / "store")


@pytest.fixture
def prepare(downloads: str, tmp_path: Path, require: Any) -> Callable[[str, str], str]:
    """Give a function that writes a recipe with a lock that the archive can serve, all downloaded; or skips."""
    require.command("gpgv")
    require.file("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring")

    def write(name: str, text: str) -> str:
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        committed = BASES / f"{name}.lock"
        if committed.exists():
            shutil.copyfile(committed, locked_path(str(path)))
        with DirectoryStore.open_(downloads) as store:
            try:
                if not committed.exists():
                    lock(LockRequest(str(path)), store, NullObserver()).write(locked_path(str(path)))
                _download(str(path), store)
            except RegistryError as error:
                pytest.skip(f"no Debian archive can be reached: {error}")
        return str(path)

    return write


def _download(recipe: str, store: DirectoryStore) -> None:
    from castoff.base.archive import Archive
    from castoff.base.download import DownloadCache
    from castoff.base.mirrors import Mirrors, read_apt_sources

    archive = Archive(Mirrors((), read_apt_sources()), DownloadCache(os.path.join(store.cache, "downloads")))
    pinned = Lock.read(locked_path(recipe))
    try:
        paths = [archive.package(package, pinned) for package in pinned.packages]
    except NotThereError:
        # The archive has moved on since the lock was committed, and nobody gives the old versions: take the new ones.
        lock(LockRequest(recipe), store, NullObserver()).write(locked_path(recipe))
        pinned = Lock.read(locked_path(recipe))
        paths = [archive.package(package, pinned) for package in pinned.packages]
    assert all(map(os.path.isfile, paths))


def _share_downloads(source: str, store: str) -> None:
    shutil.copytree(os.path.join(source, "cache", "downloads"), os.path.join(store, "cache", "downloads"))


def _run_as_caller(store: str, recipe: str) -> dict[str, str]:
    site = os.path.dirname(os.path.dirname(os.path.abspath(castoff.__file__)))
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, store, recipe],
        env={**os.environ, "PYTHONPATH": site},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    return dict(json.loads(result.stdout))


def _tree(store: str, manifest: str) -> dict[str, tuple[str, int, int, str]]:
    """Return what GNU tar lists of the only layer: (mode, uid, gid, target) by path."""
    with DirectoryStore.open_(store) as opened:
        from castoff.oci.digest import Digest

        layer = Manifest.parse(opened.blobs.read(Digest.parse(manifest))).layers[0]
        blob = os.path.join(store, "blobs", "sha256", layer.digest.hex)
    listing = subprocess.run(["tar", "--numeric-owner", "-tvzf", blob], capture_output=True, check=True, text=True)
    found = {}
    for line in listing.stdout.splitlines():
        mode, owner, _, _, _, rest = line.split(maxsplit=5)
        name, _, target = rest.partition(" -> ")
        uid, _, gid = owner.partition("/")
        found[name.partition(" link to ")[0].rstrip("/")] = (mode, int(uid), int(gid), target)
    return found


@pytest.mark.parametrize("name", ["static", "golang-1.22", "python-3.11", "python-3.11-runtime"])
def test_committed_locks_belong_to_their_recipes(name: str) -> None:
    recipe = str(BASES / f"{name}.toml")
    path = locked_path(recipe)
    pinned = Lock.read(path)
    pinned.check(Recipe.read(recipe), path)
    assert pinned.to_text() == Path(path).read_text()
    assert "://" not in pinned.to_text()


def test_static_twice(prepare: Callable[[str, str], str], downloads: str, tmp_path: Path) -> None:
    recipe = prepare("static", (BASES / "static.toml").read_text())
    manifests = []
    for name, umask in (("one", 0o022), ("two", 0o077)):
        root = str(tmp_path / name)
        before = os.umask(umask)
        try:
            with DirectoryStore.open_(root) as store:
                _share_downloads(downloads, root)
                manifests.append(assemble(AssembleRequest(recipe), store, None, NullObserver()))
        finally:
            os.umask(before)
    assert manifests[0] == manifests[1]
    with DirectoryStore.open_(str(tmp_path / "one")) as store:
        layer = Manifest.parse(store.blobs.read(manifests[0].digest)).layers[0]
    assert layer.size <= MAX_COMPRESSED
    files = _tree(str(tmp_path / "one"), str(manifests[0].digest))
    assert files["home/nonroot"][:3] == ("drwx------", 65532, 65532)
    assert files["etc/os-release"][3] == "../usr/lib/os-release"
    assert "usr/share/zoneinfo/Europe/Berlin" in files
    assert "var/lib/dpkg/status.d/tzdata" in files
    programs = [path for path, (mode, *_) in files.items() if mode.startswith("-") and "x" in mode]
    assert programs == []


def test_python_bytecode_is_hash_based(
    prepare: Callable[[str, str], str], downloads: str, tmp_path: Path, require: Any
) -> None:
    require.overlay(tmp_path)
    recipe = prepare("py", PYTHON)
    root = str(tmp_path / "store")
    with DirectoryStore.open_(root):
        pass
    _share_downloads(downloads, root)
    found = _run_as_caller(root, recipe)
    blob = os.path.join(root, "blobs", "sha256", found["layer"].partition(":")[2])
    path = "usr/lib/python3.11/__pycache__/os.cpython-311.pyc"
    code = subprocess.run(["tar", "-xzOf", blob, path], capture_output=True, check=True).stdout
    # PEP 552: bit 0 of the flags says that it is hash-based, bit 1 that the source is to be checked.
    assert int.from_bytes(code[4:8], "little") == 0b01


def test_full_as_root_and_as_ordinary_user(
    prepare: Callable[[str, str], str],
    downloads: str,
    tmp_path: Path,
    require: Any,
    run_as_user: Runner,
    user_dir: str,
) -> None:
    require.root()
    require.overlay(tmp_path)
    require.subordinate_ids(run_as_user.user)
    recipe = prepare("full", FULL)
    root, store = str(tmp_path / "store"), os.path.join(user_dir, "store")
    for path in (root, store):
        with DirectoryStore.open_(path):
            pass
        _share_downloads(downloads, path)
    for name in (recipe, locked_path(recipe)):
        shutil.copy(name, user_dir)
    subprocess.run(["chown", "-R", f"{run_as_user.user.uid}:{run_as_user.user.gid}", user_dir], check=True)
    by_root = _run_as_caller(root, recipe)
    python = run_as_user._command[0]  # type: ignore[attr-defined]
    result = run_as_user([python, "-c", PROGRAM, store, os.path.join(user_dir, os.path.basename(recipe))])
    assert result.returncode == 0, result.stderr.decode()
    assert json.loads(result.stdout) == by_root
    files = _tree(root, by_root["manifest"])
    assert files["bin"][3] == "usr/bin"
    assert files["etc/shadow"][:3] == ("-rw-r-----", 0, 42)
    assert files["usr/bin/su"][0] == "-rwsr-xr-x"
    assert files["var/lib/apt/lists/partial"][:2] == ("drwx------", 42)
    assert not [path for path in files if path.startswith("run/castoff") or path.endswith("/__pycache__")]
    assert not [path for path in files if path.startswith("var/log/") and path.endswith(".log")]
