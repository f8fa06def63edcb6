"""report.html in a real browser: Debian's Chromium, driven by Playwright's core, without a network."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.values.results import RunResult
from orchestrator_reports.html import render_html

CONTRAST = """() => {
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
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.closest('script') || !e.checkVisibility()) continue;
    const style = getComputedStyle(e);
    const ink = e instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(parse(ink)), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(e.tagName + '.' + e.getAttribute('class') + ' ' + e.textContent.slice(0, 30));
  }
  return poor;
}"""
COLUMN = "index => [...document.querySelectorAll('#candidates tbody tr')].map(r => r.cells[index].innerText.split('\\n')[0])"

Show = Callable[..., Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One Chromium for all tests; where CI runs, a missing one is a failure and not a reason to skip."""
    program = shutil.which("chromium")
    if program is None and not os.environ.get("CI"):
        pytest.skip("no chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program or "chromium", args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def show(chromium: Any, tmp_path: Path) -> Iterator[Show]:
    """Open a run's page; at the end of the test nothing may have been said on the console, nor asked of the network."""
    complaints: list[str] = []
    asked: list[str] = []
    contexts = []

    def opened(run: RunResult, width: int = 1280, scheme: str = "light") -> Any:
        file = tmp_path / "report.html"
        file.write_text(render_html(run), encoding="utf-8")
        context = chromium.new_context(viewport={"width": width, "height": 812}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("data:", tmp_path.as_uri()))] == []


def fits(page: Any) -> bool:
    """Whether nothing of the page lies beside the window."""
    scroll, inner = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    return bool(scroll <= inner)


def head(page: Any, text: str) -> tuple[Any, int]:
    """The head of the first column of the large table whose title has that text, and its place."""
    heads = page.locator("#candidates thead th").all()
    index = next(place for place, one in enumerate(heads) if text in one.inner_text())
    return heads[index], index


@pytest.mark.parametrize("name", ["full_run", "empty_run", "failed_run", "host_run"])
def test_page_fits_and_every_text_has_enough_contrast(name: str, show: Show, request: pytest.FixtureRequest) -> None:
    """WCAG AA: 4.5 to 1 between each text's colour and the nearest background behind it."""
    page = show(request.getfixturevalue(name))
    for opened, (width, scheme) in itertools.product((False, True), itertools.product((375, 1280), ("light", "dark"))):
        page.set_viewport_size({"width": width, "height": 812})
        page.emulate_media(color_scheme=scheme)
        page.evaluate(f"document.querySelectorAll('details').forEach(e => {{ e.open = {str(opened).lower()}; }})")
        assert fits(page), (width, scheme, opened)
        assert not opened or page.evaluate(CONTRAST) == [], (width, scheme)


def test_plot_has_a_mark_for_every_candidate_with_figures(show: Show, digits_run: RunResult) -> None:
    page = show(digits_run)
    points = page.locator("svg.wide a.point")
    assert points.count() == 9, "the baseline and the eight that are complete"
    paths = points.locator(".mark").evaluate_all("all => all.map(e => e.getAttribute('d').replace(/[0-9.,-]+/g, ''))")
    assert len(set(paths)) >= 4, "told apart by shape, not by colour alone"
    assert page.locator("svg.wide .title").first.text_content() == "latency on Raspberry Pi 4, estimated (ms)"
    assert not page.locator("svg.narrow").is_visible()
    assert show(digits_run, 375).locator("svg.narrow").is_visible()


def test_point_tells_what_it_is_and_leads_to_its_row(show: Show, digits_run: RunResult) -> None:
    page = show(digits_run)
    point = page.locator("svg.wide a.point[data-id='c7714d0e93']")
    mark = point.locator(".mark")  # the middle of the whole lies on its bars
    mark.hover()
    assert "97.3 %" in page.locator("#tip").inner_text()
    assert "~ 0.710 ms" in page.locator("#tip").inner_text()
    mark.click()
    page.wait_for_function("document.querySelector('#c-c7714d0e93 details').open")
    assert page.locator("#c-c7714d0e93 details").get_attribute("open") is not None
    assert page.evaluate("document.activeElement.closest('tr').id") == "c-c7714d0e93"
    assert page.locator("#c-c7714d0e93").is_visible()


def test_arrow_keys_go_from_point_to_point_by_latency(show: Show, digits_run: RunResult) -> None:
    page = show(digits_run)
    page.locator("svg.wide a.point[data-id='c7714d0e93']").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.id") == "5be27f6a10"
    assert page.locator("#tip").inner_text().startswith("5be27f6a10: recommended")
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#c-5be27f6a10 details').open")


