"""Answers to calls that get and set ids (see `castoff.sandbox.credentials` for what they do). Imports little."""

from __future__ import annotations

import errno
import struct

from castoff.sandbox import credentials
from castoff.sandbox.supervision import FIRST, THREAD, failure, signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from castoff.sandbox.credentials import Identity
    from castoff.sandbox.supervision import Call, Handler, Scene

PR_SET_KEEPCAPS = 8
_MAX_GROUPS = 1024
_ID = 0xFFFFFFFF


class IdCalls:
    """Answers calls that get and set ids."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by the names of calls."""
        handlers: dict[str, Handler] = {
            "setgroups": self._set_groups,
            "getgroups": self._get_groups,
            "prctl": self._keep_capabilities,
        }
        for kind in ("uid", "gid"):
            handlers |= {
                f"set{kind}": self._one(kind),
                f"setre{kind}": self._two(kind),
                f"setres{kind}": self._three(kind),
                f"setfs{kind}": self._file_system(kind),
                f"get{kind}": self._get(kind, 0),
                f"gete{kind}": self._get(kind, 1),
                f"getres{kind}": self._get_three(kind),
            }
        return handlers

    def _change(self, call: Call, identity: Identity) -> int:
        self._scene.check(call)
        self._scene.identities.set_(call[THREAD], identity)
        return 0

    def _one(self, kind: str) -> Handler:
        def handle(call: Call) -> int:
            identity = self._scene.identities.of(call[THREAD])
            return self._change(call, credentials.set_id(identity, kind, call[FIRST] & _ID))

        return handle

    def _two(self, kind: str) -> Handler:
        def handle(call: Call) -> int:
            identity = self._scene.identities.of(call[THREAD])
            real, effective = call[FIRST] & _ID, call[FIRST + 1] & _ID
            return self._change(call, credentials.set_real_effective(identity, kind, real, effective))

        return handle

    def _three(self, kind: str) -> Handler:
        def handle(call: Call) -> int:
            identity = self._scene.identities.of(call[THREAD])
            wanted = (call[FIRST] & _ID, call[FIRST + 1] & _ID, call[FIRST + 2] & _ID)
            return self._change(call, credentials.set_all(identity, kind, wanted))

        return handle

    def _file_system(self, kind: str) -> Handler:
        def handle(call: Call) -> int:
            identity = self._scene.identities.of(call[THREAD])
            ids = identity.uids if kind == "uid" else identity.gids
            self._change(call, credentials.set_file_system(identity, kind, call[FIRST] & _ID))
            return ids[3]

        return handle

    def _get(self, kind: str, position: int) -> Handler:
        def handle(call: Call) -> int | None:
            if not self._scene.identities.any_:
                return None
            identity = self._scene.identities.of(call[THREAD])
            return (identity.uids if kind == "uid" else identity.gids)[position]

        return handle

    def _get_three(self, kind: str) -> Handler:
        def handle(call: Call) -> int | None:
            if not self._scene.identities.any_:
                return None
            identity = self._scene.identities.of(call[THREAD])
            ids = identity.uids if kind == "uid" else identity.gids
            for position in range(3):
                self._scene.put(call, call[FIRST + position], struct.pack("=I", ids[position]))
            return 0

        return handle

    def _set_groups(self, call: Call) -> int:
        count = call[FIRST] & _ID
        identity = self._scene.identities.of(call[THREAD])
        if count > _MAX_GROUPS:
            raise failure(errno.EINVAL)
        groups: tuple[int, ...] = ()
        if count:
            data = self._scene.tracee.read(call[THREAD], call[FIRST + 1], 4 * count)
            groups = struct.unpack(f"={count}I", data)
        return self._change(call, credentials.set_groups(identity, groups))

    def _keep_capabilities(self, call: Call) -> None:
        """Take note of PR_SET_KEEPCAPS, and let the kernel do all of prctl(2)."""
        if signed(call[FIRST]) == PR_SET_KEEPCAPS:
            identity = self._scene.identities.of(call[THREAD])
            self._change(call, credentials.keep_capabilities(identity, call[FIRST + 1] == 1))

    def _get_groups(self, call: Call) -> int:
        # Without supervision these would be the groups of castoff's caller, none of which is mapped.
        groups = self._scene.identities.of(call[THREAD]).groups
        size = signed(call[FIRST])
        if size < 0 or 0 < size < len(groups):
            raise failure(errno.EINVAL)
        if size and groups:
            self._scene.put(call, call[FIRST + 1], struct.pack(f"={len(groups)}I", *groups))
        return len(groups)
