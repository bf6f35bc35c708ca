"""System calls that need no rights."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from castoff.linux import namespaces, syscalls, xattrs

SRC = os.path.join(os.path.dirname(__file__), "..", "..", "..", "src")


def test_errors_name_the_call_and_what_it_was_about() -> None:
    with pytest.raises(OSError, match=r"open_tree\(/no/such\)") as caught:
        syscalls.open_tree(syscalls.AT_FDCWD, "/no/such", 0)
    assert caught.value.errno in (errno.ENOENT, errno.EPERM)


def test_openat2_tries_again_where_something_was_renamed_meanwhile(tmp_path: Path) -> None:
    """The kernel gives up on a ".." in a confined path whenever anything is renamed anywhere."""
    (tmp_path / "a").mkdir()
    (tmp_path / "file").touch()
    script = "import os, sys\nwhile True: os.rename('one', 'two'); os.rename('two', 'one')"
    (tmp_path / "one").touch()
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", script], cwd=tmp_path) as renamer:
        try:
            for _ in range(5000):
                os.close(syscalls.openat2(root, "a/../" * 20 + "file", os.O_PATH, 0, syscalls.RESOLVE_IN_ROOT))
        finally:
            renamer.kill()
            os.close(root)


def test_openat2_stays_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "root" / "link").symlink_to("/file")
    (tmp_path / "root" / "escape").symlink_to("../secret")
    root = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    try:
        descriptor = syscalls.openat2(root, "link", os.O_RDONLY, 0, syscalls.RESOLVE_IN_ROOT)
        assert os.read(descriptor, 100) == b"inside"
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)
        with pytest.raises(FileNotFoundError):
            syscalls.openat2(root, "escape", os.O_RDONLY, 0, syscalls.RESOLVE_IN_ROOT)
        with pytest.raises(OSError, match="openat2") as caught:
            syscalls.openat2(root, "escape", os.O_RDONLY, 0, syscalls.RESOLVE_BENEATH)
        assert caught.value.errno == errno.EXDEV
    finally:
        os.close(root)


def test_pidfd() -> None:
    with subprocess.Popen(["sleep", "100"]) as process:
        descriptor = syscalls.pidfd_open(process.pid)
        syscalls.pidfd_send_signal(descriptor, 15)
        assert process.wait() == -15
        with pytest.raises(ProcessLookupError):
            syscalls.pidfd_send_signal(descriptor, 15)
        os.close(descriptor)


def test_close_range_marks_descriptors() -> None:
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from castoff.linux import syscalls;"
        "fd = os.open('/dev/null', os.O_RDONLY); os.set_inheritable(fd, True);"
        "syscalls.close_range(3, flags=syscalls.CLOSE_RANGE_CLOEXEC); print(os.get_inheritable(fd));"
        "syscalls.execve(b'/bin/sh', [b'sh', b'-c', b'echo $A'], [b'A=1', b'A=2'])"
    )
    result = subprocess.run([sys.executable, "-u", "-c", script, SRC], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "2"]


def test_syncfs_and_prctl(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    syscalls.syncfs(descriptor)
    os.close(descriptor)
    with pytest.raises(OSError, match="prctl"):
        syscalls.prctl(0x7FFFFFF)


def test_initial_user_namespace_is_recognised() -> None:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        assert namespaces.in_initial_user_namespace() == (file.read().split() == ["0", "0", "4294967295"])


def test_it_imports_little() -> None:
    """The fork server starts with it; what is imported here is paid for by every build."""
    script = "import sys; sys.path.append(sys.argv[1]); import castoff.linux.syscalls; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", script, SRC]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"typing", "dataclasses", "enum", "socket", "subprocess", "castoff.errors"}


def test_xattrs(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    try:
        xattrs.set_(str(path), "user.castoff-test", b"\x00value")
    except OSError as error:
        pytest.skip(f"user attributes on {tmp_path} are missing: {error.strerror}")
    assert xattrs.get(str(path), "user.castoff-test") == b"\x00value"
    assert "user.castoff-test" in xattrs.names(bytes(path))
    xattrs.remove(str(path), "user.castoff-test")
    xattrs.remove(str(path), "user.castoff-test")
    assert xattrs.get(str(path), "user.castoff-test") is None
    link = tmp_path / "link"
    link.symlink_to("file")
    assert xattrs.get(str(link), "user.castoff-test") is None
    with pytest.raises(FileNotFoundError):
        xattrs.get(str(tmp_path / "none"), "user.x")
