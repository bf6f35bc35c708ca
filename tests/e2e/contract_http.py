"""The HTTP contract of the DevOps Info Service, whatever it is written in and wherever it runs.

Each check takes the service under test and asserts one point. `CHECKS` lists them all:

    @pytest.mark.parametrize("check", CHECKS, ids=check_name)
    def test_contract(check, service): check(service)

and `check_all(url, runtime_key)` runs them without pytest. A check makes its own requests and depends on no other.
"""

from __future__ import annotations

import base64
import hashlib
import html
import http.client
import ipaddress
import json
import re
import secrets
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

JSON_ROUTES = ("/", "/health", "/ready", "/version")
ROUTES = (*JSON_ROUTES, "/metrics")
BROWSER_ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_HUMAN = re.compile(r"\d+ (day|hour|minute|second)s?(, \d+ (hour|minute|second)s?)*")
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^}]*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status, the header fields and the body."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.body)

    @property
    def media_type(self) -> str:
        """Return the media type without its parameters."""
        return str(self.headers.get_content_type())


@dataclass(frozen=True, slots=True)
class Service:
    """A service under test: its base URL, and the key under which it tells its language's version."""

    url: str
    runtime_key: str  # "go_version" or "python_version"

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection, which the caller closes."""
        address = urllib.parse.urlsplit(self.url)
        assert address.hostname is not None, f"{self.url} has no host"
        return http.client.HTTPConnection(address.hostname, address.port, timeout=30)

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: dict[str, str | bytes] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Make one request on a connection of its own."""
        connection = self.connect()
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def ask_raw(self, request: bytes) -> bytes:
        """Send bytes as they are and return all that comes back until the service closes the connection."""
        connection = self.connect()
        try:
            connection.connect()
            connection.sock.sendall(request)
            received = b""
            while block := connection.sock.recv(65536):
                received += block
            return received
        finally:
            connection.close()


def assert_json(answer: Answer, status: int) -> Any:
    """Assert that an answer is JSON with a status, two-space indent and the safety headers; return it parsed."""
    assert answer.status == status, f"status {answer.status}, wanted {status}: {answer.body!r}"
    assert answer.media_type == "application/json", f"Content-Type is {answer.headers['Content-Type']}"
    assert answer.headers["X-Content-Type-Options"] == "nosniff", "X-Content-Type-Options is not nosniff"
    assert answer.headers["Cache-Control"] == "no-store", f"Cache-Control is {answer.headers['Cache-Control']}"
    assert answer.headers["Content-Length"] == str(len(answer.body)), "Content-Length is wrong or missing"
    layout = json.dumps(answer.json, indent=2, ensure_ascii=False)
    text = answer.body.decode()
    assert text.removesuffix("\n") == layout, f"not laid out with two spaces:\n{text}"
    return answer.json


def _keys(value: Any, wanted: list[str], where: str) -> None:
    assert list(value) == wanted, f"{where} has the keys {list(value)}, wanted {wanted}"


def _text(value: Any, *names: str) -> None:
    for name in names:
        assert isinstance(value[name], str) and value[name], f"{name} is {value[name]!r}, wanted text"


def _whole(value: Any, name: str, least: int) -> None:
    number = value[name]
    assert type(number) is int and number >= least, f"{name} is {number!r}, wanted a whole number from {least}"


def _error(answer: Answer, status: int) -> None:
    error = assert_json(answer, status)
    _keys(error, ["error", "message"], f"the body of a {status}")
    _text(error, "error", "message")


def _close_to_now(stamp: str) -> None:
    assert _TIMESTAMP.fullmatch(stamp), f"{stamp!r} is not UTC to the second"
    then = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    # Wide enough for a slow machine, narrow enough to catch local time given as UTC.
    assert abs((datetime.now(UTC) - then).total_seconds()) < 300, f"{stamp} is not the time of day in UTC"


