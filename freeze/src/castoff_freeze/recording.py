"""Record what the unshrunk service answers, twice, and what it uses meanwhile."""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from castoff_freeze import answers
from castoff_freeze.entry import launcher
from castoff_freeze.errors import SmokeError, UnsupportedError
from castoff_freeze.session import Answer, Job, Report, hold
from castoff_freeze.trace import Trace, TraceReader, read_notes
from castoff_freeze.watching import watcher

if TYPE_CHECKING:
    from castoff_freeze.answers import Step
    from castoff_freeze.smoke import Command, Request
    from castoff_freeze.surroundings import Surroundings

_PAUSE_SECONDS = 1.2  # longer than the second that most time stamps and uptimes are counted in
_LOG_LINES = 12


@dataclass(frozen=True, slots=True)
class Recording:
    """What the unshrunk service did.

    Attributes:
        asked: requests or commands.
        answers: to each.
        volatile: of each, where its answer is never the same twice.
        trace: what it used.
        report: of the traced session.
        watched_by: how the kernel was asked.
    """

    asked: tuple[Request | Command, ...]
    answers: tuple[Answer, ...]
    volatile: tuple[frozenset[tuple[Step, ...]], ...]
    trace: Trace
    report: Report
    watched_by: str


def packed_requests(place: Surroundings) -> dict[str, Any]:
    """Return the members of a job that say what is asked."""
    smoke = place.request.smoke
    return {
        "uid": place.request.uid,
        "wanted": place.request.isolation,
        "port": place.port,
        "ready": smoke.ready,
        "start_seconds": smoke.start_seconds,
        "requests": [
            (item.method, item.path, dict(item.headers), base64.b64encode(item.body).decode())
            for item in smoke.requests
        ],
        "commands": [(list(item.arguments), base64.b64encode(item.stdin).decode()) for item in smoke.commands],
    }


def record(place: Surroundings, bytecode: Mapping[str, str], cache: str, work: str) -> Recording:
    """Run the service twice, the second time traced.

    Args:
        place: what is frozen.
        bytecode: compiled file of each source.
        cache: folder of the compiled files, as PYTHONPYCACHEPREFIX has it.
        work: folder for what the runs need; others can read it.

    Raises:
        SmokeError: it does not answer as the smoke description says, or not the same twice.
    """
    first = _plain_run(place, cache, work)
    place.request.said("recorded the answers of the unshrunk service")
    second, trace, name = _traced(place, _job(place, cache, work, pause=_PAUSE_SECONDS), bytecode, work)
    _check(place, second)
    asked = place.request.smoke.asked
    volatile = tuple(answers.volatile(one, other) for one, other in zip(first.answers, second.answers, strict=True))
    place.request.said(
        f"traced it ({second.isolation}, {name}): {len(trace.modules)} modules, {len(trace.opened)} other files"
    )
    return Recording(asked, tuple(first.answers), volatile, trace, second, name)


def record_again(recording: Recording, place: Surroundings, cache: str, work: str) -> Recording:
    """Return a recording that knows of what else is not the same in a further run of the unshrunk service.

    Raises:
        SmokeError: it no longer answers as the smoke description says.
    """
    further = _plain_run(place, cache, work)
    volatile = tuple(
        known | answers.volatile(one, other)
        for known, one, other in zip(recording.volatile, recording.answers, further.answers, strict=True)
    )
    return replace(recording, volatile=volatile)


def _plain_run(place: Surroundings, cache: str, work: str) -> Report:
    report = run(_job(place, cache, work), place)
    _check(place, report)
    return report


def _job(place: Surroundings, cache: str, work: str, *, pause: float = 0.0) -> Job:
    """Return the job that runs the unshrunk service where it is installed."""
    script = os.path.join(work, "start")
    with open(script, "w", encoding="utf-8") as file:
        file.write(launcher(place.entry, place.python.executable, place.paths))
    return Job(
        root="/",
        argv=[place.python.executable, script],
        environment=place.environment() | {"PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": "1"},
        pause=pause,
        must_read=[place.python.real, place.python.stdlib, script, *place.paths, *place.application[:50]],
        **packed_requests(place),
    )


def run(job: Job, place: Surroundings, **more: Any) -> Report:
    """Hold a session.

    Raises:
        UnsupportedError: the isolation that is wanted is not permitted here.
        SmokeError: the session could not be held.
    """
    try:
        return hold(job, place.python.real, **more)
    except OSError as error:
        if place.request.isolation != "auto":
            raise UnsupportedError(
                f"the isolation {place.request.isolation!r} cannot be had here: {error.strerror or error}",
                hint="--isolation=auto takes the strongest that can",
            ) from error
        raise SmokeError(f"the service could not be started: {error.strerror or error}") from error


def hook_folder(folder: str) -> tuple[str, str]:
    """Make a folder with the hook in it; return it and the file that notes go to."""
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o755)
    shutil.copyfile(os.path.join(os.path.dirname(os.path.abspath(__file__)), "hook.py"), f"{folder}/sitecustomize.py")
    os.chmod(f"{folder}/sitecustomize.py", 0o644)
    notes = os.path.join(folder, "notes")
    with open(notes, "wb"):
        pass
    os.chmod(notes, 0o666)
    return folder, notes


def _traced(place: Surroundings, job: Job, bytecode: Mapping[str, str], work: str) -> tuple[Report, Trace, str]:
    folder, notes = hook_folder(os.path.join(work, "hook"))
    job.environment.update({"PYTHONPATH": folder, "CASTOFF_FREEZE_TRACE": notes})
    python = place.python
    looked = [python.stdlib, python.dynload, *place.paths, *python.path, "/etc", "/usr/share", "/usr/lib", "/usr/local"]
    eyes = watcher([item for item in looked if os.path.isdir(item)], prefer=place.request.watch)
    ignored = [work, os.path.dirname(os.path.abspath(__file__))]
    reader = TraceReader(place.inventory, bytecode, ignored, time.time())
    report = run(job, place, watcher=eyes)
    return report, reader.read(read_notes(notes), eyes.stop()), eyes.name


def _check(place: Surroundings, report: Report) -> None:
    if report.failure:
        raise SmokeError(f"the unshrunk service does not start: {report.failure}{log_tail(report)}")
    asked = place.request.smoke.asked
    for item, answer in zip(asked, report.answers, strict=True):
        wrong = answers.expectation(item, answer)
        if wrong:
            raise SmokeError(f"the unshrunk service fails its smoke test: {item}: {wrong}{log_tail(report)}")


def log_tail(report: Report) -> str:
    """Return the end of what the service wrote, to be put behind a message."""
    lines = report.log.rstrip().splitlines()[-_LOG_LINES:]
    return "".join(f"\n    {line}" for line in lines)
