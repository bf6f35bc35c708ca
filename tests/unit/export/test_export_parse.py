from __future__ import annotations

import pytest

from castoff.errors import UsageError
from castoff.export.parse import TYPES, Annotation, OutputSpec, parse_output
from castoff.layer.compression import Compression


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("out", OutputSpec("local", "out")),
        ("./a=b", OutputSpec("local", "./a=b")),
        ("dest=x", OutputSpec("local", "dest=x")),
        ("-", OutputSpec("tar", "-")),
        ("type=local,dest=out", OutputSpec("local", "out")),
        ("type=tar", OutputSpec("tar", "-")),
        ("type=tar,dest=x.tar", OutputSpec("tar", "x.tar")),
        ("type=oci,dest=x", OutputSpec("oci", "x")),
        ("type=oci", OutputSpec("oci", "-")),
        ("type=oci,dest=-", OutputSpec("oci", "-")),
        ("dest=x,type=oci", OutputSpec("oci", "x")),
        ("type=oci,dest=x,tar=false", OutputSpec("oci", "x", tar=False)),
        ('type=oci,"dest=a,b"', OutputSpec("oci", "a,b")),
        ('"type=oci","dest=a""b"', OutputSpec("oci", 'a"b')),
        ("type=docker", OutputSpec("docker")),
        ("type=docker,dest=-", OutputSpec("docker", "-")),
        ("type=image,name=a:1,push=true", OutputSpec("image", names=("a:1",), push=True)),
        ('type=image,"name=a:1,b:2"', OutputSpec("image", names=("a:1", "b:2"))),
        ("type=registry,name=a", OutputSpec("registry", names=("a",), push=True)),
        ("type=registry,name=a,push=0", OutputSpec("registry", names=("a",))),
        ("type=oci,dest=x,compression=zstd", OutputSpec("oci", "x", compression=Compression("zstd"))),
        ("type=oci,dest=x,compression-level=5", OutputSpec("oci", "x", compression=Compression("gzip", 5))),
        (
            "type=oci,dest=x,compression=uncompressed,force-compression=true",
            OutputSpec("oci", "x", compression=Compression("none"), force_compression=True),
        ),
        (
            "type=oci,dest=x,annotation.org.a=1=2,annotation-index.B=3",
            OutputSpec("oci", "x", annotations=(Annotation("org.a", "1=2"), Annotation("B", "3", "index"))),
        ),
        ("type=oci,dest=x,oci-mediatypes=true", OutputSpec("oci", "x")),
    ],
)
def test_outputs(text: str, spec: OutputSpec) -> None:
    assert parse_output(text) == spec


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "an empty --output"),
        ("type=oci,", "not of the form key=value"),
        ("type=oci,dest", "not of the form key=value"),
        ("type=zip,dest=x", "unknown type 'zip'"),
        ("dest=x,tar=false", "has no type"),
        ("type=,dest=x", "has no type"),
        ("type=local", "needs the path of a folder"),
        ("type=local,dest=-", "needs the path of a folder"),
        ("type=oci,tar=false", "names no folder"),
        ("type=oci,dest=-,tar=false", "names no folder"),
        ("type=docker,tar=false,dest=x", "can't be a folder"),
        ("type=oci,dest=x,tar=maybe", "neither true nor false"),
        ("type=oci,dest=x,colour=red", "no field 'colour'"),
        ("type=tar,dest=x,compression=gzip", "no field 'compression'"),
        ("type=oci,dest=x,compression=rar", "unknown compression"),
        ("type=oci,dest=x,compression=estargz", "unknown compression"),
        ("type=oci,dest=x,compression-level=99", "not between"),
        ("type=oci,dest=x,compression-level=x", "not a number"),
        ("type=image,dest=x", "takes no dest"),
        ("type=local,dest=x,annotation.a=b", "takes no annotations"),
        ("type=oci,dest=x,annotation=b", "is no annotation"),
        ("type=oci,dest=x,annotation-moon.a=b", "is no annotation"),
        ("type=oci,dest=x,oci-mediatypes=false", "OCI media types only"),
        ('type=oci,"dest=x', "quote"),
        ("type=oci\ndest=x", "one line"),
    ],
)
def test_wrong_outputs(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_output(text)
    assert words in caught.value.message


def test_an_unknown_type_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        parse_output("type=nonsense")
    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name in TYPES)