def check_facts(service: Service) -> None:
    """Check the layout, the keys, their order and their types on the main page."""
    facts = assert_json(service.ask("/"), 200)
    _keys(facts, ["service", "system", "runtime", "request", "endpoints"], "/")
    _keys(facts["service"], ["name", "version", "description", "framework"], "service")
    _text(facts["service"], "name", "version", "description", "framework")
    system = ["hostname", "platform", "platform_version", "architecture", "cpu_count", service.runtime_key]
    _keys(facts["system"], system, "system")
    _text(facts["system"], "hostname", "platform", "platform_version", "architecture", service.runtime_key)
    _whole(facts["system"], "cpu_count", 1)
    assert facts["system"]["platform"].lower() == "linux", f"platform is {facts['system']['platform']}"
    runtime = facts["runtime"]
    _keys(runtime, ["uptime_seconds", "uptime_human", "current_time", "timezone"], "runtime")
    _whole(runtime, "uptime_seconds", 0)
    assert _HUMAN.fullmatch(runtime["uptime_human"]), f"uptime_human is {runtime['uptime_human']!r}"
    _close_to_now(runtime["current_time"])
    assert runtime["timezone"] == "UTC", f"timezone is {runtime['timezone']!r}"


def check_endpoints(service: Service) -> None:
    """Check that the main page lists every route, and that each one listed answers."""
    endpoints = service.ask("/").json["endpoints"]
    for endpoint in endpoints:
        _keys(endpoint, ["path", "method", "description"], "an endpoint")
        _text(endpoint, "path", "method", "description")
        status = service.ask(endpoint["path"], endpoint["method"]).status
        assert status == 200, f"{endpoint['path']} is listed and answers {status}"
    assert {endpoint["path"] for endpoint in endpoints} == set(ROUTES), f"the endpoints are {endpoints}"


def check_request_facts(service: Service) -> None:
    """Check that the request is echoed, the query left out and forwarding headers not believed."""
    agent = 'contract "1.0" <b>&\\ é'
    answer = service.ask("/?a=b", headers={"User-Agent": agent.encode(), "X-Forwarded-For": "203.0.113.9"})
    request = assert_json(answer, 200)["request"]
    _keys(request, ["client_ip", "user_agent", "method", "path"], "request")
    assert request["user_agent"] == agent, f"user_agent is {request['user_agent']!r}"
    assert (request["method"], request["path"]) == ("GET", "/"), f"the request is {request}"
    address = ipaddress.ip_address(request["client_ip"])
    assert address != ipaddress.ip_address("203.0.113.9"), "X-Forwarded-For is believed"


def check_hostile_user_agent(service: Service) -> None:
    """Check that bytes that are not UTF-8 in a header still give valid JSON and a valid page."""
    for accept in ("application/json", "text/html"):
        answer = service.ask("/", headers={"User-Agent": b"a\xff\xc3(\xed\xa0\x80", "Accept": accept})
        assert answer.status == 200, f"status {answer.status} for a header that is not UTF-8"
        answer.body.decode()
    assert service.ask("/").json["request"]["user_agent"] == "", "a missing User-Agent is not the empty text"


def check_health(service: Service) -> None:
    """Check the three keys of the health answer, and that the uptime never runs backwards."""
    first = assert_json(service.ask("/health"), 200)
    _keys(first, ["status", "timestamp", "uptime_seconds"], "/health")
    assert first["status"] == "healthy", f"status is {first['status']!r}"
    _close_to_now(first["timestamp"])
    _whole(first, "uptime_seconds", 0)
    second = service.ask("/health").json
    _whole(second, "uptime_seconds", first["uptime_seconds"])


def check_ready(service: Service) -> None:
    """Check that a service that is not being stopped is ready."""
    assert assert_json(service.ask("/ready"), 200) == {"status": "ready"}, "a running service is not ready"


def check_version(service: Service) -> None:
    """Check that the version answer agrees with the main page."""
    version = assert_json(service.ask("/version"), 200)
    _keys(version, ["name", "version", service.runtime_key], "/version")
    facts = service.ask("/").json
    assert version == {
        "name": facts["service"]["name"],
        "version": facts["service"]["version"],
        service.runtime_key: facts["system"][service.runtime_key],
    }, "/version and / disagree"


def check_not_found(service: Service) -> None:
    """Check that every path that is no route is a JSON 404: no redirect, no normalising, no traversal."""
    for path in ("/healt", "/health/", "//", "/./", "/../etc/passwd", "/%2e%2e/", "/a%0Ab", "/%00", "/index.html"):
        _error(service.ask(path), 404)
    _error(service.ask("/nowhere", "POST", body=b"x"), 404)


