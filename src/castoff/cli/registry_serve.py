"""castoff registry serve: serves a registry from a folder."""

from __future__ import annotations

import ipaddress
import sys
import threading
import time
from typing import TYPE_CHECKING

from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser

_PORT = 5000


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff registry serve`."""
    parser.one("--dir", metavar="DIR", text="folder of the registry, which is made where it is missing")
    parser.one("--listen", metavar="HOST:PORT", text="where to listen (port 0: any)", default=f"127.0.0.1:{_PORT}")
    parser.one("--htpasswd", metavar="FILE", text="let in the users of a file that htpasswd -B wrote, and nobody else")
    parser.one("--tls-cert", metavar="FILE", text="speak TLS with this certificate, or chain of them (PEM)")
    parser.one("--tls-key", metavar="FILE", text="the certificate's key (PEM)")
    parser.flag("--read-only", text="take no pushes and no deletions")
    parser.flag("-q", "--quiet", text="do not print a line for each request")


def run(args: Namespace) -> int:
    """Serve until a signal comes, and return the exit code."""
    if not args.dir:
        raise UsageError("castoff registry serve needs --dir DIR", hint="name a new folder, or one that it served")
    address = listen_address(args.listen)
    if args.tls_key and not args.tls_cert:
        raise UsageError("--tls-key is given without --tls-cert")

    from castoff.registry.server import Access, Limits, RegistryServer, in_folder

    access = Access(args.htpasswd, args.tls_cert, args.tls_key, None if args.quiet else _log)
    try:
        with in_folder(args.dir) as repositories:
            server = RegistryServer(repositories, address, access, Limits(read_only=args.read_only))
            with server:
                print(f"serving {args.dir} on {server.url}", flush=True)
                if not is_loopback(address[0]) and not (args.htpasswd and args.tls_cert):
                    what = "nobody is asked for a password" if not args.htpasswd else "passwords cross the network bare"
                    print(f"WARNING: {address[0]} is not a loopback address, and {what}", file=sys.stderr, flush=True)
                threading.Event().wait()
    except KeyboardInterrupt:
        return 0  # How a server ends; what had come was answered.
    return 0


def _log(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def listen_address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, ``HOST`` or ``:PORT``; all interfaces must be named.

    Raises:
        UsageError: it is not well formed.
    """
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(_PORT)
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise UsageError(f"--listen wants HOST:PORT, not {text!r}", hint="such as 127.0.0.1:5000")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
