"""The settings of the service, read from environment variables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_HOST = "0.0.0.0"  # noqa: S104 - a container's service is for those outside it
DEFAULT_PORT = 8000
MAX_PORT = 65535
MAX_SHUTDOWN_DELAY = 300


class SettingsError(Exception):
    """A setting has a wrong value; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment sets.

    Attributes:
        host: address or name to listen on.
        port: TCP port, 1 to 65535.
        json_logs: whether log records are JSON objects.
        shutdown_delay: seconds for which the service still answers once it reports that it is not ready.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    json_logs: bool = False
    shutdown_delay: int = 0

    @property
    def address(self) -> str:
        """Return ``host:port``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings; an empty variable means its default.

    Raises:
        SettingsError: a value is wrong; the message names the variable.
    """
    port = environment.get("PORT") or str(DEFAULT_PORT)
    port_number = whole_number(port, MAX_PORT)
    if not port_number:
        raise SettingsError(f"PORT must be a whole number from 1 to {MAX_PORT}, not {json.dumps(port)}")
    log_format = environment.get("LOG_FORMAT") or "text"
    if log_format not in ("text", "json"):
        raise SettingsError(f"LOG_FORMAT must be text or json, not {json.dumps(log_format)}")
    delay = environment.get("SHUTDOWN_DELAY") or "0"
    seconds = whole_number(delay, MAX_SHUTDOWN_DELAY)
    if seconds is None:
        raise SettingsError(
            f"SHUTDOWN_DELAY must be whole seconds from 0 to {MAX_SHUTDOWN_DELAY}, not {json.dumps(delay)}"
        )
    return Settings(environment.get("HOST") or DEFAULT_HOST, port_number, log_format == "json", seconds)


def whole_number(text: str, limit: int) -> int | None:
    """Return decimal digits, and nothing else, as a number or None (``int`` would take signs, blanks, underscores)."""
    if not (text.isascii() and text.isdigit()) or len(text) > 20:
        return None
    number = int(text)
    return number if number <= limit else None
