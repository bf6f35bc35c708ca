"""A small service of the standard library is frozen on this machine's interpreter, and run from what came out."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("elftools", reason="pyelftools is not installed")

pytestmark = pytest.mark.integration

FREEZE = Path(__file__).parents[2] / "freeze" / "src"
SERVICE = """
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import parts

HERE = os.path.dirname(os.path.abspath(__file__))

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/page":
            with open(os.path.join(HERE, "page.html"), "rb") as file:
                self.answer(200, "text/html", file.read())
        elif self.path == "/who":
            facts = {"uid": os.getuid(), "root": sorted(os.listdir("/"))}
            self.answer(200, "application/json", json.dumps(facts).encode())
        elif self.path == "/lazy":
            self.answer(200, "text/plain", parts.lazy().encode())
        else:
            self.answer(404, "text/plain", b"no")
    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass

if __name__ == "__main__":
    ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])), Handler).serve_forever()
"""
PARTS = "def lazy():\n    import colorsys\n    return str(colorsys.rgb_to_hsv(1, 0, 0))\n"
# Debian's has little to compile; any other will do.
PYTHON = "/usr/bin/python3" if sys.version_info[:2] == (3, 11) and os.path.exists("/usr/bin/python3.11") else ""
PYTHON = os.path.realpath(PYTHON or sys.executable)
SMOKE = '[service]\nport-variable = "PORT"\n[[request]]\npath = "/page"\n[[request]]\npath = "/nothing"\nstatus = 404\n'


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    (folder / "app").mkdir()
    for name, text in (("serve.py", SERVICE), ("parts.py", PARTS), ("page.html", "<p>page"), (".env", "SECRET=1")):
        (folder / "app" / name).write_text(text)
    (folder / "smoke.toml").write_text(SMOKE)
    return folder


def freeze(service: Path, output: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Freeze the service with the interpreter below the one of the tests, which may be a virtual environment's."""
    words = ["-m", "castoff_freeze", str(service / "app/serve.py"), "--smoke", str(service / "smoke.toml"), "-q"]
    extra = os.pathsep.join([str(FREEZE), *(entry for entry in sys.path if "site-packages" in entry)])
    return subprocess.run(
        [
            PYTHON,
            "-c",
            f"import sys; sys.path[:0] = {extra.split(os.pathsep)!r}; from castoff_freeze.cli import main; "
            "sys.exit(main(sys.argv[1:]))",
            *words[2:],
            "-o",
            str(service / output),
            "--path",
            str(service / "app"),
            *more,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(service)},
    )


