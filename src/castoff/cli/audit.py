"""castoff audit: what an image holds that a runtime image must not hold."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from castoff.cli.session import open_store
from castoff.cli.size import find_image
from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.inspect.audit.policy import Policy

EXIT_BREACH = 1
"""What `audit` returns where the image breaks the policy."""

_FORMATS = ("text", "json", "sarif")
_MAX_POLICY = 1 << 20


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff audit`."""
    parser.add_argument("image", metavar="IMAGE", help="reference or id of an image in the store")
    parser.one("--format", metavar="FORM", text="text, json, or sarif for code scanners", default="text")
    parser.flag("--no-trunc", text="show every finding, and instructions whole")
    parser.one("--platform", metavar="PLATFORM", text="which image of several platforms (default: this machine's)")
    parser.one("--policy", metavar="FILE", text="TOML file with levels, allowed paths, user and size budget")


def run(args: Namespace) -> int:
    """Audit, print, and return the exit code: 1 where the image breaks the policy."""
    if args.format not in _FORMATS:
        raise UsageError(f"--format has no form {args.format!r}", hint=f"there are {', '.join(_FORMATS)}")
    policy = read_policy(args.policy)
    from castoff.cli import audit_report
    from castoff.inspect.audit.audit import audit

    with open_store(args, create=False) as store:
        session = store.session()  # nobody collects the blobs meanwhile
        image, name = find_image(store, args)
        report = audit(image, session, policy)
        subject = audit_report.Subject(name, str(image.config_digest()), str(image.descriptor.digest))
    if args.format == "json":
        text = audit_report.as_json(subject, report)
    elif args.format == "sarif":
        text = audit_report.as_sarif(subject, report)
    else:
        text = audit_report.as_text(subject, report, whole=args.no_trunc)
    sys.stdout.write(text)
    return 0 if report.passed else EXIT_BREACH


def read_policy(path: str) -> Policy | None:
    """Return the policy in a file; None where none is named.

    Raises:
        UsageError: it can't be read, or is no policy.
    """
    if not path:
        return None
    from castoff.inspect.audit.policy import Policy

    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_POLICY + 1)
    except OSError as error:
        raise UsageError(f"the policy {path} can't be read: {error.strerror}") from error
    if len(data) > _MAX_POLICY:
        raise UsageError(f"the policy {path} has more than {_MAX_POLICY >> 20} MiB")
    return Policy.parse(data, path)
