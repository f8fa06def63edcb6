"""Text of a check, shared by the terminal and the report formats."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.report import formatting
from orchestrator.report.terminal import ASCII
from orchestrator.values.check import CheckResult, Criterion
from orchestrator.values.direction import Direction

if TYPE_CHECKING:
    from rich.console import Console

HEADS = ("criterion", "baseline", "candidate", "change", "limit", "verdict")
STYLES = {"ok": "green", "regressed": "bold red", "undecided": "bold yellow", "not judged": "dim"}
LEAST_CONSOLE = 110  # rich assumes a narrow terminal for a CI log


@dataclass(frozen=True, kw_only=True, slots=True)
class CriterionRow:
    """One criterion as text."""

    name: str
    baseline: str
    candidate: str
    change: str
    limit: str
    verdict: str


def rows(found: CheckResult) -> list[CriterionRow]:
    """Return a row for each criterion."""
    return [
        CriterionRow(
            name=_name(criterion),
            baseline=_value(criterion, criterion.baseline),
            candidate=_value(criterion, criterion.candidate),
            change=_changed(criterion),
            limit=formatting.NONE if criterion.limit is None else _change(criterion, criterion.limit),
            verdict=criterion.verdict,
        )
        for criterion in found.criteria
    ]


def verdict_line(found: CheckResult) -> str:
    """Return the overall verdict in one line."""
    worse = [criterion.name for criterion in found.criteria if criterion.verdict == "regressed"]
    unsure = [criterion.name for criterion in found.criteria if criterion.verdict == "undecided"]
    if worse:
        also = f" ({', '.join(unsure)}: too noisy to say)" if unsure else ""
        return f"regression: {', '.join(worse)}{also}"
    if unsure:
        decided = f"; counted as {found.noisy}ed, for --noisy {found.noisy} was chosen" if found.decided_by_noisy else ""
        return f"too noisy to say: {', '.join(unsure)}{decided}"
    left_out = [criterion.name for criterion in found.criteria if criterion.verdict == "not judged"]
    return "no regression" + (f" ({', '.join(left_out)}: not judged)" if left_out else "")


def notes(found: CheckResult) -> list[tuple[str, str]]:
    """Return (criterion, sentence) pairs: the reasons and the warnings."""
    said = [(criterion.name, criterion.reason) for criterion in found.criteria]
    warned = [(c.name, f"mind: {c.warning}") for c in found.criteria if c.warning and c.warning not in c.reason]
    return [*said, *warned]


def print_checked(found: CheckResult, console: "Console") -> None:
    """Print the table, the reasons and, last, the verdict."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def text(content: str, style: str = "") -> Text:
        plain = formatting.clean(content)
        return Text(plain if console.encoding.startswith("utf") else plain.translate(ASCII), style=style)

    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for k, head in enumerate(HEADS):
        grid.add_column(head, justify="left" if k in (0, len(HEADS) - 1) else "right", no_wrap=k in (0, len(HEADS) - 1))
    for row in rows(found):
        cells = [text(cell) for cell in (row.name, row.baseline, row.candidate, row.change, row.limit)]
        grid.add_row(*cells, text(row.verdict, STYLES[row.verdict]))
    console.print(text(f"baseline   {found.baseline}\ncandidate  {found.candidate}"), soft_wrap=True)
    if found.device:
        console.print(text(f"on         {place_of(found)}"), soft_wrap=True)
    console.print(grid)
    for name, sentence in notes(found):
        console.print(text(f"{name}: {formatting.line(sentence, 1000)}"), soft_wrap=True)
    console.print(text(verdict_line(found), STYLES[found.verdict]), soft_wrap=True)


def place_of(found: CheckResult) -> str:
    """Return the device, runtime, threads and processor of a check."""
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    processor = found.environment.get("cpu")
    return f"{found.device}, {found.runtime}, {threads}" + (f", {formatting.line(processor)}" if processor else "")


def _name(criterion: Criterion) -> str:
    name = criterion.name.replace("-", " ")
    return f"{name} ({formatting.line(criterion.unit)})" if criterion.name == "quality" and criterion.unit else name


def _value(criterion: Criterion, value: float | None) -> str:
    if value is None:
        return formatting.NONE
    if criterion.name == "quality":
        return formatting.quality(criterion.unit, value, int(criterion.details.get("examples", 0)))
    return formatting.milliseconds(value) if criterion.unit == "ms" else formatting.size(int(value))


def _changed(criterion: Criterion) -> str:
    if criterion.change is None:
        return formatting.NONE
    if criterion.low is None or criterion.high is None or criterion.low == criterion.high:
        return _change(criterion, criterion.change)
    ends = sorted((criterion.low, criterion.high), key=lambda end: end * _sign(criterion))
    return f"{_change(criterion, criterion.change)} [{', '.join(_change(criterion, end, bare=True) for end in ends)}]"


def _sign(criterion: Criterion) -> int:
    """Return the sign with which a change is shown: a loss of accuracy is negative."""
    return -int(Direction(criterion.details.get("direction", "maximize")).sign) if criterion.name == "quality" else 1


def _change(criterion: Criterion, change: float, *, bare: bool = False) -> str:
    value = change * _sign(criterion)
    if criterion.name != "quality":
        return _signed(value * 100, 1) + ("" if bare else " %")
    if formatting.is_rate(criterion.unit):
        return _signed(value * 100, 2) + ("" if bare else " points")
    return _signed(value, 5)


def _signed(value: float, places: int) -> str:
    text = f"{value:+.{places}f}"
    return f"±{0:.{places}f}" if float(text) == 0 else text.replace("-", "−")  # noqa: RUF001
