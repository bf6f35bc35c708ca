"""castoff's main jobs, shown: two services from builders of 300 MB to images of a few, run, audited, weighed, rebuilt.

Run by ./run demo. Everything it makes stays in .demo/ of this folder; the second time it needs no network. With
--prepare it only sees to that: to the bases, and to the wheels of the Python service.
"""

from __future__ import annotations

import os
import sys
import time

from demo_driver import HERE, PORT, DemoError, Driver, Service, free_port, say, title
from demo_ship import ship

BASES = {
    "static": "castoff/static:nonroot",
    "python-3.11-runtime": "castoff/python-runtime:3.11",
    "python-3.11": "castoff/python:3.11",
    "golang-1.22": "castoff/golang:1.22",
}
GO = Service(
    "devops-info-service-go",
    {"golang:1.22-alpine": BASES["golang-1.22"], "gcr.io/distroless/static:nonroot": BASES["static"]},
)
PYTHON = Service(
    "devops-info-service",
    {
        "python:3.11-slim": BASES["python-3.11"],
        "gcr.io/distroless/python3-debian12:nonroot": BASES["python-3.11-runtime"],
    },
    wheels=True,
)
SERVICES = (GO, PYTHON)
BUILDER = f"{PYTHON.name}:builder"


def prepare(driver: Driver) -> None:
    """Make the bases from their locks, and get the wheels; what is there already stays."""
    title("Four bases from Debian packages: two toolchains to build with, next to nothing to run on")
    os.makedirs(driver.work, exist_ok=True)
    for recipe, reference in BASES.items():
        driver.run("base", "assemble", os.path.join(HERE, "bases", f"{recipe}.toml"), "-t", reference)
    for service in SERVICES:
        if service.wheels:
            driver.provide_wheels(service)


def build(driver: Driver) -> None:
    """Build both services."""
    title("Two-stage builds: no Docker, no daemon" + ("" if os.geteuid() == 0 else ", no root"))
    for service in SERVICES:
        driver.copy(service)
        driver.build(service)


def answer(driver: Driver) -> None:
    """Run both in the background, ask them, and stop them."""
    title("They run in the background, answer, and stop when told")
    ports = {service.name: free_port() for service in SERVICES}
    driver.quietly("rm", "-f", *ports)  # those of a demo that was cut short
    try:
        for name, port in ports.items():
            driver.run("run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:{PORT}", name)
            health = driver.ask(port, "/health", wait=True)
            say(f"$ curl http://127.0.0.1:{port}/health\n{health.rstrip()}")
        driver.run("ps")
        say(f"$ curl http://127.0.0.1:{ports[PYTHON.name]}/\n{driver.ask(ports[PYTHON.name], '/').rstrip()}")
        driver.run("logs", "--tail", "3", PYTHON.name)
        driver.run("stop", *ports)
        driver.run("wait", *ports)
        codes = driver.quietly("wait", *ports).split()
        if codes != ["0"] * len(ports):
            raise DemoError(f"the containers ended with exit codes {', '.join(codes)}")
    finally:
        driver.quietly("rm", "-f", *ports)


def develop(driver: Driver) -> None:
    """Build the builder's stage as an image, and work in it; the runtime image has nothing to work with."""
    title("Development against production: the builder as an image of its own, with a shell, pip and the source")
    driver.build(PYTHON, "--target", "builder", tag=BUILDER)
    look = "id -un; python3 --version; pip --version; ls /app; python3 -c 'import starlette; print(starlette)'"
    driver.run("run", "--rm", "--network=none", "-e", "PYTHONPATH=lib", BUILDER, "sh", "-c", look)
    say(f"(castoff run -it --rm {BUILDER} sh opens a shell on your terminal)")
    driver.run("run", "--rm", "--network=none", "--entrypoint=sh", PYTHON.name, "-c", "id", code=127)


def audit(driver: Driver) -> None:
    """Audit the two images, which are clean, and the builder, which is not."""
    title("Audited: the images to ship have nothing that does not belong there, the builder has all of it")
    for service in SERVICES:
        driver.run("audit", service.name)
    driver.run("audit", BUILDER, code=1)


def weigh(driver: Driver) -> None:
    """Show what the stages weigh, and the two images side by side."""
    title("What the stages weigh, and what stayed behind")
    for service in SERVICES:
        driver.run("size", "--stages", service.name)
    title("The two images side by side")
    driver.run("size", "--compare", GO.name, PYTHON.name)


def rebuild_python(driver: Driver) -> None:
    """Change the Python service, whose dependencies stay cached."""
    title("A line of the Python service changed: pip stays cached, only the service's own layer is made again")
    driver.append(PYTHON, "devops_info_service/__init__.py", f"# {os.urandom(4).hex()}\n")
    driver.rebuild(PYTHON).expect(cached=("pip install", "/app/lib"), ran=("COPY devops_info_service",))


def rebuild_go(driver: Driver) -> None:
    """Build the Go service again: unchanged, with another source, with another list of dependencies."""
    title("Built again: nothing has changed, nothing runs")
    again = driver.rebuild(GO)
    if again.ran or len(again.cached) < 7:
        raise DemoError("a rebuild without a change should have been cached")

    title("A string in main.go changed: dependencies stay cached, compile and copy run")
    driver.change(GO, "main.go", "Press Ctrl+C to stop", f"Press Ctrl+C to stop ({os.urandom(4).hex()})")
    driver.rebuild(GO).expect(cached=("RUN go mod download",), ran=("go build", "COPY --from=builder"))

    title("A comment in go.mod: download and compile run, the binary is the same, the runtime stage stays cached")
    driver.append(GO, "go.mod", f"// {os.urandom(4).hex()}\n")
    driver.rebuild(GO).expect(cached=("COPY --from=builder",), ran=("RUN go mod download", "go build"))


def shipping(driver: Driver) -> None:
    """Push both services to a registry, and pull and run them elsewhere."""
    ship(driver, SERVICES)


SECTIONS = (build, answer, develop, audit, weigh, shipping, rebuild_python, rebuild_go)
"""What is shown once the bases are there, in order; each goes by what those before it made."""


def castoff_command() -> list[str]:
    """Return castoff beside this Python, or else the one that it can import."""
    path = os.path.join(os.path.dirname(sys.executable), "castoff")
    return [path] if os.path.exists(path) else [sys.executable, "-m", "castoff"]


def main(arguments: list[str]) -> int:
    """Run the demo and return its exit code."""
    if arguments not in ([], ["--prepare"]):
        sys.stderr.write("usage: demo.py [--prepare]\n")
        return 2
    store = os.environ.get("CASTOFF_DEMO_STORE") or os.path.join(HERE, ".demo", "store")
    driver = Driver(castoff_command(), os.path.abspath(store))
    try:
        prepare(driver)
        begun = time.monotonic()
        if arguments:
            return 0
        for section in SECTIONS:
            section(driver)
    except DemoError as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(
        f"\nShown in {time.monotonic() - begun:.0f} s: builders with whole toolchains became images with one service"
        f" each, which run as nonroot,\nanswer, stop when told, pass the audit, and are built again where something"
        f" changed.\nThe store is .demo/store; ./run clean removes it."
        f" Try: .venv/bin/castoff --root .demo/store images",
        flush=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
