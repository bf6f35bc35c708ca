"""``RUN --mount``: what is mounted for one step, what of it decides the cache key, and what it leaves behind."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.errors import StepError
from castoff.fs.ownership import Owner
from castoff.fs.resolve import clean
from castoff.fs.rooted import remove_tree
from castoff.mount import Mount, MountKind
from castoff.ops.cachemounts import FOLDER, cache_ownership, cache_table
from castoff.ops.select import Request
from castoff.plan.step import (
    SCRIPT_FOLDER,
    BindMount,
    CacheMount,
    ScratchSource,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from castoff.solve.cachekey import cache_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from castoff.fs.ownership import Ownership
    from castoff.ops.filesystem import FileSystem
    from castoff.ops.run import SecretGetter
    from castoff.ops.sources import Result
    from castoff.ops.sshagent import SshAgents
    from castoff.ops.workspace import Workspace
    from castoff.plan.step import RunStep, Source



@dataclass(slots=True)
class Prepared:
    """Mounts that are ready, and variables that go with them."""

    mounts: tuple[Mount, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


def mount_sources(step: RunStep) -> tuple[Source, ...]:
    """Return the sources of a step's mounts, each once, in the order in which its vertex has them as inputs."""
    found: dict[Source, None] = {}
    for mount in step.mounts:
        if isinstance(mount, BindMount | CacheMount) and not isinstance(mount.source, ScratchSource):
            found[mount.source] = None
    return tuple(found)


