"""`orchestrate check` as a CI job calls it: sides, limits, exit codes, and what it writes."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
import tomli_w
import yaml
from click.testing import CliRunner, Result

import orchestrator
from orchestrator.api.check.inputs import read_side
from orchestrator.api.check.settings import CheckOptions, read_table
from orchestrator.api.check.size import size_bytes
from orchestrator.cli.check import command
from orchestrator.cli.program import program
from orchestrator.errors import InputError
from orchestrator.report.annotations import annotations
from orchestrator.report.check_text import verdict_line
from orchestrator.report.results import write_results
from orchestrator.values.check import CheckResult, Criterion
from orchestrator_reports.junit import render_junit
from orchestrator_reports.markdown import render_check_markdown
from tests.conftest import Cli, Project, tiny_onnx
from tests.report.conftest import make_digits_run, make_empty_run
from tests.study.test_robustness import wait_for_agent

ROOT = Path(__file__).parents[2]
UNTIMED = {"max_slowdown": None}
OPTIONS = {option for parameter in command.params for option in parameter.opts}


def worse_onnx(*, nan: bool = False) -> onnx.ModelProto:
    """The small CNN with two of its classes mixed up."""
    model = tiny_onnx()
    for tensor in model.graph.initializer:
        if tensor.name == "head":
            head = onnx.numpy_helper.to_array(tensor).copy()
            head[[0, 1]] = head[[1, 0]]
            tensor.CopyFrom(onnx.numpy_helper.from_array(head * np.float32("nan") if nan else head, "head"))
    return model


@pytest.fixture
def files(project: Project) -> Path:
    """model.onnx, worse.onnx, heavy.onnx and arrays.npz."""
    onnx.save(worse_onnx(), project.folder / "worse.onnx")
    onnx.save(worse_onnx(nan=True), project.folder / "nan.onnx")
    onnx.save(tiny_onnx(kernel=11), project.folder / "heavy.onnx")
    return project.folder


def criterion(found: CheckResult, name: str) -> Criterion:
    return next(each for each in found.criteria if each.name == name)


def made(**verdicts: str) -> CheckResult:
    """A check as it may come out."""
    figures: dict[str, dict[str, Any]] = {
        "latency": {
            "unit": "ms",
            "baseline": 1.0,
            "candidate": 1.2,
            "change": 0.2,
            "low": 0.16,
            "high": 0.25,
            "confidence": 0.99,
        },
        "quality": {
            "unit": "accuracy",
            "baseline": 0.981,
            "candidate": 0.979,
            "change": 0.002,
            "low": -0.009,
            "high": 0.013,
            "details": {"direction": "maximize", "examples": 1000},
        },
        "size": {"unit": "bytes", "baseline": 1000.0, "candidate": 900.0, "change": -0.1, "low": -0.1, "high": -0.1},
    }
    criteria = tuple(
        Criterion(name=name, verdict=verdict, reason=f"{name} of\x1b <it> is 100% {verdict}:\nso", limit=0.05, **figures[name])  # type: ignore[arg-type]
        for name, verdict in verdicts.items()
    )
    return CheckResult(
        baseline="a&b.onnx", candidate="c|d.onnx", target="host", device="host", runtime="onnxruntime", threads=1,
        criteria=criteria, seconds=4.2,
    )  # fmt: skip


# -- the face -------------------------------------------------------------------------------------------------------------


def test_quality_is_judged_on_the_test_split_and_a_worse_model_is_found(files: Path) -> None:
    found = orchestrator.check(files / "model.onnx", files / "worse.onnx", data=str(files / "arrays.npz"), **UNTIMED)
    quality = criterion(found, "quality")
    assert found.exit_code == 1 and quality.verdict == "regressed"
    assert quality.change is not None and quality.change > 0.5
    assert quality.details["split"] == "test" and quality.details["examples"] == 200
    assert quality.details["test"] == "McNemar, exact" and quality.details["lost"] > 100
    assert criterion(found, "size").verdict == "ok"


def test_a_metric_of_the_users_own_and_unlabelled_data(files: Path) -> None:
    said = {"data": f"{files / 'data.py'}:splits", "metric": f"{files / 'extras.py'}:macro_recall", **UNTIMED}
    found = criterion(orchestrator.check(files / "model.onnx", files / "worse.onnx", **said), "quality")
    assert found.verdict == "regressed" and found.details["test"] == "paired bootstrap"
    said = {"data": f"{files / 'data.py'}:unlabelled", **UNTIMED}
    same = criterion(orchestrator.check(files / "model.onnx", files / "model.onnx", **said), "quality")
    assert same.verdict == "ok" and same.unit == "fidelity"


def test_usual_drop_of_a_metric_that_is_no_rate_is_a_share_of_its_value(files: Path) -> None:
    """Half a point is much of an error that is small, and nothing of one that is large."""
    said = {"data": str(files / "arrays.npz"), "metric": f"{files / 'extras.py'}:top1", **UNTIMED}
    usual = criterion(orchestrator.check(files / "model.onnx", files / "worse.onnx", **said), "quality")
    assert "more than the 0.005 allowed" in usual.reason, "half a per cent of 1.0"
    told = criterion(orchestrator.check(files / "model.onnx", files / "worse.onnx", max_drop=0.9, **said), "quality")
    assert told.limit == 0.9 and told.verdict == "ok"


def test_drop_of_more_than_all_is_refused(files: Path) -> None:
    with pytest.raises(InputError, match="a drop of 500 points of accuracy is all there is: write --max-drop 5%"):
        orchestrator.check(
            files / "model.onnx", files / "worse.onnx", data=str(files / "arrays.npz"), metric="accuracy", max_drop=5, **UNTIMED
        )


def test_few_examples_are_no_proof_and_the_reason_says_so(files: Path) -> None:
    data = files / "few.py"
    data.write_text("from data import splits\n\n\ndef few():\n    return {k: (x[:9], None) for k, (x, _) in splits().items()}\n")
    found = criterion(orchestrator.check(files / "model.onnx", files / "worse.onnx", data=f"{data}:few", **UNTIMED), "quality")
    assert found.verdict == "ok" and found.low is None
    assert "fewer than 10 examples" in found.reason and "cannot rule out any loss" in str(found.warning)


def test_outputs_that_are_no_numbers_are_a_regression(files: Path) -> None:
    found = orchestrator.check(files / "model.onnx", files / "nan.onnx", data=str(files / "arrays.npz"), **UNTIMED)
    quality = criterion(found, "quality")
    assert quality.verdict == "regressed" and "NaN" in quality.reason
    with pytest.raises(InputError, match=r"baseline .*nan\.onnx' hold NaN"):
        orchestrator.check(files / "nan.onnx", files / "model.onnx", data=str(files / "arrays.npz"), **UNTIMED)


def test_without_data_quality_is_not_judged_and_never_ok(files: Path) -> None:
    found = orchestrator.check(files / "model.onnx", files / "model.onnx", **UNTIMED)
    assert criterion(found, "quality").verdict == "not judged"
    assert "no data" in criterion(found, "quality").reason
    assert found.verdict == "ok" and "quality: not judged" in verdict_line(found)


def test_size_counts_the_weights_in_files_beside(tmp_path: Path) -> None:
    onnx.save(tiny_onnx(), tmp_path / "one.onnx")
    onnx.save(tiny_onnx(), tmp_path / "two.onnx", save_as_external_data=True, location="two.data", size_threshold=0)
    assert (tmp_path / "two.onnx").stat().st_size < (tmp_path / "one.onnx").stat().st_size
    assert size_bytes(tmp_path / "two.onnx") > 0.9 * size_bytes(tmp_path / "one.onnx")
    (tmp_path / "two.data").unlink()
    with pytest.raises(InputError, match="two.data', which is not there"):
        size_bytes(tmp_path / "two.onnx")


def test_size_may_grow_by_just_the_limit(files: Path) -> None:
    growth = (files / "heavy.onnx").stat().st_size / (files / "model.onnx").stat().st_size - 1
    for limit, verdict in ((growth * 1.001, "ok"), (growth * 0.999, "regressed")):
        found = orchestrator.check(files / "model.onnx", files / "heavy.onnx", max_growth=limit, max_drop=None, **UNTIMED)
        assert criterion(found, "size").verdict == verdict


def test_time_and_memory_are_measured_side_by_side(files: Path) -> None:
    found = orchestrator.check(
        files / "model.onnx", files / "model.onnx", threads=1, max_slowdown=2.0, max_memory_growth=3.0, budget_s=40.0
    )
    latency = criterion(found, "latency")
    assert found.verdict == "ok" and [each.name for each in found.criteria] == ["latency", "quality", "size", "peak-memory"]
    assert latency.low is not None and latency.high is not None and latency.low < latency.high <= 2.0
    assert latency.details["evidence"] == "measured-on-target" and latency.details["rounds"] >= 2
    assert (criterion(found, "peak-memory").baseline or 0) > 0
    assert found.environment["cpu"]


def test_noise_is_undecided_unless_a_choice_was_made(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds that contradict each other, as on a machine that does many other things."""
    noise = iter([0.5, 2.0] * 1000)
    monkeypatch.setattr("orchestrator.api.check.timing.round_ratio", lambda *arguments: next(noise))
    undecided = {}
    for noisy, code in ((None, 3), ("pass", 0), ("fail", 1)):
        found = orchestrator.check(
            files / "model.onnx", files / "model.onnx", threads=1, budget_s=1.5, noisy=noisy, max_drop=None, max_growth=None
        )
        undecided[noisy] = criterion(found, "latency").verdict
        assert found.exit_code == code and found.decided_by_noisy == (noisy is not None)
        assert "too noisy to say: latency" in verdict_line(found)
        assert (f"--noisy {noisy} was chosen" in verdict_line(found)) == (noisy is not None)
        assert "--budget" in criterion(found, "latency").reason
    assert set(undecided.values()) == {"undecided"}


