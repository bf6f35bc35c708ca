"""Annotations: how they are written, and which document gets them."""

from __future__ import annotations

import pytest

from castoff.errors import UsageError
from castoff.export.annotate import Annotations
from castoff.export.parse import Annotation, parse_annotations
from castoff.oci.platform import Platform

AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b", (Annotation("a", "b"),)),
        ("org.x:y=z", (Annotation("org.x:y", "z"),)),
        ("a=http://b:1", (Annotation("a", "http://b:1"),)),
        ("a=", (Annotation("a", ""),)),
        ("index:a=b", (Annotation("a", "b", "index"),)),
        ("index,manifest:a=b", (Annotation("a", "b", "index"), Annotation("a", "b", "manifest"))),
        ("manifest[linux/arm64]:a=b", (Annotation("a", "b", "manifest", ARM),)),
        ("manifest-descriptor[linux/amd64],index-descriptor:a=b:c", None),
    ],
)
def test_what_is_written(text: str, expected: tuple[Annotation, ...] | None) -> None:
    if expected is None:
        expected = (
            Annotation("a", "b:c", "manifest-descriptor", AMD),
            Annotation("a", "b:c", "index-descriptor"),
        )
    assert parse_annotations(text) == expected


@pytest.mark.parametrize("text", ["", "a", "=b", "index:a", "index,moon:a=b", "manifest[:a=b", "manifest[a/b/c/d]:a=b"])
def test_what_is_no_annotation(text: str) -> None:
    with pytest.raises(UsageError):
        parse_annotations(text)


def test_each_document_gets_its_own() -> None:
    items = [
        Annotation("b", "1"),
        Annotation("a", "2", "manifest", ARM),
        Annotation("b", "3", "manifest", AMD),
        Annotation("i", "4", "index"),
    ]
    found = Annotations(items, has_index=True)
    assert found.of("manifest", AMD) == (("b", "3"),)
    assert found.of("manifest", ARM) == (("a", "2"), ("b", "1"))
    assert found.of("index") == (("i", "4"),)
    assert found.of("manifest-descriptor", AMD) == ()


@pytest.mark.parametrize("level", ["index", "index-descriptor"])
def test_an_image_for_one_platform_has_no_index(level: str) -> None:
    with pytest.raises(UsageError, match="for an index"):
        Annotations(parse_annotations(f"{level}:a=b"), has_index=False)
