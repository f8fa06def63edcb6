"""report.html without a browser: complete, self-contained, and safe against what it shows."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from orchestrator.report.failures import failure_groups
from orchestrator.values.results import RunResult
from orchestrator_reports.html import render_html
from orchestrator_reports.plot import plot_of


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, scripts, and the text outside of them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._inside != "style":
            self.text += " " + " ".join(data.split())

    @property
    def points(self) -> list[str]:
        """The ids of the candidates in the wide drawing of the front."""
        found = [a.get("data-id") for tag, a in self.elements if tag == "a" and "point" in (a.get("class") or "")]
        return [str(identifier) for identifier in found[: len(found) // 2]]


def test_page_says_what_is_recommended_and_what_it_gains(digits_run: RunResult) -> None:
    text = Page(render_html(digits_run)).text
    assert "3.0 times faster on Raspberry Pi 4 (estimated) and 81 % smaller than the original" in text
    assert "97.7 % accuracy on the test split (−0.4 points)" in text  # noqa: RUF001
    assert digits_run.reason in text
    assert "~ 1.12 ms" in text
    assert "0.50 of the original's time [0.49, 0.50]" in text
    for candidate in digits_run.candidates:
        assert candidate.id in text
    for note in digits_run.notes:
        assert note in text
    assert "all 12 trials were done" in text
    assert "AMD EPYC 9R14" in text
    assert "latency at most 2 ms" in text


def test_page_loads_nothing(digits_run: RunResult) -> None:
    page = Page(render_html(digits_run))
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name) or "data:,"
            assert value == "data:," or value.startswith("#"), f"<{tag} {name}={value!r}>"
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy


def test_page_keeps_measured_and_estimated_apart(digits_run: RunResult) -> None:
    text = Page(render_html(digits_run)).text
    assert re.search(r"latency on Raspberry Pi 4 estimated ~ .*latency on this host measured", text)
    assert plot_of(digits_run).x_title == "latency on Raspberry Pi 4, estimated (ms)"


def test_hostile_texts_stay_texts(digits_run: RunResult) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[2J\u202e"
    recipe = [dataclasses.replace(digits_run.candidates[0].recipe[0], method=evil, parameters={evil: evil})]
    first = dataclasses.replace(digits_run.candidates[0], id=evil, recipe=recipe)
    run = dataclasses.replace(
        digits_run,
        task=dataclasses.replace(digits_run.task, name=evil, model=evil, metric=evil),
        target=dataclasses.replace(digits_run.target, title=evil),
        candidates=[first, *digits_run.candidates[1:]],
        front=[evil],
        recommended=evil,
        reason=evil,
        notes=[evil],
        environment={evil: {evil: evil}},
        search={evil: evil, "ended": evil},
    )
    page = render_html(run)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    found = Page(page)
    assert len(found.scripts) == 1, "our own"
    assert "<img src=x onerror=alert(2)>" in found.text
    assert "img" not in {tag for tag, _ in found.elements}
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]


def test_failures_are_grouped_by_reason(digits_run: RunResult) -> None:
    twin = dataclasses.replace(digits_run.candidates[-2], id="7777777777")
    text = Page(render_html(dataclasses.replace(digits_run, candidates=[*digits_run.candidates, twin]))).text
    assert "It took too long (recovery-distillation) × 2" in text  # noqa: RUF001
    assert text.count("took longer than 120 s") == 1 + 2, "once in the section, and in the details of each"


@pytest.mark.parametrize("name", ["empty_run", "failed_run"])
def test_page_without_a_front_says_so(name: str, request: pytest.FixtureRequest) -> None:
    run: RunResult = request.getfixturevalue(name)
    text = Page(render_html(run)).text
    assert "No model is recommended." in text
    assert run.reason in text


def test_page_without_points_leaves_the_plot_out(empty_run: RunResult) -> None:
    page = render_html(empty_run)
    assert "there is nothing to draw" in page
    assert len(page) < 60_000


def test_original_may_be_the_best(digits_run: RunResult) -> None:
    run = dataclasses.replace(digits_run, recommended="baseline", front=["baseline"])
    assert "The original model stays the best choice." in render_html(run)


def test_figure_of_another_evidence_never_takes_the_objective(digits_run: RunResult) -> None:
    first = digits_run.candidates[0]
    only_host = dataclasses.replace(first, latency=first.latency[1:])
    run = dataclasses.replace(digits_run, candidates=[only_host, *digits_run.candidates[1:]])
    assert first.id not in Page(render_html(run)).points


def test_latency_axis_is_logarithmic_when_the_range_is_wide(digits_run: RunResult) -> None:
    assert plot_of(digits_run).log is True
    near = dataclasses.replace(digits_run, candidates=digits_run.candidates[:3])
    assert plot_of(dataclasses.replace(near, front=[], recommended=None)).log is False


def test_front_is_not_squeezed_by_what_is_far_off(digits_run: RunResult) -> None:
    first = digits_run.candidates[5]
    assert first.quality is not None
    poor = dataclasses.replace(first.quality.validation, value=0.1, low=0.08, high=0.13)
    useless = dataclasses.replace(first, quality=dataclasses.replace(first.quality, validation=poor))
    run = dataclasses.replace(digits_run, candidates=[*digits_run.candidates[:5], useless, *digits_run.candidates[6:]])
    assert plot_of(run).left_out == 1
    page = Page(render_html(run))
    assert useless.id not in page.points
    assert "1 candidate is too far off to be in the picture" in page.text


def test_failures_that_differ_in_figures_alone_are_one_group(digits_run: RunResult) -> None:
    last = digits_run.candidates[-1]
    assert last.failure is not None
    twin = dataclasses.replace(
        last, id="8888888888", failure=dataclasses.replace(last.failure, message="240 kB: size over 200 kB")
    )
    groups = failure_groups(dataclasses.replace(digits_run, candidates=[*digits_run.candidates, twin]))
    found = next(group for group in groups if "size over" in group.message)
    assert [candidate.id for candidate in found.candidates] == [last.id, twin.id]
    assert found.message == "316 kB: size over 200 kB"
    assert not found.alike


def test_recipe_is_told_as_the_methods_tell_it(digits_run: RunResult) -> None:
    steps = [
        dataclasses.replace(step, phrase=phrase)
        for step, phrase in zip(
            digits_run.candidates[2].recipe,
            ("channels -30 % by Taylor importance", "6 epochs of recovery", "INT8 static, 2 layers left in float"),
            strict=True,
        )
    ]
    best = dataclasses.replace(digits_run.candidates[2], recipe=steps)
    run = dataclasses.replace(digits_run, candidates=[*digits_run.candidates[:2], best, *digits_run.candidates[3:]])
    told = "channels -30\u00a0% by Taylor importance; 6 epochs of recovery; INT8 static, 2 layers left in float"
    assert Page(render_html(run)).text.count(told.replace("\u00a0", " ")) >= 3
