"""Two runs side by side: what changed, and what may not be compared."""

import dataclasses
import io
import json
import re
import shutil
from html import unescape
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

import orchestrator
from orchestrator.cli.compare_runs import command
from orchestrator.errors import InputError
from orchestrator.report.results import write_results
from orchestrator.report.run_diff import RunComparison, compared
from orchestrator.report.run_diff_text import headline, print_comparison
from orchestrator.values.direction import Direction
from orchestrator.values.results import RunResult
from orchestrator_reports.html import render_comparison
from tests.report.conftest import scaled

NAMES = ("runs/a", "runs/b")


def changed(run: RunResult) -> RunResult:
    """The same search with another seed and version, without its best model, with a faster one in its place."""
    best = run.candidate("5be27f6a10")
    faster = dataclasses.replace(
        best, id="ffffffffff", latency=[dataclasses.replace(best.latency[0], median_ms=0.6), *best.latency[1:]]
    )
    return dataclasses.replace(
        run,
        candidates=[faster if c is best else c for c in run.candidates],
        front=[name if name != best.id else faster.id for name in run.front],
        recommended=faster.id,
        search={**run.search, "seed": 1},
        environment={**run.environment, "versions": {**run.environment["versions"], "onnxruntime": "1.32.0"}},
        target=dataclasses.replace(run.target, limits={**run.target.limits, "max_latency_ms": 1.0}),
    )


def test_run_beside_itself_has_no_changes(full_run: RunResult) -> None:
    found = compared(full_run, full_run, NAMES)
    for part in ("task", "target", "options", "versions", "plugins", "host", "baseline", "recommended", "notes"):
        assert getattr(found, part) == []
    assert {member.on for member in found.front} == {"both"}
    assert found.hypervolume.a == found.hypervolume.b
    assert found.hypervolume.a is not None
    assert 0 < found.hypervolume.a < 1
    assert "task, target, options, versions and plugins are the same" in headline(found)


def test_what_changed_is_said_and_a_better_model_is_worth_more(full_run: RunResult) -> None:
    found = compared(full_run, changed(full_run), NAMES)
    plain = found.plain()
    assert plain["options"] == {"seed": {"a": 0, "b": 1}}
    assert plain["versions"] == {"onnxruntime": {"a": "1.31.1", "b": "1.32.0"}}
    assert plain["target"] == {"max_latency_ms": {"a": 2.0, "b": 1.0}}
    assert plain["recommended"]["median_ms"] == {"a": 1.12, "b": 0.6}
    assert plain["plugins"] == plain["baseline"] == {}
    assert plain["budget"]["total_s"] == {"a": 214.0, "b": 214.0}
    sides = {member.identifier: member.on for member in found.front}
    assert sides["5be27f6a10"] == "a"
    assert sides["ffffffffff"] == "b"
    assert sides["3fa1c09b2e"] == "both"
    json.dumps(plain, allow_nan=False)


def test_better_model_is_worth_more_where_the_limits_are_the_same_and_else_volumes_are_not_compared(full_run: RunResult) -> None:
    other = changed(full_run)
    found = compared(full_run, dataclasses.replace(other, target=full_run.target), NAMES).hypervolume
    assert found.a is not None
    assert found.b is not None
    assert found.b > found.a
    apart = compared(full_run, other, NAMES)
    assert apart.hypervolume.a is apart.hypervolume.b is None
    assert "the limits differ" in apart.hypervolume.reason
    assert "the limits differ" in render_comparison(apart)
    unlimited = dataclasses.replace(full_run.target, limits={k: v for k, v in full_run.target.limits.items() if v is not None})
    same = dataclasses.replace(full_run, target=unlimited)
    assert compared(full_run, same, NAMES).hypervolume.a is not None, "no limit, and none named"


def shown(found: RunComparison) -> tuple[str, str]:
    """The page without its tags, and the terminal, both in one line."""
    page = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", render_comparison(found).split("</style>")[1])))
    out = io.StringIO()
    print_comparison(found, Console(file=out, width=160))
    return page, " ".join(out.getvalue().split())


