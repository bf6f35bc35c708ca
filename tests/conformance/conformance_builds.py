"""Drives the builder's command line over recorded builds, and judges the results with the material's own replayers."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import conformance_data
import pytest

Case = dict[str, Any]

KNOWN = Path(__file__).resolve().parents[2] / "docs/dev/conformance.md"
ROW = re.compile(r"\| *`([a-z_]+)` *\| *`([^`]+)` *\| *([^|]+?) *\|")
SYNTAX = b"# syntax="
LOCAL_PORT = re.compile(r"127\.0\.0\.1 (\d+)")


def known_failures() -> dict[tuple[str, str], str]:
    """Return the reasons for the failures that are known, by suite and case: the table of docs/dev/conformance.md."""
    if not KNOWN.is_file():
        return {}
    rows = map(ROW.fullmatch, KNOWN.read_text(encoding="utf-8").splitlines())
    return {(row[1], row[2]): row[3] for row in rows if row}


def material(name: str) -> ModuleType:
    """Import a script of the conformance material, or skip naming it."""
    path = conformance_data.folder() / f"{name}.py"
    if not path.is_file():
        pytest.skip(f"the conformance material has no {path}")
    spec = importlib.util.spec_from_file_location(f"conformance_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_bases(folder: str) -> None:
    """Make the layout with the stand-ins for base images."""
    script = conformance_data.folder() / "mkbase.py"
    if not script.is_file():
        pytest.skip(f"the conformance material has no {script}")
    subprocess.run([sys.executable, str(script), folder], check=True, capture_output=True)


@contextlib.contextmanager
def work_folder() -> Iterator[str]:
    """Give a folder that every user can reach, and remove whatever a build left in it."""
    folder = tempfile.mkdtemp(prefix="castoff-conformance-")
    try:
        yield folder
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def answering(port: int) -> Iterator[None]:
    """Answer every connection to a loopback port with "foo", as the recorded case's own server did."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError as error:
            pytest.skip(f"the port {port} that the case names is taken: {error.strerror}")
        server.listen()
        thread = threading.Thread(target=_answer, args=(server,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _answer(server: socket.socket) -> None:
    while True:
        try:
            connection, _address = server.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"foo\n")


def silence_syntax(dockerfile: str) -> None:
    """Turn ``# syntax=`` into ``# syntax-``, as it was when the images were recorded.

    The recorder kept the reference from fetching a frontend so, in the file itself: images that hold a copy of it have
    the digest of the changed text. The size, the time and the meaning are the same.
    """
    try:
        with open(dockerfile, "r+b") as file:
            if file.read(len(SYNTAX)) == SYNTAX:
                times = os.fstat(file.fileno())
                file.seek(len(SYNTAX) - 1)
                file.write(b"-")
                file.flush()
                os.utime(file.fileno(), ns=(times.st_atime_ns, times.st_mtime_ns))
    except FileNotFoundError:
        return


class IntegrationRunner:
    """Runs the cases of dockerfile_integration.json, all on one store."""

    def __init__(self, command: list[str], bases: str, store: str) -> None:
        self._replay = material("replay")
        builder = self._replay.Castoff.__new__(self._replay.Castoff)
        builder.command, builder.root = command, store
        self._builder = builder
        subprocess.run([*command, "--root", store, "load", "-i", bases], check=True, capture_output=True)

    def run(self, case: Case) -> list[str]:
        """Run a case and return what is wrong with it, step by step; skip what can't be driven."""
        if not case["complete"] or case["oracle"] != "pass":
            pytest.skip("the case was not recorded whole")
        if case["tier"] not in "ABC":
            pytest.skip("the case needs a server of its own (registry, HTTP, git or ssh)")
        if case["name"] in self._replay.SOCKETS:
            pytest.skip("the case needs a socket in the context")
        return self.run_steps(case)

    def run_steps(self, case: Case) -> list[str]:
        """Run the steps of a case, whatever it needs, and return what is wrong with it."""
        bad: list[str] = []
        with work_folder() as work, contextlib.ExitStack() as stack:
            port = LOCAL_PORT.search(case["steps"][0].get("dockerfile") or "")
            if port:
                stack.enter_context(answering(int(port[1])))
            for number, step in enumerate(case["steps"]):
                bad += self._step(step, f"{work}/{number}")
        return bad

    def build(self, step: Case, folders: dict[str, str], work: str) -> tuple[int, str, dict[str, str], bool]:
        """Build one step; return the exit code, the log, the outputs, and whether something was made."""
        done: tuple[int, str, dict[str, str], bool] = self._builder.build(step, folders, work)
        return done

    def _step(self, step: Case, work: str) -> list[str]:
        replay = self._replay
        os.makedirs(work)
        folders: dict[str, str] = {}
        try:
            for name, mount in step["mounts"].items():
                if mount.get("same_as"):
                    folders[name] = folders[mount["same_as"]]
                else:
                    folders[name] = f"{work}/m-" + re.sub(r"\W", "_", name)
                    replay.lay(mount["tree"], folders[name])
            code, log, outs, made = self.build(step, folders, work)
        except replay.NotDrivable as error:
            pytest.skip(f"no command line says it: {error}")
        bad = replay.judge(step, code, log, outs, made, True)
        return [f"{json.dumps(item)}\n{log[-800:]}" for item in bad]


class ImageRunner:
    """Runs the cases of buildah_conformance.json, all on one store."""

    def __init__(self, command: list[str], bases: str, store: str) -> None:
        self._replay = material("replay_images")
        self._command = [*command, "--root", store, "build", "--progress=plain"]
        self._bases = bases
        self._base_files = self._read_bases()

    def _read_bases(self) -> Case:
        """Return what the stand-ins hold, merged in the order in which the recordings saw them."""
        with open(f"{self._bases}/index.json", encoding="utf-8") as index:
            manifests = {
                item["annotations"]["org.opencontainers.image.ref.name"]: item for item in json.load(index)["manifests"]
            }
        found: Case = {}
        with contextlib.ExitStack() as stack:
            for name in ("busybox:latest", "alpine:latest", "centos:7"):
                _config, files = self._replay.read(
                    lambda path: stack.enter_context(open(f"{self._bases}/{path}", "rb")),
                    {"manifests": [manifests[name]]},
                )
                found.update(files)
        return found

    def run(self, case: Case) -> list[str]:
        """Run a case and return the differences from the recorded image; skip what was not recorded."""
        want = (case.get("oracle") or {}).get("buildkit")
        if not want:
            pytest.skip("the reference builder has no recording of the case")
        with work_folder() as work:
            context = f"{work}/ctx"
            os.mkdir(context)
            archive = str(conformance_data.folder() / case["context_tar"])
            unpack = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", archive, "-C", context]
            subprocess.run(unpack, check=True, capture_output=True)
            silence_syntax(os.path.join(context, case["dockerfile_path"]))
            command = [*self._command, "-f", os.path.join(context, case["dockerfile_path"])]
            command += ["-o", f"type=oci,dest={work}/image.tar"]
            for key, value in (case["flags"].get("build_args") or {}).items():
                command += ["--build-arg", f"{key}={value}"]
            for base in case["base_images"]:
                if base != "scratch":
                    stand_in = f"{base}=oci-layout://{self._bases}:{self._replay.stand_in(base)}"
                    command += ["--build-context", stand_in]
            done = subprocess.run(
                [*command, context], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=300
            )
            log = done.stdout.decode("utf-8", "replace")[-800:]
            if (done.returncode == 0) != (want["rc"] == 0):
                return [f"exit {done.returncode}, recorded {want['rc']}\n{log}"]
            if done.returncode:
                return []
            return self._differences(want, f"{work}/image.tar")

    def _differences(self, want: Case, archive: str) -> list[str]:
        try:
            config, files = self._replay.image_of(archive)
        except (OSError, KeyError, ValueError, tarfile.TarError) as error:
            return [f"no readable image: {error!r}"]
        own = {path: facts for path, facts in files.items() if self._base_files.get(path) != facts}
        found: list[str] = self._replay.differences(want, config.get("config") or {}, own)
        return found


def check(suite: str, case: Case, run: Callable[[Case], list[str]]) -> None:
    """Run a case; a known failure must fail, and any other pass."""
    reason = known_failures().get((suite, case["name"]))
    bad = run(case)
    if reason is None:
        assert not bad, "\n".join(bad)
    elif bad:
        pytest.xfail(reason)
    else:
        pytest.fail(f"{case['name']} passes now: take it out of the table in {KNOWN.name}")
