"""Drives the recorded builds that fetch something, with servers on loopback in the place of those that were recorded.

What the servers gave was not recorded, only what came of it: a file's content is taken from where a step expects it,
and the times are those that the recorded results show.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import io
import json
import os
import re
import shlex
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import conformance_builds as builds
import pytest

RECORDED_URL = re.compile(r"http://127\.0\.0\.1:\d+")
ANY_NAME = re.compile(r"http://127\.0\.0\.1:\d+(/[\w./-]+)")
REGISTRY = "registry"
ATTESTATION = "attestation"
EPOCHS = {
    "testSourceDateEpochNamedContextHTTPLastModified": 1700000601,
    "testSourceDateEpochNamedContextHTTPArchive": 1700000602,
}


class _Handler(BaseHTTPRequestHandler):
    bodies: ClassVar[dict[str, bytes]]
    modified: ClassVar[int]

    def do_GET(self) -> None:
        body = self.bodies.get(self.path)
        self.send_response(404 if body is None else 200)
        if self.modified:
            self.send_header("Last-Modified", email.utils.formatdate(self.modified, usegmt=True))
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(bodies: dict[str, bytes], modified: int) -> Iterator[str]:
    """Serve bodies by path and give the URL."""
    handler = type("Handler", (_Handler,), {"bodies": bodies, "modified": modified})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def expected_content(case: builds.Case, name: str) -> bytes:
    """Return what a URL must have given for the recorded results: the content that a step expects under its name."""
    for step in case["steps"]:
        trees = [tree for export in step["exports"] if isinstance(tree := export.get("tree"), list)]
        trees += [mount["tree"] for mount in step["mounts"].values() if "tree" in mount]
        for entry in (entry for tree in trees for entry in tree):
            if entry["path"].rpartition("/")[2] == name and "base64" in entry:
                return base64.b64decode(entry["base64"])
    if name.endswith(".tar"):
        return _archive()
    return b"content"


def _archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size, member.mtime = 7, 1700000000
        tar.addfile(member, io.BytesIO(b"content"))
    return out.getvalue()


def relocated(value: Any, url: str) -> Any:
    """Return a recorded value with the address of the server replaced."""
    if isinstance(value, str):
        return RECORDED_URL.sub(url, value)
    if isinstance(value, dict):
        return {key: relocated(item, url) for key, item in value.items()}
    if isinstance(value, list):
        return [relocated(item, url) for item in value]
    return value


class RemoteRunner(builds.IntegrationRunner):
    """Runs the cases of dockerfile_integration.json that need a server."""

    def __init__(self, command: list[str], bases: str, store: str) -> None:
        super().__init__(command, bases, store)
        self._castoff = command
        self._layout = ""

    def run(self, case: builds.Case) -> list[str]:
        """Run a case and return what is wrong with it; skip what needs a registry or attestations."""
        if case["tier"] != "D" or not case["complete"] or case["oracle"] != "pass":
            pytest.skip("the case needs no server")
        for need, what in ((REGISTRY, "a registry to push to"), (ATTESTATION, "attestations")):
            if need in case["needs"]:
                pytest.skip(f"the case needs {what}")
        paths = {path for step in case["steps"] for path in ANY_NAME.findall(str(step))}
        bodies = {path: expected_content(case, path.rpartition("/")[2]) for path in paths}
        with serving(bodies, EPOCHS.get(case["name"], 0)) as url:
            return self.run_steps(relocated(case, url))

    def build(self, step: builds.Case, folders: dict[str, str], work: str) -> tuple[int, str, dict[str, str], bool]:
        """Build one step, its contexts from elsewhere given as options that the material's driver does not know."""
        options: list[str] = []
        attrs = dict(step["attrs"])
        for key in [key for key in attrs if key.startswith("context:") and not attrs[key].startswith("local:")]:
            name, value = key.removeprefix("context:"), attrs.pop(key)
            if value.startswith("oci-layout:"):
                # The recorded digest is that of the reference's own image; here it is the one that was just made.
                value = self._layout
            options += ["--build-context", f"{name}={value}"]
        # The driver calls COMMAND --root STORE build ARGUMENTS: the options go behind the verb.
        script = f'store=$2; shift 3; exec {shlex.join(self._castoff)} --root "$store" build {shlex.join(options)} "$@"'
        self._builder.command = ["/bin/sh", "-c", script, "castoff"]
        done = super().build({**step, "attrs": attrs}, folders, work)
        if "oci" in done[2] and os.path.exists(done[2]["oci"]):
            self._layout = self._unpacked(done[2]["oci"], f"{work}/layout")
        return done

    def _unpacked(self, archive: str, folder: str) -> str:
        """Return a layout as the value of a named context, by the digest of its image."""
        with tarfile.open(archive) as tar:
            # Pythons before 3.11.4 know no filters; the archive is castoff's own.
            options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(folder, **options)
        with open(f"{folder}/index.json", encoding="utf-8") as file:
            return f"oci-layout://{folder}@{json.load(file)['manifests'][0]['digest']}"
