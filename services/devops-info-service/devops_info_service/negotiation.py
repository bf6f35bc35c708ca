"""Content negotiation (RFC 9110, section 12.5.1): who gets the page, and who JSON."""

from __future__ import annotations

import re

from devops_info_service.settings import whole_number

_QUALITY = re.compile(r"([01])(?:\.([0-9]{0,3}))?")


def prefers_html(accept: str) -> bool:
    """Tell whether a client rates text/html above application/json.

    At equal rates the one that it names more precisely wins, and JSON otherwise.
    """
    html, html_precision = rate(accept, "text", "html")
    json, json_precision = rate(accept, "application", "json")
    return html > json or (html > 0 and html == json and html_precision > json_precision)


def rate(accept: str, kind: str, subtype: str) -> tuple[int, int]:
    """Return the weight, in thousandths, that the most precise matching range gives a media type, and that precision.

    The precision is 0 for no match, 1 for ``*/*``, 2 for ``type/*``, 3 for ``type/subtype``.
    """
    precisions = {"*/*": 1, f"{kind}/*": 2, f"{kind}/{subtype}": 3}
    weight = precision = 0
    for media_range in accept.split(","):
        name, *parameters = media_range.split(";")
        match = precisions.get(name.strip().lower(), 0)
        if match > precision and (value := quality(parameters)) is not None:
            weight, precision = value, match
    return weight, precision


def quality(parameters: list[str]) -> int | None:
    """Return the q parameter in thousandths, 1000 where there is none; None for one that is not valid."""
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "q":
            match = _QUALITY.fullmatch(value)
            return whole_number(match[1] + (match[2] or "").ljust(3, "0"), 1000) if match else None
    return 1000