def test_a_regression_counts_whatever_is_undecided_beside_it() -> None:
    found = replace(made(latency="undecided", size="regressed"), noisy="pass")
    assert found.exit_code == 1 and not found.decided_by_noisy


def test_a_device_out_of_reach_is_exit_code_4(cli: Cli, files: Path) -> None:
    model = str(files / "model.onnx")
    done = cli("check", "--baseline", model, "--candidate", model, "--device", "ssh://nobody@127.0.0.1:1")
    assert done.returncode == 4 and len(done.stderr.strip().splitlines()) == 1


def test_an_interrupted_check_is_exit_code_130_and_leaves_no_report(cli: Cli, files: Path) -> None:
    model = str(files / "model.onnx")
    # A limit on the very edge is never decided: it would go on for the whole budget.
    limits = ["--max-slowdown", "0", "--max-drop", "off", "--max-growth", "off", "--budget", "10m"]
    process = cli.start("check", "--baseline", model, "--candidate", model, "--threads", "1", *limits, "--junit", "j.xml")
    wait_for_agent(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "orchestrate: interrupted"
    assert not (cli.folder / "j.xml").exists()


# -- the sides --------------------------------------------------------------------------------------------------------------


def candidate_folder(folder: Path, files: Path, model: str, **more: Any) -> Path:
    """What a search leaves: model.onnx, recipe.toml, card.md."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes((files / model).read_bytes())
    (folder / "card.md").write_text("# a card")
    recipe = {
        "schema": 1, "id": folder.name, "target": "host", "runtime": "onnxruntime", "threads": 1, "seed": 0,
        "task": {"model": "model.py:net", "data": str(files / "arrays.npz"), "metric": "accuracy"} | more.pop("task", {}),
        "weights_digest": "0", "data_digest": "0",
        "model_digest": "0", "steps": [], **more,
    }  # fmt: skip
    (folder / "recipe.toml").write_text(tomli_w.dumps(recipe))
    return folder


def test_a_candidates_folder_says_how_it_is_judged(files: Path, tmp_path: Path) -> None:
    old = candidate_folder(tmp_path / "front" / "a", files, "model.onnx")
    new = candidate_folder(tmp_path / "front" / "b", files, "worse.onnx")
    found = orchestrator.check(old, new, **UNTIMED)
    assert criterion(found, "quality").verdict == "regressed", "its data came from the recipes"
    beside = orchestrator.check(files / "model.onnx", new, **UNTIMED)
    assert criterion(beside, "quality").verdict == "regressed", "one side's recipe is enough"


def test_a_run_directory_stands_for_its_recommended_model(files: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    candidate_folder(run / "recommended", files, "worse.onnx")
    write_results(make_digits_run(), run / "results.json")
    side = read_side(run, "--candidate")
    assert side.model == run / "recommended" / "model.onnx" and side.said["metric"] == "accuracy"
    found = orchestrator.check(files / "model.onnx", run, **UNTIMED)
    assert criterion(found, "quality").verdict == "regressed"
    write_results(make_empty_run(), run / "results.json")
    with pytest.raises(InputError, match=r"recommends no model \(No trial was complete\.\); give one of its folders front/<id>"):
        read_side(run, "--candidate")


def test_sides_that_contradict_each_other_need_a_word(files: Path, tmp_path: Path) -> None:
    old = candidate_folder(tmp_path / "a", files, "model.onnx")
    new = candidate_folder(tmp_path / "b", files, "model.onnx", task={"metric": "agreement"})
    with pytest.raises(InputError, match="name different metric: 'accuracy' and 'agreement'; say which with --metric"):
        orchestrator.check(old, new, **UNTIMED)
    found = orchestrator.check(old, new, metric="agreement", **UNTIMED)
    assert criterion(found, "quality").unit == "agreement"


def test_a_candidate_for_another_runtime_is_judged_in_it(files: Path, tmp_path: Path) -> None:
    step = {"method": "on-openvino", "version": 1, "parameters": {}}
    side = read_side(candidate_folder(tmp_path / "a", files, "model.onnx", steps=[step]), "--candidate")
    assert side.said["runtime"] == "openvino"


def test_data_that_are_not_here_are_named_with_who_named_them(files: Path, tmp_path: Path) -> None:
    old = candidate_folder(tmp_path / "a", files, "model.onnx", task={"data": "/elsewhere/arrays.npz"})
    with pytest.raises(InputError, match=r"the data that .*recipe\.toml names cannot be used here .*: give --data"):
        orchestrator.check(old, files / "model.onnx", **UNTIMED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--candidate", "model.onnx"], "--baseline is missing"),
        (["--baseline", "gone.onnx", "--candidate", "model.onnx"], "there is no file or folder 'gone.onnx'"),
        (["--baseline", ".", "--candidate", "model.onnx"], "holds neither recipe.toml"),
        (["--baseline", "model.onnx", "--candidate", "model.onnx", "--max-slowdown", "much"], "--max-slowdown 'much' cannot be"),
        (["--baseline", "model.onnx", "--candidate", "model.onnx", "--max-slowdown", "5"], 'write "5%" if that is what you mean'),
        (["--baseline", "model.onnx", "--candidate", "model.onnx", "--budget", "5"], "--budget '5' cannot be read"),
        (
            ["--baseline", "model.onnx", "--candidate", "data.py", "--max-slowdown", "off", "--data", "gone.npz"],
            "there is no file",
        ),
        (["--baseline", "model.onnx", "--candidate", "broken.onnx"], "broken.onnx' is no valid ONNX file"),
        (["--baseline", "model.onnx", "--candidate", "model.onnx", "--junit", "data.py/a.xml"], "--junit"),
        (
            ["--baseline", "model.onnx", "--candidate", "model.onnx", "--max-slowdown", "off", "--max-growth", "off"],
            "nothing is left to judge",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    files: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    (files / "broken.onnx").write_bytes(b"no model at all")
    monkeypatch.chdir(files)
    with pytest.raises(InputError) as error:
        CliRunner().invoke(program, ["check", *arguments], catch_exceptions=False, standalone_mode=False)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert error.value.exit_code == 2


# -- pyproject.toml -----------------------------------------------------------------------------------------------------------


def test_thresholds_of_the_nearest_pyproject_are_used_and_options_win(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Path, Path, CheckOptions]] = []

    def look(baseline: Path, candidate: Path, options: CheckOptions) -> CheckResult:
        seen.append((baseline, candidate, options))
        return made(size="ok")

    monkeypatch.setattr("orchestrator.api.check.check", look)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.orchestrator.check]\nmax_slowdown = "10%"\nmax_drop = 0.02\nmax_growth = "off"\nbudget = "30s"\n'
        'data = "tests/data.py:splits"\nbaseline = "old.onnx"\nnoisy = "pass"\nthreads = 2\n'
    )
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    done = CliRunner().invoke(program, ["check", "--candidate", "new.onnx", "--max-slowdown", "3%", "--threads", "1"])
    assert done.exit_code == 0, done.output
    ((baseline, candidate, options),) = seen
    assert baseline == tmp_path / "old.onnx" and candidate == Path("new.onnx")
    assert (options.max_slowdown, options.max_drop, options.max_growth, options.budget_s) == (0.03, 0.02, None, 30.0)
    assert options.data == f"{tmp_path / 'tests' / 'data.py'}:splits"
    assert options.noisy == "pass" and options.threads == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_slowdwon = 0.05", "unknown key 'max_slowdwon'; did you mean max_slowdown?"),
        ("max_slowdown = [1]", r"max_slowdown must be a share like .* but got \[1\]"),
        ("max_drop = -0.1", "max_drop must be a share"),
        ("max_growth = 3", "max_growth 3 would allow 300% more"),
        ("threads = true", "threads must be a whole number"),
        ('noisy = "maybe"', 'noisy must be "pass" or "fail"'),
        ("budget = 30", "budget must be a text, but got 30"),
        ("= 3", "is no valid TOML"),
    ],
)
def test_a_wrong_key_names_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.orchestrator.check]\n{text}\n")
    with pytest.raises(InputError, match=message) as error:
        read_table(tmp_path)
    assert str(tmp_path / "pyproject.toml") in str(error.value)


def test_every_key_is_an_option(tmp_path: Path) -> None:
    from orchestrator.api.check.settings import _KEYS

    assert {f"--{key.replace('_', '-')}" for key in _KEYS} <= OPTIONS


# -- what it writes -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """The command with a result that is made up."""
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)

    def run(found: CheckResult, *arguments: str, **environment: str) -> Result:
        monkeypatch.setattr("orchestrator.api.check.check", lambda *given: found)
        sides = ("--baseline", "a.onnx", "--candidate", "b.onnx")
        return CliRunner().invoke(program, ["check", *sides, *arguments], env=environment)

    return run


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (made(latency="ok", quality="not judged", size="ok"), 0),
        (made(latency="regressed", quality="ok"), 1),
        (made(latency="undecided", size="ok"), 3),
        (replace(made(latency="undecided"), noisy="pass"), 0),
        (replace(made(latency="undecided"), noisy="fail"), 1),
    ],
)
def test_table_json_and_exit_code_tell_the_same(shown: Callable[..., Result], found: CheckResult, code: int) -> None:
    table, as_json = shown(found), shown(found, "--json")
    assert table.exit_code == as_json.exit_code == code == found.exit_code
    told = json.loads(as_json.stdout)
    assert told["verdict"] == found.verdict and told["exit_code"] == code
    for each, listed in zip(found.criteria, told["criteria"], strict=True):
        assert {"name", "verdict", "limit", "baseline", "candidate", "change", "low", "high", "reason"} <= set(listed)
        assert listed["verdict"] == each.verdict and listed["limit"] == 0.05
        assert re.search(rf"{each.name}.*{each.verdict}", table.stdout)
    assert verdict_line(found) in table.stdout
    assert "\x1b" not in table.stdout


ALLOWED = {
    "testsuites": set(),
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname"},
    "properties": set(),
    "property": {"name", "value"},
    "testcase": {"name", "classname", "time"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "skipped": {"message"},
    "system-out": set(),
}
"""Elements and attributes of Jenkins' schema that we use."""
CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase", "system-out"},
    "properties": {"property"},
    "testcase": {"failure", "error", "skipped", "system-out"},
}


