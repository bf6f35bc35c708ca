"""Debian's docker-registry on a free port of the loopback interface: open, with a password, with TLS."""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt

if TYPE_CHECKING:
    from conftest import Require

_SECONDS = 60


@dataclass
class Peer:
    """A registry that runs, and what it takes to speak to it.

    Attributes:
        netloc: host and port.
        folder: for files of a test.
        authority: path of the certificate authority; "" for plain http.
        user: name and password; None for everybody.
        env: what castoff is started with.
    """

    netloc: str
    folder: Path
    authority: str = ""
    user: tuple[str, str] | None = None
    env: dict[str, str] = field(default_factory=dict)

    def castoff(self, *arguments: str, stdin: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
        """Run castoff on the test's store; it must end with a code."""
        command = [sys.executable, "-m", "castoff", "--root", str(self.folder / "store"), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, env={**os.environ, **self.env}, check=False)
        assert done.returncode == code, done.stderr.decode()
        return done

    def skopeo(self, *arguments: str) -> str:
        """Run skopeo, with nothing of this machine's configuration."""
        policy = self.folder / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        done = subprocess.run(
            ["skopeo", "--policy", str(policy), *arguments],
            capture_output=True,
            env={**os.environ, "REGISTRY_AUTH_FILE": str(self.folder / "docker" / "config.json")},
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def tls(self, side: str = "") -> list[str]:
        """Return skopeo's options for this registry; `side` is ``src-`` or ``dest-`` in a copy."""
        if self.authority:
            return [f"--{side}cert-dir={os.path.dirname(self.authority)}"]
        return [f"--{side}tls-verify=false"]


@contextlib.contextmanager
def docker_registry(
    folder: Path, require: Require, port: int, *, tls: bool = False, user: tuple[str, str] | None = None
) -> Iterator[Peer]:
    """Run docker-registry with its files in a folder while the block runs."""
    program = require.command("docker-registry")
    netloc = f"localhost:{port}" if tls else f"127.0.0.1:{port}"
    lines = [
        "version: 0.1",
        f"storage: {{filesystem: {{rootdirectory: {folder}/registry}}, delete: {{enabled: true}}}}",
    ]
    lines += ["log: {level: warn, accesslog: {disabled: true}}"]
    own = f"addr: '127.0.0.1:{port}'"
    authority = ""
    if tls:
        authority = make_certificates(folder, require)
        own += f", tls: {{certificate: {folder}/server.pem, key: {folder}/server.key}}"
    lines.append(f"http: {{{own}}}")
    if user is not None:
        hashed = bcrypt.hashpw(user[1].encode(), bcrypt.gensalt(4)).decode()
        (folder / "htpasswd").write_text(f"{user[0]}:{hashed}\n")
        lines.append(f"auth: {{htpasswd: {{realm: here, path: {folder}/htpasswd}}}}")
    (folder / "registry.yml").write_text("\n".join(lines) + "\n")
    env = {"DOCKER_CONFIG": str(folder / "docker"), "HOME": str(folder)}
    with (folder / "registry.log").open("ab") as log:
        process = subprocess.Popen([program, "serve", str(folder / "registry.yml")], stdout=log, stderr=log)
        try:
            _wait(process, port, authority)
            yield Peer(netloc, folder, authority, user, env)
        finally:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, authority: str) -> None:
    """Wait until the registry answers."""
    deadline = time.monotonic() + _SECONDS
    while True:
        connection: http.client.HTTPConnection
        if authority:
            context = ssl.create_default_context(cafile=authority)
            connection = http.client.HTTPSConnection("localhost", port, timeout=_SECONDS, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
        try:
            connection.request("GET", "/v2/")
            connection.getresponse().read()
        except OSError:
            assert process.poll() is None, "docker-registry has ended"
            assert time.monotonic() < deadline, "docker-registry does not answer"
            time.sleep(0.05)
        else:
            return
        finally:
            connection.close()


def make_certificates(folder: Path, require: Require) -> str:
    """Make an authority, and a server's and a client's certificate for localhost; return the authority's path."""
    openssl = require.command("openssl")
    trust = folder / "trust"
    trust.mkdir()
    authority, key = trust / "ca.crt", folder / "ca.key"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    _run([openssl, "req", "-x509", *curve, "-subj", "/CN=the tests", *extensions, "-keyout", key, "-out", authority])
    for name, use in (("server", "serverAuth"), ("client", "clientAuth")):
        request, settings = folder / f"{name}.csr", folder / f"{name}.ext"
        settings.write_text(f"subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={use}\n")
        _run([openssl, "req", *curve, "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key", "-out", request])
        signing = ["-CA", authority, "-CAkey", key, "-CAcreateserial", "-days", "2", "-extfile", settings]
        _run([openssl, "x509", "-req", "-in", request, *signing, "-out", folder / f"{name}.pem"])
    return str(authority)


def _run(command: list[str | Path], env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, env=env, check=False)
    assert done.returncode == 0, done.stderr.decode()
