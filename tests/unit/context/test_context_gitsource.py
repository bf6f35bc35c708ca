"""Names of git repositories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castoff.context.gitsource import GitSource, full_name, hide_password
from castoff.errors import UsageError

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "remote", "ref", "subdir"),
    [
        ("https://example.com/a/b.git", "https://example.com/a/b.git", "", ""),
        ("https://example.com/b.git#main", "https://example.com/b.git", "main", ""),
        ("https://example.com/b.git#:sub/dir/", "https://example.com/b.git", "", "sub/dir"),
        ("https://example.com/b.git#v1:./sub//dir", "https://example.com/b.git", "v1", "sub/dir"),
        ("git@example.com:team/b.git#v1", "git@example.com:team/b.git", "v1", ""),
        ("ssh://git@example.com:2222/b.git", "ssh://git@example.com:2222/b.git", "", ""),
        ("git://example.com/b", "git://example.com/b", "", ""),
        ("github.com/owner/app", "https://github.com/owner/app", "", ""),
        ("https://example.com/b.git?branch=x&subdir=s", "https://example.com/b.git", "refs/heads/x", "s"),
        ("https://example.com/b.git?tag=v1", "https://example.com/b.git", "refs/tags/v1", ""),
        ("https://example.com/b.git?ref=a/b", "https://example.com/b.git", "a/b", ""),
    ],
)
def test_what_is_meant(text: str, remote: str, ref: str, subdir: str) -> None:
    source = GitSource.parse(text)
    assert (source.remote, source.ref, source.subdir) == (remote, ref, subdir)
    assert source.submodules
    assert not source.keep_git_dir


def test_the_query_says_more() -> None:
    source = GitSource.parse(f"https://h/b.git?checksum={SHA}&keep-git-dir=1&submodules=false")
    assert (source.checksum, source.keep_git_dir, source.submodules) == (SHA, True, False)
    assert source.commit == SHA


@pytest.mark.parametrize(
    "text",
    [
        "https://h/b.git#--upload-pack=x",
        "https://h/b.git#-x",
        "https://h/b.git#a b",
        "https://h/b.git#a..b",
        "https://h/b.git#a@{1}",
        "https://h/b.git#main:../up",
        "https://h/b.git#main:a/../../up",
        "https://-oProxyCommand=x/b.git",
        "ssh://-oProxyCommand=x/b.git",
        "-x@host:path",
        "https://h/b.git\n#x",
        "https://h/b.git?nonsense=1",
        "https://h/b.git?submodules=maybe",
        "https://h/b.git?ref=a&tag=b",
        "https://h/b.git?ref=a#b",
        "https://h/b.git?checksum=xyz",
        "ext::sh -c x",
        "file:///etc",
        "/a/folder",
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        GitSource.parse(text)


def test_checksums_must_agree() -> None:
    source = GitSource.parse(f"https://h/b.git?checksum={SHA[:12]}")
    assert source.commit == ""
    assert source.with_checksum(SHA).commit == SHA
    assert source.with_checksum(SHA.upper()).checksum == SHA
    with pytest.raises(UsageError, match="promised to be both"):
        source.with_checksum("f" * 40)
    with pytest.raises(UsageError, match="is not a commit"):
        source.with_checksum("abc")


def test_a_reference_that_is_a_whole_commit_pins() -> None:
    assert GitSource.parse(f"https://h/b.git#{SHA}").commit == SHA
    assert GitSource.parse(f"https://h/b.git#{SHA[:10]}").may_be_short
    assert not GitSource.parse("https://h/b.git#main").may_be_short
    assert full_name("a" * 64) == "a" * 64
    assert full_name("a" * 41) == ""


def test_credentials_are_not_shown() -> None:
    source = GitSource.parse("https://me:hush@example.com/b.git#main:s")
    assert source.shown == "https://example.com/b.git#main:s"
    assert source.host == "example.com"
    assert hide_password("fatal: https://token@h/x failed, ssh://git:pw@h/y too") == (
        "fatal: https://h/x failed, ssh://git@h/y too"
    )
    assert GitSource.parse("git@example.com:a.git").host == "example.com"


@given(st.text(max_size=60))
def test_any_text_is_taken_or_refused(text: str) -> None:
    for prefix in ("", "https://h/b.git#", "https://h/b.git?ref=", "git@h:"):
        try:
            source = GitSource.parse(prefix + text)
        except UsageError:
            continue
        assert not source.remote.startswith("-")
        assert not source.ref.startswith("-")
        assert ".." not in source.subdir.split("/")
