"""Both services as castoff builds and runs them: one contract, and what each image has and has not.

The bases are those of ./run demo, see `demo_store`. The images are made in its store too, under names of their own, and
removed again.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from contract_http import CHECKS, Check, check_name
from contract_http import Service as Contract
from contract_launch import Running, free_port
from demo_store import ROOT, find_store, find_wheels

pytestmark = pytest.mark.integration

PORT = 8000  # inside
# What a person or an intruder would work with. The builder has most of it.
TOOLS = """
    sh bash dash ash busybox zsh csh ksh fish rbash
    pip pip3 pip3.11 ensurepip apt apt-get dpkg rpm apk dnf yum conda uv poetry easy_install
    perl awk gawk mawk curl wget nc tar gzip env cp mv rm ls cat id su sudo chmod chown mount login passwd
""".split()
LIST_FILES = """
import os, stat, sys
found = []
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders[:] = [name for name in folders if name not in ("proc", "sys", "dev")]
    for name in names:
        path = os.path.join(folder, name)
        kind = os.lstat(path).st_mode
        found.append([path, stat.S_IMODE(kind), stat.S_ISREG(kind)])
import json
json.dump({"uid": os.getuid(), "gid": os.getgid(), "files": found}, sys.stdout)
"""
IMPORT_ALL = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
failed = {}
for name in sorted(sys.stdlib_module_names - {"antigravity", "this"}):
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = str(error)
import ctypes, sqlite3, ssl, zoneinfo
ssl.create_default_context()
assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 50
assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
assert zoneinfo.ZoneInfo("Europe/Vienna").key
json.dump(failed, sys.stdout)
"""


@dataclass(frozen=True, slots=True)
class Castoff:
    """castoff with a store."""

    argv: tuple[str, ...]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end."""
        return subprocess.run([*self.argv, *arguments], capture_output=True, text=True, timeout=900, check=False)

    def python(self, image: str, program: str) -> Any:
        """Return what a program, run by an image's Python, writes as JSON."""
        done = self("run", "--rm", "--network=none", "--entrypoint=/usr/bin/python3", image, "-c", program)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@dataclass(frozen=True, slots=True)
class Subject:
    """A service to build: its folder, its build options, the bases that it needs, its version's key."""

    folder: str
    key: str
    stand_ins: dict[str, str]

    @property
    def image(self) -> str:
        """Return the image's name, of this process' own."""
        return f"castoff-test/{self.folder}:{os.getpid()}"


GO = Subject(
    "devops-info-service-go",
    "go_version",
    {"golang:1.22-alpine": "castoff/golang:1.22", "gcr.io/distroless/static:nonroot": "castoff/static:nonroot"},
)
PYTHON = Subject(
    "devops-info-service",
    "python_version",
    {
        "python:3.11-slim": "castoff/python:3.11",
        "gcr.io/distroless/python3-debian12:nonroot": "castoff/python-runtime:3.11",
    },
)


@pytest.fixture(scope="module")
def castoff(castoff_command: list[str], require: Any, tmp_path_factory: pytest.TempPathFactory) -> Castoff:
    require.user_namespaces()
    require.overlay(tmp_path_factory.mktemp("probe"))
    bases = tuple(base for subject in (GO, PYTHON) for base in subject.stand_ins.values())
    return Castoff((*castoff_command, "--root", find_store(castoff_command, bases)))


