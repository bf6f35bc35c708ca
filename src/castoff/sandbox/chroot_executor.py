"""An executor for root without namespaces: processes in a changed root, and nothing more between them and castoff.

What it can't give is refused before anything is started. What it gives is less than a sandbox: a step sees the
processes of the container around it, its network and its host name, and has no /proc and no /sys.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from castoff.errors import UnsupportedError
from castoff.mount import MountKind
from castoff.sandbox.filesystems import file_system
from castoff.sandbox.spec import Network
from castoff.sandbox.zygote_executor import ZygoteExecutor

if TYPE_CHECKING:
    from castoff.sandbox.spec import ProcessSpec
    from castoff.sandbox.zygote_executor import ZygoteProcess

_HINT = "castoff doctor says what would allow namespaces here"
_MEMORY = ("tmpfs", "ramfs")


class ChrootExecutor(ZygoteExecutor):
    """Starts processes by chroot(2), through a server of its own. Safe for several threads.

    The caller must be root, with the capabilities of `castoff.sandbox.userns.CHROOT_CAPABILITIES`. Roots must be whole
    (`RootSpec.whole`), on the file system of the executor's folder.
    """

    script = "chroot_server.py"

    def start(self, spec: ProcessSpec, stdin: int, stdout: int, stderr: int) -> ZygoteProcess:
        """Start a process with three open descriptors, which stay the caller's. See `Executor.start`.

        Raises:
            UnsupportedError: it wants what there is no way to give without namespaces.
            SandboxError: it could not be started, or the executor is closed.
        """
        check(spec)
        return super().start(spec, stdin, stdout, stderr)


def check(spec: ProcessSpec) -> None:
    """Refuse what a process can't have without namespaces.

    Raises:
        UnsupportedError: it wants such a thing.
    """
    wants = ""
    if spec.network is not Network.HOST:
        wants = f"a network of its own (--network={spec.network.value})"
    elif spec.privileged:
        wants = "to run without limits (--security=insecure)"
    elif spec.terminal:
        wants = "a terminal"
    elif not spec.root.whole or spec.root.readonly:
        wants = "a root that is mounted"
    if wants:
        raise _lacking(wants)
    for mount in spec.mounts:
        if mount.kind is MountKind.OVERLAY:
            raise _lacking(f"an overlay on {mount.target}")
        if mount.kind is MountKind.FILE and not mount.public and not _in_memory(spec.root.upper):
            raise UnsupportedError(
                f"a secret as a file ({mount.target}) would be on a disk, since nothing can be mounted here",
                feature="namespaces",
                hint="mount it as a variable (--mount=type=secret,id=…,env=NAME), or put the store on a tmpfs (--root)",
            )


def _in_memory(path: str | None) -> bool:
    return path is not None and file_system(os.path.dirname(path)) in _MEMORY


def _lacking(wants: str) -> UnsupportedError:
    return UnsupportedError(
        f"the step wants {wants}, and there are no namespaces here", feature="namespaces", hint=_HINT
    )
