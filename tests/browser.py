"""A headless Chromium for tests: opens a page from the disk, says what went wrong in it and what it asked for."""

from __future__ import annotations

import base64
import importlib.util
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const cache = new Map();
function rgba(colour) {
  if (!cache.has(colour)) {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    cache.set(colour, [...canvas.getImageData(0, 0, 1, 1).data]);
  }
  return cache.get(colour);
}
function light([r, g, b]) {
  const part = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
}
function ground(element) {
  for (let at = element; at; at = at.parentElement) {
    const colour = rgba(getComputedStyle(at).backgroundColor);
    if (colour[3] > 250) return colour;
  }
  return rgba("Canvas");
}
const worst = { ratio: 99, what: "" };
const seen = new Set();
for (const element of document.body.querySelectorAll("*")) {
  const style = getComputedStyle(element);
  const bare = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!bare || element.disabled || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(element.tagName)) continue;
  const kind = [element, element.parentElement].map((e) => `${e.tagName}.${e.getAttribute("class")}`).join();
  if (element.dataset.i && seen.has(kind)) continue; // thousands of characters in a few colours
  seen.add(kind);
  if (!element.checkVisibility() || element.matches(".skip, option")) continue;
  const behind = ground(element);
  const ink = rgba(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
  const opacity = Number(style.opacity);
  const mixed = ink.slice(0, 3).map((v, i) => v * opacity + behind[i] * (1 - opacity));
  const [a, b] = [light(mixed), light(behind)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < worst.ratio) {
    worst.ratio = ratio;
    worst.what = `${element.tagName}.${element.getAttribute("class")}: ${element.textContent.slice(0, 40)}`;
  }
}
return worst;
"""
"""The least contrast between a text and its ground, by the formula of WCAG 2.1."""


AXE = """
const done = arguments[0];
axe.run().then(({ violations }) => done(violations.map((v) => [v.id, v.impact, v.nodes[0].html.slice(0, 200)])),
  (error) => done([String(error)]));
"""
"""What the audit of axe-core finds wrong with the page; its source comes from `axe_source`."""


def axe_source() -> str:
    """The script of axe-core, from the package of the extra `dev`; skips the test where that is not installed."""
    spec = importlib.util.find_spec("axe_core_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-core is not installed: pip install 'charlm-toolkit[dev]'")
    return (Path(spec.origin).parent / "axe.min.js").read_text()


class Browser:
    """A driven browser and the page that is open in it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1100, dark: bool = False) -> None:
        """Opens a page from the disk at a width and in light or dark."""
        colours = "dark" if dark else "light"
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": colours}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(page.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """Runs the body of a JavaScript function in the page."""
        return self.driver.execute_script(script, *arguments)

    def click(self, selector: str) -> None:
        """A real click at the middle of the first element that matches, as soon as there is one that can be clicked."""

        def attempt() -> bool:
            element = self.driver.find_element("css selector", selector)
            self.run("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
            return True

        self._until(attempt, f"clicked: {selector}")

    def wait(self, script: str, *arguments: Any, seconds: float = 60) -> Any:
        """What a script gives as soon as that is true; an error after so many seconds."""
        return self._until(lambda: self.run(script, *arguments), f"true: {script}", seconds)

    def _until(self, attempt: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        """The first true result of an attempt.

        The driver's errors count as "not yet": an element may not exist yet, may be drawn anew, or may be covered.
        """
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + seconds
        problem: WebDriverException | None = None
        while True:
            try:
                if found := attempt():
                    return found
                problem = None
            except WebDriverException as error:
                problem = error
            if time.monotonic() > end:
                raise TimeoutError(f"after {seconds} s still not {what}") from problem
            time.sleep(0.02)

    def press(self, *keys: str) -> None:
        """Keys, given to what has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def picture(self, width: int, selector: str) -> bytes:
        """The page down to the end of an element as PNG, drawn in a window in which the whole page has room."""
        metrics = {"width": width, "height": 4000, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        end = self.run("return document.querySelector(arguments[0]).getBoundingClientRect().bottom", selector)
        clip = {"x": 0, "y": 0, "width": width, "height": math.ceil(end) + 10, "scale": 1}
        done = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": clip})
        return base64.b64decode(done["data"])

    def complaints(self) -> list[str]:
        """What the console said since the page was opened; a breach of the policy is among it."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Every address that was asked for since the page was opened."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if url != "about:blank" and not url.startswith("data:")]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser from the distribution's packages; skips the test, with a reason, where there is none."""
    pytest.importorskip("selenium", reason="selenium is not installed: pip install 'charlm-toolkit[dev]'")
    names = ("chromium", "chromium-browser", "google-chrome")
    binary = next((path for path in map(shutil.which, names) if path), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium with its chromedriver: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--no-sandbox")  # its sandbox refuses to run for root
    for argument in arguments:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        made = webdriver.Chrome(options=options, service=Service(driver))
    except WebDriverException as error:
        pytest.skip(f"chromium does not start here: {str(error).splitlines()[0]}")
    made.set_script_timeout(120)
    try:
        yield Browser(made)
    finally:
        made.quit()
