"""Ids of a user namespace: ranges, who may map them, and entering a namespace with a mapping that was tried before.

A user namespace can't be left again, so that nothing may go wrong once it was entered. A child makes it and waits; this
process, which is outside, maps the ids; the child tries what castoff needs in it; only then this process joins it.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.errors import SandboxError, UnsupportedError
from castoff.linux import namespaces, syscalls
from castoff.sandbox.obstacles import namespace_obstacle, read_setting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

_MAX_EXTENTS = 340  # user_namespaces(7)
_SUBID_HINT = "echo '{0}:100000:65536' | sudo tee -a /etc/subuid /etc/subgid   (any free range of 65536 ids will do)"
_MADE = b"made"
_GOOD = b"good"
_REFUSED = b"refused "


@dataclass(frozen=True, slots=True)
class IdRange:
    """A range of ids that is mapped: `count` ids from `inside` are those from `outside` of the parent namespace."""

    inside: int
    outside: int
    count: int


def subordinate_ranges(path: str, user: str) -> list[IdRange]:
    """Return the ranges that /etc/subuid or /etc/subgid give to a user (by name or number), mapped from id 1 on.

    Raises:
        UnsupportedError: there are none.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    ranges: list[IdRange] = []
    inside = 1
    for line in lines:
        owner, _, numbers = line.strip().partition(":")
        start, _, count = numbers.partition(":")
        if owner not in (user, str(os.geteuid())) or not (start.isdecimal() and count.isdecimal()) or int(count) == 0:
            continue
        ranges.append(IdRange(inside, int(start), int(count)))
        inside += int(count)
    if not ranges:
        raise UnsupportedError(
            f"{user} has no subordinate ids in {path}", feature="subuid range", hint=_SUBID_HINT.format(user)
        )
    return ranges[: _MAX_EXTENTS - 1]


def read_map(path: str) -> tuple[IdRange, ...]:
    """Return the ranges of ``/proc/PID/uid_map`` or ``gid_map``."""
    ranges = []
    for line in read_setting(path).splitlines():
        inside, outside, count = line.split()
        ranges.append(IdRange(int(inside), int(outside), int(count)))
    return tuple(ranges)


def mapping_tools() -> tuple[str, str]:
    """Return the paths of newuidmap and newgidmap.

    Raises:
        UnsupportedError: one of them is not installed.
    """
    # The tools are set-user-ID and live here on every distribution, whatever the user's PATH.
    path = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/run/wrappers/bin"
    found = [shutil.which(name, path=path) for name in ("newuidmap", "newgidmap")]
    if found[0] is None or found[1] is None:
        raise UnsupportedError(
            "newuidmap and newgidmap are not installed",
            feature="newuidmap",
            hint="apt-get install uidmap (Debian, Ubuntu); dnf install shadow-utils (Fedora)",
        )
    return found[0], found[1]


def map_by_tools(tools: tuple[str, str], pid: int, uids: Sequence[IdRange], gids: Sequence[IdRange]) -> None:
    """Map the ids of a process' namespace by newuidmap and newgidmap.

    Raises:
        UnsupportedError: they refuse.
    """
    for tool, ranges in zip(tools, (uids, gids), strict=True):
        command = [tool, str(pid)]
        for mapped in ranges:
            command += [str(mapped.inside), str(mapped.outside), str(mapped.count)]
        try:
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
            )
            said = result.stderr.decode(errors="replace").strip() or f"exit code {result.returncode}"
            failed = result.returncode != 0
        except OSError as error:
            failed, said = True, str(error)
        if failed:
            raise UnsupportedError(
                f"the subordinate ids can't be mapped: {said.splitlines()[-1]}",
                feature="newuidmap",
                hint="newuidmap and newgidmap must be set-user-ID root or, in a container without CAP_SYS_ADMIN, have"
                " file capabilities instead (chmod u-s; setcap cap_setuid+ep newuidmap, cap_setgid+ep newgidmap), and"
                " castoff must not run under no_new_privs (in a pod: securityContext.allowPrivilegeEscalation: true)",
            )