def test_table_sorts_by_click_and_by_keyboard(show: Show, digits_run: RunResult) -> None:
    page = show(digits_run)
    title, index = head(page, "Raspberry")
    title.locator("button").click()
    times = [cell for cell in page.evaluate(COLUMN, index) if cell.startswith("~")]
    assert title.get_attribute("aria-sort") == "ascending"
    assert times == sorted(times, key=lambda cell: float(cell.split()[1]))
    assert times[0] == "~ 0.448 ms"
    page.keyboard.press("Enter")
    assert title.get_attribute("aria-sort") == "descending"
    shown = page.evaluate(COLUMN, index)
    assert [cell for cell in shown if cell.startswith("~")] == times[::-1]
    assert not any(cell.startswith("~") for cell in shown[-3:]), "what has no figure stays last"
    page.locator("#candidates thead button").first.focus()
    page.keyboard.press("Space")
    assert title.get_attribute("aria-sort") is None
    assert page.evaluate(COLUMN, 0)[0] == "baseline"


def test_recipe_opens_by_keyboard(show: Show, digits_run: RunResult) -> None:
    page = show(digits_run, 375)
    row = page.locator("#candidates tr.recommended")
    assert "temperature 2" not in row.locator("details .quiet").all_inner_texts()
    assert not row.get_by_text("roofline over 14 operators").is_visible()
    row.locator("summary").focus()
    page.keyboard.press("Enter")
    assert row.get_by_text("roofline over 14 operators").is_visible()
    assert fits(page)


def test_every_control_is_reached_by_tab_and_shows_it(show: Show, digits_run: RunResult) -> None:
    page = show(digits_run)
    wanted = page.evaluate(
        "[...document.querySelectorAll('a[href], button, summary, [tabindex=\"0\"]')].filter(e => e.checkVisibility()).length"
    )
    seen = set()
    for _ in range(wanted):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
              const e = document.activeElement, own = getComputedStyle(e), mark = e.querySelector('.mark');
              const shown = own.outlineStyle !== 'none' || e.classList.contains('skip')
                || (mark && getComputedStyle(mark).strokeWidth === '2.5px');
              return [[...document.querySelectorAll('*')].indexOf(e), Boolean(shown), e.outerHTML.slice(0, 80)];
            }"""
        )
        assert found[1], f"no visible focus: {found[2]}"
        seen.add(found[0])
    assert len(seen) == wanted


def test_theme_switch_wins_over_the_system_and_is_remembered(show: Show, digits_run: RunResult) -> None:
    page = show(digits_run, scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    button = page.locator("#theme")
    assert button.get_attribute("aria-pressed") == "true"
    button.focus()
    page.keyboard.press("Space")
    light = page.evaluate(background)
    assert button.get_attribute("aria-pressed") == "false"
    assert light == show(digits_run).evaluate(background) != dark
    page.reload()
    for _ in range(50):  # the browser keeps it in another process, which may come to it a moment later
        if page.evaluate(background) == light:
            break
        page.wait_for_timeout(100)
        page.reload()
    assert page.evaluate(background) == light
    page.locator("#theme").click()
    assert page.evaluate(background) == dark


def test_paper_is_light_and_holds_no_controls(show: Show, digits_run: RunResult, tmp_path: Path) -> None:
    page = show(digits_run, scheme="dark")
    page.locator("#theme").click()
    page.locator("#theme").click()
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(27, 32, 38)"
    assert page.locator("svg.wide").is_visible()
    for control in ("#theme", ".skip", "#next-title"):
        assert not page.locator(control).is_visible()
    pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    assert 2 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type/Page/") <= 12


def test_page_is_complete_without_scripts(chromium: Any, digits_run: RunResult, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(render_html(digits_run), encoding="utf-8")
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    assert page.locator("svg.wide a.point").count() == 9
    assert page.locator("#candidates tbody tr").count() == 12
    assert not page.locator("#theme").is_visible(), "a switch that does nothing is not shown"
    context.close()


def test_hostile_texts_run_nothing(show: Show, digits_run: RunResult) -> None:
    page = show(digits_run)
    assert "</script><script>alert(1)</script>" in page.locator(".failure pre").first.inner_text()
    assert page.evaluate("document.scripts.length") == 1
