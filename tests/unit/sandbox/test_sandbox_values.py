"""Requests, subordinate ranges, errors and facts: what needs no namespace."""

from __future__ import annotations

import errno
import marshal
import os
from pathlib import Path
from typing import Any

import pytest

from castoff.errors import SandboxError, SyscallError, UnsupportedError, UsageError
from castoff.mount import Mount, MountKind
from castoff.sandbox import obstacles
from castoff.sandbox.probe import probe
from castoff.sandbox.spec import ProcessSpec, RootSpec
from castoff.sandbox.userns import IdRange, current_tier, enter_user_namespace, subordinate_ranges
from castoff.sandbox.wire import encode_request
from castoff.sandbox.zygote_executor import ZygoteExecutor, setup_error

ROOT = RootSpec(("/lower",), "/upper", "/work")


def spec(**changes: Any) -> ProcessSpec:
    return ProcessSpec(**{"root": ROOT, "argv": ("true",), "env": (), **changes})


def test_request_holds_bytes_of_any_name() -> None:
    request = marshal.loads(encode_request(spec(argv=("a\udcff",), env=("X=\udcfe",))))
    assert request["argv"] == [b"a\xff"]
    assert request["env"] == [b"X=\xfe"]


@pytest.mark.parametrize(
    "changes",
    [
        {"argv": ()},
        {"argv": ("",)},
        {"argv": ("a\0b",)},
        {"env": ("A=\0",)},
        {"cwd": "/\0"},
        {"root": RootSpec(("/l",) * 500, "/u", "/w")},
        {"root": RootSpec(("/l",), "/u", None)},
        {"hosts": (("name\n1.2.3.4 evil", "1.1.1.1"),)},
        {"mounts": (Mount(MountKind.TMPFS, "/"),)},
        {"mounts": (Mount(MountKind.TMPFS, "/proc/sys"),)},
        {"mounts": (Mount(MountKind.TMPFS, "/x/../proc"),)},
    ],
)
def test_impossible_requests(changes: dict[str, Any]) -> None:
    with pytest.raises(SandboxError):
        encode_request(spec(**changes))


def test_closed_executor_starts_nothing() -> None:
    executor = ZygoteExecutor()
    executor.close()
    executor.close()
    with pytest.raises(SandboxError, match="closed"):
        executor.start(spec(), 0, 1, 2)


def test_subordinate_ranges(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    number = os.geteuid()
    path.write_text(f"other:1:2\nme:100000:65536\n{number}:300000:10\nme:bad\nme:5:0\n")
    assert subordinate_ranges(str(path), "me") == [IdRange(1, 100000, 65536), IdRange(65537, 300000, 10)]


def test_missing_ranges_name_the_line_to_add(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "empty"):
        if path.name == "empty":
            path.write_text("")
        with pytest.raises(UnsupportedError) as caught:
            subordinate_ranges(str(path), "jane")
        assert caught.value.feature == "subuid range"
        assert "jane:100000:65536" in (caught.value.hint or "")


def test_modes() -> None:
    with pytest.raises(UsageError):
        enter_user_namespace("magic")
    if os.geteuid() == 0:
        assert enter_user_namespace() == enter_user_namespace("root") == current_tier()
        assert current_tier().name == "root"
    else:
        with pytest.raises(UsageError):
            enter_user_namespace("root")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"/proc/sys/kernel/unprivileged_userns_clone": "0"}, "unprivileged_userns_clone=1"),
        ({"/proc/sys/user/max_user_namespaces": "0"}, "max_user_namespaces"),
        ({"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}, "AppArmor"),
        ({"/proc/self/status": "Name: x\nSeccomp:\t2\n"}, "seccompProfile.type: Unconfined"),
        ({"/proc/self/attr/current": "docker-default (enforce)"}, "appArmorProfile.type: Unconfined"),
        ({}, "outside"),
    ],
)
def test_remedies(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], word: str) -> None:
    monkeypatch.setattr(obstacles, "read_setting", lambda path: settings.get(path, ""))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    obstacle = obstacles.namespace_obstacle(errno.EPERM)
    assert obstacle.fact
    assert word in obstacle.remedy


def test_setup_errors() -> None:
    overlay = setup_error("mount overlay", errno.EINVAL, "")
    assert isinstance(overlay, UnsupportedError)
    assert overlay.feature == "overlay"
    assert "--root" in (overlay.hint or "")
    namespaces = setup_error("start a process in new namespaces", errno.EPERM, "")
    assert isinstance(namespaces, UnsupportedError)
    other = setup_error("mount /x", errno.ENOENT, "")
    assert isinstance(other, SyscallError)
    assert other.errno == errno.ENOENT
    assert "mount /x" in other.message


def test_probe_gives_facts_and_leaves_nothing(tmp_path: Path) -> None:
    tier, facts = probe(str(tmp_path / "not" / "yet"))
    assert tier in ("root", "subuid", "single", "chroot", "none")
    names = [fact.feature for fact in facts]
    assert {"kernel", "tier", "seccomp", "pasta", "cgroups"} <= set(names)
    assert len(names) == len(set(names))
    assert all(fact.fact for fact in facts)
    assert list(tmp_path.iterdir()) == []
