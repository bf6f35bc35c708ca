"""castoff login: keeps a user and a password for a registry, once it has accepted them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from castoff.cli.registry_options import add_registry_arguments, overrides
from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser

_MAX_PASSWORD = 64 << 10


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff login`."""
    parser.add_argument("registry", nargs="?", metavar="HOST[:PORT]", default="docker.io", help="default: docker.io")
    parser.flag("--password-stdin", text="read the password, or a token, from standard input")
    parser.one("-u", "--username", metavar="NAME", text="who logs in")
    add_registry_arguments(parser)


def run(args: Namespace) -> int:
    """Log in, and return the exit code."""
    from castoff.oci.reference import check_registry
    from castoff.registry.client import RegistryClient
    from castoff.registry.credentials import Credentials, normal_host
    from castoff.registry.keychain import LoginFile, credential_files

    registry = normal_host(args.registry)
    check_registry(registry)
    username = args.username or _asked("Username: ")
    credentials = Credentials(username, _password(args))
    files = credential_files(os.environ)
    if not files:
        raise UsageError("there is no place to keep the password", hint="set HOME, or DOCKER_CONFIG to a folder")
    with RegistryClient.open_(os.environ, overrides(args)) as client:
        client.check_credentials(registry, credentials)
    place = LoginFile(files[0], os.environ).add(registry, credentials)
    if place == files[0]:
        sys.stderr.write(f"warning: the password is kept in {place}, which only you can read, and is not encrypted\n")
    sys.stdout.write("Login Succeeded\n")
    return 0


def _asked(question: str) -> str:
    """Return what a person types.

    Raises:
        UsageError: there is no terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("castoff login needs a user", hint="give -u NAME, and the password with --password-stdin")
    sys.stderr.write(question)
    sys.stderr.flush()
    answer = sys.stdin.readline().strip()
    if not answer:
        raise UsageError("castoff login needs a user")
    return answer


def _password(args: Namespace) -> str:
    if args.password_stdin:
        if not args.username:
            raise UsageError("--password-stdin needs -u NAME as well")
        data = sys.stdin.buffer.read(_MAX_PASSWORD + 1)
        password = data.decode("utf-8", "surrogateescape").rstrip("\r\n")
        if not password or len(data) > _MAX_PASSWORD or "\n" in password or "\0" in password:
            raise UsageError("standard input holds no password", hint="it is one line")
        return password
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("castoff login reads a password from a terminal, and there is none", hint="--password-stdin")
    import getpass

    password = getpass.getpass("Password: ")
    if not password:
        raise UsageError("castoff login needs a password")
    return password