@pytest.mark.parametrize(
    ("noisy", "mark"), [(None, "error"), ("pass", "skipped"), ("fail", "failure")], ids=["exit-3", "pass", "fail"]
)
def test_junit_is_what_jenkins_reads(shown: Callable[..., Result], tmp_path: Path, noisy: Any, mark: str) -> None:
    found = replace(made(latency="undecided", quality="not judged", size="regressed"), noisy=noisy)
    shown(found, "--junit", "reports/check.xml")
    root = ET.fromstring((tmp_path / "reports" / "check.xml").read_bytes())  # noqa: S314
    for element in root.iter():
        assert set(element.attrib) <= ALLOWED[element.tag]
        assert {child.tag for child in element} <= CHILDREN.get(element.tag, set())
        if "time" in element.attrib:
            assert re.fullmatch(r"\d+\.\d{3}", element.attrib["time"])
    (suite,) = root
    cases = suite.findall("testcase")
    assert [case.attrib["name"] for case in cases] == ["latency", "quality", "size"]
    assert [[child.tag for child in case if child.tag != "system-out"] for case in cases] == [[mark], ["skipped"], ["failure"]]
    for tag, count in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped"), ("testcase", "tests")):
        assert int(suite.attrib[count]) == len(list(suite.iter(tag)))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
    message = cases[0][0].attrib["message"]
    assert "<it>" in message and ("--noisy" in message) == (noisy is not None)


