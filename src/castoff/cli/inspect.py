"""castoff inspect: all that is known of containers and images, as JSON."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

from castoff.cli.session import open_store
from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.store.directory import DirectoryStore

_ACTION = re.compile(r"\{\{\s*(json\s+)?((?:\.[A-Za-z_]\w*)+|\.)\s*\}\}")


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff inspect`."""
    parser.add_argument(
        "image", nargs="+", metavar="IMAGE", help="a container's name or id, or an image's reference or id"
    )
    parser.one("-f", "--format", metavar="FORM", text="json (default), or a template of {{.Field}} and {{json .Field}}")
    parser.one("--platform", metavar="PLATFORM", text="which image of several platforms (default: this machine's)")


def run(args: Namespace) -> int:
    """Print, and return the exit code."""
    if args.format not in ("", "json"):
        check_template(args.format)
    documents = [_container(args, name) or _image(args, name) for name in args.image]
    if args.format in ("", "json"):
        sys.stdout.write(json.dumps(documents, indent=4, ensure_ascii=False) + "\n")
    else:
        sys.stdout.writelines(fill_template(args.format, document) + "\n" for document in documents)
    return 0


def _container(args: Namespace, name: str) -> dict[str, Any] | None:
    """Return what is known of a container; None where there is none of that name or id."""
    if args.platform:
        return None
    from castoff.cli.container_view import container_store, document
    from castoff.containers.containerstore import NoContainerError

    try:
        container = container_store(args).find(name)
        return document(container, container.record(), container.state())
    except NoContainerError:
        return None


def _image(args: Namespace, name: str) -> dict[str, Any]:
    with open_store(args, create=False) as store:
        return _document(store, name, args.platform)


def _document(store: DirectoryStore, name: str, platform: str) -> dict[str, Any]:
    from castoff.image.image import StoredImage
    from castoff.inspect.document import document
    from castoff.oci.platform import Platform

    record = store.images.find(name)
    image = StoredImage.open_(store.blobs, record.descriptor, Platform.parse(platform) if platform else None)
    same = [other for other in store.images if other.descriptor.digest == record.descriptor.digest]
    return document(image, [other.reference for other in same if other.reference is not None], record.created)


def check_template(template: str) -> None:
    """Refuse a template that has anything but ``{{.Field}}`` and ``{{json .Field}}``.

    Raises:
        UsageError: it has.
    """
    rest = _ACTION.sub("", template)
    if "{{" in rest or "}}" in rest:
        raise UsageError(
            f"--format {template!r} has an action that castoff does not know",
            hint="it knows {{.Field}}, {{.Field.Field}} and {{json .Field}}",
        )


def fill_template(template: str, document: dict[str, Any]) -> str:
    """Return a template with its fields filled in.

    Raises:
        UsageError: the document has no such field.
    """

    def value(match: re.Match[str]) -> str:
        found: Any = document
        for key in match[2].split(".")[1:]:
            if not key:
                continue
            if not isinstance(found, dict) or key not in found:
                raise UsageError(f"--format: there is no field {match[2]}")
            found = found[key]
        if match[1] or not isinstance(found, str | int):
            return json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        return str(found)

    return _ACTION.sub(value, template)
