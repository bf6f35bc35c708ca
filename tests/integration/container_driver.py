"""Runs one container in the foreground as a JSON request in its argument says, like ``castoff run``."""

from __future__ import annotations

import json
import sys


def main() -> int:
    request = json.loads(sys.argv[1])
    sys.path.insert(0, request["src"])
    from castoff.containers.container import ContainerRequest, run_container
    from castoff.containers.ports import PortMapping
    from castoff.errors import CastoffError
    from castoff.events import NullObserver, WarningEvent
    from castoff.sandbox.spec import Network, ProcessSpec, RootSpec
    from castoff.sandbox.userns import enter_user_namespace
    from castoff.sandbox.zygote_executor import ZygoteExecutor

    class Printer(NullObserver):
        def warning(self, event: WarningEvent) -> None:
            print(f"warning: {event.message}", file=sys.stderr, flush=True)

    tier = enter_user_namespace(request["tier"])
    root = request["root"]
    spec = ProcessSpec(
        root=RootSpec(tuple(root["lowers"]), root["upper"], root["work"], userxattr=tier.userxattr),
        argv=tuple(request["argv"]),
        env=("PATH=/bin", "TERM=dumb"),
        network=Network(request["network"]),
        uid=request["uid"],
        gid=request["uid"],
    )
    ports = tuple(mapping for text in request["ports"] for mapping in PortMapping.parse(text))
    options = {"tty": request["tty"], "interactive": request["interactive"]}
    try:
        with ZygoteExecutor(request["state"]) as executor:
            return run_container(ContainerRequest(spec, ports, **options), executor, Printer())
    except CastoffError as error:
        print(f"error: {error.message} ({error.hint})", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())