@pytest.fixture(scope="module")
def wheels(castoff: Castoff, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a folder with the wheels of the Python service's lock."""
    return find_wheels(castoff.argv[-1], tmp_path_factory.mktemp("wheels"))


def build(castoff: Castoff, subject: Subject, folder: str, *options: str) -> str:
    """Build a service and return the image's id."""
    contexts = [f"--build-context={name}=docker-image://{base}" for name, base in subject.stand_ins.items()]
    done = castoff("build", "-q", "-t", subject.image, *contexts, *options, folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextlib.contextmanager
def built(castoff: Castoff, subject: Subject, *options: str) -> Iterator[str]:
    try:
        build(castoff, subject, str(ROOT / "services" / subject.folder), *options)
        yield subject.image
    finally:
        castoff("rmi", subject.image)


@pytest.fixture(scope="module")
def python_image(castoff: Castoff, wheels: str) -> Iterator[str]:
    with built(castoff, PYTHON, f"--build-context=wheels={wheels}") as image:
        yield image


@pytest.fixture(scope="module")
def go_image(castoff: Castoff) -> Iterator[str]:
    with built(castoff, GO) as image:
        yield image


@pytest.fixture(scope="module", params=[PYTHON, GO], ids=["python", "go"])
def subject(request: pytest.FixtureRequest) -> Subject:
    chosen: Subject = request.param
    request.getfixturevalue("python_image" if chosen is PYTHON else "go_image")
    return chosen


@contextlib.contextmanager
def run_container(castoff: Castoff, image: str, *options: str) -> Iterator[Running]:
    """Run a service in a container, its port published on a free one of loopback, and leave nothing running."""
    port = free_port()
    argv = [*castoff.argv, "run", "--rm", "-p", f"127.0.0.1:{port}:{PORT}", *options, image]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        running = Running(process, port)
        reader = threading.Thread(target=running.read_log)
        reader.start()
        try:
            running.wait_for_line(lambda line: "Server is running on" in line)
            yield running
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.wait()
            reader.join()


@pytest.fixture(scope="module")
def running(castoff: Castoff, subject: Subject) -> Iterator[Running]:
    with run_container(castoff, subject.image) as started:
        yield started


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
def test_http_contract(check: Check, running: Running, subject: Subject) -> None:
    check(Contract(running.url, subject.key))


def test_it_starts_on_a_read_only_root_and_stops_in_good_order(castoff: Castoff, subject: Subject) -> None:
    with run_container(castoff, subject.image, "--read-only", "-e", "LOG_FORMAT=json") as started:
        assert Contract(started.url, subject.key).ask("/ready").status == 200
        assert started.stop() == 0
        records = [json.loads(line) for line in started.lines if line.startswith("{")]
    assert records[-1]["message"] == "Stopped"


def test_a_wrong_setting_ends_the_container_with_the_services_own_code(castoff: Castoff, subject: Subject) -> None:
    done = castoff("run", "--rm", "-e", "PORT=none", subject.image)
    assert done.returncode == 2
    assert "PORT must be a whole number" in done.stderr


def test_the_config_says_who_and_what_runs(castoff: Castoff, subject: Subject) -> None:
    config = json.loads(castoff("inspect", subject.image).stdout)[0]["Config"]
    assert config["User"] == "nonroot"
    assert list(config["ExposedPorts"]) == [f"{PORT}/tcp"]
    assert config["Entrypoint"][0].startswith("/")  # no shell form: there is no shell


def tools(files: list[list[Any]]) -> set[str]:
    """Return which of the tools are among the files, by name and wherever they lie."""
    names = {os.path.basename(path) for path, mode, _ in files if mode & 0o111}
    return names & set(TOOLS)


def test_the_python_image_has_no_tools_and_runs_as_nonroot(castoff: Castoff, python_image: str) -> None:
    seen = castoff.python(python_image, LIST_FILES)
    assert (seen["uid"], seen["gid"]) == (65532, 65532)
    assert tools(seen["files"]) == set()
    paths = [path for path, _, _ in seen["files"]]
    assert not [
        path for path in paths if "/pip/" in path or "ensurepip" in path or path.startswith("/var/lib/dpkg/info")
    ]
    assert "/usr/bin/python3.11" in paths
    assert not [path for path, mode, regular in seen["files"] if regular and mode & 0o7002]  # setuid, world-writable
    programs = sorted(path for path, mode, _ in seen["files"] if mode & 0o111 and "/bin/" in path)
    assert [path for path in programs if not path.startswith("/usr/bin/python3")] == []


def test_the_builder_has_what_the_runtime_lacks(castoff: Castoff, python_image: str) -> None:
    seen = castoff.python(PYTHON.stand_ins["python:3.11-slim"], LIST_FILES)
    assert tools(seen["files"]) >= {"sh", "bash", "pip", "pip3", "apt-get", "dpkg", "perl", "tar"}
    made = "import venv, json, sys; venv.create('/tmp/v', with_pip=True); json.dump(1, sys.stdout)"
    assert castoff.python(PYTHON.stand_ins["python:3.11-slim"], made) == 1


def test_the_whole_standard_library_can_be_imported(castoff: Castoff, python_image: str) -> None:
    failed = castoff.python(python_image, IMPORT_ALL)
    absent = {name for name, reason in failed.items() if reason.startswith("No module named")}
    assert failed.keys() == absent, failed  # no library is missing below a module that is there
    public = {name for name in absent if not name.startswith("_")}
    # For other systems, for windows on a screen, and what Debian keeps apart: translation from Python 2, pip's bundle.
    other_systems = {"msilib", "nt", "ntpath", "winreg", "winsound", "msvcrt"}
    apart = {"tkinter", "turtle", "turtledemo", "idlelib", "lib2to3", "ensurepip", "distutils"}
    assert public <= other_systems | apart


def test_its_bytecode_is_not_compared_with_sources(castoff: Castoff, python_image: str) -> None:
    program = """
import json, pathlib, sys
found = {}
for folder in ("/app/lib", "/app/devops_info_service", "/usr/lib/python3.11"):
    flags = {path.read_bytes()[4:8].hex() for path in pathlib.Path(folder).rglob("*.pyc")}
    sources = {str(path) for path in pathlib.Path(folder).rglob("*.py")}
    found[folder] = [sorted(flags), len(sources) > 15]
json.dump(found, sys.stdout)
"""
    for folder, state in castoff.python(python_image, program).items():
        assert state == [["01000000"], True], folder  # PEP 552: by hash, unchecked


def test_the_python_image_is_the_same_again_and_shares_what_did_not_change(
    castoff: Castoff, python_image: str, wheels: str, tmp_path: Path
) -> None:
    def layers() -> list[str]:
        found: list[str] = json.loads(castoff("inspect", python_image).stdout)[0]["RootFS"]["Layers"]
        return found

    folder = str(tmp_path / "service")
    shutil.copytree(ROOT / "services" / PYTHON.folder, folder)
    context = f"--build-context=wheels={wheels}"
    first, before = build(castoff, PYTHON, folder, context), layers()
    assert build(castoff, PYTHON, folder, context, "--no-cache") == first
    with open(os.path.join(folder, "devops_info_service", "__init__.py"), "a", encoding="utf-8") as stream:
        stream.write("# a change\n")
    changed = build(castoff, PYTHON, folder, context)
    assert changed != first
    after = layers()
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, False, True]
    shutil.copytree(ROOT / "services" / PYTHON.folder, folder, dirs_exist_ok=True)
    assert build(castoff, PYTHON, folder, context) == first


@contextlib.contextmanager
def package_index(wheels: str, folder: Path) -> Iterator[str]:
    """Serve wheels on loopback as a package index does (PEP 503): a folder for each project."""
    for wheel in os.listdir(wheels):
        project = folder / wheel.partition("-")[0].replace("_", "-").lower()
        project.mkdir(exist_ok=True)
        shutil.copy(os.path.join(wheels, wheel), project)
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def test_an_index_gives_the_same_image_as_a_folder_of_wheels(
    castoff: Castoff, python_image: str, wheels: str, tmp_path: Path
) -> None:
    before = json.loads(castoff("inspect", python_image).stdout)[0]["Id"]
    with package_index(wheels, tmp_path) as url:
        folder = str(ROOT / "services" / PYTHON.folder)
        assert build(castoff, PYTHON, folder, f"--build-arg=PIP_INDEX_URL={url}", "--no-cache") == before
    assert url not in castoff("inspect", python_image).stdout + castoff("history", "--no-trunc", python_image).stdout


def test_wheels_that_are_not_the_locked_ones_are_refused(
    castoff: Castoff, python_image: str, wheels: str, tmp_path: Path
) -> None:
    shutil.copytree(wheels, tmp_path / "wheels")
    forged = next((tmp_path / "wheels").glob("h11-*.whl"))
    forged.write_bytes(forged.read_bytes() + b"\0")
    contexts = [f"--build-context={name}=docker-image://{base}" for name, base in PYTHON.stand_ins.items()]
    context = f"--build-context=wheels={tmp_path / 'wheels'}"
    done = castoff("build", "--progress=plain", *contexts, context, str(ROOT / "services" / PYTHON.folder))
    assert done.returncode == 1
    assert "HASH" in done.stderr.upper()


def test_the_images_are_small(castoff: Castoff, python_image: str) -> None:
    total = json.loads(castoff("inspect", python_image).stdout)[0]["Size"]
    assert total < 26_000_000
    base = json.loads(castoff("inspect", PYTHON.stand_ins["python:3.11-slim"]).stdout)[0]["Size"]
    assert base > 2 * total


def audit(castoff: Castoff, image: str) -> tuple[int, set[str], bool]:
    """Return the exit code of an audit, the rules that are broken, and whether the image passes."""
    done = castoff("audit", "--format", "json", image)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    return done.returncode, {finding["Rule"] for finding in report["Findings"]}, report["Passed"]


def test_the_runtime_images_are_clean(castoff: Castoff, subject: Subject) -> None:
    assert audit(castoff, subject.image) == (0, set(), True)


@pytest.mark.parametrize("base", ["castoff/static:nonroot", "castoff/python-runtime:3.11"])
def test_the_bases_to_run_on_are_clean(castoff: Castoff, base: str) -> None:
    assert audit(castoff, base) == (0, set(), True)


def test_the_builders_have_findings(castoff: Castoff, subject: Subject, wheels: str) -> None:
    name = subject.image.replace(":", "-builder:")
    contexts = [f"--build-context={key}=docker-image://{base}" for key, base in subject.stand_ins.items()]
    contexts += [f"--build-context=wheels={wheels}"] * (subject is PYTHON)
    folder = str(ROOT / "services" / subject.folder)
    try:
        done = castoff("build", "-q", "--target", "builder", "-t", name, *contexts, folder)
        assert done.returncode == 0, done.stderr
        code, rules, passed = audit(castoff, name)
        assert (code, passed) == (1, False)
        assert rules >= {"root-user", "shell", "package-manager", "setuid", "interpreter"}
        assert rules.isdisjoint({"missing-library", "missing-loader", "credential-file", "secret-in-history"})
        inside = castoff("run", "--rm", "--network=none", "--entrypoint=sh", name, "-c", "command -v apt-get; pwd")
        assert inside.stdout.split() == ["/usr/bin/apt-get", "/app" if subject is PYTHON else "/build"]
    finally:
        castoff("rmi", name)
