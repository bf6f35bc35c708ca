"""Whether an image's binaries can start: their architecture, their loader, their shared libraries.

Libraries are looked for as the loaders of glibc and musl do: the folders that the file itself names, LD_LIBRARY_PATH,
the folders of the loader's configuration, the usual ones. A shared object may be loaded by a program that has its
libraries already, or whose folders count for it too, so that for these it is enough that the image has the library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from castoff.fs.entry import display
from castoff.inspect.audit.finding import Observation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.inspect.audit.elf import ElfFacts
    from castoff.inspect.audit.evidence import Evidence, FileFact
    from castoff.inspect.audit.policy import Policy

_TRIPLETS = {
    "amd64": b"x86_64-linux-gnu",
    "386": b"i386-linux-gnu",
    "arm64": b"aarch64-linux-gnu",
    "arm": b"arm-linux-gnueabihf",
    "riscv64": b"riscv64-linux-gnu",
    "ppc64le": b"powerpc64le-linux-gnu",
    "s390x": b"s390x-linux-gnu",
}
_FOLDERS = (b"lib", b"usr/lib", b"lib64", b"usr/lib64", b"usr/local/lib", b"lib32", b"usr/lib32", b"libx32")


def check_binaries(evidence: Evidence, _policy: Policy) -> Iterator[Observation]:
    """See whether every program and shared object is for the platform and finds what it needs."""
    wanted = evidence.config.platform.architecture
    start = evidence.entrypoint()
    started = start[1].path if start and start[1] else None
    libraries = _Libraries(evidence)
    for fact in evidence.tree.values():
        elf = fact.content.elf
        if elf is None or elf.kind == "other" or fact.entry.hardlink is not None:
            continue
        if elf.architecture != wanted:
            if fact.path != started:
                text = f"is for {elf.architecture}, and the image is for {wanted}"
                yield Observation("foreign-binary", text, fact.path, fact.layer)
            continue
        if elf.kind == "executable" and elf.is_dynamic:
            yield Observation("dynamic-binary", "is linked dynamically", fact.path, fact.layer)
        if elf.kind == "executable" and elf.interpreter and evidence.resolve(elf.interpreter) is None:
            text = f"asks for the loader {display(elf.interpreter)}, which is not there"
            yield Observation("missing-loader", text, fact.path, fact.layer)
        for name in elf.needed:
            if not libraries.has(fact, elf, name):
                text = f"needs the library {display(name)}, which is not there"
                yield Observation("missing-library", text, fact.path, fact.layer)


class _Libraries:
    """The shared libraries of an image, and where they are looked for."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._anywhere: dict[str, set[bytes]] = {}
        for fact, target in _libraries(evidence):
            elf = target.content.elf
            if elf is not None:
                self._anywhere.setdefault(elf.architecture, set()).update({fact.entry.name, elf.soname})
        configured = [folder.encode() for folder in evidence.variable("LD_LIBRARY_PATH").split(":") if folder]
        for path, fact in evidence.tree.items():
            if path.startswith(b"etc/ld") and fact.content.text is not None:
                lines = fact.content.text.replace(b":", b"\n").splitlines()
                configured += [line.strip() for line in lines if line.strip().startswith(b"/")]
        self._configured = tuple(dict.fromkeys(configured))

    def has(self, fact: FileFact, elf: ElfFacts, name: bytes) -> bool:
        """Tell whether a library is found for a file."""
        if b"/" in name:
            return self._evidence.resolve(name) is not None
        if elf.kind == "shared":
            return name in self._anywhere.get(elf.architecture, ())
        triplet = _TRIPLETS.get(elf.architecture, b"")
        multiarch = (b"lib/" + triplet, b"usr/lib/" + triplet) if triplet else ()
        origin = fact.entry.parent
        own = [part.replace(b"${ORIGIN}", b"$ORIGIN").replace(b"$ORIGIN", b"/" + origin) for part in elf.runpath]
        for folder in (*own, *self._configured, *multiarch, *_FOLDERS):
            found = self._evidence.resolve(folder + b"/" + name)
            other = found.content.elf if found is not None else None
            if other is not None and other.architecture == elf.architecture:
                return True
        # The loader itself is asked for as a library too (musl, and glibc's on some machines).
        return elf.interpreter.rpartition(b"/")[2] == name and self._evidence.resolve(elf.interpreter) is not None


def _libraries(evidence: Evidence) -> Iterator[tuple[FileFact, FileFact]]:
    """Yield every name that a shared object goes by, links included."""
    for fact in evidence.tree.values():
        if fact.content.elf is not None and fact.content.elf.kind == "shared":
            yield fact, fact
        elif fact.entry.is_symlink and b".so" in fact.entry.name:
            target = evidence.resolve(fact.path)
            if target is not None and target.content.elf is not None:
                yield fact, target
