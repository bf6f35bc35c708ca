"""Content digests, as in the OCI image specification, section "Digests"."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from castoff.errors import InvalidReferenceError

_FORM = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """An algorithm and a value in lower-case hexadecimal: ``sha256:…``."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str, *, registered: bool = True) -> Digest:
        """Read ``algorithm:hex``.

        Args:
            text: the digest.
            registered: refuse algorithms that can't be computed here. A descriptor may name others, as the
                specification wants unknown algorithms to pass if their form is right; see `is_registered`.

        Raises:
            InvalidReferenceError: it is not well formed, or the algorithm is not one of sha256, sha384, sha512.
        """
        if not _FORM.fullmatch(text):
            raise InvalidReferenceError(f"{text!r} is not a digest", hint="a digest looks like sha256:<64 hex digits>")
        algorithm, _, value = text.partition(":")
        length = _LENGTHS.get(algorithm)
        if length is None and registered:
            raise InvalidReferenceError(f"digest {text!r} has the unknown algorithm {algorithm!r}")
        if length is not None and (len(value) != length or value.strip("0123456789abcdef")):
            raise InvalidReferenceError(f"digest {text!r} does not have {length} lower-case hexadecimal digits")
        return cls(algorithm, value)

    @property
    def is_registered(self) -> bool:
        """Whether the algorithm is one that content can be checked with here."""
        return self.algorithm in _LENGTHS

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Return the sha256 digest of some bytes."""
        return cls("sha256", hashlib.sha256(data).hexdigest())

    def __str__(self) -> str:
        """Return ``algorithm:hex``."""
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first twelve hexadecimal digits."""
        return self.hex[:12]
