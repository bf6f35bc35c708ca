"""The parts that need no request: settings, log lines, negotiation, durations, metrics, addresses."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path

import pytest

from devops_info_service.facts import human_duration, platform_version, timestamp, unquote_shell
from devops_info_service.log import LibraryHandler, Log, one_line
from devops_info_service.metrics import Metrics
from devops_info_service.negotiation import prefers_html
from devops_info_service.page import Page
from devops_info_service.server import ListenError, listen
from devops_info_service.settings import Settings, SettingsError, read_settings, whole_number
from devops_info_service.target import remote_address, user_agent


def test_settings_and_their_defaults() -> None:
    assert read_settings({}) == Settings("0.0.0.0", 8000, False, 0)
    assert read_settings({"HOST": "", "PORT": "", "LOG_FORMAT": "", "SHUTDOWN_DELAY": ""}) == Settings()
    given = {"HOST": "::1", "PORT": "0080", "LOG_FORMAT": "json", "SHUTDOWN_DELAY": "300"}
    assert read_settings(given) == Settings("::1", 80, True, 300)
    assert read_settings(given).address == "[::1]:80"


@pytest.mark.parametrize("given", [{"PORT": "0"}, {"PORT": "65536"}, {"LOG_FORMAT": "JSON"}, {"SHUTDOWN_DELAY": "301"}])
def test_wrong_settings_name_the_variable(given: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=next(iter(given))):
        read_settings(given)


@pytest.mark.parametrize("text", ["", "+1", "-1", " 1", "1 ", "1_0", "1.0", "0x1", "١", "²", "1" * 5000])
def test_what_is_no_whole_number(text: str) -> None:
    assert whole_number(text, 10**9) is None


def test_a_name_without_an_address_is_a_sentence() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on a\.invalid:80: "):
        listen(Settings("a.invalid", 80))


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("", False),
        ("text/html", True),
        ("text/html;q=0", False),
        ("text/html;Q=0.5,application/json;q=0.501", False),
        ("text/*;q=1.000", True),
        ("text/html;q=1.001", False),
        ("text/html;q=2", False),
        ("text/html;q=", False),
        ("text/html;level=1;q=0.3, */*;q=0.2", True),
    ],
)
def test_who_gets_the_page(accept: str, html: bool) -> None:
    assert prefers_html(accept) is html


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (60, "1 minute"),
        (3661, "1 hour, 1 minute, 1 second"),
        (90_000 * 2, "2 days, 2 hours"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    assert human_duration(seconds) == text


def test_times_are_utc() -> None:
    assert timestamp(0.9) == "1970-01-01T00:00:00Z"


def test_the_distributions_name(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("NAME=x\nPRETTY_NAME=\n")
    second.write_text('# comment\n  PRETTY_NAME="Some \\"Linux\\" \\$1"\n')
    assert platform_version([str(tmp_path / "none"), str(first), str(second)]) == 'Some "Linux" $1'
    assert re.match(r"\d+\.\d+", platform_version([]))
    assert [unquote_shell(text) for text in ("'a\\b'", '"', "bare", "")] == ["a\\b", '"', "bare", ""]


@pytest.mark.parametrize(
    ("text", "line"),
    [("plain é", "plain é"), ("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("\u202e", "\\u202e"), ("\udcff", "\\udcff")],
)
def test_a_record_is_one_line(text: str, line: str) -> None:
    assert one_line(text) == line
    stream = io.StringIO()
    Log(stream, as_json=False).info(text)
    assert stream.getvalue().count("\n") == 1
    stream = io.StringIO()
    Log(stream, as_json=True).fail(text, more=text)
    assert list(json.loads(stream.getvalue())) == ["time", "level", "source", "message", "more"]


def test_records_name_the_place_that_wrote_them() -> None:
    stream = io.StringIO()
    Log(stream, as_json=False).info("here")
    assert re.fullmatch(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d test_parts\.py:\d+: here\n", stream.getvalue())


def test_what_libraries_log_has_the_same_form() -> None:
    stream = io.StringIO()
    handler = LibraryHandler(Log(stream, as_json=False))
    handler.emit(logging.LogRecord("x", logging.ERROR, "/a/b.py", 7, "one\ntwo %d", (3,), None))
    assert [line.split(" ", 2)[2] for line in stream.getvalue().splitlines()] == ["b.py:7: one", "b.py:7: two 3"]


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Log(Closed(), as_json=False).info("unheard")


def test_metrics() -> None:
    metrics = Metrics()
    for seconds in (0.0004, 0.0005, 0.3, 99.0):
        metrics.observe("GET", "/", 200, seconds)
    metrics.observe("BREW", "/", 405, 0.1)
    lines = metrics.text(1.5).splitlines()
    assert 'http_requests_total{method="GET",path="/",status="200"} 4' in lines
    assert 'http_requests_total{method="other",path="/",status="405"} 1' in lines
    ladder = [line.split(" ")[1] for line in lines if line.startswith("http_request_duration_seconds_bucket")][:15]
    assert ladder == ["2"] * 9 + ["3"] * 5 + ["4"]
    assert lines[-1] == "process_uptime_seconds 1.5"


def test_the_pages_policy_fits_its_style_and_script() -> None:
    page = Page("a{}", "x()")
    assert page.policy.count("'sha256-") == 2
    assert page.policy != Page("b{}", "x()").policy
    assert "<style>a{}</style>" in page.render({})


@pytest.mark.parametrize(
    ("client", "text"),
    [
        (("192.0.2.7", 1), "192.0.2.7:1"),
        (("::1", 1), "[::1]:1"),
        (("::ffff:192.0.2.7", 1), "192.0.2.7:1"),
        (None, ":0"),
    ],
)
def test_addresses(client: tuple[str, int] | None, text: str) -> None:
    assert remote_address({"client": client}) == text


def test_user_agents_that_are_not_utf_8() -> None:
    assert user_agent({"headers": [(b"user-agent", b"a\xff")]}) == "a\ufffd"
    assert user_agent({"headers": []}) == ""