def digests(root: Path) -> dict[str, str]:
    """Return modes, times and hashes of all below a folder."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        content = os.readlink(path) if path.is_symlink() else hashlib.sha256(data).hexdigest()
        found[str(path.relative_to(root))] = f"{status.st_mode:o} {status.st_mtime} {content}"
    return found


@pytest.fixture(scope="module")
def frozen(service: Path) -> Path:
    done = freeze(service, "small", "--mode", "small", "--split")
    assert done.returncode == 0, done.stderr
    return service / "small"


def test_every_file_has_a_reason_and_is_as_the_manifest_says(frozen: Path) -> None:
    paper = json.loads((frozen.parent / "small.report" / "manifest.json").read_text())
    listed = {(entry["layer"], entry["path"]): entry for entry in paper["files"] if entry["kind"] == "file"}
    present = {
        (layer, "/" + str(path.relative_to(frozen / layer)))
        for layer in ("deps", "app")
        for path in (frozen / layer).rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert present == set(listed)
    assert all(entry["why"] for entry in [*paper["files"], *paper["dropped"]])
    for (layer, path), entry in listed.items():
        assert hashlib.sha256((frozen / layer / path[1:]).read_bytes()).hexdigest() == entry["sha256"]
    assert not [path for _, path in listed if "/test/" in path or path.endswith(("/sh", "/pip"))]
    assert not [path for _, path in listed if path.endswith("/.env")]


def test_the_bill_of_materials_names_what_is_inside(frozen: Path) -> None:
    bill = json.loads((frozen.parent / "small.report" / "sbom.spdx.json").read_text())
    assert bill["spdxVersion"] == "SPDX-2.3"
    names = {package["name"] for package in bill["packages"]}
    assert {"serve", "cpython"} <= names
    identifiers = [package["SPDXID"] for package in bill["packages"]]
    assert len(identifiers) == len(set(identifiers))


def test_the_tree_answers_what_the_description_did_not_ask(frozen: Path, service: Path, tmp_path: Path) -> None:
    sys.path.insert(0, str(FREEZE))
    try:
        from castoff_freeze.session import Job, hold
    finally:
        sys.path.remove(str(FREEZE))
    root = tmp_path / "root"
    for layer in ("deps", "app"):
        subprocess.run(["cp", "-a", f"{frozen / layer}/.", str(root)], check=True)
    for name in ("proc", "dev"):
        (root / name).mkdir()
    (root / "dev/null").touch(0o666)
    requests: list[tuple[str, str, dict[str, str], str]] = [("GET", path, {}, "") for path in ("/lazy", "/who")]
    environment = {"PORT": "18765", "HOST": "127.0.0.1"}
    job = Job(str(root), ["/start"], environment, port=18765, requests=requests)
    try:
        report = hold(job, PYTHON)
    except OSError as error:
        pytest.skip(f"no isolation is permitted here: {error}")
    if report.isolation == "none":
        pytest.skip("neither namespaces nor chroot are permitted here")
    assert not report.failure, report.log
    lazy, who = report.answers
    assert (lazy.status, lazy.body) == (200, b"(0.0, 1.0, 1)"), report.log
    seen = json.loads(who.body)
    assert seen["uid"] == 65532
    assert not {"bin", "var", "root"} & set(seen["root"]) - {str(service).split("/")[1]}


def test_equal_input_gives_equal_bytes_and_a_change_only_changes_the_application(frozen: Path, service: Path) -> None:
    before = {layer: digests(frozen / layer) for layer in ("deps", "app")}
    assert freeze(service, "again", "--mode", "small", "--split").returncode == 0
    assert {layer: digests(service / "again" / layer) for layer in ("deps", "app")} == before
    assert (service / "again.report/manifest.json").read_text() == (service / "small.report/manifest.json").read_text()
    parts = service / "app" / "parts.py"
    try:
        parts.write_text(PARTS + "CHANGED = 1\n")
        assert freeze(service, "changed", "--mode", "small", "--split").returncode == 0
    finally:
        parts.write_text(PARTS)
    assert digests(service / "changed" / "deps") == before["deps"]
    after = digests(service / "changed" / "app")
    assert [name for name in after if after[name] != before["app"][name]] == [
        str((service / "app" / "parts.pyc").relative_to("/"))
    ]


def test_what_a_mode_leaves_out_is_found_missing_and_added(service: Path) -> None:
    smoke = service / "lazy.toml"
    smoke.write_text(SMOKE + '[[request]]\npath = "/lazy"\n')
    done = freeze(service, "retried", "--smoke", str(smoke), "--exclude", "colorsys")
    assert done.returncode == 1
    assert "GET /lazy" in done.stderr
    assert "colorsys" in done.stderr
    assert not [path.name for path in service.iterdir() if "retried" in path.name]
    done = freeze(service, "retried", "--smoke", str(smoke), "--mode", "smallest")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--lock", "/nowhere/lock"), 2, "cannot read the lock"),
        (("--mode", "tiny"), 2, "invalid choice"),
        (("--app", "/nowhere"), 2, "there is no application"),
        (("--smoke", "/nowhere"), 2, "cannot read the smoke description"),
        (("--launcher", "start"), 2, "must be absolute"),
    ],
)
def test_a_wrong_command_line_is_one_message_and_nothing_is_written(
    service: Path, more: tuple[str, ...], code: int, said: str
) -> None:
    done = freeze(service, "wrong", *more)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr
    assert not [path.name for path in service.iterdir() if "wrong" in path.name]


def test_a_service_that_fails_before_it_is_frozen_says_so(service: Path) -> None:
    smoke = service / "fails.toml"
    smoke.write_text('[service]\nport-variable = "PORT"\n[[request]]\npath = "/nothing"\n')
    done = freeze(service, "failed", "--smoke", str(smoke))
    assert done.returncode == 1
    assert "the unshrunk service fails its smoke test: GET /nothing: status 404 instead of 200" in done.stderr
    assert not [path.name for path in service.iterdir() if "failed" in path.name]


def test_an_output_that_is_there_is_left_alone(service: Path) -> None:
    (service / "mine").mkdir(exist_ok=True)
    (service / "mine" / "file").write_text("mine")
    done = freeze(service, "mine")
    assert (done.returncode, "is there already" in done.stderr) == (1, True)
    assert (service / "mine" / "file").read_text() == "mine"
