"""The reference's own cases for ignore files, references and OCI documents."""

from __future__ import annotations

import json
import re
from typing import Any

import conformance_data
import pytest

from castoff.context.ignore import IgnorePatterns, read_patterns
from castoff.errors import CastoffError, ContextError, InvalidReferenceError
from castoff.oci import mediatypes
from castoff.oci.config import ImageConfig
from castoff.oci.descriptor import Descriptor
from castoff.oci.digest import Digest
from castoff.oci.jsontext import Fields, load_object
from castoff.oci.manifest import Index, Manifest
from castoff.oci.reference import Reference, check_registry

Case = dict[str, Any]

DEFAULTS = ("registry.upbound.io", "stable")
REPEAT = re.compile(r'"([^"]*)"\s*\+\s*strings\.Repeat\("([^"]*)", (\d+)\)')


@pytest.mark.conformance("dockerignore")
def test_dockerignore_case(case: Case) -> None:
    if case.get("kind") == "read_all":
        assert read_patterns(case["text"].encode()) == case["expected"]
    elif case.get("error"):
        with pytest.raises(ContextError):
            IgnorePatterns.of(case["patterns"]).excludes(case["path"])
    else:
        assert IgnorePatterns.of(case["patterns"]).excludes(case["path"]) == case["match"]


def literal(case: Case) -> str:
    """Return the text of a case, Go's ``strings.Repeat`` worked out."""
    text = case["case"]
    if isinstance(text, dict):
        match = REPEAT.search(text["$go"])
        assert match, f"no runner for the expression {text}"
        return match[1] + match[2] * int(match[3])
    return str(text)


def expected_with_defaults() -> set[str]:
    """Return the names that the suite expects once a default registry and a default tag are filled in."""
    cases = conformance_data.load("image_names") or []
    return {case["case"] for case in cases if case["table"] == "outputDefaultNames"}


def parse_name(text: str, table: str, *, strict: bool) -> object:
    if "Registry" in table:
        if not text and not strict:
            return None
        check_registry(text)
        return text
    if "Repository" in table:
        if "@" in text or not text:
            raise InvalidReferenceError(f"{text!r} is not a repository")
        return Reference.parse(f"{text}:latest", strict=strict)
    return Reference.parse(text, strict=strict)


@pytest.mark.conformance("image_names")
def test_image_name_case(case: Case) -> None:
    table = case["table"]
    if table == "_":
        if case["case"][0] == "args":
            assert str(Reference.parse(case["case"][1][0])) == f"docker.io/{case['case'][1][0]}:latest"
        return
    text = literal(case)
    if table.startswith("inputDefault"):
        reference = Reference.parse(text, default_registry=DEFAULTS[0], default_tag=DEFAULTS[1])
        assert str(reference) in expected_with_defaults()
    elif table.startswith("outputDefault"):
        assert str(Reference.parse(text)) == text
    elif table.startswith("goodStrict"):
        parse_name(text, table, strict=True)
        parse_name(text, table, strict=False)
    elif table.startswith("goodWeak"):
        parse_name(text, table, strict=False)
        with pytest.raises(InvalidReferenceError):
            parse_name(text, table, strict=True)
    else:
        assert table.startswith("bad"), table
        for strict in (False, True):
            with pytest.raises(InvalidReferenceError):
                parse_name(text, table, strict=strict)


READERS = {
    "config-schema.json": ImageConfig.parse,
    "image-index-schema.json": Index.parse,
    "image-manifest-schema.json": Manifest.parse,
}


def read_document(schema: str, data: bytes) -> None:
    if schema == "content-descriptor.json":
        Descriptor.from_json(json.loads(data))
    elif schema == "image-layout-schema.json":
        Fields(load_object(data, "oci-layout"), "oci-layout").text("imageLayoutVersion", required=True)
    elif schema == "docker-compat":
        media_type = json.loads(data).get("mediaType", "")
        reader = Index if media_type in mediatypes.INDEXES else Manifest if media_type else ImageConfig
        reader.parse(data)
    else:
        READERS[schema](data)


@pytest.mark.conformance("oci_schema")
def test_oci_document_case(case: Case) -> None:
    data = case["document"].encode()
    if case["valid"]:
        read_document(case["schema"], data)
        if "digest" in case:
            assert str(Digest.of(data)) == case["digest"]
        return
    with pytest.raises((CastoffError, json.JSONDecodeError)):
        read_document(case["schema"], data)
