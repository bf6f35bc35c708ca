"""castoff images: the list of the images in the store."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.cli.root import store_root
from castoff.cli.session import open_store
from castoff.cli.sizes import human_size
from castoff.cli.table import ago, table
from castoff.errors import BlobNotFoundError, CastoffError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable

    from castoff.cli.parser import Parser
    from castoff.store.blobs import BlobStore
    from castoff.store.images import ImageRecord

_NONE = "<none>"


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff images`."""
    parser.add_argument("repository", nargs="*", metavar="REPOSITORY[:TAG]", help="show only these")
    parser.flag("-a", "--all", text="show all images (the default: there are no intermediate ones)")
    parser.flag("--digests", text="show the digests of the manifests too")
    parser.one("--format", metavar="FORM", text="table, or json: one object a line", default="table")
    parser.flag("--no-trunc", text="show ids whole")
    parser.flag("-q", "--quiet", text="show ids only")


@dataclass(frozen=True, slots=True)
class _Line:
    """What is shown of one image; `size` is in bytes as stored, `created` in seconds since the epoch, 0 if unknown."""

    repository: str
    tag: str
    id: str
    digest: str
    created: float
    size: int


def run(args: Namespace) -> int:
    """List, and return the exit code."""
    if args.format not in ("table", "json"):
        raise UsageError(f"--format has no form {args.format!r}", hint="there are table and json")
    lines: list[_Line] = []
    if os.path.exists(store_root(args.root, os.environ)):
        with open_store(args, create=False) as store:
            records = [record for record in store.images if _wanted(record, args.repository)]
            lines = [_line(record, store.blobs) for record in records]
    lines.sort(key=lambda line: (-line.created, line.repository, line.tag))
    if args.quiet:
        for image_id in dict.fromkeys(line.id for line in lines):
            sys.stdout.write((image_id if args.no_trunc else _short(image_id)) + "\n")
    elif args.format == "json":
        for line in lines:
            sys.stdout.write(json.dumps(_as_json(line, args.no_trunc), ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(_as_table(lines, digests=args.digests, whole=args.no_trunc))
    return 0


def _wanted(record: ImageRecord, patterns: list[str]) -> bool:
    if not patterns:
        return True
    if record.reference is None:
        return False
    from castoff.oci.reference import Reference

    for pattern in patterns:
        wanted = Reference.parse(pattern)
        own = record.reference
        any_tag = ":" not in pattern.rpartition("/")[2] and "@" not in pattern
        if (wanted.registry, wanted.repository) == (own.registry, own.repository) and (
            any_tag or wanted.tag == own.tag
        ):
            return True
    return False


def _line(record: ImageRecord, blobs: BlobStore) -> _Line:
    from castoff.image.image import StoredImage

    repository, tag = _NONE, _NONE
    if record.reference is not None:
        from dataclasses import replace

        repository = replace(record.reference, tag="", digest=None).familiar
        tag = record.reference.tag or _NONE
    try:
        image = StoredImage.open_(blobs, record.descriptor)
        image_id, size = str(image.config_digest()), image.size()
    except BlobNotFoundError:  # of another platform
        image_id, size = str(record.descriptor.digest), record.descriptor.size
    except CastoffError:  # damaged: still to be seen, so that it can be removed
        image_id, size = str(record.descriptor.digest), 0
    return _Line(repository, tag, image_id, str(record.descriptor.digest), record.created, size)


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]


def _since(created: float) -> str:
    return ago(time.time() - created) if created else "N/A"


def _as_table(lines: Iterable[_Line], *, digests: bool, whole: bool) -> str:
    head = ["REPOSITORY", "TAG", *(["DIGEST"] if digests else []), "IMAGE ID", "CREATED", "SIZE"]
    rows = [head]
    for line in lines:
        image_id = line.id if whole else _short(line.id)
        middle = [line.digest] if digests else []
        rows.append([line.repository, line.tag, *middle, image_id, _since(line.created), human_size(line.size)])
    return table(rows)


def _as_json(line: _Line, whole: bool) -> dict[str, object]:
    moment = time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(line.created)) if line.created else "N/A"
    return {
        "CreatedAt": moment,
        "CreatedSince": _since(line.created),
        "Digest": line.digest,
        "ID": line.id if whole else _short(line.id),
        "Repository": line.repository,
        "Size": human_size(line.size),
        "SizeBytes": line.size,
        "Tag": line.tag,
    }
