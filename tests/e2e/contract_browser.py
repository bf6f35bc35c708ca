"""Chromium without a window, driven over its debugging pipe, for tests that look at a page as people do."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_PATIENCE = 60.0  # seconds before a test gives up on the browser; no measure of speed

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> str | None:
    """Return a chromium command, None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def _profile() -> tempfile.TemporaryDirectory[str]:
    """Return a new folder for all that a browser writes; its sockets want a short path, wherever the tests lie."""
    return tempfile.TemporaryDirectory(dir="/tmp", prefix="castoff-", ignore_cleanup_errors=True)


def _environment(profile: str) -> dict[str, str]:
    """Return an environment in which a browser writes nothing outside of its profile."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    return {**kept, "HOME": profile, "TMPDIR": profile}


def dump_dom(chromium: str, url: str, user_agent: str) -> str:
    """Return the document of a URL as it stands once its scripts have settled."""
    with _profile() as profile:
        done = subprocess.run(
            [
                chromium,
                *FLAGS,
                f"--user-data-dir={profile}",
                f"--user-agent={user_agent}",
                "--virtual-time-budget=3000",
                "--dump-dom",
                url,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(profile),
            timeout=_PATIENCE,
            check=True,
        )
    return done.stdout.decode()


@dataclass(slots=True)
class Tab:
    """One page of a running browser. Commands and events are those of the DevTools protocol."""

    _to: int
    _from: int
    _session: str | None = None
    _number: int = 0
    _buffer: bytes = b""
    events: list[dict[str, Any]] = field(default_factory=list)

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; keep the events that come in between."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], _PATIENCE)
            assert ready, "the browser does not answer"
            block = os.read(self._from, 1 << 20)
            assert block, "the browser has ended"
            self._buffer += block
        message, _, self._buffer = self._buffer.partition(b"\0")
        parsed: dict[str, Any] = json.loads(message)
        return parsed

    def attach(self) -> None:
        """Open a blank page and turn on what tells of its faults."""
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def resize(self, width: int, height: int = 800) -> None:
        """Give the page the width and height of a screen, in CSS pixels."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def prefer(self, scheme: str) -> None:
        """Make the reader prefer a dark or a light page."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open_(self, url: str) -> None:
        """Go to a URL and wait until it is loaded."""
        self.events.clear()
        fault = self.command("Page.navigate", url=url).get("errorText")
        assert not fault, f"{url}: {fault}"
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression gives in the page."""
        result = self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def wait_until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true in the page."""
        deadline = time.monotonic() + _PATIENCE
        while not self.value(expression):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.05)

    def screenshot(self) -> bytes:
        """Return the page's picture as a PNG."""
        return base64.b64decode(self.command("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def faults(self) -> list[str]:
        """Return what the page complained of since it was opened: scripts, policy violations, failed loads."""
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
        return found

    def requested(self) -> list[str]:
        """Return the addresses that the page asked for since it was opened."""
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]


@contextlib.contextmanager
def browse(chromium: str) -> Iterator[Tab]:
    """Start a browser with a profile of its own, yield a blank tab, and end the browser."""
    commands_in, commands_out = os.pipe()
    answers_in, answers_out = os.pipe()
    with _profile() as profile:
        # The browser reads commands from descriptor 3 and answers on 4: a shell puts them there.
        plumbing = f'exec 3<&{commands_in} 4>&{answers_out}; exec "$0" "$@"'
        argv = [chromium, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            ["bash", "-c", plumbing, *argv],
            pass_fds=(commands_in, answers_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_environment(profile),
        )
        os.close(commands_in)
        os.close(answers_out)
        try:
            tab = Tab(commands_out, answers_in)
            tab.attach()
            yield tab
        finally:
            os.close(commands_out)  # the end of its commands ends the browser
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(answers_in)
