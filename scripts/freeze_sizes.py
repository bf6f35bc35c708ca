"""Build every example of castoff-freeze in two modes, ask it what it was not frozen with, and print one table of sizes.

Run by ./run freeze-sizes [NAME[:MODE]…]. Bases and wheels stay in .demo/. Exits 1 where a size is missed or an answer
differs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(HERE, "freeze", "src"))

from castoff_freeze import answers  # noqa: E402 - the distribution is not installed here
from castoff_freeze.session import Job, Report, hold  # noqa: E402
from castoff_freeze.sizes import compressed_sizes  # noqa: E402
from castoff_freeze.smoke import read_smoke  # noqa: E402

WORK = os.environ.get("CASTOFF_DEMO", os.path.join(HERE, ".demo"))
STORE = os.path.join(WORK, "store")
BASE = "castoff/python:3.11"
EXAMPLES = os.path.join(HERE, "examples", "freeze")
SERVICE = os.path.join(HERE, "services", "devops-info-service")
PORT = 18473


@dataclass(frozen=True)
class Example:
    """A service that is frozen.

    Attributes:
        name: of its folder.
        entry: what castoff-freeze is given.
        safe: the most megabytes, uncompressed and as Zstandard, in the mode safe; 0 where none are promised.
    """

    name: str
    entry: str
    safe: tuple[float, float] = (0, 0)

    @property
    def folder(self) -> str:
        """Return the folder of its source."""
        return SERVICE if self.name == "devops-info-service" else os.path.join(EXAMPLES, self.name)

    @property
    def dockerfile(self) -> str:
        """Return the path of its Dockerfile."""
        return os.path.join(SERVICE, "Dockerfile.safe") if self.folder == SERVICE else f"{EXAMPLES}/Dockerfile"


ALL = (
    Example("devops-info-service", "-m devops_info_service", (31, 9.5)),
    Example("standard-library", "-m app", (29, 9)),
    Example("fastapi-pydantic", "app:app --docstrings=application", (38.5, 11.6)),
    Example("flask-waitress", "app:app --docstrings=application", (30.5, 9.4)),
    Example("fastapi-numpy", "app:app --docstrings=application", (86, 22)),
    Example("django-admin", "site_:app"),
    Example("click-cli", "-m tool"),
    Example("dynamic", "-m app"),
    Example("worker", "-m jobs"),
    Example("psycopg", "-m app"),
)


class DifferError(Exception):
    """A frozen example does not answer as the unshrunk one does."""


def run(*words: str) -> None:
    """Run a command, and show what it printed only where it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=HERE)
    if done.returncode:
        raise DifferError(
            f"{' '.join(words[:6])} … ended with {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}"
        )


def wheels(example: Example) -> str:
    """Return a folder with the wheels of an example's lock; what is there already stays."""
    folder = os.path.join(WORK, "freeze-wheels", example.name)
    lock = os.path.join(example.folder, "requirements.lock")
    os.makedirs(folder, exist_ok=True)
    if os.path.getsize(lock) and not os.listdir(folder):
        pip = (sys.executable, "-m", "pip", "--quiet", "download", "--require-hashes", "--only-binary=:all:")
        run(*pip, "--python-version", "3.11", "--requirement", lock, "--dest", folder)
    return folder


def own_wheels() -> str:
    """Return a folder with the wheel of castoff-freeze as it now is, and what it depends on."""
    folder = os.path.join(WORK, "freeze-wheels", "castoff-freeze")
    shutil.rmtree(folder, ignore_errors=True)
    pip = (sys.executable, "-m", "pip", "--quiet", "wheel", "--wheel-dir", folder)
    run(*pip, "--no-deps", "--no-build-isolation", os.path.join(HERE, "freeze"))
    run(*pip, "--only-binary=:all:", "pyelftools")
    return folder


def build(example: Example, mode: str, target: str, freeze: str, root: str) -> None:
    """Build a stage of an example and write its files below a folder."""
    run(
        *(sys.executable, "-m", "castoff", "--root", STORE, "build", "--file", example.dockerfile),
        *("--build-context", f"python:3.11-slim=docker-image://{BASE}"),
        *("--build-context", f"wheels={wheels(example)}", "--build-context", f"freeze={freeze}"),
        *("--build-arg", f"MODE={mode}", "--build-arg", f"FREEZE={example.entry}"),
        *(("--target", target) if target else ()),
        *("--output", f"type=local,dest={root}", example.folder),
    )