def test_every_pass_is_an_empty_test_case() -> None:
    (suite,) = ET.fromstring(render_junit(made(latency="ok", size="ok")))  # noqa: S314
    assert (suite.attrib["failures"], suite.attrib["errors"], suite.attrib["skipped"]) == ("0", "0", "0")


def test_github_gets_annotations_and_a_summary(shown: Callable[..., Result], tmp_path: Path) -> None:
    found = made(latency="regressed", quality="not judged", size="ok")
    (tmp_path / "summary.md").write_text("before\n")
    surroundings = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    done = shown(found, **surroundings)
    error, warning = [line for line in done.stdout.splitlines() if line.startswith("::")]
    assert error == "::error title=orchestrate check%2C latency%3A regressed::latency of <it> is 100%25 regressed:%0Aso"
    assert warning.startswith("::warning title=orchestrate check%2C quality%3A not judged::")
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("before\n") and summary.endswith(render_check_markdown(found) + "\n")
    as_json = shown(found, "--json", **surroundings)
    assert json.loads(as_json.stdout) and as_json.stderr.count("::") == 4, "annotations are on stderr beside JSON"
    assert "::" not in shown(found).stdout


@pytest.mark.parametrize(("noisy", "level"), [(None, "warning"), ("pass", "warning"), ("fail", "error")])
def test_an_annotation_says_when_noise_was_decided_by_choice(noisy: Any, level: str) -> None:
    (line,) = annotations(replace(made(latency="undecided"), noisy=noisy))
    assert line.startswith(f"::{level} ") and (f"--noisy {noisy}" in line) == (noisy is not None)


