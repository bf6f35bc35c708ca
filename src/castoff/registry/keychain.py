"""Credentials from the files that Docker, podman and skopeo keep, and from credential helpers.

A file is JSON with ``auths`` (base64 of user and password, or identity tokens, by registry), ``credHelpers`` (a program
by registry) and ``credsStore`` (a program for all). Files are read when a registry wants credentials, and not before.

References: Docker's command line, "docker login"; containers-auth.json(5); docker-credential-helpers.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from typing import TYPE_CHECKING, Any

from castoff.errors import RegistryError
from castoff.registry.credentials import DOCKER_IO, DOCKER_KEY, Credentials, decode_auth, encode_auth, normal_host

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MAX_FILE = 1 << 20
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HELPER_SECONDS = 60
_TOKEN_USER = "<token>"  # noqa: S105  (the name that stands for an identity token)


def credential_files(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the files that are looked into, the first one being that which logins are written to."""
    home, runtime = environment.get("HOME", ""), environment.get("XDG_RUNTIME_DIR", "")
    config = environment.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    docker = environment.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else "")
    found = []
    if environment.get("REGISTRY_AUTH_FILE"):
        found.append(environment["REGISTRY_AUTH_FILE"])
    if docker:
        found.append(os.path.join(docker, "config.json"))
    if runtime:
        found.append(os.path.join(runtime, "containers", "auth.json"))
    if config:
        found.append(os.path.join(config, "containers", "auth.json"))
    return tuple(found)


class FileKeychain:
    """A keychain over some files, the first that knows a registry wins. Safe for several threads."""

    def __init__(self, files: Sequence[str], environment: Mapping[str, str]) -> None:
        """Take the paths of files that may not exist, and the environment that helpers get."""
        self._files = tuple(files)
        self._environment = environment
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], Credentials | None] = {}

    def get(self, registry: str, repository: str = "") -> Credentials | None:
        """Return the credentials for a repository; None where no file knows any. They are looked up once.

        Raises:
            RegistryError: a file can't be read, or a helper fails.
        """
        key = (registry, repository)
        with self._lock:
            if key not in self._known:
                found = (_look(read_file(path), registry, repository, self._environment) for path in self._files)
                self._known[key] = next((one for one in found if one is not None), None)
            return self._known[key]


def _look(
    value: Mapping[str, Any], registry: str, repository: str, environment: Mapping[str, str]
) -> Credentials | None:
    helpers = value.get("credHelpers")
    if isinstance(helpers, dict):
        for name, program in helpers.items():
            if normal_host(name) == registry and isinstance(program, str) and program:
                return ask_helper(program, registry, environment)
    entry = _entry(value.get("auths"), registry, repository)
    own = _credentials(entry) if entry is not None else None
    if own is not None:
        return own
    store = value.get("credsStore")
    if isinstance(store, str) and store:
        return ask_helper(store, registry, environment)
    return None


def _entry(auths: object, registry: str, repository: str) -> dict[str, Any] | None:
    """Return the entry of the longest name that a repository lies below."""
    if not isinstance(auths, dict):
        return None
    path = f"{registry}/{repository}"
    best: tuple[int, dict[str, Any]] | None = None
    for name, entry in auths.items():
        if not isinstance(entry, dict):
            continue
        text = name.partition("://")[2] if "://" in name else name
        host, _, rest = text.rstrip("/").partition("/")
        if rest in ("v1", "v2"):
            rest = ""
        wanted = f"{normal_host(host)}/{rest}" if rest else normal_host(host)
        if (path == wanted or path.startswith(f"{wanted}/")) and (best is None or len(wanted) > best[0]):
            best = (len(wanted), entry)
    return None if best is None else best[1]


def _credentials(entry: Mapping[str, Any]) -> Credentials | None:
    texts: dict[str, str] = {key: value for key, value in entry.items() if isinstance(value, str)}
    pair = decode_auth(texts.get("auth", "")) or (texts.get("username", ""), texts.get("password", ""))
    found = Credentials(*pair, texts.get("identitytoken", ""), texts.get("registrytoken", ""))
    return None if found == Credentials() else found


