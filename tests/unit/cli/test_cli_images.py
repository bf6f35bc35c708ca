"""The verbs that look at images and move them, on a real store."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import pytest

from castoff.cli.main import main
from castoff.cli.sizes import human_size, transfer_size
from castoff.cli.table import ago, human_duration, table
from castoff.image.image import StoredImage
from castoff.store.directory import DirectoryStore
from castoff.testing.random_images import random_image

ROWS = ["repo:1", "repo:2", "ghcr.io/o/other:latest"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = str(tmp_path / "store")
    monkeypatch.setenv("CASTOFF_ROOT", path)
    with DirectoryStore.open_(path) as store:
        for seed, reference in enumerate(ROWS):
            random_image(store, reference, seed=seed)
    return path


def image_id(root: str, name: str) -> str:
    with DirectoryStore.open_(root) as store:
        return str(StoredImage.open_(store.blobs, store.images.find(name).descriptor).config_digest())


def out(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    assert main(list(argv)) == code
    shown = capsys.readouterr()
    assert bool(shown.err) == bool(code), shown.err
    return shown.out if code == 0 else shown.err


def test_images_is_dockers_table(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = out(capsys, "images").splitlines()
    assert lines[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert {tuple(line.split()[:2]) for line in lines[1:]} == {
        ("repo", "1"),
        ("repo", "2"),
        ("ghcr.io/o/other", "latest"),
    }
    assert image_id(root, "repo:1")[7:19] in out(capsys, "images", "repo:1")
    assert len(out(capsys, "images", "repo").splitlines()) == 3
    assert out(capsys, "images", "-q", "--no-trunc", "repo:2") == image_id(root, "repo:2") + "\n"


def test_looking_makes_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CASTOFF_ROOT", str(tmp_path / "none"))
    assert out(capsys, "images").split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    for argv in (
        ["inspect", "x"],
        ["rmi", "x"],
        ["history", "x"],
        ["size", "x"],
        ["save", "-o", "x", "x"],
        ["tag", "x", "y"],
    ):
        assert "there is no store in" in out(capsys, *argv, code=6)
    assert not (tmp_path / "none").exists()


def test_images_as_json(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in out(capsys, "images", "--format", "json", "--no-trunc").splitlines()]
    assert {f"{row['Repository']}:{row['Tag']}" for row in rows} == set(ROWS)
    assert {row["ID"] for row in rows} == {image_id(root, name) for name in ROWS}
    assert all(row["SizeBytes"] > 0 for row in rows)


def test_tag_and_rmi(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    identity = image_id(root, "repo:1")
    out(capsys, "tag", "repo:1", "again")
    assert image_id(root, "again:latest") == identity
    assert out(capsys, "rmi", "repo:1") == "Untagged: repo:1\n"
    assert image_id(root, "again") == identity
    out(capsys, "tag", identity, "third")
    assert "several references" in out(capsys, "rmi", identity[7:19], code=6)
    removed = out(capsys, "rmi", "-f", identity[7:19])
    assert removed.startswith("Untagged: again:latest\nUntagged: third:latest\n")
    assert f"Deleted: {identity}" in removed
    assert "no image in the store" in out(capsys, "rmi", "again", code=6)
    out(capsys, "rmi", "--force", "again")
    assert len(out(capsys, "images", "-q").splitlines()) == 2


def test_rmi_goes_on_after_an_image_that_is_not_there(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rmi", "gone", "repo:1"]) == 6
    shown = capsys.readouterr()
    assert "'gone'" in shown.err
    assert shown.out.startswith("Untagged: repo:1\n")


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_save_and_load(form: str, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity = image_id(root, "repo:1")
    archive = str(tmp_path / "a.tar")
    out(capsys, "save", "--format", form, "-o", archive, "repo:1", "repo:2")
    with tarfile.open(archive) as tar:
        assert ("manifest.json" in tar.getnames()) == (form == "docker")
        assert "index.json" in tar.getnames()
    out(capsys, "rmi", "repo:1", "repo:2")
    assert set(out(capsys, "load", "-i", archive).splitlines()) == {"Loaded image: repo:1", "Loaded image: repo:2"}
    assert image_id(root, "repo:1") == identity


def test_load_reads_standard_input(root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "a.tar"
    identity = image_id(root, "repo:1")
    out(capsys, "save", "-o", str(archive), identity)
    out(capsys, "rmi", "repo:1")
    with open(archive, encoding="latin-1") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stream)
        assert out(capsys, "load") == f"Loaded image ID: {identity}\n"
    assert "<none>" in out(capsys, "images")


def test_load_of_what_is_no_archive(root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text"
    path.write_text("no archive")
    assert out(capsys, "load", "-i", str(path), code=6).startswith("error: ")
    assert out(capsys, "load", "-i", str(tmp_path / "gone"), code=6).startswith("error: ")


def test_inspect(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    documents = json.loads(out(capsys, "inspect", "repo:1", "repo:2"))
    assert [document["Id"] for document in documents] == [image_id(root, "repo:1"), image_id(root, "repo:2")]
    assert documents[0]["RepoTags"] == ["repo:1"]
    assert out(capsys, "inspect", "-f", "{{.Id}} {{.Os}} {{json .RootFS.Type}}", "repo:1") == (
        f'{image_id(root, "repo:1")} linux "layers"\n'
    )
    assert "no field .Nope" in out(capsys, "inspect", "-f", "{{.Nope}}", "repo:1", code=2)
    assert "does not know" in out(capsys, "inspect", "-f", "{{range .X}}", "repo:1", code=2)


def test_history(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = out(capsys, "history", "repo:1").splitlines()
    assert lines[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert lines[1].startswith(image_id(root, "repo:1")[7:19])
    assert all(line.startswith("<missing>") for line in lines[2:])
    rows = [json.loads(line) for line in out(capsys, "history", "--format", "json", "repo:1").splitlines()]
    assert sum(row["Size"] > 0 for row in rows) == 2


def test_size(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, "size", "--largest", "1", "repo:1")
    lines = text.splitlines()
    assert lines[0].split() == ["LAYER", "SIZE", "COMPRESSED", "FILES", "CREATED", "BY"]
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "total"]
    value = json.loads(out(capsys, "size", "--format", "json", "repo:1"))
    assert value["Id"] == image_id(root, "repo:1")
    assert value["Size"] == sum(layer["Size"] for layer in value["Layers"])
    assert value["LargestFiles"][0]["Path"].startswith("/data-")
    assert "nothing is known of the stages" in out(capsys, "size", "--stages", "repo:1", code=6)
    assert "wants a number" in out(capsys, "size", "--largest", "-1", "repo:1", code=2)


def test_closed_pipe_is_quiet(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    duplicated: list[tuple[int, int]] = []
    monkeypatch.setattr("os.dup2", lambda one, other: duplicated.append((one, other)))
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setattr(sys, "stdout", Closed())
    assert main(["images"]) == 141
    assert errors.getvalue() == ""
    assert duplicated[0][1] == 1


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (1234, "1.23kB"), (7_730_000, "7.73MB"), (123_456_789, "123MB")],
)
def test_human_sizes(size: int, text: str) -> None:
    assert human_size(size) == text


def test_sizes_on_the_edge_of_a_unit() -> None:
    assert human_size(999_999) == "1000kB"
    assert transfer_size(412) == "412B"
    assert transfer_size(105_000_000) == "105.00MB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (180, "3 minutes"),
        (3600, "About an hour"),
        (3 * 3600, "3 hours"),
        (3 * 86400, "3 days"),
        (21 * 86400, "3 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text
    assert ago(-5) == "Less than a second ago"


def test_table_aligns() -> None:
    assert table([("A", "SIZE"), ("long name here", "1kB")], right=(1,)) == (
        "A                SIZE\nlong name here    1kB\n"
    )
    assert table([]) == ""