class MountPlan:
    """The mounts of one RUN step. `inputs` are the step's: its base, then its mounts' sources."""

    def __init__(self, workspace: Workspace, step: RunStep, inputs: Sequence[Result]) -> None:
        self._workspace = workspace
        self._step = step
        self._sources = dict(zip(mount_sources(step), inputs[1:], strict=True))

    def key(self) -> tuple[object, ...]:
        """Return what of the mounts belongs in the cache key: definitions, and the content of what is bound."""
        return tuple(self._key(mount) for mount in self._step.mounts)

    def _key(self, mount: BindMount | CacheMount | TmpfsMount | SecretMount | SshMount) -> tuple[object, ...]:
        match mount:
            case BindMount():
                content = self._content(mount.source, mount.source_path)
                return ("bind", mount.target, mount.read_only, content)
            case CacheMount():
                return (
                    "cache",
                    mount.target,
                    mount.id,
                    mount.sharing,
                    mount.read_only,
                    mount.mode,
                    mount.uid,
                    mount.gid,
                )
            case TmpfsMount():
                return ("tmpfs", mount.target, mount.size)
            case SecretMount():
                return ("secret", mount.id, mount.target, mount.env, mount.mode, mount.uid, mount.gid)
            case SshMount():
                return ("ssh", mount.id, mount.target, mount.mode, mount.uid, mount.gid)

    def _content(self, source: Source, path: str) -> str:
        if isinstance(source, ScratchSource):
            return ""
        step_source = self._sources[source].as_source()
        request = Request((path,))
        return step_source.content_digest(request, owners=step_source.has_owners)

    def prepare(self, stack: contextlib.ExitStack, secrets: SecretGetter, agents: SshAgents | None = None) -> Prepared:
        """Return the mounts, ready; `stack` undoes what they need once the step has ended.

        Raises:
            StepError: a secret or an agent is required and was not given.
        """
        prepared = Prepared()
        mounts: list[Mount] = []
        for mount in self._step.mounts:
            match mount:
                case BindMount():
                    mounts.append(self._bind(mount, stack))
                case CacheMount():
                    mounts.append(self._cache(mount, stack))
                case TmpfsMount():
                    mounts.append(
                        Mount(MountKind.TMPFS, mount.target, readonly=mount.read_only, size=mount.size or None)
                    )
                case SecretMount():
                    mounts.extend(_secret(mount, secrets, prepared.env))
                case SshMount():
                    mounts.extend(self._agent(mount, agents, stack, prepared.env))
        mounts.extend(
            Mount(
                MountKind.FILE,
                f"{SCRIPT_FOLDER}/{script.name}",
                readonly=True,
                mode=0o755,
                data=script.data,
                public=True,
            )
            for script in self._step.scripts
        )
        prepared.mounts = tuple(mounts)
        return prepared

    def _agent(
        self, mount: SshMount, agents: SshAgents | None, stack: contextlib.ExitStack, env: dict[str, str]
    ) -> list[Mount]:
        if agents is None:
            if mount.required:
                raise no_agent(mount.id)
            return []
        number = [other for other in self._step.mounts if isinstance(other, SshMount)].index(mount)
        made = agents.mount(mount, number, stack)
        if made is None:
            if mount.required:
                raise no_agent(mount.id)
            return []
        env.setdefault("SSH_AUTH_SOCK", made.target)
        return [made]

    def _bind(self, mount: BindMount, stack: contextlib.ExitStack) -> Mount:
        if self._workspace.whole:
            return self._bind_copy(mount, stack)
        if isinstance(mount.source, ScratchSource):
            lowers: tuple[str, ...] = ()
        else:
            lowers = self._lowers(self._filesystem(mount))
        source = os.fsdecode(clean(os.fsencode(mount.source_path)))
        if mount.read_only and lowers:
            return Mount(MountKind.OVERLAY, mount.target, source, readonly=True, lowers=lowers)
        active = self._workspace.snapshotter.prepare(None)
        stack.callback(self._workspace.snapshotter.discard, active)
        return Mount(
            MountKind.OVERLAY,
            mount.target,
            source,
            readonly=mount.read_only,
            lowers=lowers,
            upper=active.upper,
            work=active.work,
        )

    def _bind_copy(self, mount: BindMount, stack: contextlib.ExitStack) -> Mount:
        """Return the mount of a copy of what is to be bound, for stores on which there can be no overlay."""
        folder = self._workspace.session.new_dir()
        stack.callback(remove_tree, os.fsencode(folder))
        os.chmod(folder, 0o755)  # noqa: S103 - the step's user must get through
        source = folder
        if not isinstance(mount.source, ScratchSource):
            owners = cache_ownership(self._workspace, folder)
            name = self._fill(self._filesystem(mount), mount.source_path, folder, owners)
            source = os.path.join(folder, name) if name else folder
        table = cache_table(folder) if source == folder and self._workspace.ownership(folder).keeps_devices else ""
        return Mount(MountKind.BIND, mount.target, source, readonly=mount.read_only, table=table)

    def _lowers(self, filesystem: FileSystem) -> tuple[str, ...]:
        """Return the host paths of a file system's directories, topmost first."""
        name = filesystem.snapshot()
        active = self._workspace.snapshotter.prepare(name or None)
        self._workspace.snapshotter.discard(active)
        return active.lowers

    def _cache(self, mount: CacheMount, stack: contextlib.ExitStack) -> Mount:
        """Return the mount of a cache, whose lock is held until the step has ended."""
        folder = os.path.join(self._workspace.store.root, FOLDER)
        name = self.cache_name(mount)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        shared = mount.sharing == "shared"
        for number in range(1 << 16):
            path = f"{folder}/{name}" + (f".{number}" if number else "")
            descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            try:
                fcntl.flock(descriptor, kind | (fcntl.LOCK_NB if mount.sharing == "private" else 0))
            except BlockingIOError:
                continue
            break
        os.utime(descriptor)  # pruning begins with what was not used for longest
        self._make_cache(mount, path)
        table = cache_table(path) if self._workspace.ownership(path).keeps_devices else ""
        return Mount(MountKind.BIND, mount.target, path, readonly=mount.read_only, table=table)

    def cache_name(self, mount: CacheMount) -> str:
        """Return the name of a cache's folder. Caches that are born different are different, whatever their id."""
        name = os.fsencode(mount.id)
        has_source = not isinstance(mount.source, ScratchSource)
        if has_source or mount.mode is not None or mount.uid is not None or mount.gid is not None:
            key = self._filesystem(mount).key if has_source else ""
            name = cache_key("cache", mount.id, key, mount.source_path, mount.mode, mount.uid, mount.gid).encode()
        return hashlib.sha256(name).hexdigest()[:32]

    def _filesystem(self, mount: BindMount | CacheMount) -> FileSystem:
        return self._sources[mount.source].as_filesystem(Request((mount.source_path,)))

    def _make_cache(self, mount: CacheMount, path: str) -> None:
        """Make the folder of a cache that is new: filled from its source, or empty."""
        if os.path.isdir(path):
            return
        carried = self._workspace.mounts
        temporary = carried.take(self._workspace, self.cache_name(mount)) if carried is not None else None
        if temporary is None:
            temporary = self._workspace.session.new_dir()
            if not isinstance(mount.source, ScratchSource):
                owners = cache_ownership(self._workspace, temporary)
                self._fill(self._filesystem(mount), mount.source_path, temporary, owners)
            os.chmod(temporary, 0o755 if mount.mode is None else mount.mode)
            mode = os.lstat(temporary).st_mode
            owners = cache_ownership(self._workspace, temporary)
            owners.set_(b"", os.fsencode(temporary), Owner(mode, mount.uid or 0, mount.gid or 0, 0))
            owners.flush()
        try:
            with contextlib.suppress(FileNotFoundError):
                os.rename(cache_table(temporary), cache_table(path))
            os.rename(temporary, path)
        except OSError:
            if not os.path.isdir(path):
                raise

    def _fill(self, filesystem: FileSystem, source_path: str, folder: str, owners: Ownership) -> str:
        """Copy what is at a path of a file system into a folder; return the name of the one file that it is, or ""."""
        from dataclasses import replace

        from castoff.fs.changes import Added
        from castoff.fs.union import UnionTree
        from castoff.snapshot.materialise import write_changes

        tree = filesystem.tree()
        top = tree.resolve(os.fsencode(source_path))
        skip = len(top) + 1 if top else 0
        changes = [Added(replace(entry, path=entry.path[skip:])) for entry in tree.walk(top) if entry.path != top]
        lone = None if tree.is_dir(top) else tree.lstat(top)
        if lone is not None:
            changes = [Added(replace(lone, path=b"file", hardlink=None))]
        write_changes(changes, folder, UnionTree(), owners, self._workspace.userxattr)
        return "file" if lone is not None else ""


def no_agent(name: str) -> StepError:
    """Return the error for a step that requires an ssh agent which was not given."""
    return StepError(f"no ssh agent {name} was given, and the step requires it", hint=f"give it with --ssh {name}")


def _secret(mount: SecretMount, secrets: SecretGetter, env: dict[str, str]) -> list[Mount]:
    data = secrets.get(mount.id)
    if data is None:
        if mount.required:
            raise StepError(
                f"secret {mount.id}: not found, and the step requires it",
                hint=f"give it with --secret id={mount.id},src=FILE",
            )
        return []
    if mount.env:
        env[mount.env] = os.fsdecode(data)
    if mount.target is None:
        return []
    return [
        Mount(MountKind.FILE, mount.target, readonly=True, mode=mount.mode, data=data, uid=mount.uid, gid=mount.gid)
    ]
