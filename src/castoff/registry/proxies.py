"""Which proxy a request goes through, by the variables that curl and Go's programs read too.

``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, in lower case first. ``NO_PROXY`` is a list of host
names (with what is below them), addresses, networks (``10.0.0.0/8``), each with a port or not, and ``*`` for all. This
machine itself is never asked for through a proxy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from castoff.errors import UsageError

if TYPE_CHECKING:
    import ipaddress
    from collections.abc import Mapping

_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str, environment: Mapping[str, str]) -> str:
    """Return the URL of the proxy for a request; "" for none.

    Args:
        url: the absolute URL of the request.
        environment: the caller's.

    Raises:
        UsageError: the proxy is of a kind that castoff does not know.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    proxy = _variable(environment, f"{parts.scheme}_proxy") or _variable(environment, "all_proxy")
    if not proxy or is_loopback(host):
        return ""
    port = parts.port or _PORTS.get(parts.scheme, 0)
    if any(_covers(item.strip().lower(), host, port) for item in _variable(environment, "no_proxy").split(",")):
        return ""
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        found = urlsplit(proxy)
        known = found.scheme in _PORTS and bool(found.hostname) and (found.port or 1) > 0
    except ValueError:
        known = False
    if not known:
        raise UsageError(
            f"the proxy for {parts.scheme}://{host} is not the URL of an http or https proxy",
            hint="castoff knows no SOCKS; exempt the host with NO_PROXY, or name an http proxy",
        )
    return proxy


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _variable(environment: Mapping[str, str], name: str) -> str:
    # A CGI program's HTTP_PROXY is a header of its client; castoff is none, but its callers may be.
    if name == "http_proxy" and "REQUEST_METHOD" in environment:
        return environment.get(name, "")
    return environment.get(name) or environment.get(name.upper(), "")


def _covers(item: str, host: str, port: int) -> bool:
    """Tell whether one item of NO_PROXY means a host."""
    if item == "*":
        return True
    if "/" in item:
        import ipaddress

        address = _address(host)
        try:
            return address is not None and address in ipaddress.ip_network(item, strict=False)
        except ValueError:
            return False
    name, colon, number = item.rpartition(":")
    if colon and number.isascii() and number.isdigit() and (":" not in name or name.startswith("[")):
        if int(number) != port:
            return False
        item = name
    item = item.removeprefix("[").removesuffix("]").removeprefix("*")
    wanted = item.removeprefix(".")
    if not wanted:
        return False
    one, other = _address(wanted), _address(host)
    if one is not None or other is not None:
        return one == other
    return host.endswith(f".{wanted}") or (host == wanted and not item.startswith("."))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    import ipaddress

    try:
        return ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
