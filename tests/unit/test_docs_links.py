"""The documentation: every relative link leads somewhere, and so does every anchor."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)


def pages() -> list[Path]:
    """Return every page that people read: those at the top, in docs, and beside the recipes and services."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bases/*.md"), *ROOT.glob("services/*/*.md")]
    return sorted(found)


def text_of(page: Path) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Yield path and anchor of each link that is no address."""
    for target in _LINK.findall(text_of(page)):
        if "://" not in target and not target.startswith("mailto:"):
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(text_of(page)))
    return {heading.replace(" ", "-") for heading in plain}


def test_there_are_pages() -> None:
    names = {page.relative_to(ROOT).as_posix() for page in pages()}
    assert {"README.md", "CHANGELOG.md", "docs/build.md", "docs/dev/README.md", "bases/README.md"} <= names


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        if not target.is_relative_to(ROOT):
            broken.append(f"{path} leads out of the tree")
        elif not target.exists():
            broken.append(f"{path} does not exist")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            broken.append(f"{path}#{anchor}: no such heading")
    assert not broken


def test_every_page_of_docs_is_in_both_indexes() -> None:
    for index, folder in ((ROOT / "README.md", ROOT), (ROOT / "docs" / "README.md", ROOT / "docs")):
        linked = {(folder / path).resolve() for path, _anchor in links(index)}
        missing = {page.name for page in (ROOT / "docs").glob("*.md") if page.resolve() not in linked}
        assert missing <= {"README.md"}, index
