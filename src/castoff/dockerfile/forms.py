"""Which flags an instruction takes, and how the shortest valid one of its kind is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from castoff.dockerfile.flags import FlagKind

NO_FLAGS: Mapping[str, FlagKind] = {}
COPY_FLAGS: Mapping[str, FlagKind] = {
    "chown": "text",
    "from": "text",
    "chmod": "text",
    "link": "bool",
    "exclude": "texts",
    "parents": "bool",
}
ADD_FLAGS: Mapping[str, FlagKind] = {
    "chown": "text",
    "chmod": "text",
    "link": "bool",
    "keep-git-dir": "bool",
    "checksum": "text",
    "unpack": "bool",
    "exclude": "texts",
}
RUN_FLAGS: Mapping[str, FlagKind] = {"mount": "texts", "network": "text", "security": "text"}
HEALTH_FLAGS: Mapping[str, FlagKind] = {
    "interval": "text",
    "timeout": "text",
    "start-period": "text",
    "start-interval": "text",
    "retries": "text",
}

_EXAMPLES = {
    "ARG": "VERSION=1.0",
    "ENV": "NAME=value",
    "EXPOSE": "8080",
    "HEALTHCHECK": 'CMD ["/app", "--check"]',
    "LABEL": "name=value",
    "MAINTAINER": '"name <address>"',
    "ONBUILD": "RUN command",
    "SHELL": '["/bin/sh", "-c"]',
    "USER": "nobody",
    "VOLUME": "/data",
    "WORKDIR": "/app",
}


def example(name: str) -> str | None:
    """Return a hint that shows how an instruction is written; None where none is known."""
    return f"write {name} {_EXAMPLES[name]}" if name in _EXAMPLES else None
