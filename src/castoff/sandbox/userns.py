"""Entering a user namespace, in which an ordinary user is root over a range of subordinate ids."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.errors import SandboxError, UnsupportedError, UsageError
from castoff.linux import namespaces, syscalls

if TYPE_CHECKING:
    from typing import NoReturn

MODES = ("", "root", "subuid")
_MAX_EXTENTS = 340  # user_namespaces(7)
_SUBID_HINT = "echo '{0}:100000:65536' | sudo tee -a /etc/subuid /etc/subgid   (any free range of 65536 ids will do)"


@dataclass(frozen=True, slots=True)
class IdRange:
    """A range of ids that is mapped: `count` ids from `inside` are those from `outside` of the parent namespace."""

    inside: int
    outside: int
    count: int


@dataclass(frozen=True, slots=True)
class Tier:
    """How much of a root user castoff is.

    Attributes:
        name: ``root`` (real root, or root of a namespace that it was started in) or ``subuid`` (an ordinary user with
            subordinate ids).
        uids: how user ids are mapped.
        gids: how group ids are mapped.
        userxattr: whether overlayfs must keep its attributes in the ``user.`` namespace.
    """

    name: str
    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]
    userxattr: bool


def enter_user_namespace(mode: str = "") -> Tier:
    """Become root in a new user and mount namespace, unless the process is root already.

    To be called once, while the process has a single thread. Afterwards the process has user and group id 0, sees
    the owners of files in snapshots as images name them, and may chown and mount; it keeps the user's supplementary
    groups, and for the host it is still the ordinary user. Mounts that it makes appear in sandboxes, never on the host.

    Args:
        mode: which tier to use: ``root``, ``subuid``, or "" for the best.

    Raises:
        UsageError: there is no such mode, or ``root`` was asked for by an ordinary user.
        UnsupportedError: this machine lacks a feature; the hint says what to do.
    """
    if mode not in MODES:
        raise UsageError(f'"{mode}" is no way to be root; there are: {", ".join(MODES[1:])}')
    if os.geteuid() == 0 and mode != "subuid":
        return current_tier()
    if mode == "root":
        raise UsageError("castoff was told to run as root, and it was started by an ordinary user")
    user = _user_name()
    uids = [IdRange(0, os.geteuid(), 1), *subordinate_ranges("/etc/subuid", user)]
    gids = [IdRange(0, os.getegid(), 1), *subordinate_ranges("/etc/subgid", user)]
    tools = _mapping_tools()
    commands = [_command(tools[0], uids), _command(tools[1], gids)]
    _unshare_mapped(commands)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # The maps of a process that is not dumpable belong to the host's root, and the sandbox reads them.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    try:
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SHARED)
    except OSError as error:
        raise UnsupportedError(
            f"the user namespace gives no right to mount: {os.strerror(error.errno or 0)}",
            feature="user namespaces",
            hint=user_namespace_remedy(),
        ) from error
    return Tier("subuid", tuple(uids), tuple(gids), userxattr=True)


def current_tier() -> Tier:
    """Return the tier of a process that is root where it is."""
    return Tier(
        "root",
        _read_map("/proc/self/uid_map"),
        _read_map("/proc/self/gid_map"),
        userxattr=not namespaces.in_initial_user_namespace(),
    )


def subordinate_ranges(path: str, user: str) -> list[IdRange]:
    """Return the ranges that /etc/subuid or /etc/subgid give to a user (by name or number), mapped from id 1 on.

    Raises:
        UnsupportedError: there are none.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
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


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _mapping_tools() -> tuple[str, str]:
    found = [shutil.which(name, path=_tool_path()) for name in ("newuidmap", "newgidmap")]
    if found[0] is None or found[1] is None:
        raise UnsupportedError(
            "newuidmap and newgidmap are not installed",
            feature="newuidmap",
            hint="apt-get install uidmap (Debian, Ubuntu); dnf install shadow-utils (Fedora)",
        )
    return found[0], found[1]


def _tool_path() -> str:
    # The tools are set-user-ID and live here on every distribution, whatever the user's PATH.
    return "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/run/wrappers/bin"


def _command(tool: str, ranges: list[IdRange]) -> list[str]:
    command = [tool, str(os.getpid())]
    for mapped in ranges:
        command += [str(mapped.inside), str(mapped.outside), str(mapped.count)]
    return command


def _unshare_mapped(commands: list[list[str]]) -> None:
    """Unshare the namespaces while a child, which stays outside, waits to map the ids."""
    go_read, go_write = os.pipe()
    done_read, done_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_write)
        os.close(done_read)
        _map_when_told(commands, go_read, done_write)
    os.close(go_read)
    os.close(done_write)
    try:
        try:
            syscalls.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        except OSError as error:
            raise _unshare_error(error) from error
        os.write(go_write, b"g")
        complaint = b""
        while chunk := os.read(done_read, 4096):
            complaint += chunk
    finally:
        os.close(go_write)
        os.close(done_read)
        os.waitpid(child, 0)
    if complaint:
        sentence = complaint.decode(errors="replace").strip().splitlines()[-1]
        raise UnsupportedError(
            f"the subordinate ids can't be mapped: {sentence}",
            feature="newuidmap",
            hint="newuidmap and newgidmap must be set-user-ID root (or have file capabilities), and castoff must not"
            " run under no_new_privs",
        )


def _map_when_told(commands: list[list[str]], go: int, done: int) -> NoReturn:
    try:
        if os.read(go, 1) == b"g":
            for command in commands:
                result = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
                )
                if result.returncode:
                    os.write(done, result.stderr or f"{command[0]}: exit code {result.returncode}".encode())
                    break
    except BaseException as error:  # noqa: BLE001 - a child of a fork must end here
        os.write(done, str(error).encode())
    finally:
        os._exit(0)


def _unshare_error(error: OSError) -> SandboxError:
    if error.errno == errno.EINVAL:
        return SandboxError("a user namespace can only be entered while the process has a single thread")
    return UnsupportedError(
        f"user namespaces can't be made: {os.strerror(error.errno or 0)}",
        feature="user namespaces",
        hint=user_namespace_remedy(),
    )


def user_namespace_remedy() -> str:
    """Return what to do where user namespaces are refused, by what the kernel's settings say."""
    if read_setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return "sudo sysctl kernel.unprivileged_userns_clone=1"
    if read_setting("/proc/sys/user/max_user_namespaces") == "0":
        return "sudo sysctl user.max_user_namespaces=15000"
    if read_setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts user namespaces: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, "
            "or give this Python a profile with the rule `userns,`"
        )
    return "a container or a security module forbids them: start castoff outside of it, or as root"


def read_setting(path: str) -> str:
    """Return a setting below /proc/sys; "" where the kernel has none of that name."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _read_map(path: str) -> tuple[IdRange, ...]:
    ranges = []
    for line in read_setting(path).splitlines():
        inside, outside, count = line.split()
        ranges.append(IdRange(int(inside), int(outside), int(count)))
    return tuple(ranges)