def check_wrong_method(service: Service) -> None:
    """Check that a method other than GET and HEAD is a JSON 405 that names the two."""
    for path in ROUTES:
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"):
            answer = service.ask(path, method, body=b"{}" if method == "POST" else None)
            _error(answer, 405)
            allowed = {name.strip() for name in (answer.headers["Allow"] or "").split(",")}
            assert allowed == {"GET", "HEAD"}, f"{method} {path}: Allow is {answer.headers['Allow']!r}"


def check_head(service: Service) -> None:
    """Check that HEAD gives on every route what GET gives, without the body."""
    host = urllib.parse.urlsplit(service.url).netloc
    for path in ROUTES:
        for accept in ("application/json", "text/html") if path == "/" else ("*/*",):
            fields = f"Host: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
            received = service.ask_raw(f"HEAD {path} HTTP/1.1\r\n{fields}".encode())
            assert received.split(b" ")[1] == b"200", f"HEAD {path}: {received!r}"
            assert received.partition(b"\r\n\r\n")[2] == b"", f"HEAD {path} has a body"
            answer = service.ask(path, "HEAD", {"Accept": accept})
            full = service.ask(path, headers={"Accept": accept})
            assert answer.headers["Content-Type"] == full.headers["Content-Type"], f"HEAD {path} has another type"
            assert int(answer.headers["Content-Length"]) > 0, f"HEAD {path} has no Content-Length"
    head, full = (service.ask("/version", method) for method in ("HEAD", "GET"))
    assert head.headers["Content-Length"] == str(len(full.body)), "HEAD and GET differ in Content-Length"
    assert service.ask("/healt", "HEAD").status == 404, "HEAD of an unknown path is no 404"


def check_negotiation(service: Service) -> None:
    """Check who gets the page and who JSON (RFC 9110, section 12.5.1), and that caches are told."""
    wanted = {
        None: "application/json",
        "*/*": "application/json",
        "application/json": "application/json",
        "text/html;q=0": "application/json",
        "text/html;q=0.5, */*": "application/json",
        "application/json, text/html;q=0.9": "application/json",
        "text/html, application/json": "application/json",
        "image/png": "application/json",
        "text/html;q=nonsense": "application/json",
        "text/html;q=0.1234": "application/json",
        "text/html": "text/html",
        "TEXT/HTML": "text/html",
        "text/*": "text/html",
        "text/html;q=0.9, application/json;q=0.8": "text/html",
        "text/html ; q=0.2, */* ; q=0.1": "text/html",
        BROWSER_ACCEPT: "text/html",
    }
    for accept, media_type in wanted.items():
        answer = service.ask("/", headers={} if accept is None else {"Accept": accept})
        assert (answer.status, answer.media_type) == (200, media_type), f"Accept: {accept} gave {answer.media_type}"
        assert answer.headers["Vary"] == "Accept", f"Accept: {accept} gave Vary: {answer.headers['Vary']}"
    assert service.ask("/health", headers={"Accept": "text/html"}).media_type == "application/json", "/health is a page"


def check_page(service: Service) -> None:
    """Check that the page has the facts, needs nothing from elsewhere, and admits only its own script and style."""
    agent = "\"><script>alert('x')</script><!-- &amp; ünï"
    answer = service.ask("/", headers={"Accept": BROWSER_ACCEPT, "User-Agent": agent.encode()})
    assert answer.headers["Content-Type"].lower() == "text/html; charset=utf-8", f"{answer.headers['Content-Type']}"
    assert answer.headers["X-Content-Type-Options"] == "nosniff", "the page can be sniffed"
    page = answer.body.decode()
    assert "<script>alert" not in page and "<!-- &amp; ünï" not in page, "the User-Agent is not escaped"
    facts = service.ask("/").json
    facts["request"]["user_agent"] = agent
    shown = html.unescape(page)
    for section in ("service", "system", "request"):
        for key, value in facts[section].items():
            assert key in page and str(value) in shown, f"the page lacks {section}.{key}"
    for endpoint in facts["endpoints"]:
        assert f'href="{endpoint["path"]}"' in page, f"the page does not link {endpoint['path']}"
    loads = re.findall(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//|@import|url\(""", page, re.IGNORECASE)
    assert not loads, f"the page loads something: {loads}"
    assert re.search(r'<noscript><meta http-equiv="refresh" content="\d+">', page), "no refresh without scripts"
    assert 'name="viewport"' in page and "prefers-color-scheme" in page, "the page ignores phones or dark mode"
    _check_policy(answer.headers["Content-Security-Policy"], page)


def _check_policy(policy: str | None, page: str) -> None:
    assert policy, "the page has no Content-Security-Policy"
    directives = {words[0]: words[1:] for part in policy.split(";") if (words := part.split())}
    assert directives.get("default-src") == ["'none'"], f"default-src is {directives.get('default-src')}"
    assert "unsafe" not in policy, f"the policy admits anything: {policy}"
    for name in ("base-uri", "form-action", "frame-ancestors"):
        assert directives.get(name) == ["'none'"], f"{name} is {directives.get(name)}"
    for element, name in (("script", "script-src"), ("style", "style-src")):
        blocks = re.findall(rf"<{element}[^>]*>(.*?)</{element}>", page, re.DOTALL)
        hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in blocks]
        assert hashes and directives.get(name) == hashes, f"{name} does not fit the page's {element}"