def test_the_summary_is_a_table_that_names_cannot_break(shown: Callable[..., Result], tmp_path: Path) -> None:
    shown(made(latency="regressed", quality="ok", size="ok"), "--markdown", "sub/check.md")
    lines = (tmp_path / "sub" / "check.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 5 and all(len(re.findall(r"(?<!\\)\|", row)) == 7 for row in rows)
    assert "**regressed**" in rows[2] and "−0.20 points" in rows[3]  # noqa: RUF001
    assert "<it>" not in "\n".join(lines)


def test_a_real_check_leaves_all_its_files(cli: Cli, files: Path) -> None:
    done = cli(
        "check", "--baseline", str(files / "model.onnx"), "--candidate", str(files / "heavy.onnx"), "--data",
        str(files / "arrays.npz"), "--threads", "1", "--max-slowdown", "off", "--json", "--junit", "j.xml", "--markdown", "m.md",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert [(each["name"], each["verdict"]) for each in told["criteria"]] == [("quality", "ok"), ("size", "regressed")]
    assert ET.parse(cli.folder / "j.xml").getroot().tag == "testsuites"  # noqa: S314
    assert "| size |" in (cli.folder / "m.md").read_text()


# -- other people's CI -----------------------------------------------------------------------------------------------


def action() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    return loaded


def test_the_actions_inputs_are_options() -> None:
    inputs = set(action()["inputs"]) - {"install", "working-directory"}
    assert {f"--{name}" for name in inputs} <= OPTIONS
    left_out = {"--json", "--input-shape", "--seed", "--without-plugin"}
    assert {option for option in OPTIONS if option.startswith("--")} - {f"--{name}" for name in inputs} == left_out
    step = action()["runs"]["steps"][-1]
    assert set(step["env"]) == {f"INPUT_{name.upper().replace('-', '_')}" for name in inputs}
    for name in inputs:
        assert step["env"][f"INPUT_{name.upper().replace('-', '_')}"] == f"${{{{ inputs.{name} }}}}"
    assert all(step["shell"] == "bash" for step in action()["runs"]["steps"])
    assert all("${{" not in step["run"] for step in action()["runs"]["steps"]), "inputs are never text of a script"


@pytest.mark.parametrize(("growth", "code"), [("1%", 1), ("100%", 0)])
def test_the_actions_own_step_runs_the_check(files: Path, growth: str, code: int) -> None:
    step = action()["runs"]["steps"][-1]
    given = {
        "INPUT_BASELINE": "model.onnx",
        "INPUT_CANDIDATE": "a b; touch hurt.onnx",
        "INPUT_MAX_SLOWDOWN": "off",
        "INPUT_MAX_GROWTH": growth,
        "INPUT_JUNIT": "check.xml",
    }
    (files / "heavy.onnx").rename(files / given["INPUT_CANDIDATE"])
    surroundings = {
        **os.environ,
        **dict.fromkeys(step["env"], ""),
        **given,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(files / "summary.md"),
    }
    script = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]  # as a runner starts it
    done = subprocess.run(script, cwd=files, env=surroundings, capture_output=True, text=True)
    assert done.returncode == code, done.stderr + done.stdout
    assert not (files / "hurt.onnx").exists()
    assert (files / "check.xml").is_file() and "| size |" in (files / "summary.md").read_text()
    assert ("::error" in done.stdout) == bool(code)


def test_the_pre_commit_hook_calls_the_command() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["id"] == "orchestrate-check" and hook["language"] == "python" and hook["pass_filenames"] is False
    name, *words = hook["entry"].split()
    assert name == "orchestrate" and words == ["check"] and {"id", "name", "entry", "language"} <= set(hook)
    assert re.search(hook["files"], "models/net.onnx") and not re.search(hook["files"], "net.onnx.md")


def test_options_in_the_ci_guide_exist() -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    commands = [line for line in page.splitlines() if "orchestrate check" in line]
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", "\n".join(commands)))
    assert len(named) > 5 and named <= OPTIONS
    table = page.split("[tool.orchestrator.check]\n")[1].split("```")[0]
    assert {f"--{key.replace('_', '-')}" for key in re.findall(r"^(\w+) =", table, re.MULTILINE)} <= OPTIONS


# -- a real run, a real emulator ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_a_search_left_can_be_either_side(cli: Cli, project: Project) -> None:
    searched = cli("search", *project.onnx, "--search", "no-training", "--trials", "3", "--threads", "1", "--output", "run")
    assert searched.returncode in (0, 1), searched.stderr
    run = orchestrator.load_run(cli.folder / "run")
    assert run.recommended is not None
    front = f"run/front/{run.recommended}"
    done = cli("check", "--baseline", "run", "--candidate", front, "--max-slowdown", "100%", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [each["verdict"] for each in told["criteria"]] == ["ok", "ok", "ok"]
    assert told["threads"] == 1 and told["criteria"][1]["details"]["metric"] == "accuracy"
