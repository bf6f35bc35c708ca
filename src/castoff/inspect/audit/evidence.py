"""What an audit knows of an image once its layers have been read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.fs.resolve import TooManyLinksError, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.fs.entry import FileEntry
    from castoff.inspect.audit.elf import ElfFacts
    from castoff.inspect.audit.secrets import Secret
    from castoff.oci.config import ImageConfig
    from castoff.oci.digest import Digest


_PATH_MAX = 4096
"""A link of this length leads nowhere for the kernel."""


@dataclass(frozen=True, slots=True)
class Content:
    """What is known of the bytes of a regular file.

    Attributes:
        elf: what it says as an ELF file; None for others.
        script: the interpreter after ``#!``; b"" for none.
        text: the bytes of a small file whose name says that they matter; None for others.
        secrets: those that were found in it.
        busybox: whether it is busybox, whatever its name.
    """

    elf: ElfFacts | None = None
    script: bytes = b""
    text: bytes | None = None
    secrets: tuple[Secret, ...] = ()
    busybox: bool = False


NO_CONTENT = Content()


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file of the image: its entry, the number of the layer that it is from, and what is known of its bytes."""

    entry: FileEntry
    layer: int
    content: Content = NO_CONTENT

    @property
    def path(self) -> bytes:
        """Where it is."""
        return self.entry.path


@dataclass(frozen=True, slots=True)
class Hidden:
    """A file of a lower layer that a later one removes or replaces: it is shipped all the same.

    Attributes:
        fact: the file.
        layer: the number of the layer that hides it.
        replaced: whether there is another file in its place.
    """

    fact: FileFact
    layer: int
    replaced: bool


@dataclass(frozen=True, slots=True)
class Removal:
    """What one deletion hides: where, by which layer, from which layer most, and how much."""

    path: bytes
    layer: int
    files: int
    size: int


@dataclass(slots=True)
class Evidence:
    """An image as an audit sees it. Filled by `castoff.inspect.audit.collect`, and only read afterwards.

    Attributes:
        config: the image's config.
        digests: of the layers, bottom first.
        instructions: what made the layers, bottom first; "" where the history says nothing.
        compressed: bytes of the layers as they are stored.
        uncompressed: bytes of the layers' tar streams.
        tree: the merged files by path.
        removals: deletions.
        hidden: files that are replaced, and files that are hidden and hold secrets.
    """

    config: ImageConfig
    digests: tuple[Digest, ...] = ()
    instructions: tuple[str, ...] = ()
    compressed: int = 0
    uncompressed: int = 0
    tree: dict[bytes, FileFact] = field(default_factory=dict)
    removals: list[Removal] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)

    def resolve(self, path: bytes) -> FileFact | None:
        """Return the file that a path leads to, links followed inside the image; None where there is none."""
        try:
            return self.tree.get(resolve(self._entry, path))
        except TooManyLinksError:
            return None

    def _entry(self, path: bytes) -> FileEntry | None:
        fact = self.tree.get(path)
        return fact.entry if fact and len(fact.entry.link) < _PATH_MAX else None

    def programs(self) -> Iterator[tuple[FileFact, FileFact]]:
        """Yield what can be executed: each file or link with the file that it leads to."""
        for fact in self.tree.values():
            target: FileFact | None = fact
            if fact.entry.is_symlink:
                target = self.resolve(fact.path)
            if target is not None and target.entry.is_file and target.entry.mode & 0o111:
                yield fact, target

    def entrypoint(self) -> tuple[str, FileFact | None] | None:
        """Return the word that the image starts with and the file that it means; None where it starts nothing."""
        config = self.config.config
        argv = [*(config.entrypoint or ()), *(config.cmd or ())]
        if not argv or not argv[0]:
            return None
        return argv[0], self.find_program(argv[0])

    def find_program(self, word: str) -> FileFact | None:
        """Return the file that a word starts: by its path, or in the folders of PATH."""
        name = word.encode("utf-8", "surrogateescape")
        if b"/" in name:
            folder = b"" if name.startswith(b"/") else self.config.config.working_dir.encode() + b"/"
            return self._executable(folder + name)
        path = self.variable("PATH") or "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        candidates = (self._executable(folder.encode() + b"/" + name) for folder in path.split(":"))
        return next((fact for fact in candidates if fact is not None), None)

    def _executable(self, path: bytes) -> FileFact | None:
        fact = self.resolve(path)
        return fact if fact is not None and fact.entry.is_file and fact.entry.mode & 0o111 else None

    def variable(self, name: str) -> str:
        """Return the value of a variable of the config; "" where it is not set."""
        prefix = name + "="
        return next((item[len(prefix) :] for item in self.config.config.env if item.startswith(prefix)), "")

    def own_programs(self) -> frozenset[bytes]:
        """Return the paths of what the image starts: the entrypoint, and the interpreters that it asks for."""
        start = self.entrypoint()
        paths: set[bytes] = set()
        fact = start[1] if start else None
        while fact is not None and fact.path not in paths:
            paths.add(fact.path)
            words = fact.content.script.split()
            if not words:
                break
            if words[0].endswith(b"/env") and len(words) > 1:
                fact = self.find_program(words[-1].decode("utf-8", "surrogateescape"))
            else:
                fact = self._executable(words[0])
        return frozenset(paths)

    def instruction_of(self, keyword: str, contains: str = "") -> str:
        """Return the last instruction of the history that begins with a keyword and holds a text; "" for none."""
        for entry in reversed(self.config.history):
            if entry.created_by.removeprefix("/bin/sh -c #(nop) ").strip().startswith(keyword) and (
                contains in entry.created_by
            ):
                return entry.created_by
        return ""
