"""Run commands and tell what they took: wall and CPU seconds, and the peak memory of the builder's own processes."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

PR_SET_CHILD_SUBREAPER = 36
SAMPLE_SECONDS = 0.002
LINGER_SECONDS = 5.0
TICKS = os.sysconf("SC_CLK_TCK")


class CommandError(Exception):
    """A command of a benchmark failed, or did not do what it was to be measured at."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed run, in seconds; CPU counts every process below the command, and the daemon's share."""

    wall: float
    cpu: float


def adopt_orphans() -> None:
    """Make this process the parent of whatever its descendants leave behind, so that their CPU time is counted."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def timed(commands: Sequence[Sequence[str]], env: Mapping[str, str], log: str, daemon: Sequence[str] = ()) -> Sample:
    """Run commands one after the other and return what they took together.

    Their output goes to the file ``log``. ``daemon`` names the programs (by command name) that work on their behalf.

    Raises:
        CommandError: One of them failed; the message has the end of its output.
    """
    daemon_before = daemon_cpu(daemon)
    before = children_cpu()
    with open(log, "wb") as out:
        start = time.perf_counter()
        codes = []
        for argv in commands:
            codes.append(subprocess.call(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env))
            if codes[-1]:
                break
        wall = time.perf_counter() - start
    reap_orphans()
    if codes[-1]:
        raise CommandError(f"{' '.join(commands[len(codes) - 1])}: exit code {codes[-1]}\n{tail(log)}")
    return Sample(wall, children_cpu() - before + daemon_cpu(daemon) - daemon_before)


def peak_memory(
    commands: Sequence[Sequence[str]],
    env: Mapping[str, str],
    log: str,
    programs: Collection[str],
    daemon: Sequence[str] = (),
) -> int:
    """Run commands, untimed, and return the largest resident set in bytes of any process of the builder's own.

    Own are the processes below the commands whose executable is in ``programs``, and the daemon's: what a build step
    runs (a compiler) is not the builder's doing.
    """
    peak = 0
    daemons = list(daemon_pids(daemon))
    for pid in daemons:
        reset_peak(pid)
    with open(log, "wb") as out:
        for argv in commands:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
            while process.poll() is None:
                for pid in descendants(os.getpid()):
                    if executable(pid) in programs:
                        peak = max(peak, resident_peak(pid))
                time.sleep(SAMPLE_SECONDS)
            reap_orphans()
            if process.returncode:
                raise CommandError(f"{' '.join(argv)}: exit code {process.returncode}\n{tail(log)}")
    return max([peak, *(resident_peak(pid) for pid in daemons)])


def children_cpu() -> float:
    """Return the CPU seconds of every descendant that was waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def reap_orphans() -> None:
    """Wait for what the command left running, up to five seconds; it is part of what the command took."""
    deadline = time.monotonic() + LINGER_SECONDS
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.01)


def daemon_pids(names: Sequence[str]) -> Iterator[int]:
    """Yield the processes with one of these command names."""
    if not names:
        return
    for entry in filter(str.isdigit, os.listdir("/proc")):
        if _read(f"/proc/{entry}/comm").strip() in names:
            yield int(entry)


def daemon_cpu(names: Sequence[str]) -> float:
    """Return the CPU seconds so far of daemons, of what they run now, and of all they waited for."""
    total = 0
    seen: set[int] = set()
    for daemon in daemon_pids(names):
        for pid in (daemon, *descendants(daemon)):
            fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            if fields and pid not in seen:
                seen.add(pid)
                total += sum(map(int, fields[11:15]))  # utime, stime and those of reaped children: proc(5)
    return total / TICKS


def descendants(pid: int) -> Iterator[int]:
    """Yield the processes below one, deepest last."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in threads:
        for child in _read(f"/proc/{pid}/task/{thread}/children").split():
            yield int(child)
            yield from descendants(int(child))


def executable(pid: int) -> str:
    """Return the path of a process's program, or nothing once it has gone."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def resident_peak(pid: int) -> int:
    """Return a process's largest resident set so far, in bytes; 0 once it has gone."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def reset_peak(pid: int) -> None:
    """Let a process's largest resident set count from now on."""
    try:
        with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return


def tail(path: str, size: int = 2000) -> str:
    """Return the end of a file as text."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        return file.read().decode(errors="replace")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
