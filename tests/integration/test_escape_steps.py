"""Programs that try to leave the sandbox of a step, in every tier."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sandbox_rig import HERE, Rig, make_rig, remove_rig

pytestmark = pytest.mark.integration

SYSTEM = ("/usr", "/lib", "/lib64")


@pytest.fixture(scope="module", params=["root", "subuid"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = make_rig(request.param, request)
    yield made
    remove_rig(made)


def system_mounts(rig: Rig) -> tuple[str, list[dict[str, Any]]]:
    """Return a Python of the host, and the mounts that it takes to run it in a sandbox that has none."""
    script = "import sys; print(sys._base_executable or sys.executable); print(sys.base_prefix)"
    said = subprocess.check_output([rig.python, "-c", script], text=True, **rig.identity()).split("\n")
    program, prefix = os.path.realpath(said[0]), os.path.realpath(said[1])
    folders = [*SYSTEM, *([] if prefix == "/usr" else [prefix])]
    mounts = [
        {"kind": "bind", "source": folder, "target": folder, "readonly": True}
        for folder in folders
        if os.path.isdir(folder)
    ]
    return program, mounts


def escape_layer(rig: Rig) -> str:
    layer = rig.layer({"tmp": None})
    shutil.copy(os.path.join(HERE, "escape_program.py"), os.path.join(layer, "escape.py"))
    rig.give(layer)
    return layer


@pytest.mark.parametrize("user", [0, 1000])
def test_every_known_way_out_is_closed(rig: Rig, user: int) -> None:
    program, mounts = system_mounts(rig)
    with subprocess.Popen(["sleep", "1000"], **rig.identity()) as outside:
        try:
            result = rig.run(
                program,
                *("-I", "-S", "/escape.py", rig.folder, str(outside.pid), str(os.getpid())),
                root=rig.root(escape_layer(rig)),
                mounts=[*mounts, {"kind": "tmpfs", "target": "/tmp"}],
                network="none",
                uid=user,
                gid=user,
            )
            assert outside.poll() is None
        finally:
            outside.kill()
    assert result.code == 0, (result.err, result.error)
    got = {name: said for name, said in json.loads(result.out).items() if said}
    assert got == {}


def test_devices_of_the_host_stay_as_they_are(rig: Rig) -> None:
    # To what they have already: that would show by the time of the change, and do no harm.
    before = {name: os.stat(f"/dev/{name}") for name in ("null", "zero", "full")}
    result = rig.shell("chmod 666 /dev/null /dev/zero; chown 0:0 /dev/full; echo x > /dev/null; cat /dev/null")
    assert (result.code, result.out) == (0, ""), result.err
    for name, status in before.items():
        now = os.stat(f"/dev/{name}")
        assert (now.st_mode, now.st_uid, now.st_gid, now.st_ctime_ns) == (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_ctime_ns,
        )


def test_a_working_directory_leads_nowhere_by_a_magic_link(rig: Rig) -> None:
    links = {f"to{number}": f"-> /proc/self/fd/{number}" for number in range(3, 24)}
    layer = rig.layer({**links, "up": "-> /proc/1/root/..", "self": "-> /proc/self/cwd"})
    places = [f"/proc/self/fd/{number}" for number in range(3, 24)] + [f"/{name}" for name in (*links, "self")]
    places += [f"/proc/self/fd/{number}/../../../../../.." for number in range(3, 24)]
    steps = [rig.step("sh", "-c", f"ls {rig.folder}", cwd=place, root=rig.root(layer)) for place in places]
    for place, result in zip(places, rig.run_all(*steps), strict=True):
        assert (result.code, result.out) == (126, ""), (place, result)
        assert "working directory" in result.err


def test_a_mount_leads_nowhere_by_a_magic_link(rig: Rig) -> None:
    """A mount point below a link of the image is within the root, whatever descriptors castoff has open."""
    there = os.path.join(rig.folder, "there")
    os.mkdir(there)
    steps = []
    for number in range(3, 24):
        layer = rig.layer({"out": f"-> /proc/self/fd/{number}/../../../../../..{rig.folder}", "etc": "-> /out"})
        mounts = [{"kind": "tmpfs", "target": f"/{place}"} for place in ("out/there", "out/planted", "etc/planted")]
        steps.append(rig.step("grep", "-c", f"{there} ", "/proc/self/mountinfo", root=rig.root(layer), mounts=mounts))
    results = rig.run_all(*steps)
    os.rmdir(there)
    assert [(result.code, result.out) for result in results] == [(0, "1\n")] * len(steps), results
    assert not os.path.lexists(os.path.join(rig.folder, "planted"))
    assert not os.path.lexists(os.path.join(rig.folder, "hosts"))


def test_the_program_that_starts_a_step_is_no_file_of_the_host(rig: Rig) -> None:
    """What a process finds of castoff's own program by way of /proc is a sealed copy."""
    program, mounts = system_mounts(rig)
    # The fork server waits outside: it is looked at from here.
    script = "import time; time.sleep(1000)"
    process = subprocess.Popen(
        [rig.python, "-B", rig.driver],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd="/",
        **rig.identity(),
    )
    assert process.stdin is not None
    process.stdin.write(rig.request(rig.step(program, "-c", script, mounts=mounts)))
    process.stdin.close()
    try:
        server = _await_child(process.pid)
        with open(f"/proc/{server}/exe", "rb") as file:
            sealed = os.readlink(f"/proc/{server}/exe")
            assert sealed.startswith("/memfd:"), sealed
            assert file.read(4) == b"\x7fELF"
        with pytest.raises(OSError, match=r"not permitted|busy|denied"):
            os.pwrite(os.open(f"/proc/{server}/exe", os.O_WRONLY), b"x", 0)
    finally:
        process.kill()
        process.wait()


def _await_child(parent: int) -> int:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if int(fields[1]) == parent and b"zygote.py" in file.read():
                        return int(name)
            except OSError:
                continue
    raise AssertionError(f"process {parent} has started no fork server")


def test_the_program_notices_what_is_open() -> None:
    """Where nothing is closed, what does no harm there succeeds, or the tests above would show nothing."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    harmless = ("capabilities", "magic_links", "kernel_settings", "device_modes")
    done = subprocess.run(
        [sys.executable, "-I", "-S", os.path.join(HERE, "escape_program.py"), "/etc/passwd", str(os.getpid())],
        env={"ESCAPE_ONLY": ",".join((*harmless, "other_processes"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {name for name, said in json.loads(done.stdout).items() if said} == {*harmless, "other_processes"}
