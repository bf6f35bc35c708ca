"""What all tests share: folders, ports, an ordinary user, skips that name what is missing, a check for leftovers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import ordinary_user as users

MARKER = "CASTOFF_TEST_SESSION"
GRACE_SECONDS = 5.0

# No test asserts a time: a busy machine must not fail a property.
settings.register_profile("castoff", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("castoff")

# A shell's background job ignores the keyboard's interrupt, and nohup's a hang-up; castoff keeps to that, and so would
# the programs that the tests start to interrupt them.
for _number, _default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name a test after its argument where the value is binary: such a name may differ from worker to worker."""
    return argname if isinstance(val, bytes) and not val.isascii() else None


class Require:
    """Skips the running test, naming what is missing."""

    def command(self, name: str, package: str | None = None) -> str:
        """Return the path of a program, or skip naming it and the Debian package that has it."""
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if found is None:
            pytest.skip(f"{name} is not installed (Debian package {package or name})")
        return found

    def file(self, path: str, package: str) -> str:
        """Return the path of a file, or skip naming it and the Debian package that has it."""
        if not os.path.exists(path):
            pytest.skip(f"{path} is absent (Debian package {package})")
        return path

    def root(self) -> None:
        """Skip where the test process is not root."""
        if os.geteuid() != 0:
            pytest.skip("needs root")

    def user_namespaces(self) -> None:
        """Skip where this process cannot make a user namespace."""
        probe = [self.command("unshare", "util-linux"), "--user", "--map-root-user", "true"]
        if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
            pytest.skip("user namespaces are not available")

    def overlay(self, folder: str | os.PathLike[str]) -> None:
        """Skip where overlayfs cannot have its upper directory in ``folder``."""
        with tempfile.TemporaryDirectory(dir=folder) as base:
            for name in ("lower", "upper", "work", "merged"):
                os.mkdir(os.path.join(base, name))
            options = "userxattr," * (os.geteuid() != 0) + "lowerdir=lower,upperdir=upper,workdir=work"
            namespaces = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
            mount = ["mount", "-t", "overlay", "overlay", "-o", options, "merged"]
            probe = [self.command("unshare", "util-linux"), *namespaces, *mount]
            if subprocess.run(probe, cwd=base, capture_output=True, check=False).returncode != 0:
                pytest.skip(f"overlayfs is not available in {folder}")
            subprocess.run(["rm", "-rf", os.path.join(base, "work", "work")], check=False)

    def subordinate_ids(self, user: users.OrdinaryUser) -> None:
        """Skip where the user has no range of subordinate ids to map."""
        if not users.has_subordinate_ids(user):
            pytest.skip(f"{user.name} has no subordinate ids (newuidmap, /etc/subuid, /etc/subgid)")


@pytest.fixture(scope="session")
def require() -> Require:
    """Give the skips that name what is missing."""
    return Require()


@pytest.fixture
def store_dir(tmp_path: Path) -> str:
    """Give the path of a store that does not exist yet."""
    return str(tmp_path / "store")


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Give a function that returns a loopback port nobody listens on, another one each time."""
    given: set[int] = set()

    def find() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            if port not in given:
                given.add(port)
                return port

    return find


@pytest.fixture(scope="session")
def castoff_command() -> list[str]:
    """Give the start of a command line that runs castoff as this process would import it."""
    return [sys.executable, "-m", "castoff"]


@pytest.fixture(scope="session")
def public_dir() -> Iterator[str]:
    """Give a folder that every user can reach, for the session; pytest's own are closed to others."""
    folder = tempfile.mkdtemp(prefix="castoff-test-", dir="/tmp")
    os.chmod(folder, 0o755)
    yield folder
    subprocess.run(["rm", "-rf", "--one-file-system", folder], check=False)


