"""The tar stream of layers and archives: its reader and its writer, under one name."""

from __future__ import annotations

from castoff.layer.tarfields import BLOCK, looks_like_tar
from castoff.layer.tarreader import TarContent, TarLimits, TarMember, TarReader
from castoff.layer.tarwriter import CHUNK, OPAQUE_NAME, WHITEOUT_PREFIX, TarStream, header, whiteout_path

__all__ = [
    "BLOCK",
    "CHUNK",
    "OPAQUE_NAME",
    "WHITEOUT_PREFIX",
    "TarContent",
    "TarLimits",
    "TarMember",
    "TarReader",
    "TarStream",
    "header",
    "looks_like_tar",
    "whiteout_path",
]
