"""Trees of git repositories, fetched with the system's git into a bare repository that stays.

git runs without the caller's configuration, hooks, credential helpers and prompts, and speaks to the network only. What
the repository holds decides nothing but files: hooks and filters that it names are not run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from castoff.context.gitprocess import Git, UnreachableError, plain_remote
from castoff.context.gitsource import full_name, hide_password
from castoff.errors import ContextError, DigestMismatchError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from castoff.context.gitprocess import GitSettings
    from castoff.context.gitsource import GitSource


@dataclass(frozen=True, slots=True)
class GitCommit:
    """What a source stands for.

    Attributes:
        sha: the commit's object name in full.
        name: the full name of the reference that it was found by; "" where it was named itself.
        tag: object name of the annotated tag; "" for none.
        stale: why the remote could not be asked; "" where it was, or need not be.
    """

    sha: str
    name: str = ""
    tag: str = ""
    stale: str = ""


class GitCache:
    """Repositories by their remotes, and trees by their commits. Safe for several threads and processes.

    In the folder are ``repositories`` (bare ones, locked while git writes to them) and ``trees`` (checked out, never
    changed).
    """

    def __init__(self, folder: str, new_dir: Callable[[], str], settings: GitSettings) -> None:
        """Take the host path of the folder, what makes temporary folders on its file system, and git's settings."""
        self._folder = folder
        self._new_dir = new_dir
        self._git = Git(settings)

    def resolve(self, source: GitSource) -> GitCommit:
        """Return the commit that a source stands for, asking the remote unless the source says it in full.

        Where the remote can't be reached, what it last said counts, and the result says so.

        Raises:
            ContextError: the remote refuses, or has nothing of that name.
            DigestMismatchError: the commit is not the promised one.
            UnsupportedError: git is not installed.
        """
        named, promised = full_name(source.ref), full_name(source.checksum)
        if named or (promised and self._has(source, promised)):
            return _checked(source, GitCommit(named or promised))
        note = f"{self._repository(source)}.refs/{hashlib.sha256(source.ref.encode()).hexdigest()[:32]}"
        try:
            commit = self._ask(source)
        except UnreachableError as error:
            commit = _read_note(note, error.message)
            if not commit.sha:
                raise
        else:
            _write_note(note, commit)
        return _checked(source, commit)

    def _ask(self, source: GitSource) -> GitCommit:
        ref = source.ref or "HEAD"
        listed = self._git.run(source, "ls-remote", "--", plain_remote(source), ref, f"{ref}^{{}}")
        lines = (line.partition("\t") for line in listed.splitlines())
        rows = {name: sha for sha, _, name in lines}
        # As git checkout has it, a branch comes before a tag of the same name.
        for name in (ref, f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref}"):
            if name in rows:
                commit = rows.get(f"{name}^{{}}") or rows[name]
                return GitCommit(commit, name, rows[name] if commit != rows[name] else "")
        if source.may_be_short:
            with self._locked(source) as repository:
                self._fetch_all(source, repository)
                found = self._git.attempt(
                    source, "-C", repository, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"
                )
            if found:
                return GitCommit(found.strip())
        raise ContextError(
            f"{hide_password(source.remote)} has no branch, tag or commit {ref}",
            hint="git ls-remote lists what there is",
        )

    def tree(self, source: GitSource, commit: GitCommit) -> str:
        """Return the host path of the folder that a source means, fetched and checked out. Idempotent; atomic.

        Raises:
            ContextError: the remote refuses or can't be reached, or there is no such folder in the tree.
            StoreError: it can't be written.
        """
        parts = (plain_remote(source), commit.sha, str(source.keep_git_dir), str(source.submodules))
        path = f"{self._folder}/trees/{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:40]}"
        if not os.path.isdir(path):
            try:
                temporary = f"{self._new_dir()}/tree"
                os.mkdir(temporary, 0o755)
                with self._locked(source) as repository:
                    self._fetch(source, commit, repository)
                    self._check_out(source, commit, repository, temporary)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    os.rename(temporary, path)
            except OSError as error:
                if not os.path.isdir(path):
                    raise StoreError(f"{source.shown} can't be checked out: {error.strerror}") from error
        return _inside(path, source)

    def commit_time(self, source: GitSource, commit: GitCommit) -> int:
        """Return when a commit that was fetched was made, in seconds since 1970."""
        text = self._git.run(source, "-C", self._repository(source), "show", "-s", "--format=%ct", commit.sha)
        return int(text.split()[-1])

    def _repository(self, source: GitSource) -> str:
        return f"{self._folder}/repositories/{hashlib.sha256(plain_remote(source).encode()).hexdigest()[:40]}"

    def _has(self, source: GitSource, sha: str) -> bool:
        repository = self._repository(source)
        if not os.path.isdir(repository):
            return False
        return self._git.attempt(source, "-C", repository, "cat-file", "-t", sha) == "commit\n"

    @contextlib.contextmanager
    def _locked(self, source: GitSource) -> Iterator[str]:
        """Give the bare repository of a remote, which nobody else changes meanwhile."""
        path = self._repository(source)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not os.path.isdir(path):
                temporary = f"{self._new_dir()}/bare"
                form = ("--object-format=sha256",) if len(source.commit) == 64 else ()
                self._git.run(source, "init", "--quiet", "--bare", "--template=", *form, "--", temporary)
                os.rename(temporary, path)
            yield path
        finally:
            os.close(descriptor)

    def _fetch(self, source: GitSource, commit: GitCommit, repository: str) -> None:
        """Get a commit: by its own name, by that of its reference, or with all that the remote has."""
        here = ("-C", repository)
        if self._git.attempt(source, *here, "cat-file", "-e", f"{commit.sha}^{{commit}}") is not None:
            return
        mine = f"refs/castoff/{commit.sha}"
        error: ContextError | None = None
        for wanted in (commit.sha, commit.name):
            if not wanted:
                continue
            try:
                self._git.run(
                    source,
                    *here,
                    "fetch",
                    "--quiet",
                    "--depth=1",
                    "--no-tags",
                    "--",
                    plain_remote(source),
                    f"+{wanted}:{mine}",
                )
            except UnreachableError:
                raise
            except ContextError as refused:
                error = error or refused
            if self._git.attempt(source, *here, "cat-file", "-e", f"{commit.sha}^{{commit}}") is not None:
                return
        self._fetch_all(source, repository)
        if self._git.attempt(source, *here, "cat-file", "-e", f"{commit.sha}^{{commit}}") is None:
            raise ContextError(f"{hide_password(source.remote)} has no commit {commit.sha}") from error

    def _fetch_all(self, source: GitSource, repository: str) -> None:
        options = ["--unshallow"] if os.path.exists(f"{repository}/shallow") else []
        refs = ("+refs/heads/*:refs/castoff-all/heads/*", "+refs/tags/*:refs/castoff-all/tags/*")
        self._git.run(
            source, "-C", repository, "fetch", "--quiet", *options, "--no-tags", "--", plain_remote(source), *refs
        )

    def _check_out(self, source: GitSource, commit: GitCommit, repository: str, folder: str) -> None:
        modules = source.submodules and (
            self._git.attempt(source, "-C", repository, "cat-file", "-e", f"{commit.sha}:.gitmodules") is not None
        )
        if not modules and not source.keep_git_dir:
            index = {"GIT_INDEX_FILE": f"{folder}.index"}
            where = (f"--git-dir={repository}", f"--work-tree={folder}")
            self._git.run(source, *where, "read-tree", commit.sha, extra=index)
            # Run in the folder, since git counts the paths from where it is.
            self._git.run(source, *where, "checkout-index", "--all", "--force", extra=index, cwd=folder)
            return
        here = ("-C", folder)
        form = ("--object-format=sha256",) if len(commit.sha) == 64 else ()
        self._git.run(source, *here, "init", "--quiet", "--template=", *form)
        self._git.run(source, "-C", repository, "update-ref", f"refs/castoff/{commit.sha}", commit.sha)
        local = {"GIT_ALLOW_PROTOCOL": "file"}
        wanted = f"refs/castoff/{commit.sha}"
        self._git.run(
            source,
            *here,
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--",
            f"file://{repository}",
            wanted,
            extra=local,
        )
        # Submodules with relative URLs count from here.
        self._git.run(source, *here, "remote", "add", "--", "origin", plain_remote(source))
        self._git.run(source, *here, "checkout", "--quiet", "--detach", commit.sha)
        if modules:
            update = ("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1", "--force")
            self._git.run(source, *here, *update)
        if source.keep_git_dir:
            self._settle(source, folder)
        else:
            _remove_git(folder)

    def _settle(self, source: GitSource, folder: str) -> None:
        """Leave nothing in ``.git`` that tells when and where it was made."""
        for name in ("FETCH_HEAD", "ORIG_HEAD", "index"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{folder}/.git/{name}")
        shutil.rmtree(f"{folder}/.git/logs", ignore_errors=True)
        self._git.run(source, "-C", folder, "read-tree", "HEAD")


def _checked(source: GitSource, commit: GitCommit) -> GitCommit:
    wanted = source.checksum
    if wanted and not commit.sha.startswith(wanted) and not (commit.tag and commit.tag.startswith(wanted)):
        raise DigestMismatchError(
            f"{source.shown} is {commit.sha}, and not the commit that is promised",
            expected=wanted,
            actual=commit.sha,
            hint="the branch or tag has moved: look at what changed before you change the checksum",
        )
    return commit


def _inside(path: str, source: GitSource) -> str:
    """Return the path of the folder that is meant; no link is followed to it."""
    for part in filter(None, source.subdir.split("/")):
        path = f"{path}/{part}"
        if os.path.islink(path) or not os.path.isdir(path):
            raise ContextError(f"{source.shown}: the repository has no folder {source.subdir}")
    return path


def _remove_git(folder: str) -> None:
    for here, folders, files in os.walk(folder):
        if ".git" in folders:
            folders.remove(".git")
            shutil.rmtree(f"{here}/.git")
        if ".git" in files:
            os.unlink(f"{here}/.git")


def _read_note(path: str, reason: str) -> GitCommit:
    try:
        with open(path, encoding="ascii") as file:
            sha, tag = file.read(200).split(" ")
    except (OSError, ValueError):
        return GitCommit("")
    return replace(GitCommit(sha, tag=tag), stale=reason) if len(sha) in (40, 64) else GitCommit("")


def _write_note(path: str, commit: GitCommit) -> None:
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "w", encoding="ascii") as file:
            file.write(f"{commit.sha} {commit.tag}")
        os.rename(temporary, path)
