"""The part of the demo that ships: both services to a registry, and from there into an empty store."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from demo_driver import PORT, DemoError, Driver, Service, free_port, say, title


@contextlib.contextmanager
def _registry(driver: Driver) -> Iterator[str]:
    """Serve a registry while the block runs, and yield its host and port."""
    folder = os.path.join(driver.work, "registry")
    arguments = ("registry", "serve", "--dir", folder, "--listen", "127.0.0.1:0", "-q")
    driver.show(*arguments)
    process = subprocess.Popen(driver.command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline().strip()
        if not line:
            raise DemoError("the registry did not start")
        say(line)
        yield line.rpartition("//")[2]
    finally:
        process.terminate()
        process.stdout.close()
        process.wait()


def ship(driver: Driver, services: Sequence[Service]) -> None:
    """Push the services, pull them into a store that has nothing, and run them there."""
    title("Shipped: both images to a registry of castoff's, and from there into an empty store")
    folder = os.path.join(driver.work, "elsewhere")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, exist_ok=True)
    elsewhere = Driver(driver.castoff, os.path.join(folder, "store"))
    with _registry(driver) as netloc:
        references = {service.name: f"{netloc}/demo/{service.name}:1" for service in services}
        for name, reference in references.items():
            driver.run("push", "--image", name, reference)
        for name, reference in references.items():
            elsewhere.run("pull", reference)
            port = free_port()
            try:
                elsewhere.run("run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:{PORT}", reference)
                health = elsewhere.ask(port, "/health", wait=True)
                say(f"$ curl http://127.0.0.1:{port}/health\n{health.rstrip()}")
            finally:
                elsewhere.quietly("rm", "-f", name)
    shutil.rmtree(folder, ignore_errors=True)