def test_every_latency_says_what_it_rests_on_also_where_both_runs_have_the_same_kind(full_run: RunResult) -> None:
    found = compared(full_run, changed(full_run), NAMES)
    page, terminal = shown(found)
    assert "latency, A estimated ~ latency, B estimated ~" in page
    assert "latency ~ 1.12 ms (estimated) ~ 0.600 ms (estimated)" in page, "the recommended"
    assert "A estimated" in terminal
    assert "B estimated" in terminal
    assert "0.710 ms" in terminal
    assert not re.search(r"(?<!~) [\d.]+ ms", terminal.split("Fronts, ")[1])
    plain = found.plain()
    assert plain["evidence"] == ("estimated", "estimated")
    first = next(member for member in plain["front"] if member["on"] == "both")
    assert first["a"]["evidence"] == first["b"]["evidence"] == "estimated"
    table = render_comparison(found).split('id="candidates"')[1].split("</table>")[0]
    times = re.findall(r">([^<]* ms)<", table)
    assert times
    assert all(time.startswith("~ ") for time in times)


def test_measured_and_estimated_times_are_told_apart_in_one_table(full_run: RunResult, host_run: RunResult) -> None:
    found = compared(full_run, host_run, NAMES)
    page, terminal = shown(found)
    assert "latency, A estimated ~ latency, B measured" in page
    assert "latency ~ 3.42 ms (estimated) 0.412 ms (measured)" in page
    assert "A estimated" in terminal
    assert "B measured" in terminal
    member = next(m for m in found.plain()["front"] if m["identifier"] == "5be27f6a10")
    assert (member["a"]["evidence"], member["b"]["evidence"]) == ("estimated", "measured-on-target")


def test_each_side_is_shown_in_its_own_metric(full_run: RunResult) -> None:
    other = dataclasses.replace(full_run, task=dataclasses.replace(full_run.task, metric="mse", direction=Direction.MINIMIZE))
    page, terminal = shown(compared(full_run, other, NAMES))
    assert "accuracy, A mse, B" in page
    assert "98.1 % 0.9810" in page
    assert "98.1 %" in terminal
    assert "0.9810" in terminal
    member = compared(full_run, other, NAMES).plain()["front"][0]
    assert (member["a"]["metric"], member["b"]["metric"]) == ("accuracy", "mse")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("methods", ["static-int8"]),
        ("without", ["channel-pruning"]),
        ("runtimes", ["onnxruntime", "openvino"]),
        ("loss", "loss.py:own"),
        ("student", "small.py:network"),
        ("warm_start", ["/runs/earlier"]),
        ("useful_drop", 0.03),
    ],
)
def test_option_that_differs_is_told_and_never_called_the_same(option: str, value: object, full_run: RunResult) -> None:
    found = compared(full_run, dataclasses.replace(full_run, search={**full_run.search, option: value}), NAMES)
    assert [row.what for row in found.options] == [option]
    assert headline(found).endswith("; different: options of the search.")


def test_options_that_older_runs_did_not_record_are_said_to_be_unknown(full_run: RunResult) -> None:
    old = {k: v for k, v in full_run.search.items() if k in ("name", "sampler", "seed", "trials", "timeout_s", "epochs")}
    found = compared(full_run, dataclasses.replace(full_run, search=old), NAMES)
    assert found.options == [], "what is not recorded is no difference"
    assert found.notes == [
        "Options beyond name, sampler, seed, trials, timeout, epochs were not compared: B did not record all of them."
    ]
    assert headline(found).endswith("; task, target, the recorded options, versions and plugins are the same.")
    bare = dataclasses.replace(full_run, environment={}, search={})
    found = compared(bare, bare, NAMES)
    assert headline(found).endswith("; task and target are the same.")
    assert found.notes == [
        "Options were not compared: A and B did not record all of them.",
        "The versions and plugins were not compared: they are not recorded in both runs.",
    ]


def test_runs_that_recommend_nothing_do_not_recommend_the_same(full_run: RunResult, failed_run: RunResult) -> None:
    none = headline(compared(failed_run, failed_run, NAMES))
    assert "neither recommends a model" in none
    assert "the same" not in none.split(";")[1]
    assert "neither run has a front" in none[0].lower() + none[1:]
    assert "only A recommends a model" in headline(compared(full_run, failed_run, NAMES))
    assert "only B recommends a model" in headline(compared(failed_run, full_run, NAMES))
    assert "the same recipe is recommended" in headline(compared(full_run, full_run, NAMES))


