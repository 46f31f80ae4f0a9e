"""A headless Chromium, which tests ask over a pipe what a page is like."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Page:
    """An open page.

    Args:
        requests: every address that it asked for.
        complaints: what the browser logged: errors, warnings, exceptions, refused content.
    """

    browser: Browser
    session: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def ask(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript in the page."""
        arguments = {"expression": expression, "returnByValue": True}
        found = self.browser.call("Runtime.evaluate", self.session, **arguments)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")


class Browser:
    """The process, over DevTools' pipe: JSON documents that end in a zero byte."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        their_in, self._out = os.pipe()
        self._in, their_out = os.pipe()
        command = [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        redirected = f'exec "$@" 3<&{their_in} 4>&{their_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", redirected, "bash", *command],
            pass_fds=(their_in, their_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(their_in)
        os.close(their_out)
        self._read = b""
        self._count = 0
        self._pages: dict[str, Page] = {}

    def open(self, file: Path, width: int, dark: bool = False) -> Page:
        """Open a file in a window of this width, in pixels; return when it has loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, attached["sessionId"])
        self._pages[page.session] = page
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable", page.session)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", page.session, **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", page.session, features=[scheme])
        self.call("Page.navigate", page.session, url=file.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass
        return page

    def picture(self, page: Page) -> str:
        """Return what the page looks like, as PNG in base 64."""
        whole = {"captureBeyondViewport": True}
        return str(self.call("Page.captureScreenshot", page.session, **whole)["data"])

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol; return its result."""
        self._count += 1
        asked = {"id": self._count, "method": method, "params": params}
        if session is not None:
            asked["sessionId"] = session
        os.write(self._out, json.dumps(asked).encode() + b"\0")
        while (answer := self._next()).get("id") != asked["id"]:
            pass
        assert "error" not in answer, answer
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            chunk = os.read(self._in, 1 << 16)
            assert chunk, "the browser ended"
            self._read += chunk
        text, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        page, about = self._pages.get(message.get("sessionId", "")), message.get("params", {})
        if page is not None:
            match message.get("method"):
                case "Network.requestWillBeSent":
                    page.requests.append(about["request"]["url"])
                case "Log.entryAdded":
                    page.complaints.append(about["entry"]["text"])
                case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                    page.complaints.append(json.dumps(about))
        return message

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)
        self._process.terminate()
        self._process.wait()


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile, and end it."""
    found = Browser(profile)
    try:
        yield found
    finally:
        found.close()
