"""What static analysis can't see: zones, locales, resources, entry points, imports by name."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import json
import locale
import sys
from datetime import UTC, datetime


def main(arguments: list[str]) -> int:
    """Do what the first argument names."""
    what, rest = (arguments or ["none"])[0], arguments[1:]
    if what == "zone":
        from zoneinfo import ZoneInfo

        print(datetime(2026, 7, 1, 12, tzinfo=UTC).astimezone(ZoneInfo(rest[0])).isoformat())
    elif what == "locale":
        print(locale.setlocale(locale.LC_ALL, "C.UTF-8"), locale.getpreferredencoding())
    elif what == "resource":
        print(importlib.resources.files("data").joinpath("words.txt").read_text(encoding="utf-8"), end="")
    elif what == "plugin":
        print(importlib.import_module(f"plugins.{rest[0]}").run(rest[1]))
    elif what == "points":
        points = importlib.metadata.distribution("tzdata").entry_points
        print(json.dumps([point.name for point in points]), importlib.metadata.version("click"))
    elif what == "codec":
        print("é".encode(rest[0]).hex())
    else:
        print("zone, locale, resource, plugin, points or codec", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
