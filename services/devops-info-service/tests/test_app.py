"""Routing, the middleware's promises, and the description of the service."""

from __future__ import annotations

import json

import pytest
from conftest import Client
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from devops_info_service.routes import ENDPOINTS, listed_endpoints


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
def test_every_route_answers_and_refuses_other_methods(client: Client, endpoint: object) -> None:
    path = getattr(endpoint, "path", "")
    answer = client.ask(path)
    assert answer.status == 200
    assert answer.headers["content-length"] == str(len(answer.body))
    refused = client.ask(path, "POST")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    assert list(refused.json) == ["error", "message"]


def test_the_description_has_the_routes_of_the_table(client: Client) -> None:
    paths = client.ask("/openapi.json").json["paths"]
    assert list(paths) == [endpoint.path for endpoint in ENDPOINTS]
    assert "/openapi.json" not in [endpoint["path"] for endpoint in listed_endpoints()]


@pytest.mark.parametrize("path", ["/health\n", "/health/", "//", "*", "/Health"])
def test_what_is_no_route_is_a_404(client: Client, path: str) -> None:
    assert client.ask(path).status == 404


@pytest.mark.parametrize(
    ("path", "shown"), [("http://name/health", "Health check"), ("http://name", "Request: GET / "), ("", "Request: ")]
)
def test_targets_in_absolute_form(client: Client, path: str, shown: str) -> None:
    assert client.ask(path).status == 200
    assert shown in client.log[0]


def failing(client: Client, *, after_start: bool) -> None:
    async def endpoint(request: Request) -> Response:
        raise RuntimeError("on purpose\nforged line")

    async def late(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        raise RuntimeError("half way")

    route = Route("/version", endpoint)
    if after_start:
        route.app = late
    client.app.router.routes[:] = [route]


def test_a_failure_is_a_500_and_logged_line_by_line(client: Client) -> None:
    failing(client, after_start=False)
    answer = client.ask("/version")
    assert (answer.status, list(answer.json)) == (500, ["error", "message"])
    assert b"on purpose" not in answer.body
    assert any("Traceback" in line for line in client.log)
    assert not any(line.startswith("forged") for line in client.log)
    assert 'path="/version",status="500"} 1' in client.service.metrics.text(0)


def test_a_failure_in_the_middle_of_an_answer_is_the_servers_to_break(client: Client) -> None:
    failing(client, after_start=True)
    with pytest.raises(RuntimeError, match="half way"):
        client.ask("/version")


def test_a_failure_in_the_json_log_has_its_stack(json_client: Client) -> None:
    failing(json_client, after_start=False)
    json_client.ask("/version")
    records = [json.loads(line) for line in json_client.log]
    assert [record["level"] for record in records] == ["error", "info"]
    assert "Traceback" in records[0]["stack"]
    assert records[1]["status"] == 500


def test_draining_turns_readiness_off_and_closes_connections(client: Client) -> None:
    assert "connection" not in client.ask("/ready").headers
    client.service.draining = True
    answer = client.ask("/ready")
    assert (answer.status, answer.json) == (503, {"status": "draining"})
    assert answer.headers["connection"] == "close"
    assert client.ask("/health").status == 200


def test_the_page_escapes_what_it_shows(client: Client) -> None:
    client.service.system = {"hostname": "<script>&\"'"}
    page = client.ask("/", accept="text/html", user_agent="</dd><script>x").body.decode()
    assert "&lt;script&gt;&amp;&quot;&#x27;" in page
    assert "&lt;/dd&gt;&lt;script&gt;x" in page
    assert page.count("<script>") == 1


def test_a_header_that_is_too_large(client: Client) -> None:
    answer = client.ask("/", x="a" * 20_000)
    assert (answer.status, answer.headers["connection"]) == (431, "close")


def test_two_services_share_nothing() -> None:
    first, second = Client(), Client()
    first.ask("/version")
    assert 'path="/version"' in first.ask("/metrics").body.decode()
    assert 'path="/version"' not in second.ask("/metrics").body.decode()
