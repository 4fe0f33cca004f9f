"""A real Chromium without a window, driven by its DevTools protocol over a pipe: no package of its own is needed.

Waiting is done in the page, where each change wakes it (`Tab.until`).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium here: apt-get install chromium")

# Resolves as soon as an expression is true: it is looked at after each change of the document, and at each paint.
UNTIL = """new Promise((resolve) => {
  const isTrue = () => { try { return %s } catch { return false } };
  const done = (value) => { observer.disconnect(); clearInterval(timer); resolve(value); };
  const look = () => { const value = isTrue(); if (value) done(value); };
  const observer = new MutationObserver(look), timer = setInterval(look, 20);
  observer.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
  look();
})"""

# Before the page opens its database, since requests for one are served in order.
FORGET = "localStorage.clear(); sessionStorage.clear(); indexedDB.deleteDatabase('hermes')"


class Chromium:
    """The browser's process."""

    def __init__(self, folder: Path) -> None:
        assert PROGRAM
        from_browser, write = os.pipe()
        read, to_browser = os.pipe()
        # The protocol's file descriptors are 3 and 4.
        script = 'in=$1 out=$2; shift 2; exec "$@" 3<&"$in" 4>&"$out"'
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        options += ["--disable-extensions", "--disable-background-networking", "--disable-component-update"]
        options += ["--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            [shutil.which("bash") or "bash", "-c", script, "bash", str(read), str(write), PROGRAM, *options],
            pass_fds=(read, write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._in, self._out = from_browser, to_browser
        self._number, self._buffer = 0, b""
        self._tab: Tab | None = None
        self.events: deque[dict[str, Any]] = deque(maxlen=10_000)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError, AssertionError):
            self.call("Browser.close")
        os.close(self._out)
        os.close(self._in)
        self._process.wait(HANG)

    def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        limit = time.monotonic() + HANG
        while True:
            reply = self._read(limit)
            if reply.get("id") == self._number:
                assert "error" not in reply, (method, reply)
                result: dict[str, Any] = reply["result"]
                return result
            self.events.append(reply)

    def _read(self, limit: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, *_ = select.select([self._in], [], [], max(limit - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        return message

    @contextlib.contextmanager
    def tab(self, address: str, width: int = 1100, height: int = 800, *, phone: bool = False) -> Iterator[Tab]:
        """The one tab, with nothing stored; it is reused, since a new one costs a second of a processor."""
        tab, self._tab = self._tab or self._new_tab(), None
        try:
            tab.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
            )
            tab.call("Emulation.setTouchEmulationEnabled", enabled=phone)
            forget = tab.call("Page.addScriptToEvaluateOnNewDocument", source=FORGET)["identifier"]
            self.events.clear()
            tab.open(f"{address}?{self._number}")  # another address than before, or the page of before would do
            tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=forget)
            yield tab
            self._tab = tab
        finally:
            if self._tab is not tab:
                self.call("Target.closeTarget", targetId=tab.target)

    def _new_tab(self) -> Tab:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        tab = Tab(self, target, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        return tab


class Tab:
    """A page in the browser."""

    def __init__(self, browser: Chromium, target: str, session: str) -> None:
        self.target = target
        self._browser, self._session = browser, session

    def call(self, method: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        return self._browser.call(method, self._session, **params)

    def open(self, address: str) -> None:
        assert not self.call("Page.navigate", url=address).get("errorText")
        self.until(f"location.href.startsWith({json.dumps(address)}) && document.readyState === 'complete'")

    def run(self, script: str) -> Any:  # noqa: ANN401 - what JavaScript returns
        """The value of an expression, of a promise when it is kept."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def until(self, condition: str) -> Any:  # noqa: ANN401 - what JavaScript returns
        """Wait until an expression is true, and return its value."""
        limit = time.monotonic() + HANG
        while True:
            try:
                return self.run(UNTIL % condition)
            except AssertionError as error:  # the document was replaced meanwhile
                if time.monotonic() > limit or not any(word in str(error) for word in ("navigated", "destroyed")):
                    raise

    def click(self, selector: str) -> None:
        """Click in the middle of an element that can be seen."""
        spot = self.until(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)}); found.scrollIntoView({{block: 'nearest'}});"
            "const box = found.getBoundingClientRect(); return box.width && [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=spot[0], y=spot[1], button="left", clickCount=1)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def press(self, key: str, code: int, modifiers: int = 0) -> None:
        """Press a key by its name and its number in Windows; modifiers are 2 for Control and 8 for Shift."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def complaints(self) -> list[str]:
        """Errors and violations that the browser has noted since the last call, in all tabs."""
        self.run("0")  # what was sent before its reply has arrived
        noted = []
        for event in self._browser.events:
            params = event.get("params", {})
            if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
                noted.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            elif event.get("method") == "Runtime.exceptionThrown":
                noted.append(str(params["exceptionDetails"]))
        self._browser.events.clear()
        return noted

    def requested(self) -> list[str]:
        """The addresses that were requested since the last call, in all tabs."""
        self.run("0")
        found = [
            event["params"]["request"]["url"]
            for event in self._browser.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        self._browser.events.clear()
        return found
