"""Reads the layers of an image once, bottom first, and keeps what the rules ask for; contents are never kept whole."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, BinaryIO, Protocol

from castoff.errors import DigestMismatchError, InvalidImageError
from castoff.image.validate import MAX_UNCOMPRESSED
from castoff.inspect.audit.elf import MAGIC, read_elf
from castoff.inspect.audit.evidence import NO_CONTENT, Content, Evidence, FileFact, Hidden, Removal
from castoff.inspect.audit.secrets import PRIVATE_KEY, Scanner
from castoff.inspect.history import instructions
from castoff.layer.decompression import open_decompressed
from castoff.layer.tarreader import TarLimits, TarReader
from castoff.layer.tarwriter import OPAQUE_NAME, WHITEOUT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.fs.entry import FileEntry
    from castoff.image.image import StoredImage
    from castoff.layer.tarreader import TarContent

LIMITS = TarLimits(entries=1_000_000, size=1 << 38)
"""Bounds for one layer: an audit holds a record of each entry."""
MAX_FILES = 2_000_000
"""How many files an image may have for an audit."""

_IN_MEMORY = 16 << 20
_MAX_ELF = 4 << 30
_TEXT = 64 << 10
_SCRIPT = 256
_READ = 1 << 20
_BUSYBOX = b"BusyBox v"
_AUFS_PREFIX = b".wh..wh."

TEXT_NAMES = frozenset(
    b".env .npmrc .yarnrc .netrc .pypirc .git-credentials .pgpass .my.cnf .htpasswd .dockercfg credentials config.json"
    b" config kubeconfig credentials.json credentials.toml".split()
)
"""Names of files whose content the rules ask for; so are those that begin with ``.env.``."""
_TEXT_PATHS = frozenset({b"etc/passwd", b"etc/shadow", b"etc/group", b"etc/ld.so.conf"})


class Scratch(Protocol):
    """Gives temporary files; a store's session is one."""

    def new_file(self) -> io.FileIO:
        """Return an empty file, open for reading and writing, which goes with the process at the latest."""


def collect(image: StoredImage, scratch: Scratch) -> Evidence:
    """Read an image's documents and layers.

    Memory grows with the number of files (a few hundred bytes each, at most `MAX_FILES`), not with their sizes.

    Args:
        image: the image.
        scratch: takes the ELF files that are too large to be held in memory while they are looked at.

    Raises:
        StoreError: a blob is missing or damaged.
        InvalidImageError: the image is not valid, or has more files than an audit looks at.
    """
    config = image.config()
    layers = image.layers()
    evidence = Evidence(config, tuple(layer.descriptor.digest for layer in layers), instructions(config))
    merge = _Merge(evidence)
    for number, layer in enumerate(layers):
        blob = image.blobs.open_(layer.descriptor.digest)
        with open_decompressed(blob, limit=MAX_UNCOMPRESSED, close=True) as stream:
            hashed = _Hashed(stream)
            for member in TarReader(hashed, LIMITS):
                merge.add(member.entry, member.content, number, scratch)
            while hashed.read(_READ):
                pass
        actual = f"sha256:{hashed.digest.hexdigest()}"
        if layer.diff_id.algorithm == "sha256" and str(layer.diff_id) != actual:
            raise DigestMismatchError(
                f"the layer {layer.descriptor.digest} unpacks to {actual}, not to the {layer.diff_id} of its config",
                expected=str(layer.diff_id),
                actual=actual,
                hint="load or pull the image again",
            )
        evidence.compressed += layer.descriptor.size
        evidence.uncompressed += hashed.count
    return evidence


class _Hashed:
    """A stream that counts and hashes its bytes."""

    __slots__ = ("_stream", "count", "digest")

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count = 0
        self.digest = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self.count += len(data)
        self.digest.update(data)
        return data