def map_directly(pid: int, uids: Sequence[IdRange], gids: Sequence[IdRange], *, groups: bool) -> None:
    """Map the ids of a process' namespace by this process' own rights.

    Args:
        pid: the process.
        uids: one own id, or what CAP_SETUID allows.
        gids: one own id, or what CAP_SETGID allows.
        groups: whether setgroups(2) stays allowed inside, which takes CAP_SETGID here.

    Raises:
        UnsupportedError: the kernel refuses.
    """
    writes = [] if groups else [("setgroups", "deny")]
    writes += [
        (name, "".join(f"{each.inside} {each.outside} {each.count}\n" for each in ranges))
        for name, ranges in (("uid_map", uids), ("gid_map", gids))
    ]
    for name, text in writes:
        try:
            with open(f"/proc/{pid}/{name}", "wb", buffering=0) as file:
                file.write(text.encode())
        except OSError as error:
            if os.geteuid() == 0 and name == "uid_map":
                raise UnsupportedError(
                    "root without CAP_SETFCAP can't map itself into a user namespace",
                    feature="user namespaces",
                    hint="in a pod: securityContext.runAsUser: 1000 (an ordinary user may), or"
                    " securityContext.capabilities.add: [SETFCAP]",
                ) from error
            raise UnsupportedError(
                f"the ids of a user namespace can't be mapped ({name}: {error.strerror})",
                feature="user namespaces",
                hint="a container or a security module forbids it: start castoff outside of it",
            ) from error


def enter(map_ids: Callable[[int], None]) -> None:
    """Become root in a new user namespace and a new mount namespace, or stay as it is and raise.

    To be called while the process has a single thread. Mounts of the outer namespace appear inside, never the other
    way round.

    Args:
        map_ids: maps the ids of the process with this number.

    Raises:
        UnsupportedError: this machine refuses; the hint says what to do.
        SandboxError: the process has threads.
    """
    go_read, go_write = os.pipe()
    done_read, done_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_write)
        os.close(done_read)
        _make(go_read, done_write)
    os.close(go_read)
    os.close(done_write)
    try:
        _check(os.read(done_read, 4096))
        map_ids(child)
        os.write(go_write, b"g")
        _check(os.read(done_read, 4096))
        namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(go_write)
        os.close(done_read)
        os.waitpid(child, 0)
    try:
        syscalls.setns(namespace, namespaces.CLONE_NEWUSER)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise SandboxError("a user namespace can only be entered while the process has a single thread") from error
        raise _refusal(error.errno or 0) from error
    finally:
        os.close(namespace)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # The maps of a process that is not dumpable belong to the host's root, and the sandbox reads them.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    syscalls.unshare(namespaces.CLONE_NEWNS)
    separate_mounts()


def separate_mounts() -> None:
    """Let the mounts of this mount namespace follow those outside, and pass its own on to further ones only."""
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SHARED)


def _make(go: int, done: int) -> NoReturn:
    """Be the child: make the namespaces, wait for the ids, and try what castoff will do in them."""
    try:
        syscalls.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        os.write(done, _MADE)
        if os.read(go, 1) == b"g":
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            separate_mounts()
            os.write(done, _GOOD)
            os.read(go, 1)
    except OSError as error:
        os.write(done, _REFUSED + str(error.errno or 0).encode())
    except BaseException:  # noqa: BLE001 - a child of a fork must end here
        os.write(done, _REFUSED + b"0")
    finally:
        os._exit(0)


def _check(answer: bytes) -> None:
    if answer in (_MADE, _GOOD):
        return
    raise _refusal(int(answer.removeprefix(_REFUSED) or b"0"))


def _refusal(code: int) -> UnsupportedError:
    obstacle = namespace_obstacle(code)
    return UnsupportedError(obstacle.fact, feature="user namespaces", hint=obstacle.remedy)
