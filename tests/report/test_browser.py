"""report.html in a real browser: Debian's Chromium, driven over its own driver, without a network."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.report.html import render_html
from orchestrator.values.results import RunResult

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Chromium for all tests; where CI runs, a missing one is a failure and not a reason to skip."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver) and not os.environ.get("CI"):
        pytest.skip("no chromium here: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.binary_location = program or "chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver or "chromedriver"))
    yield opened
    opened.quit()


def show(browser: Any, run: RunResult, folder: Path, width: int, scheme: str = "light") -> None:
    """Open the run's page at a width that is the viewport's, which a headless window cannot be below 500 px."""
    file = folder / "report.html"
    file.write_text(render_html(run), encoding="utf-8")
    size = {"width": width, "height": 812, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get_log("browser")
    browser.get(file.as_uri())


def column(browser: Any, index: int) -> list[str]:
    script = "return [...document.querySelectorAll('#candidates tbody tr')].map(r => r.cells[arguments[0]].innerText)"
    cells: list[str] = browser.execute_script(script, index)
    return [cell.split("\n")[0] for cell in cells]


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["digits_run", "empty_run", "failed_run", "host_run"])
def test_page_fits_and_reports_no_error(
    name: str, scheme: str, width: int, browser: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    show(browser, request.getfixturevalue(name), tmp_path, width, scheme)
    scroll, inner = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert scroll <= inner == width
    assert browser.get_log("browser") == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []


def test_plot_has_a_mark_for_every_candidate_with_figures(browser: Any, digits_run: RunResult, tmp_path: Path) -> None:
    show(browser, digits_run, tmp_path, 1280)
    marks = browser.execute_script("return document.querySelectorAll('#plot .scatterlayer .point').length")
    assert marks == 9, "the baseline and the eight that are complete"
    shapes = browser.execute_script(
        "return [...document.querySelectorAll('#plot .scatterlayer .trace')]"
        ".map(t => t.querySelector('.point')).filter(Boolean).map(p => p.getAttribute('d').replace(/[0-9.,-]+/g, ''))"
    )
    assert len(set(shapes)) >= 4, "told apart by shape, not by colour alone"
    title = browser.execute_script("return document.querySelector('#plot .xtitle').textContent")
    assert title == "latency on Raspberry Pi 4, estimated (ms)"


def test_table_sorts_by_click_and_by_keyboard(browser: Any, digits_run: RunResult, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    show(browser, digits_run, tmp_path, 1280)
    heads = browser.find_elements("css selector", "#candidates thead th")
    index = next(place for place, head in enumerate(heads) if "Raspberry" in head.text)
    button = heads[index].find_element("tag name", "button")
    button.click()
    times = [cell for cell in column(browser, index) if cell.startswith("~")]
    assert heads[index].get_attribute("aria-sort") == "ascending"
    assert times == sorted(times, key=lambda cell: float(cell.split()[1]))
    assert times[0] == "~ 0.448 ms"
    button.send_keys(Keys.ENTER)
    assert heads[index].get_attribute("aria-sort") == "descending"
    shown = column(browser, index)
    assert [cell for cell in shown if cell.startswith("~")] == times[::-1]
    assert not any(cell.startswith("~") for cell in shown[-3:]), "what has no figure stays last"
    heads[0].find_element("tag name", "button").send_keys(Keys.SPACE)
    assert heads[index].get_attribute("aria-sort") is None
    assert column(browser, 0)[0] == "baseline"


def test_recipe_opens_by_keyboard(browser: Any, digits_run: RunResult, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    show(browser, digits_run, tmp_path, 375)
    row = browser.find_element("css selector", "tr.recommended")
    assert "u8s8" not in row.text
    row.find_element("tag name", "summary").send_keys(Keys.ENTER)
    assert "u8s8" in row.text
    scroll, inner = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert scroll <= inner


def test_hostile_texts_run_nothing(browser: Any, digits_run: RunResult, tmp_path: Path) -> None:
    show(browser, digits_run, tmp_path, 1280)
    assert "</script><script>alert(1)</script>" in browser.find_element("css selector", ".failure pre").text
    assert browser.execute_script("return document.scripts.length") == 3


def test_texts_have_enough_contrast(browser: Any, digits_run: RunResult, tmp_path: Path) -> None:
    """WCAG AA: 4.5 to 1 between each text's colour and the nearest background behind it."""
    script = """
      const parse = c => c.match(/[0-9.]+/g).map(Number);
      const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const behind = e => {
        for (; e; e = e.parentElement) {
          const c = parse(getComputedStyle(e).backgroundColor);
          if (c.length < 4 || c[3] > 0) return c;
        }
      };
      const poor = [];
      for (const e of document.querySelectorAll('header *, main *:not(svg *), footer *')) {
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.closest('#plot, script')) continue;
        const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 30));
      }
      return poor;
    """
    for scheme in ("light", "dark"):
        show(browser, digits_run, tmp_path, 1280, scheme)
        assert browser.execute_script(script) == []
