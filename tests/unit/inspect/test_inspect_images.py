from __future__ import annotations

import stat
from dataclasses import replace

import pytest

from castoff.fs.changes import Added, Removed
from castoff.fs.entry import FileEntry
from castoff.fs.treelayer import EntryLayer
from castoff.fs.union import UnionTree
from castoff.image.image import StoredImage
from castoff.image.mutate import DraftImage, append_history, append_layer, draft_of, with_config
from castoff.image.recompress import recompress
from castoff.inspect.document import document
from castoff.inspect.history import history, instructions
from castoff.inspect.leftbehind import left_behind
from castoff.inspect.packages import package_owners
from castoff.inspect.size import StageData, Weight, image_size, weigh_stages
from castoff.layer.compression import Compression
from castoff.oci.config import ContainerConfig, History, ImageConfig
from castoff.oci.platform import Platform
from castoff.oci.reference import Reference
from castoff.store.memory import MemoryStore
from castoff.testing.random_images import layer_of, random_image


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def folder(path: bytes) -> FileEntry:
    return FileEntry(path, stat.S_IFDIR | 0o755)


def file(path: bytes, size: int, fill: bytes = b"x") -> FileEntry:
    return FileEntry(path, stat.S_IFREG | 0o644, size=size, data=fill * size)


def small_image(store: MemoryStore) -> StoredImage:
    draft = DraftImage(ImageConfig(Platform("linux", "amd64"), created="1980-01-01T00:00:00Z"))
    one = layer_of(
        store.blobs,
        [
            Added(folder(b"a")),
            Added(file(b"a/large", 5000)),
            Added(file(b"a/small", 10)),
            Added(replace(file(b"a/twin", 5000), hardlink=b"a/large")),
        ],
    )
    two = layer_of(store.blobs, [Added(file(b"b", 700)), Removed(b"a")], Compression("none"))
    draft = append_layer(draft, one, History("1980-01-01T00:00:00Z", "COPY a /a", comment="c"))
    draft = append_history(draft, History("1980-01-01T00:00:00Z", "ENV x=1"))
    draft = append_layer(draft, two, History("1980-01-01T00:00:00Z", "RUN rm -r /a"))
    draft = with_config(draft, ContainerConfig(user="65532", env=("A=b",), labels=(("k", "v"),)))
    return StoredImage(store.blobs, draft.store(store.blobs, Platform("linux", "amd64")))


def test_the_size_of_an_image(store: MemoryStore) -> None:
    image = small_image(store)
    size = image_size(image, largest=2)
    one, two = size.layers
    assert (one.created_by, one.files, one.content) == ("COPY a /a", 4, 5010)
    assert (two.created_by, two.files, two.content) == ("RUN rm -r /a", 2, 700)
    assert one.weight.compressed == image.layers()[0].descriptor.size
    assert one.weight.uncompressed % 512 == 0
    assert one.weight.uncompressed > 5010 > (one.weight.compressed or 0)
    assert two.weight.uncompressed == two.weight.compressed
    assert size.total == one.weight + two.weight
    assert [(large.path, large.size, large.layer) for large in size.largest] == [(b"a/large", 5000, 0), (b"b", 700, 1)]


def test_the_size_does_not_hang_on_the_compression(store: MemoryStore) -> None:
    before = random_image(store)
    after = recompress(store.blobs, before, Compression("zstd"), force=True)
    one, two = (image_size(StoredImage(store.blobs, image)) for image in (before, after))
    assert [layer.weight.uncompressed for layer in one.layers] == [layer.weight.uncompressed for layer in two.layers]
    assert one.largest == two.largest


def test_the_table_of_stages() -> None:
    table = weigh_stages(
        [
            StageData("builder", "golang", (Weight(100, None), Weight(200, None)), (Weight(50, None),)),
            StageData("runtime", "static", (Weight(2, 1),), (Weight(5, 2),), final=True),
        ]
    )
    builder, runtime = table.rows
    assert builder.total == Weight(350, None)
    assert builder.base_weight == Weight(300, None)
    assert runtime.own == Weight(5, 2)
    assert runtime.total == Weight(7, 3)
    assert table.ratio == 50
    assert table.compressed_ratio is None


def test_the_table_of_one_stage_has_no_ratio() -> None:
    table = weigh_stages([StageData("0", "scratch", (), (Weight(5, 2),), final=True)])
    assert table.ratio is None
    assert table.rows[0].base_weight == Weight(0, 0)
    assert weigh_stages([StageData("a", "x", (Weight(9, 4),)), StageData("b", "scratch", final=True)]).ratio is None


def test_a_ratio_of_compressed_bytes() -> None:
    data = [StageData("a", "x", (Weight(9, 6),)), StageData("b", "scratch", (), (Weight(3, 2),), final=True)]
    assert weigh_stages(data).compressed_ratio == 3


def test_history(store: MemoryStore) -> None:
    image = small_image(store)
    rows = history(image)
    assert [row.created_by for row in rows] == ["RUN rm -r /a", "ENV x=1", "COPY a /a"]
    assert [row.id for row in rows] == [str(image.config_digest()), "<missing>", "<missing>"]
    assert rows[1].layer is None
    assert rows[1].size == 0
    assert rows[0].size == rows[0].compressed == image.layers()[1].descriptor.size
    assert rows[2].size == image_size(image).layers[0].weight.uncompressed
    assert rows[2].to_json()["Layer"] == str(image.layers()[0].diff_id)
    assert instructions(image.config()) == ("COPY a /a", "RUN rm -r /a")


