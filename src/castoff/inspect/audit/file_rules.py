"""What an image's files must keep: no tools, no rights that nobody needs, no waste."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from castoff.fs.entry import display
from castoff.inspect.audit.finding import Observation
from castoff.inspect.audit.programs import classify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.inspect.audit.evidence import Evidence, FileFact
    from castoff.inspect.audit.policy import Policy

_CAPABILITY = b"security.capability"
_LARGE = 64 << 10
_CA_BUNDLES = (
    b"etc/ssl/certs/ca-certificates.crt",
    b"etc/ssl/cert.pem",
    b"etc/pki/tls/certs/ca-bundle.crt",
    b"etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    b"etc/ssl/ca-bundle.pem",
    b"usr/local/share/certs/ca-root-nss.crt",
)
_CACHES = (
    (b"var/cache/apt/archives/", b".deb", "downloads of apt"),
    (b"var/lib/apt/lists/", b"_Packages", "indexes of apt"),
    (b"var/lib/apt/lists/", b"_Packages.lz4", "indexes of apt"),
    (b"var/cache/apk/", b".apk", "downloads of apk"),
    (b"var/cache/apk/", b".tar.gz", "indexes of apk"),
    (b"var/cache/yum/", b"", "downloads of yum"),
    (b"var/cache/dnf/", b"", "downloads of dnf"),
    (b"root/.cache/", b"", "a cache of root's"),
    (b"root/.npm/", b"", "downloads of npm"),
    (b"root/.cargo/registry/", b"", "downloads of cargo"),
    (b"go/pkg/mod/cache/", b"", "downloads of go"),
    (b"root/go/pkg/mod/", b"", "downloads of go"),
)
_PROGRAM_FOLDERS = (b"bin", b"sbin", b"libexec")
_PIP = b"/pip/__main__.py"
_PIP_FOLDERS = (b"site-packages", b"dist-packages")


def check_programs(evidence: Evidence, _policy: Policy) -> Iterator[Observation]:
    """See which programs have no place in a runtime image, by their names; what the image starts has one."""
    own = evidence.own_programs()
    for fact, target in evidence.programs():
        name = fact.entry.name
        known = classify(name)
        if target.content.busybox:
            # Its names are many, and one file: the file is told of, and the names that are a fault of their own.
            if fact is target and fact.entry.hardlink is None:
                known = ("shell", "busybox, whatever its name")
            elif known is None or known[0] == "build-tool":
                continue
        if known is None or _is_data(fact, target):
            continue
        rule, what = known
        if rule == "interpreter" and target.path in own:
            continue
        linked = f", a link to /{display(target.path)}" if target is not fact else ""
        yield Observation(rule, f"{what}: {display(name)}{linked}", fact.path, fact.layer)
    yield from _pip_modules(evidence)


def _is_data(fact: FileFact, target: FileFact) -> bool:
    """Tell whether a file that has a program's name is none: neither ELF nor script, as in a folder of completions."""
    if target.content.elf is not None:
        return target.content.elf.kind == "other"
    # Scripts of that name lie around as configuration and completions too.
    return not target.content.script or fact.entry.parent.rpartition(b"/")[2] not in _PROGRAM_FOLDERS


def _pip_modules(evidence: Evidence) -> Iterator[Observation]:
    for path, fact in evidence.tree.items():
        folder, _, name = path.rpartition(b"/")
        if path.endswith(_PIP) and folder.endswith(tuple(each + b"/pip" for each in _PIP_FOLDERS)):
            yield Observation("package-manager", "a package manager: pip as a module", path, fact.layer)
        elif b"/ensurepip/_bundled" in folder and name.startswith(b"pip-") and name.endswith(b".whl"):
            yield Observation("package-manager", "a package manager: pip, packed, for ensurepip", path, fact.layer)


def check_rights(evidence: Evidence, _policy: Policy) -> Iterator[Observation]:
    """See which files give rights, and which may be written by everybody."""
    for path, fact in evidence.tree.items():
        entry = fact.entry
        mode = entry.mode
        if entry.is_symlink:
            continue
        if entry.is_file:
            if mode & stat.S_ISUID:
                yield Observation("setuid", f"runs as the user {entry.uid}, whoever starts it", path, fact.layer)
            if mode & stat.S_ISGID and mode & stat.S_IXGRP:
                yield Observation("setgid", f"runs as the group {entry.gid}, whoever starts it", path, fact.layer)
            if any(key == _CAPABILITY for key, _value in entry.xattrs):
                yield Observation("file-capability", "has capabilities", path, fact.layer)
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            yield Observation("device-node", "is a device node", path, fact.layer)
        elif mode & stat.S_IWOTH and not (entry.is_dir and mode & stat.S_ISVTX):
            what = "folder, and has no sticky bit" if entry.is_dir else "file"
            yield Observation(
                "world-writable", f"everybody may write this {what} ({mode & 0o7777:04o})", path, fact.layer
            )


def check_waste(evidence: Evidence, _policy: Policy) -> Iterator[Observation]:
    """See what is shipped and can't be seen, and what only a builder needs."""
    for removal in evidence.removals:
        files = f"{removal.files} files" if removal.files != 1 else "a file"
        text = f"removes {files} of {removal.size} bytes that a lower layer ships all the same"
        yield Observation("deleted-file", text, removal.path, removal.layer)
    for hidden in evidence.hidden:
        size = hidden.fact.entry.size
        if hidden.replaced and size >= _LARGE:
            text = f"replaces {size} bytes that layer {hidden.fact.layer + 1} ships all the same"
            yield Observation("replaced-file", text, hidden.fact.path, hidden.layer)
    seen: set[tuple[bytes, str]] = set()
    for path, fact in evidence.tree.items():
        if fact.entry.is_dir:
            if path.rpartition(b"/")[2] in (b".git", b".hg", b".svn"):
                yield Observation("version-control", "is a repository", path, fact.layer)
            continue
        for folder, suffix, what in _CACHES:
            key = (folder, what)
            if path.startswith(folder) and path.endswith(suffix) and fact.entry.size and key not in seen:
                seen.add(key)
                yield Observation("package-cache", f"holds {what}", folder.rstrip(b"/"), fact.layer)


def check_certificates(evidence: Evidence, _policy: Policy) -> Iterator[Observation]:
    """See whether a program can check whom it talks to."""
    if ca_bundle(evidence) is None:
        yield Observation("ca-bundle", "there are no certificates of public authorities: TLS to others will fail")


def ca_bundle(evidence: Evidence) -> FileFact | None:
    """Return the file with the certificates of public authorities; None where there is none."""
    named = evidence.variable("SSL_CERT_FILE").encode()
    for path in (*_CA_BUNDLES, *([named] if named else [])):
        fact = evidence.resolve(path)
        if fact is not None and fact.entry.is_file and fact.entry.size:
            return fact
    return None