def test_runs_without_a_model_of_their_own_have_no_hypervolume(failed_run: RunResult, empty_run: RunResult) -> None:
    found = compared(failed_run, failed_run, NAMES)
    assert (found.hypervolume.a, found.hypervolume.b) == (None, None)
    assert "the front holds no candidate whose values differ from the original's" in shown(found)[0]
    assert compared(empty_run, empty_run, NAMES).hypervolume.reason == "nothing has all three of quality, latency and size"


def test_slower_hour_of_the_machine_is_no_loss_of_a_run(host_run: RunResult) -> None:
    later = scaled(host_run, 1.3)
    found = compared(host_run, later, NAMES).hypervolume
    assert found.a == pytest.approx(found.b)
    assert "ratio to the original of their own run" in found.basis
    member = compared(host_run, later, NAMES).front[0]
    assert member.a is not None
    assert member.b is not None
    assert member.b.median_ms == pytest.approx(1.3 * (member.a.median_ms or 0)), "the table has what was measured"


def test_hypervolumes_of_different_evidence_or_tasks_are_not_compared(full_run: RunResult, host_run: RunResult) -> None:
    other = compared(full_run, host_run, NAMES)
    assert other.hypervolume.a is None
    assert "another kind of evidence" in other.hypervolume.reason
    assert any("different evidence (estimated, measured-on-target)" in note for note in other.notes)
    task = dataclasses.replace(full_run, task=dataclasses.replace(full_run.task, digest="0" * 64))
    found = compared(full_run, task, NAMES)
    assert found.hypervolume.reason == "the runs are of other models, data or metrics"
    assert "two different tasks" in found.notes[0]


def test_times_measured_on_other_hosts_are_not_compared(host_run: RunResult) -> None:
    host = {**host_run.environment, "host": {**host_run.environment["host"], "cpu": "another"}}
    assert compared(host_run, host_run, NAMES).hypervolume.a is not None
    found = compared(host_run, dataclasses.replace(host_run, environment=host), NAMES)
    assert found.hypervolume.a is None
    assert "different devices or hosts" in found.notes[0]


@pytest.mark.parametrize("name", ["empty_run", "failed_run", "host_run"])
def test_every_run_can_be_compared_and_shown(name: str, full_run: RunResult, request: pytest.FixtureRequest) -> None:
    found = compared(full_run, request.getfixturevalue(name), NAMES)
    page = render_comparison(found)
    assert page.rstrip().endswith("</html>")
    assert "<script>alert" not in page
    out = io.StringIO()
    print_comparison(found, Console(file=out, width=80))
    assert all(len(line) <= 80 for line in out.getvalue().splitlines() if not line.startswith(("A: ", "B: ")))


def test_command_writes_page_and_json(full_run: RunResult, tmp_path: Path) -> None:
    for name, run in (("a", full_run), ("b", changed(full_run))):
        (tmp_path / name).mkdir()
        write_results(run, tmp_path / name / "results.json")
    page = tmp_path / "page.html"
    arguments = [str(tmp_path / "a"), str(tmp_path / "b"), "--html", str(page)]
    done = CliRunner().invoke(command, [*arguments, "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["options"] == {"seed": {"a": 0, "b": 1}}
    assert "ffffffffff" in page.read_text()
    shown = CliRunner().invoke(command, arguments).stdout
    assert "the recommended recipe changed" in " ".join(shown.split())


def test_side_that_is_no_run_is_named(full_run: RunResult, tmp_path: Path) -> None:
    write_results(full_run, tmp_path / "results.json")
    with pytest.raises(InputError, match=r"there is no .*elsewhere"):
        orchestrator.compare_runs(tmp_path, tmp_path / "elsewhere")
    shutil.copy(tmp_path / "results.json", tmp_path / "odd.json")
    (tmp_path / "odd.json").write_text("[]")
    with pytest.raises(InputError, match=r"odd\.json is not the results of a run"):
        orchestrator.compare_runs(tmp_path / "odd.json", tmp_path)
