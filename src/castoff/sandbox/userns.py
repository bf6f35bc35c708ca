"""How much of a root user castoff can be here: five tiers, of which the best that works is taken.

``root`` is root with the right to mount. ``subuid`` and ``single`` are root of a user namespace with a range of ids, or
with one. ``chroot`` is root without namespaces. ``none`` can run nothing.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, replace

from castoff.errors import UnsupportedError, UsageError
from castoff.linux import namespaces, syscalls
from castoff.sandbox import mapping, obstacles
from castoff.sandbox.mapping import IdRange, read_map, subordinate_ranges
from castoff.sandbox.supervisable import check_supervisable

MODES = ("", "root", "subuid", "single", "chroot", "none")
CHROOT_CAPABILITIES = (
    obstacles.CAP_CHOWN,
    obstacles.CAP_DAC_OVERRIDE,
    obstacles.CAP_FOWNER,
    obstacles.CAP_SETGID,
    obstacles.CAP_SETUID,
    obstacles.CAP_SYS_CHROOT,
)
"""What root needs to run steps without namespaces; Docker's default set has them."""

__all__ = ["MODES", "IdRange", "Tier", "current_tier", "enter_user_namespace", "no_tier", "subordinate_ranges"]


@dataclass(frozen=True, slots=True)
class Tier:
    """How much of a root user castoff is.

    Attributes:
        name: ``root`` (real root, or root of a namespace that it was started in), ``subuid`` (root of a namespace with
            a range of ids), ``single`` (root of a namespace with one id), ``chroot`` (root without namespaces) or
            ``none``.
        uids: how user ids are mapped.
        gids: how group ids are mapped.
        userxattr: whether overlayfs must keep its attributes in the ``user.`` namespace.
        refusals: why each better tier is not in force, as (tier, fact, remedy).
    """

    name: str
    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]
    userxattr: bool
    refusals: tuple[tuple[str, str, str], ...] = ()

    @property
    def emulated(self) -> bool:
        """Whether owners are kept in tables, since the file system can't hold those that images name."""
        return self.name in ("single", "none")

    @property
    def mounts(self) -> bool:
        """Whether castoff can mount."""
        return self.name in ("root", "subuid", "single")


def enter_user_namespace(mode: str = "") -> Tier:
    """Become root in a new user and mount namespace, unless the process is root already, or can't.

    To be called once, while the process has a single thread. Afterwards the process has user and group id 0, and may
    chown and mount as far as the tier goes; it keeps the user's supplementary groups, and for the host it is still the
    ordinary user. Mounts that it makes appear in sandboxes, never on the host. If it raises, nothing has changed.

    Args:
        mode: which tier to use, or "" for the best that works.

    Raises:
        UsageError: there is no such mode, or ``root`` was asked for by an ordinary user.
        UnsupportedError: this machine lacks a feature; the hint says what to do.
    """
    if mode not in MODES:
        raise UsageError(f'"{mode}" is no way to be root; there are: {", ".join(MODES[1:])}')
    if mode == "root" and os.geteuid() != 0:
        raise UsageError("castoff was told to run as root, and it was started by an ordinary user")
    refusals: list[tuple[str, UnsupportedError]] = []
    ways = ("root", "subuid", "single", "chroot") if os.geteuid() == 0 else ("subuid", "single")
    for name in (mode,) if mode else ways:
        try:
            tier = _enter(name, forced=bool(mode))
        except UnsupportedError as error:
            refusals.append((name, error))
            continue
        return replace(tier, refusals=_shown(refusals))
    raise _nothing(refusals)


def current_tier() -> Tier:
    """Return the tier of this process as it is, nothing entered."""
    uids, gids = read_map("/proc/self/uid_map"), read_map("/proc/self/gid_map")
    userxattr = not namespaces.in_initial_user_namespace()
    if os.geteuid() != 0:
        return no_tier()
    if obstacles.has_capabilities(obstacles.CAP_SYS_ADMIN):
        return Tier("single" if _is_one(uids) else "root", uids, gids, userxattr)
    return Tier("chroot" if obstacles.has_capabilities(*CHROOT_CAPABILITIES) else "none", uids, gids, userxattr)


def no_tier() -> Tier:
    """Return the tier in which nothing can be run."""
    return Tier("none", read_map("/proc/self/uid_map"), read_map("/proc/self/gid_map"), userxattr=True)


def _enter(name: str, *, forced: bool) -> Tier:
    if name == "root":
        return _as_root(forced=forced)
    if name == "subuid":
        return _with_range(forced=forced)
    if name == "single":
        return _with_one_id()
    if name == "chroot":
        return _without_namespaces()
    raise UnsupportedError("CASTOFF_USERNS is none, so that nothing is run", feature="RUN", hint="unset CASTOFF_USERNS")