class _Merge:
    """Puts entries on top of what is there, as a runtime would."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._tree = evidence.tree
        self._children: dict[bytes, set[bytes]] = {}

    def add(self, entry: FileEntry, content: TarContent, layer: int, scratch: Scratch) -> None:
        """Take the next entry of a layer."""
        parent, _, name = entry.path.rpartition(b"/")
        if name.startswith(WHITEOUT_PREFIX):
            self._hide(parent, name, layer)
            return
        if not entry.path:
            return
        known = NO_CONTENT
        if entry.hardlink is not None:
            target = self._tree.get(entry.hardlink)
            if target is not None:
                from dataclasses import replace

                known = target.content
                # The size stays that of the entry, 0: a hard link ships no bytes of its own.
                entry = replace(entry, mode=target.entry.mode, uid=target.entry.uid, xattrs=target.entry.xattrs)
        elif entry.is_file and entry.size:
            known = examine(entry, content, scratch)
        before = self._tree.get(entry.path)
        if before is not None and before.layer < layer and not before.entry.is_dir:
            self._evidence.hidden.append(Hidden(before, layer, replaced=True))
        if before is not None and before.entry.is_dir and not entry.is_dir:
            self._remove_below(entry.path, layer, entry.path)
        if before is None and len(self._tree) >= MAX_FILES:
            raise InvalidImageError(f"the image has more than the {MAX_FILES} files that an audit looks at")
        self._tree[entry.path] = FileFact(entry, layer, known)
        while name:  # parents that no layer lists are there all the same
            siblings = self._children.setdefault(parent, set())
            if name in siblings:
                break
            siblings.add(name)
            parent, _, name = parent.rpartition(b"/")

    def _hide(self, parent: bytes, name: bytes, layer: int) -> None:
        if name == OPAQUE_NAME:
            self._remove_below(parent, layer, parent)
        elif not name.startswith(_AUFS_PREFIX):
            hidden = name.removeprefix(WHITEOUT_PREFIX)
            path = parent + b"/" + hidden if parent else hidden
            fact = self._tree.get(path)
            own: list[FileFact] = []
            if fact is not None and fact.layer < layer:
                own.append(self._tree.pop(path))
            self._remove_below(path, layer, path, own)

    def _remove_below(self, folder: bytes, layer: int, why: bytes, own: list[FileFact] | None = None) -> None:
        """Take away what lower layers have below a folder."""
        gone = own or []
        pending = [folder]
        while pending:
            here = pending.pop()
            for name in list(self._children.get(here, ())):
                path = here + b"/" + name if here else name
                if path in self._children:
                    pending.append(path)
                fact = self._tree.get(path)
                if fact is not None and fact.layer < layer:
                    gone.append(self._tree.pop(path))
        files = [fact for fact in gone if not fact.entry.is_dir]
        if not files:
            return
        size = sum(fact.entry.size for fact in files)
        self._evidence.removals.append(Removal(why, layer, len(files), size))
        self._evidence.hidden += [
            Hidden(fact, layer, replaced=False)
            for fact in files
            if fact.content.secrets or fact.content.text is not None
        ]


def examine(entry: FileEntry, content: TarContent, scratch: Scratch) -> Content:
    """Look through the bytes of a file, once."""
    scanner = Scanner()
    blocks = iter(content)
    first = bytes(next(blocks, b""))
    elf: _Spool | None = _Spool(scratch) if first.startswith(MAGIC) and entry.size <= _MAX_ELF else None
    keep = _is_text(entry)
    text = b""
    busybox = False
    try:
        for block in _chain(first, blocks):
            scanner.feed(block)
            if elf is not None:
                elf.write(block)
                busybox = busybox or _BUSYBOX in block
            if keep:
                text += block
        script = b""
        if first.startswith(b"#!") and entry.mode & 0o111:
            script = first[2:_SCRIPT].partition(b"\n")[0].strip()
        facts = read_elf(elf.file) if elf is not None else None
    finally:
        if elf is not None:
            elf.close()
    secrets = scanner.found()
    if facts is not None and facts.kind == "shared":
        # Libraries of cryptography carry keys to test themselves with.
        secrets = tuple(secret for secret in secrets if secret.kind != PRIVATE_KEY)
    if facts is None and not script and not keep and not secrets:
        return NO_CONTENT
    return Content(facts, script, text if keep else None, secrets, busybox)


def _chain(first: bytes, rest: Iterator[memoryview]) -> Iterator[bytes]:
    yield first
    for block in rest:
        yield bytes(block)


def _is_text(entry: FileEntry) -> bool:
    name = entry.name
    return entry.size <= _TEXT and (
        name in TEXT_NAMES
        or name.startswith(b".env.")
        or entry.path in _TEXT_PATHS
        or entry.path.startswith(b"etc/ld.so.conf.d/")
        or (name.startswith(b"ld-musl-") and name.endswith(b".path"))
    )


class _Spool:
    """The bytes of one file, in memory while they are few, else in a temporary file."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self.file: io.BytesIO | io.FileIO = io.BytesIO()

    def write(self, block: bytes) -> None:
        """Append bytes."""
        if isinstance(self.file, io.BytesIO) and self.file.tell() + len(block) > _IN_MEMORY:
            held, self.file = self.file.getbuffer(), self._scratch.new_file()
            self._write_all(self.file, held)
        if isinstance(self.file, io.BytesIO):
            self.file.write(block)
        else:
            self._write_all(self.file, memoryview(block))

    @staticmethod
    def _write_all(file: io.FileIO, data: memoryview) -> None:
        while data:
            data = data[file.write(data) or 0 :]

    def close(self) -> None:
        """Throw the bytes away."""
        name = self.file.name if isinstance(self.file, io.FileIO) else None
        self.file.close()
        if isinstance(name, str):
            from castoff.store.removal import remove_tree

            remove_tree(name)
