"""Archives on loopback, signed with a key made here: verification, mirrors, downloads, whole assemblies."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from debian_archive import DATE, Key, Package, Site, directory, member, new_key, serving

from castoff.base.archive import Archive, SignatureError
from castoff.base.assemble import AssembleRequest, LockRequest, Sources, assemble, lock
from castoff.base.download import Download, DownloadCache, NotThereError
from castoff.base.lockfile import Lock
from castoff.base.mirrors import AptSource, Mirrors, parse_mirror, read_apt_sources
from castoff.errors import DigestMismatchError, RegistryError, UnsupportedError, UsageError
from castoff.events import NullObserver
from castoff.oci.config import ImageConfig
from castoff.oci.manifest import Manifest
from castoff.oci.reference import Reference
from castoff.store.directory import DirectoryStore

if TYPE_CHECKING:
    from castoff.oci.descriptor import Descriptor

CERTIFICATE = b"-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----"
FILES = Package(
    "base-files",
    "12.4",
    (
        directory("./bin/"),
        directory("./usr/share/doc/base-files/"),
        member("./bin/true", b"program", mode=0o755),
        member("./usr/share/doc/base-files/copyright", b"free"),
        member("./usr/share/doc/base-files/changelog.gz", b"x"),
        member("./usr/share/man/man1/true.1.gz", b"x"),
        member("./usr/share/locale/de/LC_MESSAGES/x.mo", b"x"),
        member("./usr/lib/os-release", b"ID=debian\n"),
    ),
    fields=(("Pre-Depends", "awk"),),
    md5sums=b"d41d8cd98f00b204e9800998ecf8427e  usr/lib/os-release\n"
    b"d41d8cd98f00b204e9800998ecf8427e  usr/share/man/man1/true.1.gz\n",
)
CERTIFICATES = Package(
    "ca-certificates",
    entries=(
        member("./usr/share/ca-certificates/m/b.crt", CERTIFICATE % b"B"),
        member("./usr/share/ca-certificates/m/a.crt", CERTIFICATE % b"A" + b"\n"),
    ),
    compression=".zst",
    architecture="all",
)
AWK = Package("mawk", entries=(member("./usr/bin/mawk", b"awk", mode=0o755),), fields=(("Provides", "awk"),))
RECIPE = """\
format = 1
variant = "distroless"
suite = "bookworm"
pockets = []
architecture = "amd64"
packages = ["base-files", "ca-certificates"]
drop = ["usr/share/ca-certificates"]
[config]
user = "65532"
workdir = "/home/nonroot"
[config.env]
SSL_CERT_FILE = "/etc/ssl/certs/ca-certificates.crt"
[[users]]
name = "nonroot"
uid = 65532
[[symlinks]]
path = "/etc/mtab"
target = "/proc/mounts"
"""


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Key]:
    for program, package in (("gpg", "gnupg"), ("gpgv", "gpgv")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian package {package})")
    # The path of gpg's agent's socket must be short.
    with new_key(str(tmp_path_factory.mktemp("k")), "trusted") as made:
        yield made


@pytest.fixture
def site(key: Key) -> Iterator[Site]:
    with serving() as served:
        served.add_suite("debian", "bookworm", [FILES, CERTIFICATES, AWK], key)
        yield served


@pytest.fixture
def sources(site: Site, key: Key) -> Sources:
    mirrors = (("debian", f"{site.url}/debian"), ("debian-security", f"{site.url}/debian-security"))
    return Sources(mirrors, f"{site.url}/snapshot", key.keyring, "/nonexistent")


@pytest.fixture
def archive(site: Site, key: Key, tmp_path: Path) -> Archive:
    mirrors = Mirrors((("debian", f"{site.url}/debian"),), (), f"{site.url}/snapshot")
    return Archive(mirrors, DownloadCache(str(tmp_path / "downloads")), key.keyring)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DirectoryStore]:
    with DirectoryStore.open_(str(tmp_path / "store")) as opened:
        yield opened


def layer_of(store: DirectoryStore, manifest: Descriptor) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    blob = Manifest.parse(store.blobs.read(manifest.digest)).layers[0]
    data = zlib.decompress(store.blobs.read(blob.digest), zlib.MAX_WBITS | 16)
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        for info in opened:
            stream = opened.extractfile(info) if info.isreg() else None
            found[info.name] = (info, stream.read() if stream else b"")
    return found


def test_signed_index(archive: Archive) -> None:
    (index,) = archive.indexes("debian", "bookworm", ("main",), "amd64")
    assert index.time == DATE
    assert b"Package: mawk\n" in index.text


def test_foreign_signature(archive: Archive, site: Site, tmp_path: Path) -> None:
    with new_key(str(tmp_path), "other") as other:
        site.add_suite("debian", "bookworm", [FILES], other)
    with pytest.raises(SignatureError, match=r"signature of .* is not good"):
        archive.indexes("debian", "bookworm", ("main",), "amd64")


def test_changed_after_signing(archive: Archive, site: Site) -> None:
    path = "/debian/dists/bookworm/InRelease"
    site.files[path] = site.files[path].replace(b"Suite: bookworm", b"Suite: forged..")
    with pytest.raises(SignatureError):
        archive.indexes("debian", "bookworm", ("main",), "amd64")


def test_text_outside_the_signature_is_not_read(archive: Archive, site: Site) -> None:
    path = "/debian/dists/bookworm/InRelease"
    site.files[path] = b"Origin: Forged\n\n" + site.files[path] + b"\nCodename: forged\n"
    # gpgv refuses such a file, or gives the signed part only: never what stands around it.
    try:
        (index,) = archive.indexes("debian", "bookworm", ("main",), "amd64")
    except SignatureError:
        return
    assert index.time == DATE


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("Origin", "Ubuntu", "origin 'Ubuntu'"),
        ("Codename", "trixie", None),
        ("Architectures", "arm64", "no packages for the architecture 'amd64'"),
        ("Date", "yesterday", "no Date"),
    ],
)
def test_other_archives(archive: Archive, site: Site, key: Key, field: str, value: str, message: str | None) -> None:
    release = {field: value} | ({"Suite": value} if field == "Codename" else {})
    site.add_suite("debian", "bookworm", [FILES], key, **release)
    with pytest.raises(RegistryError, match=message or "suite 'trixie'"):
        archive.indexes("debian", "bookworm", ("main",), "amd64")


def test_index_with_another_digest(archive: Archive, site: Site) -> None:
    for path in site.files:
        if "binary-amd64" in path:
            site.files[path] = b"\0" * len(site.files[path])
    with pytest.raises(DigestMismatchError, match=r"Packages\.xz"):
        archive.indexes("debian", "bookworm", ("main",), "amd64")
    assert not any(len(path.name) == 64 for path in Path(archive.downloads.path("x")).parent.iterdir())


def test_index_without_by_hash(archive: Archive, site: Site, key: Key) -> None:
    site.add_suite("debian", "bookworm", [FILES], key, **{"Acquire-By-Hash": "no"})
    archive.indexes("debian", "bookworm", ("main",), "amd64")
    assert not any("by-hash" in path for path, _ in site.requests)


def test_missing_suite_says_what_to_do(archive: Archive) -> None:
    with pytest.raises(NotThereError) as caught:
        archive.indexes("debian", "sid", ("main",), "amd64")
    assert caught.value.hint == "name a mirror: --mirror debian=URL"


def test_missing_keyring(archive: Archive) -> None:
    with pytest.raises(UnsupportedError, match="keyring") as caught:
        replace(archive, keyring="/nonexistent.gpg").indexes("debian", "bookworm", ("main",), "amd64")
    assert caught.value.feature == "debian-archive-keyring"


def test_download_goes_on_where_it_broke_off(site: Site, tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    site.files["/big"] = data
    site.cut.add("/big")
    seen: list[int] = []
    cache = DownloadCache(str(tmp_path / "d"), lambda name, current, total: seen.append(current))
    wanted = Download("big", (f"{site.url}/big",), hashlib.sha256(data).hexdigest(), len(data))
    assert Path(cache.fetch(wanted)).read_bytes() == data
    assert [wanted for _, wanted in site.requests] == ["", f"bytes={len(data) // 2}-"]
    assert seen[-1] == len(data)
    cache.fetch(wanted)
    assert len(site.requests) == 2
    assert [path.name for path in (tmp_path / "d").iterdir()] == [wanted.sha256]


def test_download_from_a_server_without_ranges(site: Site, tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    site.files["/big"] = data
    site.cut.add("/big")
    site.ranges = False
    cache = DownloadCache(str(tmp_path / "d"))
    wanted = Download("big", (f"{site.url}/big",), hashlib.sha256(data).hexdigest(), len(data))
    assert Path(cache.fetch(wanted)).read_bytes() == data


def test_damaged_download_is_loaded_again(site: Site, tmp_path: Path) -> None:
    site.files["/x"] = b"right"
    cache = DownloadCache(str(tmp_path / "d"))
    wanted = Download("x", (f"{site.url}/x",), hashlib.sha256(b"right").hexdigest(), 5)
    Path(cache.fetch(wanted)).write_bytes(b"")
    assert Path(cache.fetch(wanted)).read_bytes() == b"right"


def test_wrong_bytes_are_not_gone_on_with(site: Site, tmp_path: Path) -> None:
    site.files["/x"], site.files["/y"] = b"wrong", b"right"
    cache = DownloadCache(str(tmp_path / "d"))
    digest = hashlib.sha256(b"right").hexdigest()
    with pytest.raises(DigestMismatchError):
        cache.fetch(Download("x", (f"{site.url}/x",), digest, 5))
    assert not cache.has(digest)
    both = (f"{site.url}/x", f"{site.url}/y")
    assert Path(cache.fetch(Download("x", both, digest, 5))).read_bytes() == b"right"


@pytest.mark.parametrize("size", [3, 9])
def test_wrong_size(site: Site, tmp_path: Path, size: int) -> None:
    site.files["/x"] = b"right"
    with pytest.raises(RegistryError, match=r"has more than|broke off"):
        DownloadCache(str(tmp_path / "d")).fetch(
            Download("x", (f"{site.url}/x",), hashlib.sha256(b"right").hexdigest(), size)
        )


def test_two_downloads_of_one_file(site: Site, tmp_path: Path) -> None:
    data = bytes(1 << 20)
    site.files["/big"] = data
    wanted = Download("big", (f"{site.url}/big",), hashlib.sha256(data).hexdigest(), len(data))
    caches = [DownloadCache(str(tmp_path / "d")) for _ in range(4)]
    threads = [threading.Thread(target=cache.fetch, args=(wanted,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Path(caches[0].path(wanted.sha256)).read_bytes() == data
    assert len(site.requests) == 1


def test_file_mirror(site: Site, key: Key, tmp_path: Path) -> None:
    for path, data in site.files.items():
        target = tmp_path / "mirror" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    mirrors = Mirrors((parse_mirror(f"file://{tmp_path}/mirror/debian/"),), (), "")
    archive = Archive(mirrors, DownloadCache(str(tmp_path / "d")), key.keyring)
    assert archive.indexes("debian", "bookworm", ("main",), "amd64")
    with pytest.raises(NotThereError):
        archive.indexes("debian", "sid", ("main",), "amd64")


def test_unreachable_mirror_is_tried_once(key: Key, tmp_path: Path) -> None:
    archive = Archive(Mirrors((("debian", "http://127.0.0.1:1/debian"),)), DownloadCache(str(tmp_path)), key.keyring)
    with pytest.raises(RegistryError, match="can't be reached"):
        archive.indexes("debian", "bookworm", ("main",), "amd64")


def test_mirrors() -> None:
    apt = (AptSource("http://m/debian", ("bookworm", "bookworm-updates")), AptSource("http://n/x", ("trixie",)))
    assert Mirrors((), apt).urls("debian", "bookworm") == ("http://m/debian",)
    assert Mirrors((("debian", "http://g"),), apt).urls("debian", "bookworm") == ("http://g",)
    assert Mirrors((), apt).urls("debian-security", "x") == ()
    assert parse_mirror("debian-security=https://m/s/") == ("debian-security", "https://m/s")
    for bad in ("m", "other=http://m", "ftp://m", "http://a b"):
        with pytest.raises(UsageError):
            parse_mirror(bad)


def test_apt_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://no/ x main\ndeb [arch=amd64 signed-by=/k] http://one/debian/ bookworm main # why\n"
        "deb-src http://no/ bookworm main\ndeb cdrom:[x]/ bookworm main\n"
    )
    (tmp_path / "sources.list.d" / "a.sources").write_text(
        "Types: deb deb-src\nURIs: http://two/debian https://three/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main\n\nEnabled: no\nTypes: deb\nURIs: http://no\nSuites: x\n\n"
        "Types: deb-src\nURIs: http://no\nSuites: x\n"
    )
    (tmp_path / "sources.list.d" / "b.list.disabled").write_text("deb http://no/ bookworm main\n")
    assert [source.uri for source in read_apt_sources(str(tmp_path))] == [
        "http://one/debian",
        "http://two/debian",
        "https://three/debian",
    ]
    assert read_apt_sources(str(tmp_path / "none")) == ()


def test_distroless_image(recipe: str, store: DirectoryStore, sources: Sources) -> None:
    pinned = lock(LockRequest(recipe, sources=sources), store, NullObserver())
    assert [package.name for package in pinned.packages] == ["base-files", "ca-certificates", "mawk"]
    pinned.write(recipe.replace(".toml", ".lock"))
    reference = Reference.parse("small:1")
    manifest = assemble(AssembleRequest(recipe, references=(reference,), sources=sources), store, None, NullObserver())
    assert store.images.get(reference) == manifest
    files = layer_of(store, manifest)
    assert files["bin"][0].linkname == "usr/bin"
    assert files["usr/bin/true"][1] == b"program"
    assert "usr/share/doc/base-files/copyright" in files
    assert not [name for name in files if "changelog" in name or "/man/" in name or "LC_MESSAGES" in name]
    assert files["etc/ssl/certs/ca-certificates.crt"][1] == CERTIFICATE % b"A" + b"\n" + CERTIFICATE % b"B" + b"\n"
    assert "usr/share/ca-certificates" not in files
    assert b"Version: 12.4\n" in files["var/lib/dpkg/status.d/base-files"][1]
    assert files["var/lib/dpkg/status.d/base-files.md5sums"][1].split()[1::2] == [b"usr/lib/os-release"]
    assert files["etc/passwd"][1].splitlines() == [
        b"root:x:0:0:root:/root:/sbin/nologin",
        b"nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin",
    ]
    assert files["etc/group"][1] == b"root:x:0:\nnonroot:x:65532:\n"
    home = files["home/nonroot"][0]
    assert (home.uid, home.gid, home.mode) == (65532, 65532, 0o700)
    assert files["tmp"][0].mode == 0o1777
    assert files["etc/mtab"][0].linkname == "/proc/mounts"
    assert {info.mtime for info, _ in files.values()} == {315532800}
    parsed = Manifest.parse(store.blobs.read(manifest.digest))
    config = ImageConfig.parse(store.blobs.read(parsed.config.digest))
    assert (config.config.user, config.config.working_dir) == ("65532", "/home/nonroot")
    assert config.created == "1980-01-01T00:00:00Z"
    assert str(config.platform) == "linux/amd64"
    json.loads(store.blobs.read(parsed.config.digest))
    assert [name for name in os.listdir(store.session().path) if os.path.isdir(f"{store.session().path}/{name}")] == []


def test_same_lock_same_image_after_the_archive_changed(
    recipe: str, store: DirectoryStore, sources: Sources, site: Site, key: Key, tmp_path: Path
) -> None:
    pinned = lock(LockRequest(recipe, sources=sources), store, NullObserver())
    pinned.write(recipe.replace(".toml", ".lock"))
    request = AssembleRequest(recipe, sources=sources)
    first = assemble(request, store, None, NullObserver())
    assert assemble(replace(request, fresh=True), store, None, NullObserver()) == first
    # The mirror has a newer version now; the old one is in the snapshot archive only.
    old = f"/debian/{FILES.path}"
    site.files[f"/snapshot/debian/20260204T024000Z/{FILES.path}"] = site.files.pop(old)
    site.add_suite("debian", "bookworm", [replace(FILES, version="12.5"), CERTIFICATES, AWK], key)
    with DirectoryStore.open_(str(tmp_path / "other")) as other:
        assert assemble(request, other, None, NullObserver()) == first
    assert old in [path for path, _ in site.requests]
    newer = lock(LockRequest(recipe, sources=sources), store, NullObserver())
    assert newer.packages[0].version == "12.5"
    assert newer.selection == pinned.selection


def test_version_that_nobody_has_is_named(recipe: str, store: DirectoryStore, sources: Sources, site: Site) -> None:
    lock(LockRequest(recipe, sources=sources), store, NullObserver()).write(recipe.replace(".toml", ".lock"))
    del site.files[f"/debian/{FILES.path}"]
    with pytest.raises(NotThereError, match=r"the locked package base-files 12\.4 can't be had") as caught:
        assemble(AssembleRequest(recipe, sources=sources), store, None, NullObserver())
    assert "castoff base lock" in str(caught.value.hint)
    assert len([path for path, _ in site.requests if path.startswith("/snapshot/debian/")]) == 3


def test_package_with_another_digest(recipe: str, store: DirectoryStore, sources: Sources, site: Site) -> None:
    lock(LockRequest(recipe, sources=sources), store, NullObserver()).write(recipe.replace(".toml", ".lock"))
    path = f"/debian/{FILES.path}"
    site.files[path] = site.files[path][:-1] + b"\0"
    with pytest.raises(DigestMismatchError, match=r"base-files 12\.4"):
        assemble(AssembleRequest(recipe, sources=sources), store, None, NullObserver())


def test_without_network_once_downloaded(recipe: str, store: DirectoryStore, sources: Sources, site: Site) -> None:
    lock(LockRequest(recipe, sources=sources), store, NullObserver()).write(recipe.replace(".toml", ".lock"))
    request = AssembleRequest(recipe, sources=sources)
    first = assemble(request, store, None, NullObserver())
    site.files.clear()
    asked = len(site.requests)
    assert assemble(replace(request, fresh=True), store, None, NullObserver()) == first
    assert len(site.requests) == asked


def test_recipe_changed_after_locking(recipe: str, store: DirectoryStore, sources: Sources) -> None:
    lock(LockRequest(recipe, sources=sources), store, NullObserver()).write(recipe.replace(".toml", ".lock"))
    path = Path(recipe)
    path.write_text(RECIPE.replace('"ca-certificates"]', '"mawk"]'))
    with pytest.raises(UsageError, match="asks for other packages"):
        assemble(AssembleRequest(recipe, sources=sources), store, None, NullObserver())


def test_config_changes_need_no_new_lock(recipe: str, store: DirectoryStore, sources: Sources) -> None:
    lock(LockRequest(recipe, sources=sources), store, NullObserver()).write(recipe.replace(".toml", ".lock"))
    request = AssembleRequest(recipe, sources=sources)
    first = assemble(request, store, None, NullObserver())
    Path(recipe).write_text(RECIPE.replace("[config]", '[config]\ncmd = ["/bin/true"]'))
    assert assemble(request, store, None, NullObserver()) != first


def test_without_a_lock_the_newest_is_taken(recipe: str, store: DirectoryStore, sources: Sources) -> None:
    manifest = assemble(AssembleRequest(recipe, sources=sources, epoch=DATE), store, None, NullObserver())
    files = layer_of(store, manifest)
    assert {info.mtime for info, _ in files.values()} == {DATE}


def test_full_needs_an_executor(recipe: str, store: DirectoryStore, sources: Sources, site: Site, key: Key) -> None:
    apt = Package("apt")
    required = replace(FILES, fields=(("Essential", "yes"), ("Pre-Depends", "awk")))
    site.add_suite("debian", "bookworm", [required, CERTIFICATES, AWK, apt], key)
    Path(recipe).write_text(RECIPE.replace("distroless", "full"))
    pinned = lock(LockRequest(recipe, sources=sources), store, NullObserver())
    assert [package.name for package in pinned.packages] == ["apt", "base-files", "ca-certificates", "mawk"]
    with pytest.raises(UsageError, match="no executor was given"):
        assemble(AssembleRequest(recipe, sources=sources), store, None, NullObserver())


def test_lock_names_no_host(recipe: str, store: DirectoryStore, sources: Sources, site: Site) -> None:
    pinned = lock(LockRequest(recipe, sources=sources), store, NullObserver())
    assert "127.0.0.1" not in pinned.to_text()
    assert "://" not in pinned.to_text()
    assert Lock.parse(pinned.to_text().encode()) == pinned
