"""What several processes, and their sudden ends, do to one store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from castoff.store.directory import DirectoryStore
from castoff.store.gc import collect
from castoff.testing.random_images import random_image

pytestmark = pytest.mark.integration


def python(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def test_two_processes_tag_at_once_and_lose_nothing(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    program = """
import sys
from castoff.oci.reference import Reference
from castoff.store.directory import DirectoryStore
from castoff.testing.random_images import random_image
who = sys.argv[2]
with DirectoryStore.open_(sys.argv[1]) as store:
    image = random_image(store, layers=1, seed=who)
    sys.stdin.readline()
    for number in range(50):
        store.images.set_(Reference.parse(f"{who}:{number}"), image, number)
        if number % 5 == 4:
            store.images.remove(Reference.parse(f"{who}:{number - 1}"))
"""
    processes = [python(program, root, who) for who in ("one", "two")]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait() for process in processes] == [0, 0]
    for process in processes:
        process.communicate()
    with DirectoryStore.open_(root) as store:
        expected = {f"{who}:{number}" for who in ("one", "two") for number in range(50) if number % 5 != 3}
        assert {record.name for record in store.images} == expected
        assert store.generation() == 20
        assert [name for name in os.listdir(root) if name.startswith(".")] == []


def test_two_processes_make_one_store_at_once(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    program = """
import sys
from castoff.store.directory import DirectoryStore
from castoff.testing.random_images import random_image
sys.stdin.readline()
with DirectoryStore.open_(sys.argv[1]) as store:
    random_image(store, sys.argv[2], layers=1, seed=sys.argv[2])
"""
    processes = [python(program, root, f"app:{number}") for number in range(4)]
    for process in processes:
        process.communicate("go\n")
    assert [process.returncode for process in processes] == [0] * 4
    with DirectoryStore.open_(root, create=False) as store:
        assert {record.name for record in store.images} == {f"app:{number}" for number in range(4)}


def test_a_kill_in_the_middle_of_a_blob_leaves_a_usable_store(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    program = """
import sys, time
from castoff.store.directory import DirectoryStore
store = DirectoryStore.open_(sys.argv[1])
writer = store.blobs.writer()
writer.write(bytes(1 << 20))
print("writing", flush=True)
while True:
    writer.write(bytes(1 << 16))
    time.sleep(0.01)
"""
    process = python(program, root)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(os.listdir(f"{root}/tmp")) == 2
    with DirectoryStore.open_(root) as store:
        image = random_image(store, "app")
        assert store.blobs.size(image.digest) == image.size
        assert len([name for name in os.listdir(f"{root}/tmp") if name[0].isdigit()]) == 2
        assert os.listdir(store.session().path) == []
        assert not collect(store).deferred
    assert [name for name in os.listdir(f"{root}/tmp") if name[0].isdigit()] == []


def test_a_kill_in_the_middle_of_tagging_leaves_a_whole_list(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    program = """
import sys
from castoff.oci.reference import Reference
from castoff.store.directory import DirectoryStore
from castoff.testing.random_images import random_image
store = DirectoryStore.open_(sys.argv[1])
image = random_image(store, "app:first", layers=1)
print("tagging", flush=True)
number = 0
while True:
    store.images.set_(Reference.parse(f"app:{number}"), image, 1)
    number += 1
"""
    for number in range(3):
        process = python(program, root)
        assert process.stdout is not None
        assert process.stdout.readline() == "tagging\n"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        with DirectoryStore.open_(root) as store:
            assert "app:first" in {record.name for record in store.images}
            # Another image each time: a tag that changes nothing writes nothing, and takes nothing over.
            random_image(store, f"app:next{number}", seed=f"next{number}")
        assert [name for name in os.listdir(root) if name.startswith(".")] == []


def test_a_full_file_system(tmp_path: Path) -> None:
    """A real one, of one megabyte."""
    probe = ["unshare", "--mount", "--map-root-user", "--user", "true"]
    if os.geteuid() == 0:
        probe = ["unshare", "--mount", "true"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("mount namespaces are not available")
    program = f"""
import os
from castoff.errors import CastoffError
from castoff.events import NullObserver
from castoff.export.exporter import ImageResult
from castoff.export.layout import LayoutExporter
from castoff.store.directory import DirectoryStore
from castoff.testing.random_images import random_image
small = {str(tmp_path)!r} + "/small"
other = DirectoryStore.open_({str(tmp_path)!r} + "/other")
image = random_image(other, size=900_000)
for tar in (True, False):
    try:
        LayoutExporter(small + "/out", tar=tar).export(ImageResult(image, (), other.blobs), NullObserver())
    except CastoffError as error:
        print(type(error).__name__, error.message, error.hint)
    print(os.listdir(small))
store = DirectoryStore.open_(small + "/store")
try:
    with store.blobs.writer() as writer:
        while True:
            writer.write(bytes(100_000))
except CastoffError as error:
    print(type(error).__name__, error.message, error.hint)
print(list(store.blobs), os.listdir(store.session().path))
print(random_image(store, "fits", layers=1).size > 0)
store.close()
other.close()
"""
    (tmp_path / "small").mkdir()
    script = f'mount -t tmpfs -o size=1m tmpfs {tmp_path}/small && exec {sys.executable} -c "$0"'
    done = subprocess.run([*probe[:-1], "sh", "-c", script, program], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    for error, listing in (lines[0:2], lines[2:4]):
        assert error.startswith("ExportError can't write")
        assert "there is no space left" in error
        assert "free some space, or write to another place" in error
        assert listing == "[]"
    assert lines[4].startswith("StoreError can't write a blob to the store: there is no space left")
    assert "castoff prune" in lines[4]
    assert lines[5:] == ["[] []", "True"]


def test_a_kill_in_the_middle_of_an_export_leaves_the_old_file(tmp_path: Path) -> None:
    program = """
import os, sys, time
from castoff.export.placement import placed_file
with placed_file(sys.argv[1]) as fd:
    os.write(fd, bytes(1 << 20))
    print("writing", flush=True)
    time.sleep(60)
"""
    (tmp_path / "image.tar").write_text("old")
    process = python(program, str(tmp_path / "image.tar"))
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert (tmp_path / "image.tar").read_text() == "old"
    left = os.listdir(tmp_path)
    try:
        os.close(os.open(tmp_path, os.O_WRONLY | os.O_TMPFILE))
    except OSError:
        pytest.skip(f"files without a name (O_TMPFILE) are not available in {tmp_path}")
    assert left == ["image.tar"]
