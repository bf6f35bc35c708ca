"""What an executor sends to its fork server, and what comes back: marshalled, since both are the same interpreter.

A request is a datagram on the server's socket with the step's standard input, output and error and one end of its own
channel as descriptors; if it is too long for a datagram it is in a memory file, the fifth descriptor. It is a dict:

- ``lowers`` (list of bytes), ``upper``, ``work`` (bytes or None), ``userxattr``, ``readonly``, ``whole``: the root;
- ``trees``: None, or for a supervised process tuples (target, owners at the start as a table's bytes, host directory,
  host path of its table), the last two None where nothing is to be written down;
- ``argv``, ``env`` (lists of bytes), ``cwd`` (bytes), ``uid``, ``gid``, ``groups``, ``umask``, ``rlimits``,
  ``privileged``, ``terminal``: the process;
- ``network`` (a value of `Network`), ``netns`` (bytes), ``hostname``;
- ``hosts``: the bytes of /etc/hosts;
- ``mounts``: tuples (kind, target as bytes, source as bytes, readonly, size, mode, more), where `more` is for an
  overlay ``(lowers, upper, work, userxattr)``, for a file ``(content, uid, gid)``, else None; ``shm_size``.

The replies come on the step's channel: ``("started", pid)`` with a pidfd as descriptor, then ``("failed", step, errno,
sentence)`` from the child if the sandbox could not be set up, and ``("exited", code)``.
"""

from __future__ import annotations

import marshal
import os
import posixpath
from typing import TYPE_CHECKING, Any

from castoff.errors import SandboxError
from castoff.fs.ownertable import encode, table_path
from castoff.fs.tableownership import owners_in, visible_owners
from castoff.linux import namespaces
from castoff.mount import MountKind

if TYPE_CHECKING:
    from castoff.fs.ownertable import Owned
    from castoff.mount import Mount
    from castoff.sandbox.spec import ProcessSpec

MAX_LOWERS = 499
"""Overlayfs takes 500 lower directories; one is the fork server's."""


def encode_request(spec: ProcessSpec) -> bytes:
    """Return a request for a process.

    Raises:
        SandboxError: no sandbox can be like that.
    """
    root = spec.root
    if len(root.lowers) > MAX_LOWERS:
        raise SandboxError(f"the root has {len(root.lowers)} layers; the kernel can stack {MAX_LOWERS} at most")
    if (root.upper is None) != (root.work is None):
        raise SandboxError("a root with an upper directory needs a work directory, and one without has none")
    if not spec.argv or not spec.argv[0]:
        raise SandboxError("there is no command to run")
    for text in (*spec.argv, *spec.env, spec.cwd):
        if "\0" in text:
            raise SandboxError("a command, its environment and its working directory can't hold NUL characters")
    # Where one id is mapped, tables beside the directories say who owns what, and a supervisor tells processes.
    supervised = namespaces.has_single_id()
    request: dict[str, Any] = {
        "lowers": [os.fsencode(path) for path in root.lowers],
        "upper": None if root.upper is None else os.fsencode(root.upper),
        "work": None if root.work is None else os.fsencode(root.work),
        "userxattr": root.userxattr,
        "readonly": root.readonly,
        "whole": root.whole,
        "trees": _trees(spec) if supervised else None,
        "argv": [os.fsencode(argument) for argument in spec.argv],
        "env": [os.fsencode(entry) for entry in spec.env],
        "cwd": os.fsencode(spec.cwd or "/"),
        "uid": spec.uid,
        "gid": spec.gid,
        "groups": list(spec.groups),
        "umask": spec.umask,
        "rlimits": [tuple(limit) for limit in spec.rlimits],
        "privileged": spec.privileged,
        "terminal": spec.terminal,
        "network": spec.network.value,
        "netns": os.fsencode(spec.netns),
        "hostname": spec.hostname,
        "hosts": _hosts(spec),
        "mounts": [_encode_mount(mount, root.userxattr, supervised=supervised) for mount in spec.mounts],
        "shm_size": spec.shm_size,
    }
    return marshal.dumps(request)


def _trees(spec: ProcessSpec) -> list[tuple[bytes, bytes, bytes | None, bytes | None]]:
    """Return who owns what in the parts of a root that have owners in tables.

    Raises:
        StoreError: a table can't be read.
    """
    root = spec.root
    directories = (*((root.upper,) if root.upper is not None else ()), *root.lowers)
    owners = encode(visible_owners(directories, root.userxattr))
    upper = None if root.upper is None else os.fsencode(root.upper)
    trees = [(b"/", owners, upper, None if root.upper is None else os.fsencode(table_path(root.upper)))]
    for mount in spec.mounts:
        target = os.fsencode(posixpath.normpath("/" + mount.target.lstrip("/")))
        if mount.kind is MountKind.FILE and (mount.uid or mount.gid):
            trees.append((target, encode({b"": (mount.uid, mount.gid, 0, 0)}), None, None))
        elif mount.kind is MountKind.OVERLAY:
            trees.append((target, encode(_below(mount, root.userxattr)), None, None))
        elif mount.table:
            table = os.fsencode(mount.table)
            owners = encode(owners_in(mount.table))
            trees.append((target, owners, None if mount.readonly else os.fsencode(mount.source), table))
    return trees


def _below(mount: Mount, userxattr: bool) -> dict[bytes, Owned]:
    """Return the owners of what an overlay mounts, by paths below that."""
    owners = visible_owners(mount.lowers, userxattr)
    source = os.fsencode(mount.source).strip(b"/")
    if not source:
        return owners
    inside = source + b"/"
    found = {path[len(inside) :]: owned for path, owned in owners.items() if path.startswith(inside)}
    return found | ({b"": owners[source]} if source in owners else {})


def _encode_mount(mount: Mount, userxattr: bool, *, supervised: bool) -> tuple[Any, ...]:
    target = posixpath.normpath("/" + mount.target.lstrip("/"))
    if target == "/" or "\0" in target or "\0" in mount.source:
        raise SandboxError(f'nothing can be mounted on "{mount.target}"')
    if target == "/proc" or target.startswith("/proc/"):
        raise SandboxError(f'nothing can be mounted on "{mount.target}": /proc is the sandbox\' own')
    more: tuple[Any, ...] | None = None
    if mount.kind is MountKind.OVERLAY:
        if len(mount.lowers) > MAX_LOWERS:
            raise SandboxError(f'"{mount.target}" has {len(mount.lowers)} layers; the kernel can stack {MAX_LOWERS}')
        upper, work = (None if path is None else os.fsencode(path) for path in (mount.upper, mount.work))
        more = ([os.fsencode(path) for path in mount.lowers], upper, work, userxattr)
    elif mount.kind is MountKind.FILE:
        # Where no other ids are mapped, the file is root's for the kernel.
        more = (mount.data, 0, 0) if supervised else (mount.data, mount.uid, mount.gid)
    return (
        mount.kind.value,
        os.fsencode(target),
        os.fsencode(mount.source),
        mount.readonly,
        mount.size,
        mount.mode,
        more,
    )


def _hosts(spec: ProcessSpec) -> bytes:
    lines = [f"127.0.0.1\tlocalhost {spec.hostname}", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{address}\t{name}" for name, address in spec.hosts]
    if any("\n" in line or "\0" in line for line in lines):
        raise SandboxError("a host name or address can't hold a line break")
    return os.fsencode("\n".join(lines) + "\n")
