"""The page of the Python service in a real browser, at a desk's width and a phone's."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import pytest
from contract_browser import Tab, browse, dump_dom, find_chromium
from contract_http import Service
from contract_launch import SERVICE as GO_SERVICE
from contract_launch import Running, launch
from contract_python import COMMAND, RUNTIME_KEY, SERVICE, environment

CHROMIUM = find_chromium()
GOOD = "document.getElementById('state').className === 'good'"

pytestmark = [pytest.mark.integration, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with launch(COMMAND, environment()) as started:
        yield started


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    assert CHROMIUM is not None
    with browse(CHROMIUM) as opened:
        yield opened


def test_both_services_have_the_same_page() -> None:
    go = (GO_SERVICE / "main.go").read_text(encoding="utf-8")
    for name in ("page.css", "page.js"):
        text = (SERVICE / "devops_info_service" / "static" / name).read_text(encoding="utf-8")
        assert len(text) > 500
        assert text in go


def test_the_document_shows_the_facts_and_is_not_scripted_by_a_header(running: Running) -> None:
    assert CHROMIUM is not None
    agent = "\"></dd><script>document.title='taken'</script><img src=x onerror=alert(1)>&amp;'"
    dom = dump_dom(CHROMIUM, running.url + "/", agent)
    facts = Service(running.url, RUNTIME_KEY).ask("/").json
    found = {name: html.unescape(text) for name, text in re.findall(r'data-fact="([^"]+)">([^<]*)</dd>', dom)}
    for section in ("service", "system"):
        for key, value in facts[section].items():
            assert found[f"{section}.{key}"] == str(value)
    assert found["request.user_agent"] == agent
    assert "<title>DevOps Info Service</title>" in dom
    assert dom.count("<script") == 1
    assert "<img" not in dom
    assert re.findall(r'<a href="([^"]*)"', dom) == [endpoint["path"] for endpoint in facts["endpoints"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_the_screen(running: Running, tab: Tab, width: int, scheme: str) -> None:
    tab.command("Network.setUserAgentOverride", userAgent="W" * 400)
    tab.resize(width)
    tab.prefer(scheme)
    tab.open_(running.url + "/")
    tab.wait_until(GOOD)
    assert tab.value("innerWidth") == width
    assert tab.value("document.documentElement.scrollWidth") <= width
    right = "Math.max(...[...document.querySelectorAll('body *')].map(e => e.getBoundingClientRect().right))"
    assert tab.value(right) <= width
    back, ink = (
        sum(map(int, re.findall(r"\d+", tab.value(f"getComputedStyle(document.body).{name}"))[:3]))
        for name in ("backgroundColor", "color")
    )
    assert (back < ink) is (scheme == "dark")


def test_the_page_refreshes_itself_and_asks_nobody_else(running: Running, tab: Tab) -> None:
    tab.open_(running.url + "/")
    place = "document.querySelector('[data-fact=\"runtime.current_time\"]').textContent"
    tab.wait_until(GOOD)
    first = tab.value(place)
    tab.wait_until(f"{place} > {first!r}")
    assert tab.faults() == []
    assert {url.removesuffix("/") for url in tab.requested() if not url.startswith("data:")} == {running.url}


def test_the_page_says_so_when_the_service_is_gone(tab: Tab) -> None:
    with launch(COMMAND, environment()) as started:
        tab.open_(started.url + "/")
        tab.wait_until(GOOD)
        assert started.stop() == 0
    tab.wait_until("document.getElementById('state').className === 'bad'")
