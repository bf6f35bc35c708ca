"""Lock files: the exact packages and wheels of a base, by SHA256, and the archive's time.

A lock holds paths relative to an archive's root and never the name of a host: where the bytes come from may change
from machine to machine, what they are may not.
"""

from __future__ import annotations

import calendar
import contextlib
import os
import re
import tempfile
import time
from dataclasses import dataclass

from castoff.base.fields import Table
from castoff.base.recipe import FORMAT, Recipe, read_text
from castoff.errors import StoreError, UsageError

ARCHIVES = ("debian", "debian-security")
"""The archives that a suite and its pockets live in, by the name of their folder on a mirror."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+:~-]*")
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._~:%-]*(?:/[A-Za-z0-9][A-Za-z0-9+._~:%-]*)*")
_WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl")
_DATE_FORM = "%Y-%m-%dT%H:%M:%SZ"
_MAX_PACKAGE = 4 << 30


@dataclass(frozen=True, slots=True, order=True)
class LockedSuite:
    """The state of one suite of an archive: `time` is its Release file's date in seconds since the epoch."""

    archive: str
    suite: str
    time: int


@dataclass(frozen=True, slots=True, order=True)
class LockedPackage:
    """One exact package.

    Attributes:
        name: its name.
        version: its version as Debian writes it.
        architecture: its own architecture: the lock's, or ``all``.
        archive: which archive has it, one of ARCHIVES.
        suite: which suite it was found in.
        component: which component it was found in.
        path: where it is, relative to the archive's root.
        size: bytes of the .deb.
        sha256: hexadecimal SHA256 of the .deb.
    """

    name: str
    version: str
    architecture: str
    archive: str
    suite: str
    component: str
    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, order=True)
class LockedWheel:
    """One exact wheel; `sha256` is hexadecimal."""

    name: str
    version: str
    filename: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Lock:
    """What a recipe came to at one time.

    Attributes:
        selection: ``Recipe.selection`` of the recipe that it was made from.
        architecture: Debian's name of the architecture.
        suites: the suites that were looked at, sorted.
        packages: sorted by name.
        wheels: sorted by name.
    """

    selection: str
    architecture: str
    suites: tuple[LockedSuite, ...]
    packages: tuple[LockedPackage, ...]
    wheels: tuple[LockedWheel, ...]

    @classmethod
    def read(cls, path: str) -> Lock:
        """Read a lock file.

        Raises:
            UsageError: it can't be read, or is not a valid lock.
        """
        return cls.parse(read_text(path, "lock"), path)

    @classmethod
    def parse(cls, data: bytes, file: str = "lock") -> Lock:
        """Read a lock.

        Raises:
            UsageError: it is not a valid lock; the key and the line are named.
        """
        top = Table.parse(data, file)
        version = top.integer("format")
        if version != FORMAT:
            raise top.error("format", f"is {version}; this castoff reads format {FORMAT}")
        lock = cls(
            _form(top, "selection", re.compile("sha256:[0-9a-f]{64}")),
            _form(top, "architecture", _NAME),
            tuple(sorted(_suite(table) for table in top.tables("suites"))),
            tuple(sorted(_package(table) for table in top.tables("packages"))),
            tuple(sorted(_wheel(table) for table in top.tables("wheels"))),
        )
        top.finish()
        known = {(suite.archive, suite.suite) for suite in lock.suites}
        names = set[str]()
        for package in lock.packages:
            if (package.archive, package.suite) not in known:
                raise UsageError(f"{file} names the suite {package.suite!r} of {package.name} and does not list it")
            if package.name in names or package.architecture not in (lock.architecture, "all"):
                raise UsageError(f"{file} has the package {package.name} twice, or for another architecture")
            names.add(package.name)
        return lock

    @property
    def time(self) -> int:
        """The archive's time: the newest date of its suites, in seconds since the epoch."""
        return max((suite.time for suite in self.suites), default=0)

    def time_of(self, package: LockedPackage) -> int:
        """Return the date of the suite that a package was found in, in seconds since the epoch."""
        return next(
            (s.time for s in self.suites if (s.archive, s.suite) == (package.archive, package.suite)), self.time
        )

    def check(self, recipe: Recipe, file: str) -> None:
        """Check that the lock belongs to a recipe as it is now.

        Raises:
            UsageError: the recipe asks for other packages or wheels than the lock was made for.
        """
        if self.selection != recipe.selection:
            raise UsageError(
                f"{recipe.file} asks for other packages than {file} was made for",
                hint=f"run: castoff base lock {recipe.file}",
            )

    def to_text(self) -> str:
        """Return the lock as castoff writes it: the same lock is always the same text."""
        lines = [
            "# Written by `castoff base lock`; edit the recipe instead, and lock it again.",
            f"format = {FORMAT}",
            f"selection = {_quoted(self.selection)}",
            f"architecture = {_quoted(self.architecture)}",
        ]
        for suite in sorted(self.suites):
            lines += ["", "[[suites]]", f"archive = {_quoted(suite.archive)}", f"suite = {_quoted(suite.suite)}"]
            lines.append(f"date = {_quoted(time.strftime(_DATE_FORM, time.gmtime(suite.time)))}")
        for package in sorted(self.packages):
            lines += ["", "[[packages]]"]
            for key in ("name", "version", "architecture", "archive", "suite", "component", "path"):
                lines.append(f"{key} = {_quoted(getattr(package, key))}")
            lines += [f"size = {package.size}", f"sha256 = {_quoted(package.sha256)}"]
        for wheel in sorted(self.wheels):
            lines += ["", "[[wheels]]"]
            lines += [f"{key} = {_quoted(getattr(wheel, key))}" for key in ("name", "version", "filename", "sha256")]
        return "\n".join(lines) + "\n"

    def write(self, path: str) -> None:
        """Write the lock file. Atomic.

        Raises:
            StoreError: it can't be written.
        """
        folder = os.path.dirname(os.path.abspath(path))
        temporary = ""
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=".lock-", dir=folder)
            with open(descriptor, "w", encoding="utf-8") as stream:
                stream.write(self.to_text())
                stream.flush()
                os.fchmod(stream.fileno(), 0o644)
                os.fsync(stream.fileno())
            os.rename(temporary, path)
        except OSError as error:
            if temporary:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            raise StoreError(f"the lock {path} can't be written: {error.strerror}") from error


