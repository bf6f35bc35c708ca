"""Freeze a service: survey, compile, record, select, assemble, verify, write. Nothing is half-written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from castoff_freeze import report
from castoff_freeze.assembly import Assembled, Assembler
from castoff_freeze.bytecode import Unit, compile_all
from castoff_freeze.errors import OutputError, VerifyError
from castoff_freeze.imports import ImportGraph, is_within
from castoff_freeze.recording import Recording, record, record_again
from castoff_freeze.rules import NEVER_COMPILED
from castoff_freeze.selection import Selection, Wish, select
from castoff_freeze.sizes import Sizes, measure
from castoff_freeze.surroundings import FreezeRequest, Surroundings, survey
from castoff_freeze.trace import Trace
from castoff_freeze.tree import Item, settle, write
from castoff_freeze.verification import Missing, Verdict, Verifier

_SHOWN = 5
_KEEP_DOCSTRINGS: Mapping[str, frozenset[str]] = {
    "all": frozenset(("stdlib", "dependency", "application")),
    "dependencies": frozenset(("dependency", "application")),
    "application": frozenset(("application",)),
    "none": frozenset(),
}


@dataclass(frozen=True, slots=True)
class Frozen:
    """What a freeze gave.

    Attributes:
        output: folder of the tree.
        report: folder of manifest, bill of materials and sizes.
        sizes: what it weighs.
        verdict: the last verification.
        recording: of the unshrunk service.
        remarks: what the user should know.
        launcher: path of the launcher inside of the tree.
    """

    output: str
    report: str
    sizes: Sizes
    verdict: Verdict
    recording: Recording
    remarks: tuple[str, ...]
    launcher: str


@dataclass(frozen=True, slots=True)
class _Bench:
    """What the steps of one freeze share."""

    place: Surroundings
    bytecode: Mapping[str, str]
    recording: Recording
    work: str
    stage: str


def freeze(request: FreezeRequest) -> Frozen:
    """Freeze a service.

    Raises:
        UsageError: entry, lock or smoke description make no sense here.
        SmokeError: the unshrunk service does not do what is expected.
        UnsafePackageError: a package can't be frozen.
        VerifyError: the frozen service answers differently.
        OutputError: the result can't be written.
    """
    output = os.path.abspath(request.output)
    reports = os.path.abspath(request.report or f"{output}.report")
    for folder in (output, reports):
        _check_free(folder)
    place = survey(request)
    request.said(
        f"Python {place.python.version}, {len(place.dependencies)} dependencies, {len(place.inventory.files)} files"
    )
    with _work_folder() as work, _stage_beside(output) as stage:
        bytecode = _compile(place, os.path.join(work, "pyc"))
        recording = record(place, bytecode, os.path.join(work, "pyc"), work)
        bench = _Bench(place, bytecode, recording, work, stage)
        selection, assembled, verdict = _settle_on_tree(bench)
        return _deliver(bench, selection, assembled, verdict, (output, reports))


def _check_free(folder: str) -> None:
    if os.path.lexists(folder) and (not os.path.isdir(folder) or os.path.islink(folder) or os.listdir(folder)):
        raise OutputError(f"{folder} is there already", hint="remove it, or name another --output")


@contextmanager
def _work_folder() -> Iterator[str]:
    work = tempfile.mkdtemp(prefix="castoff-freeze-")
    try:
        os.chmod(work, 0o755)  # the service reads its bytecode there as another user
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _stage_beside(output: str) -> Iterator[str]:
    """Make a folder beside the output, from where the result is moved into place."""
    parent = os.path.dirname(output)
    try:
        os.makedirs(parent, exist_ok=True)
        stage = tempfile.mkdtemp(prefix=f".{os.path.basename(output)}-", dir=parent)
    except OSError as error:
        raise OutputError(f"cannot write below {parent}: {error.strerror}") from error
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _compile(place: Surroundings, cache: str) -> dict[str, str]:
    """Compile all sources, and return the compiled file of each that is valid."""
    os.makedirs(cache)
    docstrings = place.request.docstrings
    groups: dict[str, list[Unit]] = {}
    targets: dict[str, str] = {}
    for item in place.inventory.files.values():
        if not item.is_source or (not item.module and item.path != place.entry.script):
            continue
        if item.group == "stdlib" and is_within(item.module, NEVER_COMPILED):
            continue
        strip = item.group not in _KEEP_DOCSTRINGS[docstrings]
        folder, name = os.path.split(item.path)
        target = f"{cache}{folder}/{name[:-3]}.{place.python.tag}.pyc"
        groups.setdefault(f"{item.group} {item.owner}", []).append(Unit(item.path, target, strip))
        targets[item.path] = target
    failed = compile_all(place.python.real, [groups[name] for name in sorted(groups)])
    place.request.said(f"compiled {len(targets) - len(failed)} modules")
    return {source: target for source, target in targets.items() if source not in failed}


def _settle_on_tree(bench: _Bench) -> tuple[Selection, Assembled, Verdict]:
    """Select, write and verify, until nothing more is found to be missing."""
    place = bench.place
    graph = ImportGraph(place.inventory, dict(bench.bytecode))
    assembler = Assembler(place, bench.bytecode, os.path.join(bench.work, "stripped"))
    recording = bench.recording
    trace = bench.recording.trace
    extra: frozenset[str] = frozenset()
    for attempt in range(place.request.retries + 1):
        selection = select(place.inventory, graph, trace, _wish(place))
        assembled = assembler.assemble(selection, trace, extra)
        root = os.path.join(bench.stage, f"tree-{attempt}")
        os.mkdir(root)
        write(assembled.tree, root, place.request.epoch)
        verifier = Verifier(place, recording, bench.bytecode, bench.work)
        verdict = verifier.verify(root)
        if verdict.difference and not verdict.report.failure:
            # Before the tree is blamed: does the unshrunk service itself always give the same answer?
            recording = record_again(recording, place, os.path.join(bench.work, "pyc"), bench.work)
            verifier = Verifier(place, recording, bench.bytecode, bench.work)
            verdict = verifier.verify(root)
        if not verdict.difference:
            place.request.said(f"verified in isolation {verdict.report.isolation!r}")
            return selection, assembled, verdict
        missing = verifier.diagnose(root)
        shutil.rmtree(root)
        grown = _with_missing(trace, missing, bench)
        if grown == trace and missing.files <= extra:
            break
        trace, extra = grown, extra | missing.files
        place.request.said(f"{verdict.difference}; adding {_words(missing)}")
    foreign = [f"the service read {path}, which the lock does not have" for path in sorted(trace.foreign)[:_SHOWN]]
    more = "".join(f"\n    {line}" for line in (*assembled.remarks, *foreign))
    raise VerifyError(f"the frozen service differs: {verdict.difference}{verdict.log}{more}")


def _with_missing(trace: Trace, missing: Missing, bench: _Bench) -> Trace:
    """Return a trace as if the service had used what it missed."""
    known = bench.place.inventory.files
    return Trace(
        modules=trace.modules | missing.modules,
        missed=trace.missed,
        opened=trace.opened | {path for path in missing.files if path in known},
        sources=trace.sources,
        libraries=trace.libraries | missing.libraries,
        programs=trace.programs,
        absent=trace.absent,
        foreign=trace.foreign,
    )


def _words(missing: Missing) -> str:
    names = sorted({*missing.modules, *missing.files, *missing.libraries})
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _wish(place: Surroundings) -> Wish:
    request = place.request
    return Wish(
        request.mode, place.entry.seeds(), place.folders(), request.include, request.exclude, place.python.builtins
    )


def _deliver(
    bench: _Bench, selection: Selection, assembled: Assembled, verdict: Verdict, folders: tuple[str, str]
) -> Frozen:
    """Write the tree as it was asked for, and the reports, and move both into place."""
    request = bench.place.request
    output, reports = folders
    items = list(assembled.tree)
    final, papers = os.path.join(bench.stage, "final"), os.path.join(bench.stage, "report")
    for folder in (final, papers):
        os.mkdir(folder)
    if request.split:
        for layer in ("deps", "app"):
            os.mkdir(os.path.join(final, layer))
            write([item for item in items if item.layer == layer], os.path.join(final, layer), request.epoch)
        settle(final, _folder_modes(items, final), request.epoch)
    else:
        write(items, final, request.epoch)
    sizes = measure(items, final if request.weigh else "")
    paper = report.Paper(
        bench.place, bench.recording, selection, items, (*assembled.remarks, *_remarks(bench, verdict))
    )
    try:
        report.write(paper, verdict, sizes, papers)
        for source, target in ((final, output), (papers, reports)):
            if os.path.isdir(target):
                os.rmdir(target)
            os.rename(source, target)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror}") from error
    return Frozen(output, reports, sizes, verdict, bench.recording, paper.remarks, request.launcher)


def _folder_modes(items: list[Item], final: str) -> dict[str, int]:
    return {f"{final}/{item.layer}{item.path}": item.mode for item in items if item.kind == "folder"}


def _remarks(bench: _Bench, verdict: Verdict) -> Iterator[str]:
    request, recording = bench.place.request, bench.recording
    if request.mode == "smallest":
        yield "the mode smallest is unsafe: what the smoke description does not reach is not there"
    if verdict.report.isolation == "none":
        yield "verified without an empty root: this system's own libraries and files were within reach"
    elif verdict.report.network:
        yield "verified with a network: no network namespace may be made here (RUN --network=none has none)"
    if verdict.report.uid != request.uid:
        yield f"verified as user {verdict.report.uid}, not {request.uid}"
    if recording.report.uid != verdict.report.uid:
        yield f"recorded as user {recording.report.uid}: another one could not read all of the service"
    for asked, volatile in zip(recording.asked, recording.volatile, strict=True):
        if () in volatile:
            yield f"{asked}: no two answers have the same form, so only status and type were compared"
