"""The contract of the DevOps Info Service on the standard library alone, and a TLS handshake with itself."""

from __future__ import annotations

import base64
import json
import os
import platform
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from typing import ClassVar

STARTED = time.time()
ENDPOINTS = ["/", "/health", "/ready", "/version", "/metrics"]
# For the handshake with itself only: a certificate and key of localhost that nobody trusts.
CERTIFICATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "localhost.txt")


class Handler(BaseHTTPRequestHandler):
    """Answers every endpoint with JSON, but for the metrics."""

    protocol_version = "HTTP/1.1"
    counts: ClassVar[dict[str, int]] = {}

    def do_GET(self) -> None:
        """Answer a request."""
        path = self.path.partition("?")[0]
        self.counts[path] = self.counts.get(path, 0) + 1
        answers = {
            "/": self.index,
            "/health": lambda: {"status": "healthy", "uptime_seconds": int(time.time() - STARTED)},
            "/ready": lambda: {"status": "ready"},
            "/version": lambda: {"version": "1.0.0", "python": platform.python_version()},
            "/tls": shake_hands,
            "/authorities": lambda: {"trusted": len(ssl.create_default_context().get_ca_certs()) > 50},
        }
        if path == "/metrics":
            lines = "".join(f'http_requests_total{{path="{name}"}} {n}\n' for name, n in sorted(self.counts.items()))
            self.send(200, "text/plain; version=0.0.4", lines.encode())
        elif path in answers:
            self.send(200, "application/json", json.dumps(answers[path]()).encode())
        else:
            self.send(404, "application/json", json.dumps({"error": "Not Found", "message": path}).encode())

    def index(self) -> dict[str, object]:
        """Return what is known of machine, process and request."""
        return {
            "service": {"name": "devops-info-service", "framework": "http.server"},
            "system": {"hostname": socket.gethostname(), "architecture": platform.machine()},
            "runtime": {"uptime_seconds": int(time.time() - STARTED)},
            "request": {"method": self.command, "user_agent": self.headers.get("user-agent")},
            "endpoints": ENDPOINTS,
        }

    def send(self, status: int, kind: str, body: bytes) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def shake_hands() -> dict[str, object]:
    """Serve TLS on loopback, connect to it, and return what both sides saw."""
    with tempfile.NamedTemporaryFile("wb") as file:
        with open(CERTIFICATE, encoding="ascii") as packed:
            file.write(base64.b64decode(packed.read()))
        file.flush()
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(file.name)
        asking = ssl.create_default_context(cafile=file.name)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=echo, args=(serving, listener))
        thread.start()
        plain = socket.create_connection(listener.getsockname())
        with asking.wrap_socket(plain, server_hostname="localhost") as secure:
            secure.sendall(b"hello")
            said, version = secure.recv(64).decode(), secure.version()
        thread.join()
    return {"echo": said, "version": version}


def echo(context: ssl.SSLContext, listener: socket.socket) -> None:
    """Take one connection and return what it says."""
    connection, _ = listener.accept()
    with context.wrap_socket(connection, server_side=True) as secure:
        secure.sendall(secure.recv(64))


def stop(_number: int, _frame: FrameType | None) -> None:
    """End at once: there is nothing to finish."""
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    address = (os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8000")))
    ThreadingHTTPServer(address, Handler).serve_forever()
