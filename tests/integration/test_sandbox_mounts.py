"""The root file system of a sandbox: layers, further mounts, and that none of their mount points is ever left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from sandbox_rig import Rig, make_rig, remove_rig

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["root", "subuid"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = make_rig(request.param, request)
    yield made
    remove_rig(made)


def upper_entries(root: dict[str, Any]) -> list[str]:
    """Return all paths in the upper directory, sorted."""
    upper = root["upper"]
    found = []
    for folder, folders, files in os.walk(upper):
        found += [os.path.relpath(os.path.join(folder, name), upper) for name in folders + files]
    return sorted(found)


def folder_of_user(rig: Rig, name: str, files: dict[str, str | None]) -> str:
    path = rig.layer(files)
    renamed = os.path.join(rig.folder, name)
    os.rename(path, renamed)
    return renamed


def test_many_layers(rig: Rig) -> None:
    """127 layers, which is what Docker's images can have; the kernel's mount options are one page."""
    layers = [rig.layer({f"f{number}": str(number), "top": str(number)}) for number in range(127)]
    result = rig.shell("cat /top /f0 /f126; echo; ls / | grep -c '^f'", root=rig.root(*layers))
    assert result.out.split() == ["00126", "127"], (result.err, result.error)


def test_too_many_layers_is_an_error(rig: Rig) -> None:
    layer = rig.layer({})
    result = rig.shell("true", root=rig.root(*[layer] * 600))
    assert result.error is not None
    assert "601 layers" in result.error[1]


def test_changes_go_to_the_upper(rig: Rig) -> None:
    layer = rig.layer({"keep": "1", "gone": "1", "dir/a": "1"})
    root = rig.root(layer)
    result = rig.shell("echo 2 > /keep; rm /gone; rm -r /dir; mkdir /dir; echo new > /dir/b", root=root)
    assert result.code == 0, result.err
    assert upper_entries(root) == ["dir", "dir/b", "gone", "keep"]
    assert os.stat(os.path.join(layer, "gone")).st_size == 1


def test_empty_image_leaves_nothing(rig: Rig) -> None:
    root = rig.root()
    assert rig.shell("ls /etc/resolv.conf /proc/1 /sys /dev/null", root=root).code == 0
    assert upper_entries(root) == []


def test_generated_files_do_not_replace_those_of_the_image(rig: Rig) -> None:
    layer = rig.layer({"etc/hosts": "of the image\n", "etc/hostname": "image\n", "etc/other": "x"})
    root = rig.root(layer)
    result = rig.shell("cat /etc/hostname; echo y > /etc/other", root=root, hostname="box")
    assert result.out == "box\n"
    assert upper_entries(root) == ["etc", "etc/other"]


@pytest.mark.parametrize("link", ["../run/systemd/resolve/stub-resolv.conf", "/run/resolv.conf", "real.conf"])
def test_linked_resolv_conf(rig: Rig, link: str) -> None:
    """The link is followed within the image; what it lacks is made, and removed again."""
    layer = rig.layer({"etc/resolv.conf": "-> " + link, "etc/real.conf": "of the image"})
    root = rig.root(layer)
    result = rig.shell("cat /etc/resolv.conf; ls -l /etc/resolv.conf", root=root)
    with open("/etc/resolv.conf", encoding="utf-8") as file:
        assert file.read() in result.out
    assert link in result.out
    assert upper_entries(root) == []


def test_links_lead_nowhere_on_the_host(rig: Rig) -> None:
    outside = folder_of_user(rig, "outside", {"victim": "safe"})
    layer = rig.layer(
        {
            "etc/hosts": f"-> {outside}/victim",
            "mnt": f"-> {outside}",
            "up": "-> ../../../../../.." + outside,
        }
    )
    bound = folder_of_user(rig, "bound", {"x": "bound"})
    root = rig.root(layer)
    mounts = [
        {"kind": "bind", "target": "/mnt/inner", "source": bound},
        {"kind": "bind", "target": "/up/second", "source": bound},
    ]
    result = rig.shell("cat /mnt/inner/x /up/second/x", root=root, mounts=mounts)
    assert result.out == "boundbound", (result.err, result.error)
    assert os.listdir(outside) == ["victim"]
    assert upper_entries(root) == []


def test_whiteouts_over_mount_points_stay(rig: Rig) -> None:
    if os.geteuid() != 0:
        pytest.skip("root, to make a whiteout, is missing")
    lower = rig.layer({"etc/hosts": "h", "etc/keep": "k", "data/x": "1"})
    upper_layer = rig.layer({"etc/hosts": "!", "data": "!"})
    root = rig.root(upper_layer, lower)
    mounts = [{"kind": "tmpfs", "target": "/data"}]
    result = rig.shell("ls /data | wc -l; grep -c localhost /etc/hosts", root=root, mounts=mounts)
    assert result.out.split() == ["0", "2"], (result.err, result.error)
    assert upper_entries(root) == []


def test_a_made_mount_point_that_is_in_use_stays(rig: Rig) -> None:
    """What a step puts beside a mount is its own; the mount point itself goes."""
    layer = rig.layer({"link": "-> /made/here"})
    bound = folder_of_user(rig, "bound2", {"x": "1"})
    root = rig.root(layer)
    mounts = [{"kind": "bind", "target": "/link/cache", "source": bound}]
    result = rig.shell("echo 1 > /made/here/file; cat /link/cache/x", root=root, mounts=mounts)
    assert result.code == 0, (result.err, result.error)
    assert upper_entries(root) == ["made", "made/here", "made/here/file"]


def test_bind_tmpfs_and_read_only(rig: Rig) -> None:
    writable = folder_of_user(rig, "writable", {"x": "1"})
    fixed = folder_of_user(rig, "fixed", {"x": "2", "file": "3"})
    mounts = [
        {"kind": "bind", "target": "/w", "source": writable},
        {"kind": "bind", "target": "/r/deep/er", "source": fixed, "readonly": True},
        {"kind": "bind", "target": "/r/file.txt", "source": os.path.join(fixed, "file"), "readonly": True},
        {"kind": "tmpfs", "target": "/t", "size": 1 << 20, "mode": 0o700},
        {"kind": "bind", "target": "/t/in/side", "source": fixed},
    ]
    root = rig.root()
    script = (
        "cat /w/x /r/deep/er/x /r/file.txt /t/in/side/x; echo new > /w/new; echo no > /r/deep/er/no;"
        "echo no > /r/file.txt; stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'; echo y > /t/y"
    )
    result = rig.shell(script, root=root, mounts=mounts)
    assert result.out == "1232700\n1024\n", (result.err, result.error)
    assert result.err.count("Read-only file system") == 2
    assert os.path.exists(os.path.join(writable, "new"))
    assert upper_entries(root) == []


def test_missing_source_is_named(rig: Rig) -> None:
    result = rig.shell("true", mounts=[{"kind": "bind", "target": "/x", "source": "/no/such/folder"}])
    assert result.error is not None
    assert "/no/such/folder" in result.error[1]
    assert "/x" in result.error[1]


def test_targets_that_make_no_sense(rig: Rig) -> None:
    for target in ("/", "/proc", "/proc/1", "/a/../.."):
        result = rig.shell("true", mounts=[{"kind": "tmpfs", "target": target}])
        assert result.error is not None, target
    layer = rig.layer({"file": "1"})
    result = rig.shell("true", root=rig.root(layer), mounts=[{"kind": "tmpfs", "target": "/file"}])
    assert result.error is not None
    assert "/file" in result.error[1]


def test_read_only_root(rig: Rig) -> None:
    root = rig.root(readonly=True)
    mounts = [{"kind": "tmpfs", "target": "/tmp"}]
    result = rig.shell("echo x > /y; echo z > /tmp/z && cat /tmp/z", root=root, mounts=mounts)
    assert "Read-only" in result.err
    assert result.out == "z\n"
    assert upper_entries(root) == []


def test_root_without_upper(rig: Rig) -> None:
    layer = rig.layer({"x": "1"})
    root = {"lowers": [layer, rig.base], "upper": None, "work": None}
    result = rig.shell("cat /x; echo 2 > /x", root=root, mounts=[{"kind": "tmpfs", "target": "/new/dir"}])
    assert result.out == "1", result.error
    assert "Read-only" in result.err
    assert os.listdir(rig.state) == []


def test_no_layers_at_all(rig: Rig) -> None:
    root = rig.root()
    root["lowers"] = []
    result = rig.run("/busybox", "ls", "/", root=root, mounts=[
        {"kind": "bind", "target": "/busybox", "source": os.path.join(rig.base, "bin/busybox")}
    ])  # fmt: skip
    assert result.out.split() == ["busybox", "dev", "etc", "proc", "sys"], result.error
    assert upper_entries(root) == []


def test_inode_numbers_survive_the_first_write(rig: Rig) -> None:
    """True only while all of a union is on one file system, the server's stubs included."""
    layer = rig.layer({"file": "1"})
    result = rig.shell("stat -c '%i %d' /file; echo 2 >> /file; stat -c '%i %d' /file", root=rig.root(layer))
    lines = result.out.splitlines()
    assert lines[0] == lines[1]


def test_nothing_is_left_in_the_servers_folder(rig: Rig) -> None:
    rig.run_all(rig.step("true"), rig.step("false"))
    assert os.listdir(rig.state) == []
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert rig.folder not in file.read()
