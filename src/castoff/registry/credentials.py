"""Credentials as values, and the texts that stand for a registry in files of credentials."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Protocol

DOCKER_IO = "docker.io"
DOCKER_KEY = "https://index.docker.io/v1/"
"""Under which Docker keeps the credentials of docker.io."""
_DOCKER_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who somebody is to a registry; nothing of it but the name is ever shown.

    Attributes:
        username: "" for none.
        password: password, or personal access token.
        identity_token: an OAuth2 refresh token that stands for both; "" for none.
        bearer_token: a token that is sent as it is; "" for none.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    bearer_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts that nothing may show."""
        texts = (self.password, self.identity_token, self.bearer_token)
        basic = self.basic.partition(" ")[2] if self.password else ""
        return tuple(text for text in (*texts, basic) if text)


class Keychain(Protocol):
    """Knows credentials."""

    def get(self, registry: str, repository: str = "") -> Credentials | None:
        """Return the credentials for a repository; None for an anonymous request. Idempotent.

        Raises:
            RegistryError: a file or a program that keeps them can't be read.
        """


class AnonymousKeychain:
    """A keychain without credentials."""

    def get(self, registry: str, repository: str = "") -> Credentials | None:
        """Return None."""
        del registry, repository
        return None


class FixedKeychain:
    """A keychain with the credentials of one registry, such as those that a login tries."""

    def __init__(self, registry: str, credentials: Credentials) -> None:
        self._registry = normal_host(registry)
        self._credentials = credentials

    def get(self, registry: str, repository: str = "") -> Credentials | None:
        """Return the credentials if they are for that registry."""
        del repository
        return self._credentials if normal_host(registry) == self._registry else None


def normal_host(text: str) -> str:
    """Return the registry that a key in a file of credentials means: without scheme, path and docker.io's aliases."""
    host = text.partition("://")[2] if "://" in text else text
    host = host.partition("/")[0]
    return DOCKER_IO if host in _DOCKER_HOSTS else host


def decode_auth(text: str) -> tuple[str, str] | None:
    """Return user and password of an ``auth`` entry: base64 of ``user:password``; None where it is none."""
    try:
        pair = base64.b64decode(text, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    user, colon, password = pair.partition(":")
    return (user, password.strip("\0")) if colon else None


def encode_auth(username: str, password: str) -> str:
    """Return the ``auth`` entry for a user and a password."""
    return base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
