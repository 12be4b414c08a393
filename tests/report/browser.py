"""A real browser for the HTML report, and what it noticed while it showed a page."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

CHROMIUM: Final = shutil.which("chromium")
CHROMEDRIVER: Final = shutil.which("chromedriver")
PHONE, DESK = 390, 1400


class Browser:
    """Shows one page at a time."""

    def __init__(self, driver: Any) -> None:
        """Keep the driver."""
        self.driver = driver

    def show(self, path: Path, *, width: int = DESK, theme: str = "light") -> None:
        """Open a page as a reader with this screen and this theme would."""
        phone = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(path.as_uri())

    def run(self, script: str, *args: Any) -> Any:
        """Return what a script returns."""
        return self.driver.execute_script(script, *args)

    def find(self, query: str) -> Any:
        """Return the first element that a query finds."""
        return self.driver.find_element("css selector", query)

    def click(self, query: str) -> None:
        """Click what a query finds, without waiting for the page to scroll there smoothly."""
        found = self.find(query)
        self.run("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", found)
        found.click()

    def complaints(self) -> list[str]:
        """Return what the console has said since the page was opened."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for, itself included."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def screenshot(self) -> bytes:
        """Return the whole page as PNG; kept in the folder SWAY_SHOTS names, if any."""
        size = self.run("const d = document.documentElement; return [d.clientWidth, d.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": min(size[1], 12_000), "scale": 1}
        options = {"captureBeyondViewport": True, "clip": clip}
        return base64.b64decode(self.driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"])


@contextmanager
def opened() -> Iterator[Browser]:
    """Start a browser without a window, and end it."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    for word in ("--headless=new", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage", *sandbox):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=str(CHROMEDRIVER))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
