"""What ``-p`` may say."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castoff.containers.ports import PortMapping, listen
from castoff.errors import SandboxError, UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [("", 0, 80, "tcp")]),
        ("8000:80", [("", 8000, 80, "tcp")]),
        ("127.0.0.1:8000:8000/tcp", [("127.0.0.1", 8000, 8000, "tcp")]),
        ("127.0.0.1::80", [("127.0.0.1", 0, 80, "tcp")]),
        ("53:53/UDP", [("", 53, 53, "udp")]),
        ("[::1]:8000:80", [("::1", 8000, 80, "tcp")]),
        ("8000-8002:80-82", [("", 8000, 80, "tcp"), ("", 8001, 81, "tcp"), ("", 8002, 82, "tcp")]),
        ("9000-9001", [("", 0, 9000, "tcp"), ("", 0, 9001, "tcp")]),
    ],
)
def test_parse(text: str, expected: list[tuple[str, int, int, str]]) -> None:
    assert PortMapping.parse(text) == tuple(PortMapping(*one) for one in expected)


@pytest.mark.parametrize(
    "text",
    ["", "a", "80:", "0", "65536", "8000:0", "70000:80", "82-80", "1-2:3", "80/sctp", "999.1.1.1:1:1", "::1:80:80",
     "[::g]:1:1", "80:80:80:80", "-1:80", "1.2.3:1:1", " 80"],
)  # fmt: skip
def test_parse_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        PortMapping.parse(text)


@given(
    st.sampled_from(["", "127.0.0.1", "::1", "fe80::1"]),
    st.integers(0, 65535),
    st.integers(1, 65535),
    st.sampled_from(["tcp", "udp"]),
)
def test_text_round_trip(host_ip: str, host_port: int, container_port: int, proto: str) -> None:
    mapping = PortMapping(host_ip, host_port, container_port, proto)
    assert PortMapping.parse(str(mapping)) == (mapping,)


def test_listen_takes_all_or_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            other = probe.getsockname()[1]
        mappings = (PortMapping("127.0.0.1", other, 80), PortMapping("127.0.0.1", port, 81))
        with pytest.raises(SandboxError, match=f"127.0.0.1:{port}/tcp is already in use"):
            listen(mappings)
        socket.create_server(("127.0.0.1", other)).close()


def test_listen_fills_in_a_free_port() -> None:
    (listener,) = listen((PortMapping("127.0.0.1", 0, 80),))
    try:
        assert listener.mapping.host_port == listener.socket.getsockname()[1] != 0
    finally:
        listener.socket.close()


def test_listen_names_a_foreign_address() -> None:
    with pytest.raises(SandboxError, match=r"192\.0\.2\.77"):
        listen((PortMapping("192.0.2.77", 0, 80),))