def test_an_image_without_a_history(store: MemoryStore) -> None:
    draft = draft_of(small_image(store))
    bare = StoredImage(store.blobs, replace(draft, config=replace(draft.config, history=())).store(store.blobs))
    assert [row.layer for row in history(bare)] == list(reversed(bare.config().diff_ids))
    assert instructions(bare.config()) == ("", "")


def test_the_document_of_docker_inspect(store: MemoryStore) -> None:
    image = small_image(store)
    names = [Reference.parse("app:1"), Reference.parse("ghcr.io/o/r:2"), Reference.parse("app:2")]
    value = document(image, names, 1.5)
    assert value["Id"] == str(image.config_digest())
    assert value["RepoTags"] == ["app:1", "app:2", "ghcr.io/o/r:2"]
    assert value["RepoDigests"] == [f"app@{image.descriptor.digest}", f"ghcr.io/o/r@{image.descriptor.digest}"]
    assert value["Created"] == "1980-01-01T00:00:00Z"
    assert (value["Os"], value["Architecture"]) == ("linux", "amd64")
    assert value["Size"] == image.size()
    assert value["Config"]["User"] == "65532"
    assert value["Config"]["Env"] == ["A=b"]
    assert value["Config"]["Cmd"] is None
    assert value["Config"]["Labels"] == {"k": "v"}
    assert value["RootFS"] == {"Type": "layers", "Layers": [str(one) for one in image.config().diff_ids]}
    assert value["Metadata"]["LastTagTime"] == "1970-01-01T00:00:01.500000Z"
    assert value["Descriptor"]["digest"] == str(image.descriptor.digest)


def tree(*entries: FileEntry) -> UnionTree:
    return UnionTree([EntryLayer(entries)])


def text(path: bytes, content: bytes) -> FileEntry:
    return FileEntry(path, stat.S_IFREG | 0o644, size=len(content), data=content)


def test_what_did_not_come_along() -> None:
    binary = text(b"build/service", b"the binary")
    builder = tree(
        binary,
        file(b"usr/local/go/bin/go", 3000),
        file(b"usr/local/go/pkg/tool/x", 2000),
        file(b"root/.cache/go-build/aa/1", 1500),
        file(b"usr/lib/x86_64-linux-gnu/libc.so", 400),
        file(b"build/main.go", 30),
        file(b"etc/empty", 0),
        text(b"etc/group", b"same in both"),
    )
    final = tree(text(b"app/service", b"the binary"), text(b"etc/group", b"same in both"))
    left = left_behind(builder, final)
    assert [(group.name, group.kind, group.size, group.files) for group in left.groups] == [
        ("/usr/local/go", "folder", 5000, 2),
        ("/root/.cache/go-build", "folder", 1500, 1),
        ("/usr/lib/x86_64-linux-gnu", "folder", 400, 1),
        ("/build", "folder", 30, 1),
    ]
    assert (left.size, left.files, left.rest.size) == (6930, 5, 0)
    short = left_behind(builder, final, limit=1)
    assert [group.name for group in short.groups] == ["/usr/local/go"]
    assert (short.rest.size, short.rest.files) == (1930, 3)


def test_a_file_that_changed_did_not_come_along() -> None:
    left = left_behind(tree(text(b"a", b"one")), tree(text(b"a", b"two")))
    assert (left.size, left.files) == (3, 1)


def test_hard_links_weigh_once() -> None:
    entries = [replace(file(name, 50), inode=(1, 2)) for name in (b"d/a", b"d/b")]
    assert left_behind(tree(*entries), tree()).size == 50


def test_groups_by_debian_package() -> None:
    builder = tree(
        FileEntry(b"lib", stat.S_IFLNK | 0o777, link=b"usr/lib"),
        file(b"usr/lib/gcc/cc1", 900),
        file(b"usr/lib/gcc/notes", 100),
        text(b"var/lib/dpkg/info/gcc-12:amd64.list", b"/.\n/lib\n/lib/gcc\n/lib/gcc/cc1\n"),
    )
    assert package_owners(builder)[b"usr/lib/gcc/cc1"] == "gcc-12"
    first, *_ = left_behind(builder, tree()).groups
    assert (first.name, first.kind, first.size) == ("gcc-12", "package", 900)


def test_groups_by_alpine_package() -> None:
    builder = tree(
        file(b"usr/bin/gcc", 900),
        text(b"lib/apk/db/installed", b"C:Q1\nP:gcc\nV:1\nF:usr\nF:usr/bin\nR:gcc\n\nP:musl\nF:lib\nR:ld-musl.so.1\n"),
    )
    assert package_owners(builder) == {b"usr/bin/gcc": "gcc", b"lib/ld-musl.so.1": "musl"}


def test_lists_that_are_no_files_are_passed_over() -> None:
    builder = tree(
        FileEntry(b"var/lib/dpkg/info/a.list", stat.S_IFIFO | 0o644),
        FileEntry(b"var/lib/dpkg/info/b.list", stat.S_IFLNK | 0o777, link=b"/etc/passwd"),
        folder(b"lib/apk/db/installed"),
    )
    assert package_owners(builder) == {}
