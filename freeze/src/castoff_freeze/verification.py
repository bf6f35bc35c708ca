"""Run the tree in an empty root and compare; find what it misses."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff_freeze import answers
from castoff_freeze.assembly import frozen_launcher
from castoff_freeze.recording import Recording, hook_folder, log_tail, packed_requests, run
from castoff_freeze.session import Job, Report
from castoff_freeze.trace import TraceReader, read_notes
from castoff_freeze.tree import make_mount_points, remove_mount_points

if TYPE_CHECKING:
    from castoff_freeze.surroundings import Surroundings

_HOOK = "/.castoff-freeze"
_LIBRARY = re.compile(r"(?:ImportError|OSError): ([^\s:/]+\.so[.\w]*): cannot open shared object")
_FAR_FUTURE = float(1 << 40)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one verification.

    Attributes:
        report: of the session.
        difference: the first answer that is not as recorded, in words; "" where all are.
    """

    report: Report
    difference: str

    @property
    def log(self) -> str:
        """Return the end of what the service wrote, to be put behind a message."""
        return log_tail(self.report)


@dataclass(frozen=True, slots=True)
class Missing:
    """What a tree was found to lack: modules by name, files and libraries by path or name."""

    modules: frozenset[str]
    files: frozenset[str]
    libraries: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.modules or self.files or self.libraries)


class Verifier:
    """Runs trees of one service."""

    def __init__(self, place: Surroundings, recording: Recording, bytecode: Mapping[str, str], work: str) -> None:
        self._place = place
        self._recording = recording
        self._bytecode = bytecode
        self._work = work

    def verify(self, root: str) -> Verdict:
        """Start the service in a written tree, ask everything, and compare."""
        report = self._run(root, {})
        return Verdict(report, self._compare(report))

    def diagnose(self, root: str) -> Missing:
        """Run the tree again with the hook in it, and return what it asked for in vain that this system has."""
        folder, notes = hook_folder(root + _HOOK)
        try:
            report = self._run(root, {"PYTHONPATH": _HOOK, "CASTOFF_FREEZE_TRACE": f"{_HOOK}/notes"})
            reader = TraceReader(self._place.inventory, self._bytecode, (), _FAR_FUTURE)
            trace = reader.read(read_notes(notes), ())
            lines = read_notes(notes)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        modules = {name for name in trace.missed if name in self._place.inventory.modules}
        opened = {line.split("\t")[1] for line in lines if line.startswith("open\t") and line.endswith("\tr")}
        files = {
            path
            for path in opened
            if path.startswith("/") and os.path.isfile(path) and not os.path.lexists(root + path)
        }
        libraries = {name for name in trace.libraries if name} | set(_LIBRARY.findall(report.log))
        return Missing(frozenset(modules), frozenset(self._shippable(files)), frozenset(libraries))

    @staticmethod
    def _shippable(paths: set[str]) -> set[str]:
        return {
            path for path in paths if not path.startswith(("/proc/", "/sys/", "/dev/", _HOOK)) and path[-3:] != ".py"
        }

    def _run(self, root: str, more: Mapping[str, str]) -> Report:
        temporary = os.path.join(root, "tmp")
        before = set(os.listdir(temporary)) if os.path.isdir(temporary) else set()
        made = make_mount_points(root)
        plain = os.path.join(self._work, "plain-start")
        with open(plain, "w", encoding="utf-8") as file:
            file.write(frozen_launcher(self._place, root))
        job = Job(
            root=root,
            argv=[self._place.request.launcher],
            environment=self._place.environment() | dict(more),
            plain_argv=[root + self._place.python.executable, "-I", plain],
            **packed_requests(self._place),
        )
        try:
            return run(job, self._place)
        finally:
            remove_mount_points(made)
            self._empty_temporary(temporary, before)

    @staticmethod
    def _empty_temporary(folder: str, before: set[str]) -> None:
        """Remove what the service left in its folder for temporary files."""
        for name in set(os.listdir(folder)) - before if os.path.isdir(folder) else ():
            path = os.path.join(folder, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)

    def _compare(self, report: Report) -> str:
        if report.failure:
            return f"the frozen service does not start: {report.failure}"
        for asked, expected, given, volatile in zip(
            self._recording.asked, self._recording.answers, report.answers, self._recording.volatile, strict=True
        ):
            wrong = answers.difference(asked, expected, given, volatile)
            if wrong:
                return f"{asked}: {wrong}"
        return ""