@dataclass(frozen=True, slots=True)
class Metrics:
    """A scrape: samples by name and labels, and the type of each family."""

    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]
    types: dict[str, str]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum over the samples of a name that have these labels."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.samples.items() if found == name and wanted <= has)


def scrape(service: Service) -> Metrics:
    """Read the metrics, asserting the Prometheus text format 0.0.4: HELP and TYPE first, no sample twice."""
    answer = service.ask("/metrics")
    assert answer.status == 200, f"/metrics is {answer.status}"
    kind = answer.headers["Content-Type"].replace(" ", "")
    assert kind.startswith("text/plain;version=0.0.4"), f"Content-Type is {kind}"
    text = answer.body.decode()
    assert text.endswith("\n"), "the last line is not ended"
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    types: dict[str, str] = {}
    helped: set[str] = set()
    for line in text.splitlines():
        if line.startswith("#"):
            _, keyword, name, rest = line.split(" ", 3)
            if keyword == "HELP":
                helped.add(name)
            elif keyword == "TYPE":
                types[name] = rest
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, f"no sample: {line!r}"
        name, labels, value = match[1], match[2] or "", float(match[3])
        family = re.sub(r"_(bucket|sum|count)$", "", name) if name not in types else name
        assert family in types and family in helped, f"{name} comes before its HELP and TYPE"
        assert re.sub(_LABEL, "", labels).strip(",") == "", f"the labels of {line!r} are malformed"
        key = (name, frozenset(_LABEL.findall(labels)))
        assert key not in samples, f"{line!r} comes twice"
        samples[key] = value
    return Metrics(samples, types)


def _scrape_until(service: Service, reached: Callable[[Metrics], bool], what: str) -> Metrics:
    # A request is counted when it has been answered, which may be just after its client has the answer.
    for _ in range(200):
        metrics = scrape(service)
        if reached(metrics):
            return metrics
        time.sleep(0.01)
    raise AssertionError(f"never counted: {what}")


def check_metrics_count(service: Service) -> None:
    """Check that requests are counted by method, path and status."""
    before = scrape(service)
    assert before.types.get("http_requests_total") == "counter", f"the types are {before.types}"
    asked = (("/version", "GET", "200"), ("/version", "HEAD", "200"), ("/version", "POST", "405"))
    for path, method, _ in asked:
        for _ in range(3):
            service.ask(path, method)
    for path, method, status in asked:
        labels = {"path": path, "method": method, "status": status}
        least = before.total("http_requests_total", **labels) + 3
        _scrape_until(service, lambda m: m.total("http_requests_total", **labels) >= least, str(labels))  # noqa: B023
    for name, labels_of in before.samples:
        if name == "http_requests_total":
            assert {key for key, _ in labels_of} == {"method", "path", "status"}, f"labels are {set(labels_of)}"


