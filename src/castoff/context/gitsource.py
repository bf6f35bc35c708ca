"""How a git repository is named: a URL with ``#ref:subdir`` or ``?ref=…&subdir=…``, or ``user@host:path``."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass, replace

from castoff.errors import UsageError

_SCHEMES = ("http", "https", "git", "ssh")
_SCP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:.+")
_HEX = re.compile(r"[0-9a-f]+")
_PASSWORD = re.compile(r"(\bhttps?://)[^/@\s]+@|(\bssh://[^/@\s:]+):[^/@\s]*@")
_REF = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\-][^\x00-\x20\x7f~^:?*\[\\]*")
_FULL = (40, 64)
_SHORTEST = 4
_TRUE = {"1": True, "true": True, "": True, "0": False, "false": False}


@dataclass(frozen=True, slots=True)
class GitSource:
    """A tree of a git repository.

    Attributes:
        remote: what git is given to fetch from, with user and password if they are in it.
        ref: branch, tag, full reference or object name; "" for the remote's HEAD.
        subdir: the folder of the tree that is meant, relative and clean; "" for all of it.
        checksum: what the commit's object name (or an annotated tag's) must begin with; "" for no promise.
        keep_git_dir: whether ``.git`` stays.
        submodules: whether submodules are fetched too.
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool = False
    submodules: bool = True

    @classmethod
    def parse(cls, text: str) -> GitSource:
        """Read a source of ADD, or a context, that is a git repository.

        Raises:
            UsageError: it is not well formed, or asks for what can't be.
        """
        shown = hide_password(text)
        if text.startswith("github.com/"):
            text = f"https://{text}"
        rest, mark, fragment = text.partition("#")
        scheme = re.match(r"([A-Za-z0-9]+)://", rest)
        if scheme is not None and scheme[1].lower() in _SCHEMES:
            remote, _, query = rest.partition("?")
            host = urllib.parse.urlsplit(remote).netloc.rpartition("@")[2]
            if not host or host.startswith("-"):
                raise UsageError(f"{shown} names no host")
        elif _SCP.fullmatch(rest):
            remote, query = rest, ""
        else:
            raise UsageError(f"{shown} is not a git repository that castoff can fetch", hint="use https:// or ssh://")
        if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in remote):
            raise UsageError(f"{shown!r} holds a space or a control character")
        ref, _, subdir = fragment.partition(":")
        source = replace(cls(remote), ref=_ref(ref, shown), subdir=_subdir(subdir, shown))
        if mark and query:
            raise UsageError(
                f"{shown} has both a query and a fragment", hint="say it all in the query: ?ref=…&subdir=…"
            )
        return _with_query(source, query, shown) if query else source

    def with_checksum(self, text: str) -> GitSource:
        """Return a copy whose commit must begin with `text`.

        Raises:
            UsageError: it is no object name, or another one was promised before.
        """
        value = text.lower()
        if not _HEX.fullmatch(value) or not 7 <= len(value) <= max(_FULL):
            raise UsageError(
                f"the checksum {text!r} of a git repository is not a commit", hint="give its 40 hexadecimal digits"
            )
        if self.checksum and not (self.checksum.startswith(value) or value.startswith(self.checksum)):
            raise UsageError(f"{self.shown} is promised to be both {self.checksum} and {value}")
        return replace(self, checksum=max(self.checksum, value, key=len))

    @property
    def commit(self) -> str:
        """The commit, where the source itself says it in full; else ""."""
        return full_name(self.ref) or full_name(self.checksum)

    @property
    def may_be_short(self) -> bool:
        """Whether the ref may be the beginning of an object name."""
        return _SHORTEST <= len(self.ref) < max(_FULL) and _HEX.fullmatch(self.ref.lower()) is not None

    @property
    def host(self) -> str:
        """The host, without user and port."""
        if "://" not in self.remote:
            return self.remote.partition(":")[0].rpartition("@")[2]
        return urllib.parse.urlsplit(self.remote).hostname or ""

    @property
    def shown(self) -> str:
        """The source as messages show it: without a password."""
        tail = f"#{self.ref}" if self.ref or self.subdir else ""
        return hide_password(self.remote) + tail + (f":{self.subdir}" if self.subdir else "")


def full_name(text: str) -> str:
    """Return an object name that is given in full, in small letters; "" for anything else."""
    text = text.lower()
    return text if len(text) in _FULL and _HEX.fullmatch(text) else ""


def hide_password(text: str) -> str:
    """Return text with the credentials in its URLs left out."""
    return _PASSWORD.sub(lambda found: found[1] or f"{found[2]}@", text)


def _ref(text: str, shown: str) -> str:
    if text and (not _REF.fullmatch(text) or ".." in text or "@{" in text):
        raise UsageError(f"{shown}: {text!r} can't be the name of a branch, a tag or a commit")
    return text


def _subdir(text: str, shown: str) -> str:
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in text:
        raise UsageError(f"{shown}: the folder {text!r} leads out of the repository")
    return "/".join(parts)


def _bool(text: str, key: str, shown: str) -> bool:
    if text.lower() not in _TRUE:
        raise UsageError(f"{shown}: {key} is either true or false, not {text!r}")
    return _TRUE[text.lower()]


def _with_query(source: GitSource, query: str, shown: str) -> GitSource:
    for key, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        match key:
            case "ref" | "tag" | "branch":
                if source.ref:
                    raise UsageError(f"{shown} names more than one of ref, branch and tag")
                prefix = {"ref": "", "tag": "refs/tags/", "branch": "refs/heads/"}[key]
                text = _ref(value, shown)
                source = replace(source, ref=text if text.startswith("refs/") else prefix + text)
            case "subdir":
                source = replace(source, subdir=_subdir(value, shown))
            case "checksum" | "commit":
                source = source.with_checksum(value)
            case "keep-git-dir":
                source = replace(source, keep_git_dir=_bool(value, key, shown))
            case "submodules":
                source = replace(source, submodules=_bool(value, key, shown))
            case _:
                raise UsageError(
                    f"{shown} has the unknown query key {key!r}",
                    hint="there are ref, tag, branch, subdir, checksum, keep-git-dir and submodules",
                )
    return source
