"""Reading tar streams of every format, and refusing damaged ones."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from castoff.errors import InvalidImageError
from castoff.fs.entry import FileEntry
from castoff.layer.paxrecords import parse_records, parse_time
from castoff.layer.tarfields import checksum_fits, looks_like_tar, parse_field, plain_path
from castoff.layer.tarreader import TarReader

if TYPE_CHECKING:
    from conftest import Require

LONG = "dir/" * 60 + "name" * 30


def made(info: tarfile.TarInfo, data: bytes = b"", tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    info.size = len(data)
    with tarfile.open(fileobj=out, mode="w", format=tar_format, pax_headers={}) as archive:
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def read(data: bytes) -> list[tuple[FileEntry, bytes]]:
    return [(entry, b"".join(content)) for entry, content in TarReader(io.BytesIO(data))]


class Dribble:
    """A stream that gives a few bytes at a time, whatever is asked for."""

    def __init__(self, data: bytes, step: int) -> None:
        self._file = io.BytesIO(data)
        self._step = step

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._step))


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_formats(tar_format: int) -> None:
    info = tarfile.TarInfo("a/" + "b" * 90 + "/" + "c" * 90)
    info.uid, info.gid, info.mode, info.mtime = 1000, 1001, 0o4755, 1234567890
    ((entry, content),) = read(made(info, b"content", tar_format))
    assert entry == FileEntry(info.name.encode(), stat.S_IFREG | 0o4755, 1000, 1001, 7, 1234567890 * 1_000_000_000)
    assert content == b"content"


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_large_numbers(tar_format: int) -> None:
    info = tarfile.TarInfo(LONG)
    info.type, info.linkname = tarfile.SYMTYPE, "../" + LONG
    info.uid = info.gid = 3_000_000_000
    ((entry, _),) = read(made(info, tar_format=tar_format))
    assert (entry.path, entry.link) == (LONG.encode(), b"../" + LONG.encode())
    assert (entry.uid, entry.gid) == (3_000_000_000, 3_000_000_000)


def test_pax_times_and_attributes() -> None:
    info = tarfile.TarInfo("f")
    info.pax_headers = {"mtime": "1700000000.123456789", "SCHILY.xattr.user.a": "1", "comment": "x"}
    ((entry, _),) = read(made(info))
    assert entry.mtime_ns == 1_700_000_000_123_456_789
    assert entry.xattrs == ((b"user.a", b"1"),)


def test_a_global_header_holds_for_all_that_follows_and_own_ones_win() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"mtime": "7"}) as archive:
        archive.addfile(tarfile.TarInfo("a"))
        own = tarfile.TarInfo("b")
        own.pax_headers = {"mtime": "9"}
        archive.addfile(own)
    assert [entry.mtime_ns for entry, _ in read(out.getvalue())] == [7_000_000_000, 9_000_000_000]


@pytest.mark.parametrize("step", [1, 100, 511, 513, 4096])
def test_blocks_of_any_size(step: int) -> None:
    out = io.BytesIO()
    contents = [os.urandom(size) for size in (0, 1, 511, 512, 513, 3000)]
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number, data in enumerate(contents):
            info = tarfile.TarInfo(str(number))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert [b"".join(map(bytes, content)) for _, content in TarReader(Dribble(out.getvalue(), step))] == contents


def test_content_that_nobody_reads_is_skipped() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            info.size = 5000
            archive.addfile(info, io.BytesIO(name.encode() * 5000))
    names = []
    for entry, content in TarReader(io.BytesIO(out.getvalue())):
        names.append(entry.path)
        assert len(next(iter(content)))
    assert names == [b"a", b"b"]


def test_an_old_directory_is_told_by_its_slash() -> None:
    info = tarfile.TarInfo("d/")
    info.type = tarfile.AREGTYPE
    data = bytearray(made(info, tar_format=tarfile.USTAR_FORMAT))
    data[0:2] = b"d/"
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 256 + sum(data[156:512]))
    ((entry, _),) = read(bytes(data))
    assert entry.is_dir
    assert entry.path == b"d"


@pytest.mark.parametrize("tar_format", ["gnu", "posix:0.0", "posix:0.1", "posix:1.0"])
def test_sparse_files(tmp_path: Path, require: Require, tar_format: str) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        for number in range(12):
            file.seek(number * 300_000)
            file.write(b"%d" % number * 3000)
        file.truncate(5_000_000)
    kind, _, version = tar_format.partition(":")
    options = [f"--format={kind}", "--sparse", "--hole-detection=seek"]
    options += [f"--sparse-version={version}"] if version else []
    command = [require.command("tar"), *options, "-cf", "-", "-C", str(tmp_path), "sparse"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(data) < 2_000_000
    ((entry, content),) = read(data)
    assert entry.path == b"sparse"
    assert content == (tmp_path / "sparse").read_bytes()


def damaged(**fields: bytes) -> bytes:
    """Return an archive of one file in whose header some fields are other bytes, with a right checksum."""
    places = {"mode": 100, "uid": 108, "size": 124, "kind": 156, "name": 0, "link": 157, "major": 329}
    info = tarfile.TarInfo("f")
    data = bytearray(made(info, tar_format=tarfile.USTAR_FORMAT))
    for key, value in fields.items():
        data[places[key] : places[key] + len(value)] = value
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 256 + sum(data[156:512]))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no tar archive at all".ljust(1024, b"."), "checksum"),
        (damaged(size=b"\xff" * 12), "negative size"),
        (damaged(uid=b"\xff" * 8), "negative uid"),
        (damaged(size=b"\x80" + b"\xff" * 11), "too large"),
        (damaged(uid=b"\x80\0\0\x01\0\0\0\0"), "too large"),
        (damaged(mode=b"12x4567\0"), "no number"),
        (damaged(kind=b"Q"), "unknown type"),
        (damaged(size=b"00000100000\0"), "cut short"),
        (damaged(kind=b"3", major=b"7777777\0"), "impossible device"),
        (damaged(name=b"../f"), "'..'"),
        (damaged(name=b"a/../f"), "'..'"),
        (damaged(kind=b"L", size=b"77777777777\0"), "extended headers"),
        (made(tarfile.TarInfo("f"))[:100], "cut short"),
    ],
)
def test_damaged_archives_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(InvalidImageError, match=words):
        read(data)


def pax(body: bytes, size: int | None = None) -> bytes:
    head = tarfile.TarInfo("pax")
    head.type = tarfile.XHDTYPE
    head.size = len(body) if size is None else size
    return head.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512) + made(tarfile.TarInfo("f"))


@pytest.mark.parametrize(
    "body",
    [
        b"path=x\n",
        b"99 path=x\n",
        b"3 a\n",
        b"0 path=x\n",
        b"9 path=x.",
        b"10 size=-1\n",
        b"12 mtime=1e9\n",
        b"20 path=" + b"a\0b".ljust(11) + b"\n",
        b"13 path=/../\n",
        b"28 GNU.sparse.realsize=1000\n" + b"22 GNU.sparse.map=5,6\n",
        b"25 GNU.sparse.realsize=9\n" + b"26 GNU.sparse.map=5,1,2,1\n",
    ],
)
def test_bad_pax_headers_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidImageError):
        read(pax(body))


def test_pax_records() -> None:
    assert parse_records(b"8 a=b=c\n6 k=v\n6 k=w\n")[0] == {b"a": b"b=c", b"k": b"w"}
    assert parse_records(b"11 k=a\nb\nc\n")[0] == {b"k": b"a\nb\nc"}
    assert parse_time(b"-1.5") == -1_500_000_000
    assert parse_time(b"3.0000000019") == 3_000_000_001


def test_numbers() -> None:
    assert parse_field(b" 0644 \0", "mode") == 0o644
    assert parse_field(b"\0" * 8, "uid") == 0
    assert parse_field(b"\x80" + b"\0" * 10 + b"\x05", "size") == 5
    assert parse_field(b"\xff" * 12, "mtime", signed=True) == -1
    assert parse_field(b"12345670", "mode") == 0o12345670
    for bad in (b"1_0\0", b"0o17\0\0", b"-1\0", b"+1\0", b"089\0", b"12x\0"):
        with pytest.raises(InvalidImageError, match="no number"):
            parse_field(bad, "mode")


def test_old_checksums_of_signed_bytes_are_accepted() -> None:
    info = tarfile.TarInfo("größe")
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:]) + 256
    block[148:156] = b"%06o\0 " % signed
    assert checksum_fits(bytes(block))
    block[0] ^= 1
    assert not checksum_fits(bytes(block))


def test_paths() -> None:
    assert plain_path(b"/./a//b/./c/") == b"a/b/c"
    assert plain_path(b"./") == b""
    assert plain_path(b"a..b/...") == b"a..b/..."


def test_what_looks_like_tar() -> None:
    assert looks_like_tar(made(tarfile.TarInfo("f")))
    assert looks_like_tar(bytes(1024))
    assert not looks_like_tar(bytes(512))
    assert not looks_like_tar(b"PK\3\4".ljust(1024, b"x"))
    assert not looks_like_tar(b"")


def test_an_empty_stream_has_no_entries() -> None:
    assert read(b"") == []
    assert read(bytes(1024)) == []