def _as_root(*, forced: bool) -> Tier:
    code = _mount_refusal()
    if code:
        obstacle = obstacles.mount_obstacle(code)
        raise UnsupportedError(obstacle.fact, feature="namespaces", hint=obstacle.remedy)
    tier = replace(current_tier(), name="root")
    if _is_one(tier.uids) and not forced:
        raise UnsupportedError(
            "root of a user namespace with one id only", feature="id range", hint="map a range of 65536 ids into it"
        )
    return tier


def _mount_refusal() -> int:
    """Return the errno with which root is refused to make a mount namespace and mount in it; 0 for none."""
    if not obstacles.has_capabilities(obstacles.CAP_SYS_ADMIN):
        return 1
    if not obstacles.is_filtered() and not obstacles.apparmor_profile():
        return 0
    child = os.fork()
    if child == 0:
        code = 1
        try:
            syscalls.unshare(namespaces.CLONE_NEWNS)
            syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
            code = 0
        except OSError as error:
            code = min(error.errno or 1, 255)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _with_range(*, forced: bool) -> Tier:
    """Enter a user namespace with a range of ids: subordinate ones, or all that root of a container has."""
    if os.geteuid() == 0 and not forced:
        if not obstacles.has_capabilities(obstacles.CAP_SETUID, obstacles.CAP_SETGID):
            lacking = obstacles.missing_capabilities(obstacles.CAP_SETUID, obstacles.CAP_SETGID)
            raise UnsupportedError(
                f"root without {' and '.join(lacking)} can't map a range of ids",
                feature="capabilities",
                hint="in a pod: securityContext.capabilities.add: [SETUID, SETGID]",
            )
        uids = [IdRange(each.inside, each.inside, each.count) for each in read_map("/proc/self/uid_map")]
        gids = [IdRange(each.inside, each.inside, each.count) for each in read_map("/proc/self/gid_map")]
        mapping.enter(lambda pid: mapping.map_directly(pid, uids, gids, groups=True))
        return Tier("subuid", tuple(uids), tuple(gids), userxattr=True)
    user = _user_name()
    uids = [IdRange(0, os.geteuid(), 1), *subordinate_ranges("/etc/subuid", user)]
    gids = [IdRange(0, os.getegid(), 1), *subordinate_ranges("/etc/subgid", user)]
    tools = mapping.mapping_tools()
    mapping.enter(lambda pid: mapping.map_by_tools(tools, pid, uids, gids))
    return Tier("subuid", tuple(uids), tuple(gids), userxattr=True)


def _with_one_id() -> Tier:
    """Enter a user namespace in which this user is root, and nobody else exists."""
    check_supervisable()
    uids, gids = [IdRange(0, os.geteuid(), 1)], [IdRange(0, os.getegid(), 1)]
    inside = current_tier()
    if inside.name != "single":
        mapping.enter(lambda pid: mapping.map_directly(pid, uids, gids, groups=False))
        inside = Tier("single", tuple(uids), tuple(gids), userxattr=True)
    return inside


def _without_namespaces() -> Tier:
    if os.geteuid() != 0:
        raise UnsupportedError(
            "only root can run steps without namespaces", feature="root", hint="castoff doctor says what else there is"
        )
    lacking = obstacles.missing_capabilities(*CHROOT_CAPABILITIES)
    if lacking:
        added = ", ".join(name.removeprefix("CAP_") for name in lacking)
        raise UnsupportedError(
            f"root without {' and '.join(lacking)} can't run steps without namespaces",
            feature="capabilities",
            hint=f"in a pod: securityContext.capabilities.add: [{added}]",
        )
    return replace(current_tier(), name="chroot")


def _is_one(ranges: tuple[IdRange, ...]) -> bool:
    return sum(each.count for each in ranges) == 1


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _shown(refusals: list[tuple[str, UnsupportedError]]) -> tuple[tuple[str, str, str], ...]:
    return tuple((name, error.message, error.hint or "") for name, error in refusals)


def _nothing(refusals: list[tuple[str, UnsupportedError]]) -> UnsupportedError:
    """Return the error where no tier works: the fact that decides, and what to do about it."""
    # A kernel that refuses user namespaces makes ranges of ids pointless: that is what decides, where it does.
    deciding = next((error for _name, error in reversed(refusals) if error.feature == "user namespaces"), None)
    deciding = deciding or refusals[0][1]
    return UnsupportedError(deciding.message, feature=deciding.feature, hint=deciding.hint)
