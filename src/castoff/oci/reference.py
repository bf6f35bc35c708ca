"""References to images, in the grammar that Docker's tools share."""

from __future__ import annotations

import re
from dataclasses import dataclass

from castoff.errors import InvalidReferenceError
from castoff.oci.digest import Digest

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
_DOMAIN = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
    r"|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MAX_REPOSITORY = 255


def _is_domain(text: str) -> bool:
    """Tell whether the first component of a name is a registry: it has a dot, a port, or is localhost."""
    return "." in text or ":" in text or text == "localhost" or text != text.lower()


def check_registry(text: str) -> None:
    """Refuse what is not a host, with a port or not.

    Raises:
        InvalidReferenceError: it is not.
    """
    if not _DOMAIN.fullmatch(text):
        raise InvalidReferenceError(f"the registry {text!r} is not valid", hint="a registry is a host, or host:port")


def _split_tag(name: str, text: str) -> tuple[str, str]:
    slash, colon = name.rfind("/"), name.rfind(":")
    if colon <= slash:
        return name, ""
    name, tag = name[:colon], name[colon + 1 :]
    if not _TAG.fullmatch(tag):
        raise InvalidReferenceError(
            f"the tag {tag!r} of the reference {text!r} is not valid",
            hint="a tag has up to 128 letters, digits, '_', '.' and '-', and starts with none of the last two",
        )
    return name, tag


def _check_complete(registry: str, repository: str, tag: str, digest: Digest | None, text: str) -> None:
    missing = ""
    if not registry:
        missing = "a registry"
    elif registry in (DEFAULT_REGISTRY, "index.docker.io") and "/" not in repository:
        missing = "library/ before its repository"
    elif not tag and digest is None:
        missing = "a tag or a digest"
    if missing:
        raise InvalidReferenceError(f"the reference {text!r} lacks {missing}", hint="write it in full")


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A registry, a repository, and a tag or a digest or both.

    `tag` is "" only where there is a digest.
    """

    registry: str
    repository: str
    tag: str = "latest"
    digest: Digest | None = None

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        strict: bool = False,
        default_registry: str = DEFAULT_REGISTRY,
        default_tag: str = DEFAULT_TAG,
    ) -> Reference:
        """Read a reference as people write it: ``alpine``, ``ghcr.io/o/r:tag``, ``r@sha256:…``.

        Args:
            text: the reference.
            strict: nothing may be left out: registry, ``library/``, and a tag or a digest.
            default_registry: the registry of a reference that names none.
            default_tag: the tag of a reference that has neither tag nor digest.

        Raises:
            InvalidReferenceError: naming the part that is wrong, or missing.
        """
        name, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if at else None
        name, tag = _split_tag(name, text)
        first, _, rest = name.partition("/")
        registry, repository = (first, rest) if rest and _is_domain(first) else ("", name)
        if strict:
            _check_complete(registry, repository, tag, digest, text)
        registry = registry or default_registry
        check_registry(registry)
        if registry == "index.docker.io":
            registry = DEFAULT_REGISTRY
        _check_repository(repository, text)
        if registry == DEFAULT_REGISTRY and "/" not in repository:
            repository = f"library/{repository}"
        return cls(registry, repository, tag or ("" if digest else default_tag), digest)

    @property
    def familiar(self) -> str:
        """The form that people write: docker.io and library/ left out."""
        name = f"{self.registry}/{self.repository}"
        if self.registry == DEFAULT_REGISTRY:
            name = self.repository.removeprefix("library/") if self.repository.count("/") == 1 else self.repository
        return name + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        """Return the whole reference: ``docker.io/library/alpine:latest``."""
        return f"{self.registry}/{self.repository}{self._suffix}"


def _check_repository(repository: str, text: str) -> None:
    if not repository:
        raise InvalidReferenceError(f"the reference {text!r} has no repository")
    if len(repository) > _MAX_REPOSITORY:
        raise InvalidReferenceError(f"the repository of the reference {text!r} is longer than {_MAX_REPOSITORY}")
    for component in repository.split("/"):
        if _COMPONENT.fullmatch(component):
            continue
        hint = "a repository has lower-case letters, digits, and '.', '_', '__' or '-' between them"
        if component != component.lower():
            hint = f"a repository must be lower case: {repository.lower()!r}"
        raise InvalidReferenceError(f"the part {component!r} of the reference {text!r} is not valid", hint=hint)
    if re.fullmatch(r"[a-f0-9]{64}", repository):
        raise InvalidReferenceError(f"the reference {text!r} is 64 hexadecimal digits, which only an image id may be")