def read_file(path: str) -> dict[str, Any]:
    """Return the content of a file of credentials; nothing where there is none.

    Raises:
        RegistryError: it can't be read. The message holds nothing of it.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise RegistryError(f"the credentials in {path} can't be read: {(error.strerror or '').lower()}") from error
    try:
        value = json.loads(data) if data.strip() else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or len(data) > _MAX_FILE:
        raise RegistryError(
            f"the credentials in {path} can't be read: it is no JSON object",
            hint="repair the file, or move it away and log in again",
        ) from None
    return value


def ask_helper(program: str, registry: str, environment: Mapping[str, str]) -> Credentials | None:
    """Return what a credential helper knows of a registry; None where it knows nothing.

    Raises:
        RegistryError: the helper is not there, or fails. The message holds nothing of what it printed on success.
    """
    data = _run_helper(program, "get", _helper_key(registry).encode(), environment)
    if data is None:
        return None
    try:
        value = json.loads(data)
        username, secret = value["Username"], value["Secret"]
    except (ValueError, KeyError, TypeError):
        raise RegistryError(f"the credential helper docker-credential-{program} gave no credentials") from None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise RegistryError(f"the credential helper docker-credential-{program} gave no credentials")
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username, secret) if username or secret else None


def _helper_key(registry: str) -> str:
    return DOCKER_KEY if registry == DOCKER_IO else registry


def _run_helper(program: str, verb: str, data: bytes, environment: Mapping[str, str]) -> bytes | None:
    import subprocess

    name = f"docker-credential-{program}"
    if not _HELPER.fullmatch(program):
        raise RegistryError(f"{program!r} is not the name of a credential helper", hint="check credsStore in the file")
    try:
        done = subprocess.run(
            [name, verb], input=data, capture_output=True, env=dict(environment), timeout=_HELPER_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise RegistryError(
            f"the credential helper {name} is not installed",
            hint="install it, or take it out of credsStore and credHelpers in Docker's config.json",
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RegistryError(f"the credential helper {name} can't be run, or does not end") from error
    if done.returncode == 0:
        return done.stdout
    # A helper says on its standard output what went wrong.
    words = " ".join(done.stdout.decode("utf-8", "replace").split())[:200]
    if verb == "get" and "not found" in words:
        return None
    if verb == "erase":
        return None
    raise RegistryError(f"the credential helper {name} failed: {words or f'exit code {done.returncode}'}")


class LoginFile:
    """The file that logins are written to, as Docker's command line writes it."""

    def __init__(self, path: str, environment: Mapping[str, str]) -> None:
        self.path = path
        self._environment = environment

    def helper(self, registry: str) -> str:
        """Return the program that keeps the credentials of a registry; "" for none.

        Raises:
            RegistryError: the file can't be read.
        """
        value = read_file(self.path)
        helpers = value.get("credHelpers")
        if isinstance(helpers, dict):
            for name, program in helpers.items():
                if normal_host(name) == registry and isinstance(program, str) and program:
                    return program
        store = value.get("credsStore")
        return store if isinstance(store, str) else ""

    def add(self, registry: str, credentials: Credentials) -> str:
        """Keep credentials, and return where: the name of a helper, or the path of the file. Atomic, idempotent.

        Raises:
            RegistryError: the file or the helper can't be written.
        """
        program = self.helper(registry)
        if program:
            username, secret = credentials.username, credentials.password
            if credentials.identity_token:
                username, secret = _TOKEN_USER, credentials.identity_token
            message = {"ServerURL": _helper_key(registry), "Username": username, "Secret": secret}
            _run_helper(program, "store", json.dumps(message).encode(), self._environment)
            return f"docker-credential-{program}"
        entry: dict[str, Any] = {"auth": encode_auth(credentials.username, credentials.password)}
        if credentials.identity_token:
            entry = {"auth": encode_auth(credentials.username, ""), "identitytoken": credentials.identity_token}
        with self._changing() as value:
            auths = value.get("auths")
            value["auths"] = {**(auths if isinstance(auths, dict) else {}), _file_key(registry): entry}
        return self.path

    def remove(self, registry: str) -> bool:
        """Forget the credentials of a registry, and tell whether there were any. Atomic, idempotent.

        Raises:
            RegistryError: the file can't be written, or the helper can't be run.
        """
        program = self.helper(registry)
        known = program and ask_helper(program, registry, self._environment) is not None
        if known:
            _run_helper(program, "erase", _helper_key(registry).encode(), self._environment)
        auths = read_file(self.path).get("auths")
        names = [name for name in auths if normal_host(name) == registry] if isinstance(auths, dict) else []
        if names:
            with self._changing() as value:
                value["auths"] = {key: entry for key, entry in value["auths"].items() if key not in names}
        return bool(known or names)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """Give the content to be changed, and write it back."""
        value = read_file(self.path)
        yield value
        # Where the file is a link, as in a folder of dot files, what it leads to is replaced.
        place = os.path.realpath(self.path)
        temporary = f"{place}.{os.urandom(6).hex()}"
        try:
            os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                with open(fd, "wb") as file:
                    file.write(json.dumps(value, indent="\t").encode() + b"\n")
                os.rename(temporary, place)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            raise RegistryError(
                f"the credentials can't be written to {self.path}: {(error.strerror or '').lower()}"
            ) from error


def _file_key(registry: str) -> str:
    return DOCKER_KEY if registry == DOCKER_IO else registry
