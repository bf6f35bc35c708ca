"""Making layers: headers, times, hard links, whiteouts, files that change, codecs, threads."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import zstandard

from castoff.errors import ContextError, StoreError
from castoff.fs.changes import Added, Change, Opaque, Removed
from castoff.fs.entry import FileEntry
from castoff.fs.walk import walk_folder
from castoff.layer import compression
from castoff.layer.compression import Compression
from castoff.layer.create import LayerOptions, tar_size, write_layer
from castoff.layer.tarwriter import CHUNK, TarStream

PLAIN = Compression("none")


def memory(path: str, data: bytes = b"", mode: int = 0o644, mtime: int = 0) -> Added:
    return Added(
        FileEntry(path.encode(), stat.S_IFREG | mode, size=len(data), mtime_ns=mtime * 1_000_000_000, data=data)
    )


def host_file(path: Path, name: str = "f") -> Added:
    status = path.stat()
    return Added(FileEntry(name.encode(), status.st_mode, size=status.st_size, source=os.fsencode(path)))


def tar_of(changes: list[Change], **options: object) -> tarfile.TarFile:
    data = b"".join(bytes(chunk) for chunk in TarStream(**options).chunks(changes))  # type: ignore[arg-type]
    return tarfile.open(fileobj=io.BytesIO(data))


def test_headers_have_numbers_and_no_names() -> None:
    (member,) = tar_of(
        [Added(FileEntry(b"a/b", stat.S_IFDIR | 0o1777, 1000, 1001, mtime_ns=1_999_999_999))]
    ).getmembers()
    assert (member.name, member.mode, member.uid, member.gid, member.mtime) == ("a/b", 0o1777, 1000, 1001, 1)
    assert (member.uname, member.gname, member.type, member.pax_headers) == ("", "", tarfile.DIRTYPE, {})


@pytest.mark.parametrize("length", [1, 99, 100, 101, 155, 156, 200, 255, 256, 257, 400])
@pytest.mark.parametrize("slash", [False, True])
def test_names_of_any_length(length: int, slash: bool) -> None:
    name = ("d" * 20 + "/") * (length // 21) + "x" * (length % 21) if slash else "n" * length
    name = name.strip("/") or "x"
    for kind in (stat.S_IFREG, stat.S_IFDIR):
        (member,) = tar_of([Added(FileEntry(name.encode(), kind | 0o755))]).getmembers()
        assert member.name == name


def test_what_ustar_can_not_say_is_in_pax_records() -> None:
    entry = FileEntry(
        b"gr\xc3\xb6\xff", stat.S_IFLNK | 0o777, 1 << 31, 1 << 30, link=b"\xc3\xb6" * 90, mtime_ns=-1_000_000_000
    )
    (member,) = tar_of([Added(entry)]).getmembers()
    assert os.fsencode(member.name) == entry.path
    assert os.fsencode(member.linkname) == entry.link
    assert (member.uid, member.gid, member.mtime) == (1 << 31, 1 << 30, -1)


def test_attributes_and_devices() -> None:
    device = FileEntry(b"null", stat.S_IFCHR | 0o666, rdev=os.makedev(1, 3))
    capable = FileEntry(b"ping", stat.S_IFREG | 0o755, data=b"", xattrs=((b"security.capability", b"\x01\x00=\n\x02"),))
    null, ping = tar_of([Added(device), Added(capable)]).getmembers()
    assert (null.type, null.devmajor, null.devminor) == (tarfile.CHRTYPE, 1, 3)
    assert ping.pax_headers["SCHILY.xattr.security.capability"] == "\x01\x00=\n\x02"


def test_whiteouts_and_opaque_marks() -> None:
    changes: list[Change] = [Added(FileEntry(b"d", stat.S_IFDIR | 0o755)), Opaque(b"d"), Removed(b"d/x"), Removed(b"y")]
    members = tar_of(changes, epoch=5).getmembers()
    assert [(member.name, member.size) for member in members] == [
        ("d", 0),
        ("d/.wh..wh..opq", 0),
        ("d/.wh.x", 0),
        (".wh.y", 0),
    ]
    assert [member.mtime for member in members] == [0, 5, 5, 5]


def test_a_file_that_looks_like_a_whiteout_is_refused() -> None:
    with pytest.raises(ContextError, match=r"\.wh\."):
        tar_of([memory("d/.wh.x")])


def test_times_are_kept_clamped_or_set() -> None:
    changes: list[Change] = [memory("old", mtime=5), memory("new", mtime=50)]
    assert [member.mtime for member in tar_of(changes).getmembers()] == [5, 50]
    assert [member.mtime for member in tar_of(changes, epoch=10).getmembers()] == [5, 10]
    assert [member.mtime for member in tar_of(changes, epoch=10, set_times=True).getmembers()] == [10, 10]


def test_hard_links_have_no_content(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 600)
    link = FileEntry(b"g", stat.S_IFREG | 0o644, size=600, source=os.fsencode(tmp_path / "f"), hardlink=b"f")
    archive = tar_of([host_file(tmp_path / "f"), Added(link)])
    first, second = archive.getmembers()
    assert (second.type, second.linkname, second.size) == (tarfile.LNKTYPE, "f", 0)
    assert first.size == 600


def test_every_buffer_but_the_last_is_full() -> None:
    changes: list[Change] = [memory(str(number), os.urandom(700_001)) for number in range(5)]
    sizes = [len(chunk) for chunk in TarStream().chunks(changes)]
    assert sizes[:-1] == [CHUNK] * 3
    assert sum(sizes) == tar_size(changes) == 5 * (512 + 700_416) + 1024


def test_content_of_files_larger_than_a_buffer(tmp_path: Path) -> None:
    data = os.urandom(3 * CHUNK + 17)
    (tmp_path / "f").write_bytes(data)
    content = tar_of([memory("a", b"x"), host_file(tmp_path / "f"), memory("z", b"y")]).extractfile("f")
    assert content is not None
    assert content.read() == data


def test_a_file_that_has_another_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    change = host_file(tmp_path / "f")
    for data in (b"123", b"1234567"):
        (tmp_path / "f").write_bytes(data)
        with pytest.raises(ContextError, match="changed while it was being read"):
            tar_of([change])


def test_a_file_that_is_not_the_one_that_was_seen_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    (seen,) = [file.entry for file in walk_folder(str(tmp_path)) if file.entry.is_file]
    assert tar_of([Added(seen)]).getnames() == ["f"]
    os.chmod(tmp_path / "f", 0o600)
    (tmp_path / "g").write_bytes(b"67890")
    os.rename(tmp_path / "g", tmp_path / "f")
    with pytest.raises(ContextError, match="changed while"):
        tar_of([Added(seen)])


def test_a_file_that_became_a_fifo_or_a_link_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    change = host_file(tmp_path / "f")
    (tmp_path / "f").unlink()
    os.mkfifo(tmp_path / "f")
    with pytest.raises(ContextError, match="stopped being a regular file"):
        tar_of([change])
    (tmp_path / "f").unlink()
    (tmp_path / "f").symlink_to("/etc/hostname")
    with pytest.raises(ContextError, match="can't read f"):
        tar_of([change])


def test_a_fifo_in_the_tree_is_written_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    entry = FileEntry(b"p", stat.S_IFIFO | 0o600, source=os.fsencode(tmp_path / "p"))
    (member,) = tar_of([Added(entry)]).getmembers()
    assert member.type == tarfile.FIFOTYPE


def decompress(data: bytes, algorithm: str) -> bytes:
    if algorithm == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return gzip.decompress(data) if algorithm == "gzip" else data


@pytest.mark.parametrize("size", [10, 6 * CHUNK])
@pytest.mark.parametrize(
    "spec", [PLAIN, Compression(), Compression("gzip", 1), Compression("zstd"), Compression("zstd", 9)]
)
def test_a_layer_is_what_it_says(size: int, spec: Compression) -> None:
    out = io.BytesIO()
    changes: list[Change] = [memory("a", os.urandom(size // 2) + bytes(size - size // 2)), memory("b", b"2")]
    info = write_layer(changes, out, LayerOptions(compression=spec))
    tar = decompress(out.getvalue(), spec.algorithm)
    assert info.size == len(tar)
    assert info.diff_id.hex == hashlib.sha256(tar).hexdigest()
    assert (info.compressed_size, info.files) == (len(out.getvalue()), 2)
    again = io.BytesIO()
    write_layer(iter(changes), again, LayerOptions(compression=spec))
    assert again.getvalue() == out.getvalue()


def test_gzip_headers_hold_no_time_name_or_system() -> None:
    out = io.BytesIO()
    write_layer([memory("a", b"1")], out, LayerOptions())
    assert out.getvalue()[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


def test_the_size_alone_chooses_the_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def watch(name: str, original: Callable[[], ModuleType]) -> Callable[[], ModuleType]:
        def called() -> ModuleType:
            made.append(name)
            return original()

        return called

    for name in ("_isal", "_zlib_ng"):
        monkeypatch.setattr(compression, name, watch(name, getattr(compression, name)))
    for size, level in ((compression.SMALL_LAYER, None), (compression.SMALL_LAYER + 1, None), (1 << 40, 6)):
        compression.new_encoder(Compression("gzip", level), size)
    assert made == ["_zlib_ng", "_isal", "_zlib_ng"]


def test_a_failing_reader_or_writer_ends_all_threads(tmp_path: Path) -> None:
    class Full:
        def write(self, data: bytes, /) -> int:
            raise StoreError("the disk is full")

    big: list[Change] = [memory(str(number), os.urandom(CHUNK)) for number in range(20)]
    with pytest.raises(StoreError, match="full"):
        write_layer(big, Full(), LayerOptions(compression=PLAIN))
    (tmp_path / "f").write_bytes(b"1")
    late = host_file(tmp_path / "f")
    (tmp_path / "f").unlink()
    with pytest.raises(ContextError, match="can't read f"):
        write_layer([*big, late], io.BytesIO(), LayerOptions(compression=PLAIN))
    assert not [thread for thread in threading.enumerate() if thread.name == "castoff-layer"]


def test_no_buffer_is_written_to_after_it_was_handed_on() -> None:
    class Slow(io.BytesIO):
        def write(self, data: bytes, /) -> int:  # type: ignore[override]
            time.sleep(0.01)
            return super().write(data)

    def changes() -> Iterator[Change]:
        for number in range(12):
            yield memory(f"{number:03}", bytes([number]) * CHUNK)

    slow, fast = Slow(), io.BytesIO()
    assert write_layer(changes(), slow, LayerOptions(compression=PLAIN)) == write_layer(
        changes(), fast, LayerOptions(compression=PLAIN)
    )
    assert slow.getvalue() == fast.getvalue()