def _quoted(text: str) -> str:
    """Return a TOML string; every field is checked against a form that needs no escapes."""
    return f'"{text}"'


def _form(table: Table, key: str, form: re.Pattern[str]) -> str:
    text = table.text(key)
    if not form.fullmatch(text):
        raise table.error(key, f"is {text!r}, which is not of the right form")
    return text


def _archive(table: Table) -> str:
    archive = table.text("archive")
    if archive not in ARCHIVES:
        raise table.error("archive", f"is {archive!r}", hint=f"known are {', '.join(ARCHIVES)}")
    return archive


def _suite(table: Table) -> LockedSuite:
    archive = _archive(table)
    suite = _form(table, "suite", _NAME)
    try:
        date = calendar.timegm(time.strptime(table.text("date"), _DATE_FORM))
    except ValueError as error:
        raise table.error("date", "is not of the form 2026-01-31T12:00:00Z") from error
    table.finish()
    return LockedSuite(archive, suite, date)


def _package(table: Table) -> LockedPackage:
    package = LockedPackage(
        _form(table, "name", _NAME),
        _form(table, "version", _VERSION),
        _form(table, "architecture", _NAME),
        _archive(table),
        _form(table, "suite", _NAME),
        _form(table, "component", _NAME),
        pool_path(table.text("path"), table),
        table.integer("size", least=1, most=_MAX_PACKAGE),
        _form(table, "sha256", _SHA256),
    )
    table.finish()
    return package


def _wheel(table: Table) -> LockedWheel:
    wheel = LockedWheel(
        table.text("name"), table.text("version"), _form(table, "filename", _WHEEL), _form(table, "sha256", _SHA256)
    )
    for key, text in (("name", wheel.name), ("version", wheel.version)):
        if not re.fullmatch(r"[A-Za-z0-9.!+_-]+", text):
            raise table.error(key, f"is {text!r}, which is not of the right form")
    table.finish()
    return wheel


def pool_path(text: str, table: Table | None = None) -> str:
    """Check a path below an archive's root, as an index or a lock gives it.

    Raises:
        UsageError: it is absolute, leads upwards, or has characters that no archive uses.
    """
    if not _PATH.fullmatch(text):
        problem = f"is {text!r}, which is not a path below an archive"
        raise table.error("path", problem) if table else UsageError(f"the path of a package {problem}")
    return text


def locked_path(recipe_path: str, architecture: str = "") -> str:
    """Return where the lock of a recipe is: beside it, ``.toml`` replaced by ``.lock``.

    That for a further architecture has its name before the end: ``static.arm64.lock``.
    """
    middle = f".{architecture}" if architecture else ""
    return recipe_path.removesuffix(".toml") + f"{middle}.lock"
