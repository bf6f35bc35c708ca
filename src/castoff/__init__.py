"""castoff builds multi-stage Dockerfiles into minimal, reproducible images: no Docker, no daemon, no root."""

from __future__ import annotations

__version__ = "0.1.0"
