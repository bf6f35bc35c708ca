"""The values of RUN --mount."""

from __future__ import annotations

import pytest

from castoff.dockerfile.mounts import MountFlag, mount_fields, mount_from, parse_mount
from castoff.errors import ParseError


def as_is(text: str) -> str:
    return text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target=/x", MountFlag(target="/x")),
        ("type=bind,from=a,src=b,dst=/c,rw", MountFlag(from_="a", source="b", target="/c", read_only=False)),
        ("type=CACHE,target=/c,sharing=Locked", MountFlag("cache", target="/c", sharing="locked", read_only=False)),
        (
            "type=cache,target=/c,uid=1,gid=2,mode=0750,ro",
            MountFlag("cache", target="/c", uid=1, gid=2, mode=0o750, read_only=True),
        ),
        ("type=tmpfs,target=/t,size=1.5m", MountFlag("tmpfs", target="/t", size=1572864, read_only=False)),
        ("type=secret,id=x,env=TOKEN,required", MountFlag("secret", id="x", env="TOKEN", required=True)),
        ("type=ssh,required=false", MountFlag("ssh")),
        ('type=bind,"target=/a,b"', MountFlag(target="/a,b")),
    ],
)
def test_mounts_are_read(text: str, expected: MountFlag) -> None:
    assert parse_mount(text, as_is) == expected


def test_values_are_expanded() -> None:
    assert parse_mount("type=cache,id=$X,target=/$X", lambda text: text.replace("$X", "v")).id == "v"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("type=volume,target=/x", "unsupported mount type", None),
        ("type=bnd,target=/x", "unsupported mount type", "did you mean bind?"),
        ("taget=/x", "unexpected key 'taget'", "did you mean target?"),
        ("target", "must be a key=value pair", None),
        ("type=cache,sharing=all", "unsupported sharing value", "shared"),
        ("type=bind,target=/x,uid=0", "uid not allowed", None),
        ("type=bind,required", "unexpected key 'required'", "type=secret"),
        ("type=bind,size=1", "unexpected key 'size'", "type=tmpfs"),
        ("type=tmpfs,size=much", "invalid value for size", "512m"),
        ("type=cache,mode=999", "invalid value 999 for mode", None),
        ("type=cache,uid=4294967296", "invalid value", None),
        ("type=cache,ro=perhaps", "invalid value for ro", None),
        ("type=secret", "one of source, target required", None),
        ("type=secret,id=a,from=b", "should not have a from", None),
        ("type=secret,id=a,source=b", "both source and id", None),
        ("type=secret,id=a,sharing=shared", "should not define sharing", None),
        ("type=tmpfs,sharing=shared,target=/x", "invalid cache sharing", None),
        ('a"b', "csv", None),
        ('"open', "csv", None),
        ("", "csv", None),
    ],
)
def test_wrong_mounts_are_refused(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(ParseError) as caught:
        parse_mount(text, as_is)
    assert message in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


def test_from_takes_no_variables() -> None:
    assert mount_from("type=cache,from=base,target=/x") == "base"
    with pytest.raises(ParseError, match="doesn't support variable expansion"):
        mount_from("from=$BASE,target=/x")


def test_fields_with_quotes() -> None:
    assert mount_fields('a,"b ""c"", d",e') == ["a", 'b "c", d', "e"]
