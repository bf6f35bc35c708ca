"""Platforms, as in the OCI image index specification, property "platform"."""

from __future__ import annotations

import platform as _machine
import re
from dataclasses import dataclass
from typing import Any

from castoff.errors import InvalidReferenceError
from castoff.oci.jsontext import Fields

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
}
_DEFAULT_VARIANTS = {("arm", "7"): "v7", ("arm", "6"): "v6", ("arm", "5"): "v5", ("arm", ""): "v7", ("arm64", "8"): ""}
_WORD = re.compile(r"[A-Za-z0-9_.-]+")
_SYSTEM = re.compile(r"([A-Za-z0-9_.-]+)(?:\(([A-Za-z0-9_.-]+)\))?")
_OPERATING_SYSTEMS = frozenset(
    "aix android darwin dragonfly freebsd illumos ios js linux netbsd openbsd plan9 solaris wasip1 windows".split()
)


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """An operating system, an architecture in Go's names, and a variant."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``os/architecture[/variant]``, ``architecture`` or ``os``, and normalise the names.

        An operating system may have its version behind it, as in ``windows(10.0.17763)/amd64``.

        Raises:
            InvalidReferenceError: it is not well formed.
        """
        parts = text.split("/")
        system = _SYSTEM.fullmatch(parts[0])
        if system is None or len(parts) > 3 or not all(_WORD.fullmatch(part) for part in parts[1:]):
            raise InvalidReferenceError(
                f"{text!r} is not a platform", hint="a platform looks like linux/amd64 or linux/arm/v7"
            )
        version = system[2] or ""
        parts = [system[1].lower(), *(part.lower() for part in parts[1:])]
        if len(parts) == 1:
            if version or parts[0] in _OPERATING_SYSTEMS:
                return cls.normalised(parts[0], cls.host().architecture, os_version=version)
            parts = [cls.host().os, parts[0]]
        variant = parts[2] if len(parts) == 3 else ""
        return cls.normalised(parts[0], parts[1], variant, version)

    @classmethod
    def normalised(cls, os: str, architecture: str, variant: str = "", os_version: str = "") -> Platform:
        """Return the platform with its names in Go's form (x86_64 is amd64, arm64/v8 is arm64)."""
        os = {"macos": "darwin"}.get(os, os)
        architecture, default = _ARCHITECTURES.get(architecture, (architecture, ""))
        variant = variant or default
        if architecture == "arm64" and variant in ("8", "v8"):
            variant = ""
        if architecture == "amd64" and variant == "v1":
            variant = ""
        variant = _DEFAULT_VARIANTS.get((architecture, variant), variant)
        return cls(os, architecture, variant, os_version)

    @classmethod
    def host(cls) -> Platform:
        """Return the platform of this machine; images are made for linux wherever castoff runs."""
        return cls.normalised("linux", _machine.machine().lower())

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Platform:
        """Read the ``platform`` object of a descriptor.

        Raises:
            InvalidImageError: a field is missing or of another type.
        """
        fields = Fields(value, "platform")
        return cls.normalised(
            fields.text("os", required=True),
            fields.text("architecture", required=True),
            fields.text("variant"),
            fields.text("os.version"),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the ``platform`` object of a descriptor."""
        value = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            value["os.version"] = self.os_version
        if self.variant:
            value["variant"] = self.variant
        return value

    def __str__(self) -> str:
        """Return ``os[(version)]/architecture[/variant]``."""
        system = f"{self.os}({self.os_version})" if self.os_version else self.os
        return f"{system}/{self.architecture}" + (f"/{self.variant}" if self.variant else "")