def ask(example: Example, root: str, launcher: str) -> Report:
    """Start an example in a root and ask what it was not frozen with."""
    asked = read_smoke(_held_out(example))
    for name in ("proc", "dev", "tmp"):
        os.makedirs(os.path.join(root, name), exist_ok=True)
    requests = [(item.method, item.path, dict(item.headers), _packed(item.body)) for item in asked.requests]
    commands = [(list(item.arguments), _packed(item.stdin)) for item in asked.commands]
    environment = {"PORT": str(PORT), "HOST": "127.0.0.1", "LANG": "C.UTF-8", "HOME": "/", **asked.environment}
    return hold(
        Job(
            root,
            [launcher],
            environment,
            port=PORT,
            ready=asked.ready,
            start_seconds=60,
            requests=requests,
            commands=commands,
        ),
        os.path.realpath(sys.executable),
    )


def _held_out(example: Example) -> str:
    path = os.path.join(example.folder, "held_out.toml")
    return path if os.path.exists(path) else os.path.join(example.folder, "smoke.toml")


def _packed(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def compare(example: Example, builder: str, root: str) -> int:
    """Ask the unshrunk example twice and the frozen one once; return how many answers were compared.

    Raises:
        DifferError: the frozen one answers differently.
    """
    asked = read_smoke(_held_out(example)).asked
    first, second = (ask(example, builder, "/runtime/app/start") for _ in range(2))
    frozen = ask(example, root, "/start")
    for report in (first, second, frozen):
        if report.failure:
            raise DifferError(f"{report.failure}\n{report.log[-1500:]}")
    for item, one, other, given in zip(asked, first.answers, second.answers, frozen.answers, strict=True):
        wrong = answers.expectation(item, one) or answers.difference(item, one, given, answers.volatile(one, other))
        if wrong:
            raise DifferError(f"{item}: {wrong}\n{frozen.log[-1500:]}")
    return len(asked)


def weigh(example: Example, mode: str, freeze: str) -> tuple[str, bool]:
    """Build an example in a mode; return its line of the table, and whether all is well."""
    with tempfile.TemporaryDirectory(dir=WORK) as work:
        os.chmod(work, 0o755)
        root, builder = os.path.join(work, "root"), os.path.join(work, "builder")
        try:
            build(example, mode, "", freeze, root)
            files = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
            size = sum(os.path.getsize(path) for path in files if not os.path.islink(path)) / 1e6
            gzip, zstd = (number / 1e6 for number in compressed_sizes(root))
            build(example, mode, "builder", freeze, builder)
            same = f"{compare(example, builder, root)} of them"
            fine = True
        except DifferError as error:
            print(f"{example.name}, {mode}: {error}", file=sys.stderr)
            return f"{example.name:<20} {mode:<6} failed", False
    limit = example.safe if mode == "safe" else (0, 0)
    verdict = ""
    if any(limit):
        fine = size <= limit[0] and zstd <= limit[1]
        verdict = f"{'within' if fine else 'OVER'} {limit[0]:g} / {limit[1]:g}"
    return f"{example.name:<20} {mode:<6} {size:7.2f} {gzip:7.2f} {zstd:7.2f}  {same:<10} {verdict}", fine


def main(names: list[str]) -> int:
    """Weigh the examples that are named, or all, and return the exit code."""
    os.makedirs(WORK, exist_ok=True)
    base = os.path.join(HERE, "bases", "python-3.11.toml")
    inspect = (sys.executable, "-m", "castoff", "--root", STORE, "inspect", BASE)
    if subprocess.run(inspect, capture_output=True, check=False).returncode:
        run(*inspect[:5], "base", "assemble", base, "-t", BASE)
    freeze = own_wheels()
    print("service              mode      MB    gzip    zstd  held-out answers equal", flush=True)
    well = True
    for example in ALL:
        for mode in ("safe", "small"):
            if not names or {example.name, f"{example.name}:{mode}"} & set(names):
                line, fine = weigh(example, mode, freeze)
                print(line, flush=True)
                well = well and fine
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