@pytest.fixture(scope="session")
def ordinary_user(public_dir: str) -> users.OrdinaryUser:
    """Give a user without privileges: the one running the tests, or castoff-test where root runs them.

    Root creates that user only in CI or for ``./run test --as-user``, as it changes the machine.
    """
    home = os.path.join(public_dir, "home")
    os.mkdir(home)
    if os.geteuid() != 0:
        import pwd

        return users.OrdinaryUser(pwd.getpwuid(os.getuid()).pw_name, os.getuid(), os.getgid(), home)
    if os.environ.get("CI") == "true" or os.environ.get("CASTOFF_TEST_AS_USER"):
        users.create(users.NAME)
    user = users.find(users.NAME, home)
    if user is None:
        pytest.skip(f"there is no user {users.NAME} (./run test --as-user creates it)")
    os.chown(home, user.uid, user.gid)
    return user


@pytest.fixture
def user_dir(ordinary_user: users.OrdinaryUser) -> Iterator[str]:
    """Give an empty folder of the ordinary user."""
    folder = tempfile.mkdtemp(prefix="dir-", dir=ordinary_user.home)
    os.chown(folder, ordinary_user.uid, ordinary_user.gid)
    yield folder
    subprocess.run(["rm", "-rf", "--one-file-system", folder], check=False, capture_output=True)


@pytest.fixture(scope="session")
def user_castoff(ordinary_user: users.OrdinaryUser, public_dir: str) -> tuple[list[str], dict[str, str]]:
    """Give the start of a command line, and the environment, with which the ordinary user runs castoff."""
    python = users.python_for(ordinary_user)
    if python is None:
        pytest.skip(f"no Python {sys.version_info[0]}.{sys.version_info[1]} that {ordinary_user.name} may run")
    site = os.path.join(public_dir, "site")
    users.copy_castoff(site)
    return [python, "-m", "castoff"], {"PYTHONPATH": site, "PYTHONDONTWRITEBYTECODE": "1"}


class RunAsUser:
    """Runs commands as the ordinary user; ``castoff`` runs castoff."""

    def __init__(self, user: users.OrdinaryUser, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.user = user
        self._command = list(command)
        self._env = dict(env)

    def __call__(
        self, argv: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run any command."""
        return self.user.run(argv, cwd=cwd, env={**self._env, **(env or {})})

    def castoff(
        self, *arguments: str, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run castoff with these arguments."""
        return self([*self._command, *arguments], cwd=cwd, env=env)


@pytest.fixture
def run_as_user(ordinary_user: users.OrdinaryUser, user_castoff: tuple[list[str], dict[str, str]]) -> RunAsUser:
    """Give the runner of commands as the ordinary user."""
    return RunAsUser(ordinary_user, *user_castoff)


@pytest.fixture(scope="session", autouse=True)
def own_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests out of the user's own store, and fail if they leave a process or a mount behind."""
    base = tmp_path_factory.getbasetemp()
    mark = uuid.uuid4().hex
    os.environ[MARKER] = mark
    os.environ["CASTOFF_ROOT"] = str(base / "default-store")
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        os.environ[name] = str(base / "xdg")
    yield
    deadline = time.monotonic() + GRACE_SECONDS
    while (left := leftovers(mark, str(base))) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        pytest.fail("left behind by the tests:\n" + "\n".join(left), pytrace=False)


def leftovers(mark: str, base: str) -> list[str]:
    """List the processes and mounts that a session left: marked or descended ones, and mounts below its folder."""
    found = [f"mount {line.split()[4]}" for line in _lines("/proc/self/mountinfo") if base in line]
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                head, _, tail = file.read().rpartition(")")
        except OSError:
            continue
        state, parent = tail.split()[:2]
        if state not in "ZX":
            parents[int(entry)], names[int(entry)] = int(parent), head.partition("(")[2]
    for pid, name in names.items():
        if pid != os.getpid() and (_descends(pid, parents) or _is_marked(pid, mark) or _mounts_below(pid, base)):
            found.append(f"process {pid} ({name})")
    return found


def _descends(pid: int, parents: Mapping[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == os.getpid():
            return True
    return False


def _is_marked(pid: int, mark: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARKER}={mark}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def _mounts_below(pid: int, base: str) -> bool:
    try:
        if os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
            return False
    except OSError:
        return False
    return any(base in line for line in _lines(f"/proc/{pid}/mountinfo"))


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
