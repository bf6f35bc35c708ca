"""Run the tests as the ordinary user castoff-test, created where it is missing; started by root.

The user gets a copy of the installed castoff, of pytest and of the tests, as it may not be able to read this folder.
Arguments go to pytest. Exits as pytest does, but 0 where no test was chosen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from demo import BASES  # noqa: E402

import ordinary_user as users  # noqa: E402

NO_TESTS = 5
COPIED = ("tests", "services", "bases", "docs", "scripts", "pyproject.toml", "README.md", "CHANGELOG.md")


def main(arguments: list[str]) -> int:
    """Create the user, copy, run pytest and remove the copy; return the exit code."""
    users.create(users.NAME)
    folder = tempfile.mkdtemp(prefix="castoff-test-", dir="/tmp")
    try:
        return run(folder, arguments)
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", folder], check=False)


def run(folder: str, arguments: list[str]) -> int:
    """Run pytest in ``folder`` as the user."""
    home = os.path.join(folder, "home")
    work = os.path.join(folder, "work")
    site = os.path.join(folder, "site")
    user = users.find(users.NAME, home)
    if user is None:
        raise RuntimeError(f"useradd did not make {users.NAME}")
    os.mkdir(home)
    os.mkdir(work)
    os.chmod(folder, 0o755)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, os.path.join(work, name), symlinks=True)
        elif source.exists():
            shutil.copy(source, work)
    users.copy_castoff(site, ["pytest", "pytest-xdist", "hypothesis", "jsonschema"])
    for path in (home, work):
        subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", path], check=True)
    python = users.python_for(user)
    if python is None:
        print(f"skipped: no Python of this version that {user.name} may run", file=sys.stderr)
        return 0
    print(f"as {user.name}:", flush=True)
    env = {**user.environment(), "PYTHONPATH": site, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": home}
    env["CASTOFF_DEMO_STORE"] = give_bases(folder, user, [python, "-m", "castoff"], env)
    conformance = os.environ.get("CASTOFF_CONFORMANCE", str(ROOT.parent / "shared" / "conformance"))
    env["CASTOFF_CONFORMANCE"] = conformance
    if "CI" in os.environ:
        env["CI"] = os.environ["CI"]
    pytest = [python, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile"]
    # The tour compiles for minutes to show what the other tests of the services show too, and root takes it anyway.
    pytest += ["-o", "tmp_path_retention_policy=failed", "--ignore=tests/e2e/test_readme_tour.py", *arguments]
    done = subprocess.run(
        pytest, cwd=work, env=env, stdin=subprocess.DEVNULL, user=user.uid, group=user.gid, extra_groups=[], check=False
    )
    return 0 if done.returncode == NO_TESTS else done.returncode


def give_bases(folder: str, user: users.OrdinaryUser, castoff: list[str], env: dict[str, str]) -> str:
    """Give the user the bases and wheels of the demo's store, and return the path of the store, which may be absent."""
    store = os.path.join(user.home, "demo", "store")
    own = Path(os.environ.get("CASTOFF_DEMO_STORE") or ROOT / ".demo" / "store")
    archive = os.path.join(folder, "bases.tar")
    save = [sys.executable, "-m", "castoff", "--root", str(own), "save", "--format", "oci", "-o", archive]
    if not own.is_dir() or subprocess.run([*save, *BASES.values()], capture_output=True, check=False).returncode:
        return store
    os.chmod(archive, 0o644)
    done = user.run([*castoff, "--root", store, "load", "-q", "-i", archive], env=env)
    if done.returncode:
        print(f"the bases can't be loaded: {done.stderr.decode(errors='replace')}", file=sys.stderr)
    os.unlink(archive)
    for name in ("wheels", "wheels.lock"):
        subprocess.run(["cp", "-r", own.parent / name, os.path.dirname(store)], stderr=subprocess.DEVNULL, check=False)
    return store


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
