"""Makes packages, signed archives and servers of them, for tests of bases."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import lzma
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import zstandard

DATE = 1_770_000_000
_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".xz": lzma.compress,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


def member(
    name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644, uid: int = 0
) -> tuple[tarfile.TarInfo, bytes]:
    """Return one entry of a tar archive, whatever its name."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid, info.size = kind, link, mode, uid, len(data)
    info.mtime = DATE
    return info, data


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    """Return a directory of a tar archive."""
    return member(name, kind=tarfile.DIRTYPE, mode=mode)


def tar(entries: Sequence[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Return a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def ar(members: Sequence[tuple[str, bytes]]) -> bytes:
    """Return an ar archive, as a package is one."""
    parts = [b"!<arch>\n"]
    for name, data in members:
        parts.append(f"{name:<16}{DATE:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
        parts.append(data + b"\n" * (len(data) % 2))
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Package:
    """A package to make."""

    name: str
    version: str = "1.0"
    entries: tuple[tuple[tarfile.TarInfo, bytes], ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    compression: str = ".xz"
    md5sums: bytes = b""
    architecture: str = "amd64"

    @property
    def paragraph(self) -> str:
        """The control file."""
        lines = [f"Package: {self.name}", f"Version: {self.version}", f"Architecture: {self.architecture}"]
        return "\n".join([*lines, *(f"{key}: {value}" for key, value in self.fields)]) + "\n"

    @property
    def path(self) -> str:
        """Where it is below the archive's root."""
        return f"pool/main/{self.name[0]}/{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"

    def deb(self) -> bytes:
        """Return the package's file."""
        control = [member("./control", self.paragraph.encode())]
        if self.md5sums:
            control.append(member("./md5sums", self.md5sums))
        compress = _COMPRESSORS[self.compression]
        return ar(
            [
                ("debian-binary", b"2.0\n"),
                (f"control.tar{self.compression}", compress(tar(control))),
                (f"data.tar{self.compression}", compress(tar([directory("./"), *self.entries]))),
            ]
        )


@dataclass(frozen=True, slots=True)
class Key:
    """An OpenPGP key made for a test: `home` is gpg's folder, `keyring` the public key."""

    home: str
    keyring: str

    def sign(self, text: bytes) -> bytes:
        """Return clear-signed text."""
        argv = ["gpg", "--homedir", self.home, "--batch", "--quiet", "--clearsign", "--output", "-"]
        return subprocess.run(argv, input=text, capture_output=True, check=True).stdout


@contextmanager
def new_key(folder: str, name: str) -> Iterator[Key]:
    """Make a key, and end the agent that gpg starts, whose socket needs a path of less than 108 bytes."""
    home = tempfile.mkdtemp(prefix="castoff-gpg-", dir="/tmp")
    gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    try:
        subprocess.run([*gpg, "--quick-gen-key", name, "ed25519", "sign", "never"], check=True, capture_output=True)
        keyring = os.path.join(folder, f"{name}.gpg")
        subprocess.run([*gpg, "--export", "--output", keyring], check=True, capture_output=True)
        yield Key(home, keyring)
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


@dataclass(slots=True)
class Site:
    """Files that a server on loopback gives, by path; `requests` are those that were asked for.

    `cut` are paths whose connection breaks off after half of the bytes, once each.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)
    ranges: bool = True
    url: str = ""

    def add_suite(self, archive: str, suite: str, packages: Sequence[Package], key: Key, **release: str) -> None:
        """Add a suite with its packages; `release` replaces fields of the Release file."""
        paragraphs = []
        for package in packages:
            data = package.deb()
            self.files[f"/{archive}/{package.path}"] = data
            paragraphs.append(
                f"{package.paragraph}Filename: {package.path}\nSize: {len(data)}\n"
                f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
            )
        index = lzma.compress("\n".join(paragraphs).encode())
        digest = hashlib.sha256(index).hexdigest()
        fields = {
            "Origin": "Debian",
            "Suite": suite,
            "Codename": suite,
            "Date": time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(DATE)),
            "Acquire-By-Hash": "yes",
            "No-Support-for-Architecture-all": "Packages",
            "Architectures": "all amd64",
        } | release
        text = "".join(f"{name}: {value}\n" for name, value in fields.items())
        text += f"SHA256:\n {digest} {len(index)} main/binary-amd64/Packages.xz\n"
        folder = f"/{archive}/dists/{suite}"
        self.files[f"{folder}/InRelease"] = key.sign(text.encode())
        self.files[f"{folder}/main/binary-amd64/Packages.xz"] = index
        self.files[f"{folder}/main/binary-amd64/by-hash/SHA256/{digest}"] = index


@contextmanager
def serving() -> Iterator[Site]:
    """Serve a site on loopback."""
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            site.requests.append((self.path, wanted))
            data = site.files.get(self.path)
            if data is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.ranges else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            if self.path in site.cut:
                site.cut.discard(self.path)
                self.wfile.write(data[start : start + (len(data) - start) // 2])
                self.close_connection = True
                return
            self.wfile.write(data[start:])

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
