"""The lock of a Dockerfile: what its tags, addresses and branches stood for when it was written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.errors import InvalidImageError, InvalidReferenceError, PlanError
from castoff.oci.digest import Digest
from castoff.oci.jsontext import Fields, load_object

if TYPE_CHECKING:
    from castoff.oci.reference import Reference

SUFFIX = ".lock"
"""What the name of a lock has after that of its Dockerfile."""
VERSION = 1

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ACTION = "castoff lock brings it up to date"


@dataclass(frozen=True, slots=True)
class Lock:
    """What names stand for.

    Attributes:
        images: digests of manifests or indexes by whole reference, tag included.
        urls: digests of files by URL.
        git: commits by the source as the Dockerfile has it.
        name: of the file, for messages.
    """

    images: Mapping[str, Digest] = field(default_factory=dict)
    urls: Mapping[str, Digest] = field(default_factory=dict)
    git: Mapping[str, str] = field(default_factory=dict)
    name: str = "Dockerfile.lock"

    @classmethod
    def parse(cls, data: bytes, name: str) -> Lock:
        """Read a lock.

        Raises:
            PlanError: it is not well formed, or of a newer version.
        """
        try:
            fields = Fields(load_object(data, name), name)
            version = fields.integer("version", required=True)
            images, urls, git = (fields.text_map(key) or {} for key in ("images", "urls", "git"))
        except InvalidImageError as error:
            raise PlanError(error.message, hint="remove it and write it anew with castoff lock") from error
        if version != VERSION:
            raise PlanError(f"{name} has version {version}, and this castoff reads version {VERSION}")
        for source, commit in git.items():
            if not _COMMIT.fullmatch(commit):
                raise PlanError(f"{name}: {commit[:80]!r} is no commit of {source}")
        return cls(_digests(images, name), _digests(urls, name), git, name)

    def to_bytes(self) -> bytes:
        """Return the lock as it is written: sorted, one entry a line."""
        value = {
            "version": VERSION,
            "images": {key: str(self.images[key]) for key in sorted(self.images)},
            "urls": {key: str(self.urls[key]) for key in sorted(self.urls)},
            "git": {key: self.git[key] for key in sorted(self.git)},
        }
        kept = {key: item for key, item in value.items() if item or key == "images"}
        return json.dumps(kept, indent=2, ensure_ascii=False).encode() + b"\n"

    def image(self, reference: Reference) -> Digest:
        """Return the digest of an image.

        Raises:
            PlanError: the lock does not have it.
        """
        try:
            return self.images[str(reference)]
        except KeyError:
            raise PlanError(f"{reference.familiar} is not in {self.name}", hint=_ACTION) from None

    def checksum(self, source: str, *, is_git: bool) -> str:
        """Return the commit of a git source, or the digest of a file, as ``ADD --checksum`` takes them.

        Raises:
            PlanError: the lock does not have it.
        """
        found = self.git.get(source) if is_git else self.urls.get(source)
        if found is None:
            raise PlanError(f"{source} is not in {self.name}", hint=_ACTION)
        return str(found)

    def entries(self) -> dict[str, str]:
        """Return all that it has, by what a Dockerfile calls it."""
        found = {name: str(digest) for name, digest in (*self.images.items(), *self.urls.items())}
        return found | dict(self.git)


def _digests(values: Mapping[str, str], name: str) -> dict[str, Digest]:
    try:
        return {key: Digest.parse(text) for key, text in values.items()}
    except InvalidReferenceError as error:
        raise PlanError(f"{name}: {error.message}", hint="remove it and write it anew with castoff lock") from error
