"""What is said of URLs before anything is asked of a server."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from castoff.context.http import HttpCache, HttpSource, parse_checksum, shown_url
from castoff.errors import ContextError

DIGEST = "ab" * 32


def cache(folder: Path) -> HttpCache:
    """Return a cache whose temporary files can't be made: nothing is fetched."""

    def no_file() -> io.FileIO:
        raise AssertionError

    return HttpCache(str(folder), no_file)


def no_progress(current: int, total: int | None) -> None:
    """Say nothing."""


def test_credentials_are_not_shown() -> None:
    assert shown_url("https://me:hush@h:8/p?q@r") == "https://h:8/p?q@r"
    source = HttpSource("http://me:hush@h:8/p", authorization="Bearer hush")
    assert (source.host, source.shown) == ("h:8", "http://h:8/p")
    assert "Bearer" not in repr(source)


def test_checksums() -> None:
    assert parse_checksum(f"sha256:{DIGEST}") == DIGEST
    for text in (DIGEST, f"sha512:{DIGEST}", f"sha256:{DIGEST.upper()}", "sha256:", f"sha256:{DIGEST}0"):
        with pytest.raises(ContextError, match="not of the form"):
            parse_checksum(text)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://h/x",
        "http:///x",
        "http://h:99999/",
        "http://h:port/",
        "http://[::1/",
        "http://h/a b",
        "http://h/a\r\nHost: x",
        "http://h/\x7f",
    ],
)
def test_what_is_no_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ContextError):
        cache(tmp_path).get(HttpSource(url), no_progress)


def test_a_known_checksum_asks_nobody(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / DIGEST).write_bytes(b"12345")
    found = cache(tmp_path).get(HttpSource("http://unreachable.invalid/x", DIGEST), no_progress)
    assert (found.path, found.size, found.fetched) == (f"{tmp_path}/blobs/{DIGEST}", 5, False)