def check_metrics_latency(service: Service) -> None:
    """Check that the latency histogram is one: cumulative, closed, and of as many requests as were counted."""
    service.ask("/version")
    metrics = scrape(service)
    name = "http_request_duration_seconds"
    assert metrics.types.get(name) == "histogram", f"the types are {metrics.types}"
    ladders: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
    for (sample, labels), value in metrics.samples.items():
        if sample == f"{name}_bucket":
            bound = float(dict(labels)["le"])
            ladders.setdefault(frozenset(pair for pair in labels if pair[0] != "le"), []).append((bound, value))
    assert ladders, "the histogram is empty"
    for labels, ladder in ladders.items():
        counts = [count for _, count in sorted(ladder)]
        assert counts == sorted(counts), f"the buckets of {set(labels)} are not cumulative"
        assert sorted(ladder)[-1] == (float("inf"), metrics.samples[f"{name}_count", labels]), "+Inf is not the count"
        assert metrics.samples[f"{name}_sum", labels] >= 0, "the sum is negative"
    assert metrics.total(f"{name}_count") == metrics.total("http_requests_total"), "not every request was timed"


def check_metrics_uptime(service: Service) -> None:
    """Check that the uptime is a gauge that agrees with the health answer."""
    before = service.ask("/health").json["uptime_seconds"]
    metrics = scrape(service)
    after = service.ask("/health").json["uptime_seconds"]
    assert metrics.types.get("process_uptime_seconds") == "gauge", f"the types are {metrics.types}"
    uptime = metrics.total("process_uptime_seconds")
    assert before <= uptime < after + 1, f"uptime is {uptime}, /health says {before} to {after}"


def check_metrics_bounded(service: Service) -> None:
    """Check that no client can add series: unknown paths and methods share one label each."""
    token = secrets.token_hex(8)
    metrics = scrape(service)
    for wave in range(2):
        least = metrics.total("http_requests_total", status="404") + 5
        known = set(metrics.samples)
        for number in range(5):
            service.ask(f"/{token}{wave}{number}", headers={"User-Agent": token})
            service.ask("/version", f"X{token.upper()}{wave}{number}")
        metrics = _scrape_until(
            service,
            lambda m: m.total("http_requests_total", status="404") >= least,  # noqa: B023
            "unknown paths",
        )
    added = set(metrics.samples) - known
    assert not {labels for _, labels in added if ("status", "404") in labels}, f"series were added: {added}"
    for _, labels in metrics.samples:
        for key, value in labels:
            assert token not in value.lower(), f"the client wrote the label {key}={value}"


def check_keep_alive(service: Service) -> None:
    """Check that one connection serves several requests, a HEAD and an error among them."""
    connection = service.connect()
    try:
        ports = set()
        for method, path, status in (
            ("GET", "/health", 200),
            ("HEAD", "/", 200),
            ("GET", "/x", 404),
            ("GET", "/", 200),
        ):
            connection.request(method, path)
            ports.add(connection.sock.getsockname())
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status, f"{method} {path} gave {answer.status}"
        assert len(ports) == 1, "the service closed a connection that could be kept"
    finally:
        connection.close()


def check_bad_requests(service: Service) -> None:
    """Check that broken and oversized requests are refused and leave the service as it was."""
    for request in (b"GET / HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n"):
        received = service.ask_raw(request)
        assert received.split(b" ")[1:2] == [b"400"], f"{request!r} gave {received[:80]!r}"
    try:
        received = service.ask_raw(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 300_000 + b"\r\n\r\n")
    except ConnectionError:
        received = b""  # the service may hang up before it has read all of it
    status = received.split(b" ")[1:2]
    assert status in ([], [b"400"], [b"431"]), f"a header of 300 kB gave {received[:80]!r}"
    assert service.ask("/health").status == 200, "the service did not survive a bad request"


Check = Callable[[Service], None]

CHECKS: tuple[Check, ...] = (
    check_facts,
    check_endpoints,
    check_request_facts,
    check_hostile_user_agent,
    check_health,
    check_ready,
    check_version,
    check_not_found,
    check_wrong_method,
    check_head,
    check_negotiation,
    check_page,
    check_metrics_count,
    check_metrics_latency,
    check_metrics_uptime,
    check_metrics_bounded,
    check_keep_alive,
    check_bad_requests,
)


def check_name(check: Check) -> str:
    """Return a check's name for a test's id."""
    return getattr(check, "__name__", repr(check)).removeprefix("check_")


def check_all(url: str, runtime_key: str) -> int:
    """Run every check against a base URL and return how many there were; the first that fails raises AssertionError."""
    service = Service(url, runtime_key)
    for check in CHECKS:
        check(service)
    return len(CHECKS)
