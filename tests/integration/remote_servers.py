"""Servers on loopback that hold what builds fetch: files, with a list of what was asked for, and git repositories."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

GIT_SETTINGS = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
}


@dataclass
class Answer:
    """What a path gives: a body, or a redirection to `location`."""

    body: bytes = b""
    status: int = 200
    location: str = ""
    modified: int = 0
    etag: bool = True
    authorization: str = ""
    declared: int | None = None


@dataclass
class Asked:
    """One request that came."""

    path: str
    headers: dict[str, str]
    status: int = 0


@dataclass
class FileServer:
    """A server of answers by path; `asked` has every request."""

    url: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def statuses(self) -> list[int]:
        """Return the statuses that were given since the last call."""
        found = [asked.status for asked in self.asked]
        self.asked.clear()
        return found


class _Handler(BaseHTTPRequestHandler):
    files: ClassVar[FileServer]

    def do_GET(self) -> None:
        asked = Asked(self.path, {key.lower(): value for key, value in self.headers.items()})
        self.files.asked.append(asked)
        answer = self.files.answers.get(self.path.partition("?")[0], Answer(b"nothing here", 404))
        asked.status = self._status(answer)
        self.send_response(asked.status)
        if answer.location:
            self.send_header("Location", answer.location)
        if answer.modified:
            self.send_header("Last-Modified", email.utils.formatdate(answer.modified, usegmt=True))
        if answer.etag:
            self.send_header("ETag", self._etag(answer))
        body = b"" if asked.status == 304 else answer.body
        self.send_header("Content-Length", str(len(body) if answer.declared is None else answer.declared))
        self.end_headers()
        self.wfile.write(body)

    def _etag(self, answer: Answer) -> str:
        return f'"{hashlib.sha256(answer.body).hexdigest()[:16]}"'

    def _status(self, answer: Answer) -> int:
        if answer.authorization and self.headers.get("Authorization") != answer.authorization:
            return 401
        if answer.status == 200 and answer.etag and self.headers.get("If-None-Match") == self._etag(answer):
            return 304
        return answer.status

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[str]:
    """Serve on loopback until the context ends; give the URL."""
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def file_server(port: int = 0) -> Iterator[FileServer]:
    """Serve answers on loopback."""
    files = FileServer()
    handler = type("Handler", (_Handler,), {"files": files})
    with serving(handler, port) as url:
        files.url = url
        yield files


class _GitHandler(BaseHTTPRequestHandler):
    root: ClassVar[str]
    asked: ClassVar[list[str]]
    authorization: ClassVar[str] = ""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        self.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.authorization and self.headers.get("Authorization") != self.authorization:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        env = {
            **os.environ,
            **GIT_SETTINGS,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_PROJECT_ROOT": self.root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, stdout=subprocess.PIPE, env=env, check=False)
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        headers = [tuple(line.decode().split(": ", 1)) for line in head.split(b"\r\n") if b": " in line]
        self.send_response(next((int(value.split()[0]) for key, value in headers if key == "Status"), 200))
        for key, value in headers:
            if key != "Status":
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@dataclass
class GitServer:
    """A server of the repositories below a folder; `asked` has the method and path of every request."""

    url: str
    folder: str
    asked: list[str]
    handler: type[_GitHandler]

    def git(self, name: str, *arguments: str) -> str:
        """Run git in a repository's work tree, and return its output."""
        env = {**os.environ, **GIT_SETTINGS, "GIT_ALLOW_PROTOCOL": "file:http"}
        command = ["git", "-C", f"{self.folder}/{name}", *arguments]
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.strip()

    def repository(self, name: str) -> None:
        """Make an empty repository, served as ``NAME/.git``."""
        os.makedirs(f"{self.folder}/{name}")
        self.git(name, "init", "--quiet", "--initial-branch=main")

    def commit(self, name: str, files: dict[str, str]) -> str:
        """Commit files and return the commit."""
        for path, content in files.items():
            full = f"{self.folder}/{name}/{path}"
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as file:
                file.write(content)
        self.git(name, "add", "--all")
        self.git(name, "commit", "--quiet", "-m", "more")
        return self.git(name, "rev-parse", "HEAD")


@contextlib.contextmanager
def git_server(folder: str, port: int = 0) -> Iterator[GitServer]:
    """Serve git repositories over smart HTTP."""
    asked: list[str] = []
    handler = type("GitHandler", (_GitHandler,), {"root": folder, "asked": asked})
    with serving(handler, port) as url:
        yield GitServer(url, folder, asked, handler)
