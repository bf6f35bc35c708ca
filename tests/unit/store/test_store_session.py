from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from castoff.store.directory import DirectoryStore
from castoff.store.removal import remove_tree
from castoff.store.session import Session, sweep


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


def test_a_session_goes_with_all_that_is_in_it(folder: str) -> None:
    session = Session.begin(folder)
    made = session.new_dir()
    Path(made, "x").write_text("x")
    with session.new_file() as file:
        file.write(b"y")
        assert os.path.dirname(str(file.name)) == session.path
    assert session.new_dir() != made
    session.close()
    session.close()
    assert os.listdir(folder) == []


def test_a_live_session_is_left_alone(folder: str) -> None:
    with Session.begin(folder) as one, Session.begin(folder) as two:
        assert sweep(folder) == 0
        assert os.path.isdir(one.path)
        assert os.path.isdir(two.path)


def test_the_session_of_a_killed_process_is_removed(folder: str) -> None:
    program = f"""
import os, signal
from castoff.store.session import Session
session = Session.begin({folder!r})
os.makedirs(session.new_dir() + "/a/b/c")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    assert len(os.listdir(folder)) == 2
    with Session.begin(folder) as session:
        assert {os.path.join(folder, name) for name in os.listdir(folder)} == {session.path, session.path + ".lock"}


def test_a_folder_without_a_lock_is_stale(folder: str) -> None:
    os.makedirs(f"{folder}/123-abc/x")
    Path(folder, "456-def.lock").touch()
    assert sweep(folder) == 2
    assert os.listdir(folder) == []


def test_what_is_no_session_stays(folder: str) -> None:
    Path(folder, "unsynced-x").touch()
    assert sweep(folder) == 0
    assert os.listdir(folder) == ["unsynced-x"]


def test_a_store_has_one_session_at_a_time(tmp_path: Path) -> None:
    store = DirectoryStore.open_(str(tmp_path / "s"))
    session = store.session()
    assert store.session() is session
    store.close()
    assert store.session() is not session
    store.close()


def test_removing_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("x")
    (tmp_path / "doomed/sub").mkdir(parents=True)
    (tmp_path / "doomed/link").symlink_to(tmp_path / "kept")
    (tmp_path / "doomed/sub/link").symlink_to("../../kept")
    assert remove_tree(str(tmp_path / "doomed"))
    assert (tmp_path / "kept/file").exists()
    assert not (tmp_path / "doomed").exists()


def test_removing_a_link_leaves_its_target(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    assert remove_tree(str(tmp_path / "link"))
    assert (tmp_path / "kept").is_dir()


def test_removing_what_is_not_there(tmp_path: Path) -> None:
    assert remove_tree(str(tmp_path / "none"))


def test_removing_strange_names_and_modes(tmp_path: Path) -> None:
    top = tmp_path / "doomed"
    (top / "a/b").mkdir(parents=True)
    with open(os.fsencode(str(top)) + b"/\xff\n-rf", "w"):
        pass
    os.mkfifo(top / "a/fifo")
    (top / "a/b").chmod(0)
    (top / "a").chmod(0o500)
    assert remove_tree(str(top))


def test_removing_a_nesting_deeper_than_any_path(tmp_path: Path) -> None:
    top = tmp_path / "doomed"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert remove_tree(str(top))
    assert not top.exists()
