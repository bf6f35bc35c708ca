"""The user and group ids of a supervised process: what they become by which call (man 7 credentials).

With one mapped id the kernel's own ids of all processes of a step are 0, and the ids that a process sees are kept here.
Pure; imports little (see `castoff.sandbox.zygote`).
"""

from __future__ import annotations

import errno
import os

KEEP = 0xFFFFFFFF
"""As an argument: this id stays."""


class Identity:
    """All ids of a process. Immutable.

    Attributes:
        uids: real, effective, saved and file system user id.
        gids: real, effective, saved and file system group id.
        groups: the supplementary groups.
        keeps: whether it keeps its capabilities when it stops being root (PR_SET_KEEPCAPS).
        kept: whether it has capabilities although it is not root.
    """

    __slots__ = ("gids", "groups", "keeps", "kept", "uids")

    def __init__(
        self,
        uids: tuple[int, int, int, int],
        gids: tuple[int, int, int, int],
        groups: tuple[int, ...] = (),
        *,
        keeps: bool = False,
        kept: bool = False,
    ) -> None:
        self.uids = uids
        self.gids = gids
        self.groups = groups
        self.keeps = keeps
        self.kept = kept

    def __eq__(self, other: object) -> bool:
        """Tell whether all ids are the same."""
        return isinstance(other, Identity) and self._key() == other._key()

    def __hash__(self) -> int:
        """Return a hash over all ids."""
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return (self.uids, self.gids, self.groups, self.keeps, self.kept)

    @property
    def is_privileged(self) -> bool:
        """Whether it may change its ids at will: with root's effective id a process has CAP_SETUID and CAP_SETGID."""
        return self.uids[1] == 0 or self.kept

    def in_group(self, gid: int) -> bool:
        """Tell whether files of a group are files of its own group."""
        return gid == self.gids[3] or gid in self.groups


ROOT = Identity((0, 0, 0, 0), (0, 0, 0, 0))


def of_user(uid: int, gid: int, groups: tuple[int, ...]) -> Identity:
    """Return the identity of a process that is a user throughout."""
    return Identity((uid,) * 4, (gid,) * 4, groups)


def set_id(identity: Identity, kind: str, wanted: int) -> Identity:
    """Do setuid(2) or setgid(2); `kind` is ``uid`` or ``gid``.

    Raises:
        OSError: EPERM or EINVAL, as in the kernel.
    """
    ids = _ids(identity, kind)
    if wanted == KEEP:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if identity.is_privileged:
        return _with(identity, kind, (wanted,) * 4)
    _permit(identity, wanted in (ids[0], ids[2]))
    return _with(identity, kind, (ids[0], wanted, ids[2], wanted))


def set_real_effective(identity: Identity, kind: str, real: int, effective: int) -> Identity:
    """Do setreuid(2) or setregid(2).

    Raises:
        OSError: EPERM, as in the kernel.
    """
    ids = _ids(identity, kind)
    _permit(identity, real in (KEEP, *ids[:2]) and effective in (KEEP, *ids[:3]))
    new_real = ids[0] if real == KEEP else real
    new_effective = ids[1] if effective == KEEP else effective
    saved = ids[2]
    if real != KEEP or (effective != KEEP and effective != ids[0]):
        saved = new_effective
    return _with(identity, kind, (new_real, new_effective, saved, new_effective))


def set_all(identity: Identity, kind: str, wanted: tuple[int, int, int]) -> Identity:
    """Do setresuid(2) or setresgid(2).

    Raises:
        OSError: EPERM, as in the kernel.
    """
    ids = _ids(identity, kind)
    _permit(identity, all(each in (KEEP, *ids[:3]) for each in wanted))
    real, effective, saved = (old if new == KEEP else new for old, new in zip(ids[:3], wanted, strict=True))
    return _with(identity, kind, (real, effective, saved, effective))


def set_file_system(identity: Identity, kind: str, wanted: int) -> Identity:
    """Do setfsuid(2) or setfsgid(2), which never fail and may do nothing."""
    ids = _ids(identity, kind)
    if wanted == KEEP or not (identity.is_privileged or wanted in ids):
        return identity
    return _with(identity, kind, (*ids[:3], wanted))


def set_groups(identity: Identity, groups: tuple[int, ...]) -> Identity:
    """Do setgroups(2).

    Raises:
        OSError: EPERM, as in the kernel.
    """
    _permit(identity, allowed=False)
    return Identity(identity.uids, identity.gids, groups, keeps=identity.keeps, kept=identity.kept)


def keep_capabilities(identity: Identity, keeps: bool) -> Identity:
    """Do prctl(2) with PR_SET_KEEPCAPS."""
    return Identity(identity.uids, identity.gids, identity.groups, keeps=keeps, kept=identity.kept)


def execute(identity: Identity, user: int | None, group: int | None) -> Identity:
    """Return the identity after execve(2) of a file with setuid and setgid bits for these ids; None without the bit."""
    uid = identity.uids[1] if user is None else user
    gid = identity.gids[1] if group is None else group
    return Identity((identity.uids[0], uid, uid, uid), (identity.gids[0], gid, gid, gid), identity.groups)


def _ids(identity: Identity, kind: str) -> tuple[int, int, int, int]:
    return identity.uids if kind == "uid" else identity.gids


def _with(identity: Identity, kind: str, ids: tuple[int, ...]) -> Identity:
    four = (ids[0], ids[1], ids[2], ids[3])
    if kind == "gid":
        return Identity(identity.uids, four, identity.groups, keeps=identity.keeps, kept=identity.kept)
    # Without a root among them, capabilities go; some programs keep them a little longer, to change their groups too.
    kept = 0 not in four[:3] and identity.is_privileged and (identity.keeps or identity.kept)
    return Identity(four, identity.gids, identity.groups, keeps=identity.keeps, kept=kept)


def _permit(identity: Identity, allowed: bool) -> None:
    if not (allowed or identity.is_privileged):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
