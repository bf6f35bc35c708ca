"""How the plan learns about images: a protocol that it defines and something with a store implements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from castoff.location import SourceRange
    from castoff.oci.config import ImageConfig
    from castoff.oci.digest import Digest
    from castoff.oci.platform import Platform

BaseKind = Literal["image", "context-image", "context-local"]
"""Where a base comes from: the store (or a registry), an image given by a named context, or a folder given by one."""

ContextKind = Literal["none", "local", "image"]
"""What a named context of the request is: not given, a tree of files, or an image."""


@dataclass(frozen=True, slots=True)
class ResolvedBase:
    """An image (or a folder) that a name in the Dockerfile stands for.

    Attributes:
        name: the name as the Dockerfile gives it, variables expanded.
        reference: the full reference as progress shows it, with the digest where one is known
            (``docker.io/library/golang:1.22-alpine@sha256:…``).
        config: the image's config; for a folder a config with nothing but a platform.
        kind: where it comes from.
        manifest: the digest of the image's manifest for the platform; None for a folder.
    """

    name: str
    reference: str
    config: ImageConfig
    kind: BaseKind = "image"
    manifest: Digest | None = None


class ImageResolver(Protocol):
    """Gives the images and named contexts that a Dockerfile names."""

    def context_kind(self, name: str) -> ContextKind:
        """Say whether the request has a named context `name` (idempotent; no network).

        The name is one of a stage, of a base, or of a ``from=``; it is compared without regard to case, and a
        reference is compared in its full form too (``alpine`` is ``docker.io/library/alpine:latest``).
        """
        ...

    def resolve(self, name: str, platform: Platform, location: SourceRange | None) -> ResolvedBase:
        """Return what `name` stands for on `platform`: a named context first, else the image of that reference.

        Idempotent: two calls within one build give equal results. The implementer raises an error that carries
        `location`, and says how the image can be got.

        Raises:
            InvalidReferenceError: the name is not a reference.
            StoreError: the image is not there, or can't be read.
            RegistryError: it had to be asked for, and the registry refused.
        """
        ...
