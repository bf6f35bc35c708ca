"""Runs processes in sandboxes as a JSON request on standard input says, and prints what became of them as JSON.

A program of its own, because a user namespace can only be entered by a process without threads, and so that the same
tests run as root and as an ordinary user.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from typing import Any


def main() -> None:
    request = json.load(sys.stdin)
    sys.path.insert(0, request["src"])
    from castoff.sandbox.userns import enter_user_namespace
    from castoff.sandbox.zygote_executor import ZygoteExecutor

    tier = enter_user_namespace(request["tier"])
    with ZygoteExecutor(request["state"]) as executor:
        results: list[Any] = [None] * len(request["steps"])
        if request["parallel"]:
            threads = [
                threading.Thread(target=run, args=(executor, tier.userxattr, step, results, index))
                for index, step in enumerate(request["steps"])
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            for index, step in enumerate(request["steps"]):
                run(executor, tier.userxattr, step, results, index)
    json.dump(results, sys.stdout)


def run(executor: Any, userxattr: bool, step: dict[str, Any], results: list[Any], index: int) -> None:
    from castoff.errors import SandboxError
    from castoff.mount import Mount, MountKind
    from castoff.sandbox.spec import Network, ProcessSpec, RootSpec

    root = step.pop("root")
    root["lowers"] = tuple(root["lowers"])
    signals = step.pop("signals", [])
    mounts = tuple(Mount(**{**mount, "kind": MountKind(mount["kind"])}) for mount in step.pop("mounts", []))
    for name in ("argv", "env", "groups"):
        step[name] = tuple(step.get(name, ()))
    for name in ("hosts", "rlimits"):
        step[name] = tuple(tuple(pair) for pair in step.get(name, ()))
    if "network" in step:
        step["network"] = Network(step["network"])
    spec = ProcessSpec(root=RootSpec(userxattr=userxattr, **root), mounts=mounts, **step)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull, "rb") as null:
        result: dict[str, Any] = {"error": None, "code": None}
        try:
            process = executor.start(spec, null.fileno(), out.fileno(), err.fileno())
            for number in signals:
                wait_for(out)
                process.signal(number)
            result["code"] = process.wait()
        except SandboxError as error:
            result["error"] = [type(error).__name__, error.message]
        for name, file in (("out", out), ("err", err)):
            file.seek(0)
            result[name] = file.read().decode("utf-8", "surrogateescape")
    results[index] = result


def wait_for(file: Any) -> None:
    """Wait until the process has printed something, so that it is ready for a signal."""
    import time

    while os.fstat(file.fileno()).st_size == 0:
        time.sleep(0.005)


if __name__ == "__main__":
    main()
