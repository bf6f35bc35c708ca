"""What the service knows of the machine and of time."""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
from collections.abc import Iterable
from datetime import UTC, datetime

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""The names that image platforms have for what the kernel names otherwise."""
UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def system_facts() -> dict[str, object]:
    """Return what can't change while the process lives."""
    machine = platform.machine()
    return {
        "hostname": socket.gethostname() or "unknown",
        "platform": sys.platform,
        "platform_version": platform_version(OS_RELEASE),
        "architecture": ARCHITECTURES.get(machine, machine),
        "cpu_count": len(os.sched_getaffinity(0)),
        "python_version": platform.python_version(),
    }


def platform_version(files: Iterable[str]) -> str:
    """Return the distribution's name from the first of the os-release files that has it, else the kernel's release."""
    for file in files:
        try:
            with open(file, encoding="utf-8", errors="replace") as stream:
                lines = stream.read(1 << 16).splitlines()
        except OSError:
            continue
        for line in lines:
            key, found, value = line.strip().partition("=")
            if found and key == "PRETTY_NAME" and (name := unquote_shell(value)):
                return name
    return platform.release() or "unknown"


def unquote_shell(text: str) -> str:
    """Read a value as os-release(5) writes it: bare, or quoted as a shell would."""
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "\"'":
        return text
    inner = text[1:-1]
    return inner if text[0] == "'" else re.sub(r"\\([\"\\$`])", r"\1", inner)


def timestamp(seconds: float) -> str:
    """Return a time of day in UTC to the second, as ``2026-02-02T11:18:39Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def human_duration(seconds: int) -> str:
    """Spell out seconds: ``1 day, 2 hours, 5 seconds``."""
    parts: list[str] = []
    for name, size in UNITS:
        count, seconds = divmod(seconds, size)
        if count or (size == 1 and not parts):
            parts.append(f"{count} {name}{'' if count == 1 else 's'}")
    return ", ".join(parts)
