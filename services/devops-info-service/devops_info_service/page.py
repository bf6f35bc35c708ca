"""The page for people: one document that loads nothing, with a policy that admits its own style and script only."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

_STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True, slots=True)
class Page:
    """The page's style and script."""

    style: str
    script: str

    @classmethod
    def load(cls) -> Page:
        """Read the style and the script that are shipped with the service."""
        return cls(*((_STATIC / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")))

    @property
    def policy(self) -> str:
        """Return the page's Content-Security-Policy."""
        return (
            f"default-src 'none'; connect-src 'self'; img-src data:; style-src {_source(self.style)}; "
            f"script-src {_source(self.script)}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    def render(self, facts: Mapping[str, object]) -> str:
        """Return the document. Every value is escaped, the constant ones too: which are constant may change."""
        sections = "".join(_section(title, content) for title, content in facts.items())
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
            '<title>DevOps Info Service</title>\n<link rel="icon" href="data:,">\n'
            '<noscript><meta http-equiv="refresh" content="5"></noscript>\n'
            f"<style>{self.style}</style>\n</head>\n<body>\n<header>\n<h1>DevOps Info Service</h1>\n"
            '<p><span id="state">Refreshed every 5 seconds</span></p>\n</header>\n<main>\n'
            f"{sections}</main>\n<script>{self.script}</script>\n</body>\n</html>\n"
        )


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _section(title: str, content: object) -> str:
    rows, kind = "", ""
    if isinstance(content, Mapping):
        for key, value in content.items():
            rows += _row(escape(key), escape(f"{title}.{key}"), escape(str(value)))
    elif isinstance(content, list):
        kind = ' class="wide"'
        for entry in content:
            path = escape(str(entry["path"]))
            rows += _row(f'<a href="{path}">{path}</a>', "", escape(str(entry["description"])))
    return f"<section{kind}>\n<h2>{escape(title)}</h2>\n<dl>\n{rows}</dl>\n</section>\n"


def _row(term: str, fact: str, value: str) -> str:
    """Return a row of the list; all three are HTML."""
    name = f' data-fact="{fact}"' if fact else ""
    return f"<div><dt>{term}</dt><dd{name}>{value}</dd></div>\n"
