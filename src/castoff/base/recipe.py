"""Recipes of base images: TOML in, a frozen value out."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from typing import Any

from castoff.base.fields import MAX_TEXT, Table
from castoff.errors import UsageError

FORMAT = 1
"""The format of recipes and locks that this version reads and writes."""
DISTROLESS = "distroless"
FULL = "full"
POCKETS = ("updates", "security")
"""What may stand beside a suite: ``bookworm-updates`` and ``bookworm-security``."""

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_SUITE = re.compile(r"[a-z][a-z0-9.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_ID = (1 << 32) - 2


@dataclass(frozen=True, slots=True)
class User:
    """A user of the image: a line of /etc/passwd, a group of the same name where none has its `gid`, and a home.

    `home` "" or "/nonexistent" makes no directory.
    """

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    comment: str


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the image: a line of /etc/group."""

    name: str
    gid: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory to make (or an existing one to change); `path` is relative to the root."""

    path: bytes
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link to make; `target` is written as it stands."""

    path: bytes
    target: bytes


@dataclass(frozen=True, slots=True)
class File:
    """A regular file to write."""

    path: bytes
    content: bytes
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel from PyPI to unpack.

    Attributes:
        name: the project.
        version: the exact version.
        path: directory of the image that it is unpacked into.
        subpath: the folder inside the wheel whose content is taken; b"" for the whole wheel.
        python: the version of Python that the wheel must fit, such as ``3.11``; "" for wheels that fit any.
    """

    name: str
    version: str
    path: bytes
    subpath: bytes
    python: str


@dataclass(frozen=True, slots=True)
class RecipeConfig:
    """The execution parameters of the image."""

    env: tuple[tuple[str, str], ...]
    user: str
    workdir: str
    entrypoint: tuple[str, ...] | None
    cmd: tuple[str, ...] | None
    labels: tuple[tuple[str, str], ...]
    stop_signal: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a base image is made of.

    Attributes:
        file: where the recipe was read from, for messages.
        variant: DISTROLESS or FULL.
        suite: codename of a Debian suite.
        pockets: which of POCKETS are looked at too.
        components: components of the archive.
        architecture: Debian's name of the architecture; "" for the one that is asked for when locking.
        packages: names of the packages that are wanted.
        dependencies: whether what they depend on is taken too.
        exclude: names of packages that are never taken.
        keep_docs: whether documentation, manuals and locales stay.
        drop: paths that are removed at the end; ``*`` stands for anything within one part, ``**`` for any parts.
    """

    file: str
    variant: str
    suite: str
    pockets: tuple[str, ...]
    components: tuple[str, ...]
    architecture: str
    packages: tuple[str, ...]
    dependencies: bool
    exclude: tuple[str, ...]
    keep_docs: bool
    drop: tuple[bytes, ...]
    users: tuple[User, ...]
    groups: tuple[Group, ...]
    directories: tuple[Directory, ...]
    symlinks: tuple[Symlink, ...]
    files: tuple[File, ...]
    wheels: tuple[Wheel, ...]
    config: RecipeConfig

    @classmethod
    def read(cls, path: str) -> Recipe:
        """Read a recipe file.

        Raises:
            UsageError: it can't be read, or is not a valid recipe; the key and the line are named.
        """
        return cls.parse(read_text(path, "recipe"), path)

    @classmethod
    def parse(cls, data: bytes, file: str = "recipe") -> Recipe:
        """Read a recipe.

        Raises:
            UsageError: it is not a valid recipe; the key and the line are named.
        """
        return _recipe(Table.parse(data, file), file)

    @property
    def selection(self) -> str:
        """The digest of everything that decides which packages and wheels a lock holds, as ``sha256:…``."""
        parts: Any = [
            FORMAT,
            self.variant,
            self.suite,
            sorted(self.pockets),
            sorted(self.components),
            self.architecture,
            sorted(self.packages),
            self.dependencies,
            sorted(self.exclude),
            sorted([wheel.name, wheel.version, wheel.python] for wheel in self.wheels),
        ]
        return "sha256:" + hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def read_text(path: str, what: str) -> bytes:
    """Return the bytes of a small file.

    Raises:
        UsageError: it can't be read.
    """
    try:
        with open(path, "rb") as stream:
            return stream.read(MAX_TEXT + 1)
    except OSError as error:
        raise UsageError(f"the {what} {path} can't be read: {error.strerror}") from error


def image_path(table: Table, key: str, default: Any = ...) -> bytes:
    """Take an absolute path of the image and return it relative to the root."""
    text = table.text(key, default)
    parts = os.fsencode(text).split(b"/")
    if not text.startswith("/") or b".." in parts:
        raise table.error(key, f"is {text!r}, which is not an absolute path without '..'")
    return b"/".join(part for part in parts if part not in (b"", b"."))


def _mode(table: Table, default: int) -> int:
    text = table.text("mode", f"{default:o}")
    if not re.fullmatch(r"[0-7]{1,4}", text):
        raise table.error("mode", f"is {text!r}, which is not an octal mode such as '0755'")
    return int(text, 8)


def _words(table: Table, key: str, form: re.Pattern[str], default: Any = ...) -> tuple[str, ...]:
    words = table.texts(key, default)
    for word in words:
        if not form.fullmatch(word):
            raise table.error(key, f"holds {word!r}, which is not a valid name")
    return words


def _word(table: Table, key: str, form: re.Pattern[str], default: Any = ...) -> str:
    word = table.text(key, default)
    if word != default and not form.fullmatch(word):
        raise table.error(key, f"is {word!r}, which is not a valid name")
    return word


def _line_text(table: Table, key: str, default: str) -> str:
    """Take a field of /etc/passwd: no colon and no line break may forge another field or line."""
    text = table.text(key, default)
    if ":" in text or "\n" in text:
        raise table.error(key, "holds a colon or a line break")
    return text


