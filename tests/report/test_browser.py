"""The HTML report in a real browser. `make test-browser` runs all of it, `make test` the first test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from tests.report.browser import CHROMEDRIVER, CHROMIUM, DESK, PHONE, Browser, opened
from tests.report.samples import hostile, pair, stored

from dlm_sway.report.write import write_report

pytestmark = pytest.mark.skipif(
    not CHROMIUM or not CHROMEDRIVER, reason="no browser; on Debian: apt-get install chromium chromium-driver"
)
browsers = pytest.mark.browser
PAGES = ("suite", "check", "hostile", "pair")
SORTED = (
    "return [...document.querySelectorAll('#probe-5 table[data-sortable] tbody tr')].map(r => r.cells[1].dataset.v)"
)
SHOWN = "return [...document.querySelectorAll('#probe-5 tbody tr')].filter(r => !r.hidden).length"
CLAIMS = "return [...document.querySelectorAll('.claim')].filter(c => !c.hidden).map(c => c.dataset.verdict)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    results = {"suite": stored("suite"), "check": stored("check"), "hostile": hostile(), "chain": stored("chain")}
    for name, result in results.items():
        write_report(result, folder / f"{name}.html", "html")
    (folder / "pair.html").write_text(pair(), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in PAGES}


def test_the_page_says_nothing_to_the_console_asks_for_nothing_sorts_and_filters(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.show(pages["suite"])
    browser.run("document.getElementById('probe-5').open = true")
    before = browser.run(SORTED)
    browser.click("#probe-5 th:nth-child(2) button")
    up = [float(value) for value in browser.run(SORTED)]
    browser.click("#probe-5 th:nth-child(2) button")
    down = [float(value) for value in browser.run(SORTED)]
    assert up == sorted(float(value) for value in before) == down[::-1]
    assert [float(value) for value in before] != up
    browser.find("#probe-5 input[type=search]").send_keys("geography 4")
    assert 0 < browser.run(SHOWN) < len(before)
    assert "of 48 rows" in browser.find("#probe-5 .tools [role=status]").text
    assert browser.complaints() == []
    assert browser.requests() == [pages["suite"].as_uri()]


@browsers
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_page_has_no_serious_barrier_and_fits_its_screen(
    browser: Browser, pages: dict[str, Path], name: str, theme: str, width: int
) -> None:
    browser.show(pages[name], width=width, theme=theme)
    browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    browser.run(_axe())
    found = browser.driver.execute_async_script(
        "const done = arguments[0]; axe.run({resultTypes: ['violations']}).then(r => done(r.violations))"
    )
    said = [(v["id"], v["impact"], [node["target"] for node in v["nodes"]][:3]) for v in found]
    assert [entry for entry in said if entry[1] in ("serious", "critical")] == []


def _axe() -> str:
    """Return axe-core, which looks for barriers: the package's, or the newer one that SWAY_AXE names."""
    newer = os.environ.get("SWAY_AXE")
    script = Path(newer) if newer else files("axe_core_python") / "axe.min.js"
    return script.read_text(encoding="utf-8")


@browsers
@pytest.mark.parametrize("name", ["suite", "check", "pair"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_page_can_be_looked_at(browser: Browser, pages: dict[str, Path], name: str, theme: str, width: int) -> None:
    browser.show(pages[name], width=width, theme=theme)
    picture = browser.screenshot()
    assert len(picture) > 50_000  # a blank page is smaller
    if folder := os.environ.get("SWAY_SHOTS"):
        (Path(folder) / f"{name}-{width}-{theme}.png").write_bytes(picture)


@browsers
def test_hostile_text_runs_nothing_and_fetches_nothing(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["hostile"])
    browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
    assert "owned" not in browser.driver.title.partition("</script>")[0]
    assert browser.run("return document.querySelectorAll('script').length") == 1
    assert browser.complaints() == []
    assert browser.requests() == [pages["hostile"].as_uri()]


@browsers
def test_the_theme_follows_the_system_until_a_reader_chooses(browser: Browser, pages: dict[str, Path]) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    browser.show(pages["check"], theme="light")
    light = browser.run(paper)
    browser.show(pages["check"], theme="dark")
    dark = browser.run(paper)
    assert light != dark
    browser.click("#tools button")
    assert browser.run(paper) == light
    browser.show(pages["check"], theme="dark")
    assert browser.run(paper) == light
    browser.run("localStorage.clear()")


@browsers
def test_the_keyboard_alone_sorts_a_table_and_filters_claims(browser: Browser, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.show(pages["suite"])
    browser.run("document.getElementById('probe-5').open = true")
    browser.find("#probe-5 th:nth-child(2) button").send_keys(Keys.ENTER)
    assert browser.find("#probe-5 th:nth-child(2)").get_attribute("aria-sort") == "ascending"
    browser.find("button.count[data-verdict=fail]").send_keys(Keys.SPACE)
    assert set(browser.run(CLAIMS)) == {"fail"}
    browser.find("button.count[data-verdict=fail]").send_keys(Keys.SPACE)
    assert len(set(browser.run(CLAIMS))) > 3


@browsers
def test_a_link_to_a_probe_opens_it_and_printing_opens_them_all(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["suite"])
    opened_now = "return document.querySelectorAll('details.probe:not([open])').length"
    assert browser.run("return document.getElementById('probe-2').open") is False
    browser.run("location.hash = '#probe-2'; dispatchEvent(new Event('hashchange'))")
    assert browser.run("return document.getElementById('probe-2').open") is True
    closed = browser.run(opened_now)
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run(opened_now) == 0
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(opened_now) == closed > 0
    assert len(browser.driver.execute_cdp_cmd("Page.printToPDF", {})["data"]) > 20_000