def _user(table: Table) -> User:
    name = _word(table, "name", _USER)
    uid = table.integer("uid", most=_MAX_ID)
    home = _line_text(table, "home", f"/home/{name}")
    if not home.startswith("/") or ".." in home.split("/"):
        raise table.error("home", f"is {home!r}, which is not an absolute path without '..'")
    user = User(
        name,
        uid,
        table.integer("gid", uid, most=_MAX_ID),
        home,
        _line_text(table, "shell", "/sbin/nologin"),
        _line_text(table, "comment", name),
    )
    table.finish("name, uid, gid, home, shell, comment")
    return user


def _group(table: Table) -> Group:
    group = Group(_word(table, "name", _USER), table.integer("gid", most=_MAX_ID), _words(table, "members", _USER, ()))
    table.finish("name, gid, members")
    return group


def _directory(table: Table) -> Directory:
    value = Directory(
        image_path(table, "path"),
        _mode(table, 0o755),
        table.integer("uid", 0, most=_MAX_ID),
        table.integer("gid", 0, most=_MAX_ID),
    )
    table.finish("path, mode, uid, gid")
    return value


def _symlink(table: Table) -> Symlink:
    value = Symlink(image_path(table, "path"), os.fsencode(table.text("target")))
    if not value.path or not value.target:
        raise table.error("path" if not value.path else "target", "is empty")
    table.finish("path, target")
    return value


def _file(table: Table) -> File:
    value = File(
        image_path(table, "path"),
        table.text("content").encode(),
        _mode(table, 0o644),
        table.integer("uid", 0, most=_MAX_ID),
        table.integer("gid", 0, most=_MAX_ID),
    )
    if not value.path:
        raise table.error("path", "is the root")
    table.finish("path, content, mode, uid, gid")
    return value


def _wheel(table: Table) -> Wheel:
    name = table.text("name")
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        raise table.error("name", f"is {name!r}, which is not a project's name")
    version = table.text("version")
    if not re.fullmatch(r"[0-9][A-Za-z0-9.!+_-]*", version):
        raise table.error("version", f"is {version!r}, which is not an exact version")
    subpath = table.text("from", "")
    parts = [part for part in os.fsencode(subpath).split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise table.error("from", "holds '..'")
    python = table.text("python", "")
    if python and not re.fullmatch(r"3\.\d{1,2}", python):
        raise table.error("python", f"is {python!r}, which is not a version such as '3.11'")
    wheel = Wheel(name, version, image_path(table, "path"), b"/".join(parts), python)
    table.finish("name, version, path, from, python")
    return wheel


def _config(table: Table) -> RecipeConfig:
    env = table.text_map("env")
    for name, _ in env:
        if not _VARIABLE.fullmatch(name):
            raise table.error("env", f"holds {name!r}, which is not the name of a variable")
    workdir = table.text("workdir", "")
    if workdir and not workdir.startswith("/"):
        raise table.error("workdir", f"is {workdir!r}, which is not an absolute path")
    config = RecipeConfig(
        env,
        table.text("user", ""),
        workdir,
        table.optional_texts("entrypoint"),
        table.optional_texts("cmd"),
        tuple(sorted(table.text_map("labels"))),
        table.text("stop_signal", ""),
    )
    table.finish("env, user, workdir, entrypoint, cmd, labels, stop_signal")
    return config


def _check_variant(table: Table, variant: str, dependencies: bool) -> None:
    if variant not in (DISTROLESS, FULL):
        raise table.error("variant", f"is {variant!r}", hint=f"a variant is {DISTROLESS} or {FULL}")
    if variant == FULL and not dependencies:
        raise table.error("dependencies", f"can't be false in a recipe of variant {FULL}")


def _pockets(table: Table) -> tuple[str, ...]:
    pockets = table.texts("pockets", POCKETS)
    for pocket in pockets:
        if pocket not in POCKETS:
            raise table.error("pockets", f"holds {pocket!r}", hint=f"known are {', '.join(POCKETS)}")
    return tuple(sorted(set(pockets)))


def _recipe(top: Table, file: str) -> Recipe:
    version = top.integer("format")
    if version != FORMAT:
        raise top.error("format", f"is {version}; this castoff reads format {FORMAT}")
    variant = top.text("variant")
    dependencies = top.boolean("dependencies", True)
    _check_variant(top, variant, dependencies)
    recipe = Recipe(
        file=file,
        variant=variant,
        suite=_word(top, "suite", _SUITE),
        pockets=_pockets(top),
        components=_words(top, "components", _NAME, ("main",)),
        architecture=_word(top, "architecture", _NAME, ""),
        packages=_words(top, "packages", _NAME),
        dependencies=dependencies,
        exclude=_words(top, "exclude", _NAME, ()),
        keep_docs=top.boolean("docs", variant == FULL),
        drop=tuple(os.fsencode(path.strip("/")) for path in top.texts("drop", ())),
        users=tuple(_user(table) for table in top.tables("users")),
        groups=tuple(_group(table) for table in top.tables("groups")),
        directories=tuple(_directory(table) for table in top.tables("directories")),
        symlinks=tuple(_symlink(table) for table in top.tables("symlinks")),
        files=tuple(_file(table) for table in top.tables("files")),
        wheels=tuple(_wheel(table) for table in top.tables("wheels")),
        config=_config(top.table("config")),
    )
    for name in set(recipe.packages) & set(recipe.exclude):
        raise top.error("exclude", f"holds {name!r}, which 'packages' asks for")
    top.finish(
        "format, variant, suite, pockets, components, architecture, packages, dependencies, exclude, docs, drop, "
        "users, groups, directories, symlinks, files, wheels, config"
    )
    return recipe
