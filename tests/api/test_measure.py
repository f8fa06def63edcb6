"""`measure` and `compare` on real files, as people call them."""

import csv
import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import orchestrator
from orchestrator.api import measure
from orchestrator.api.measure import MeasureOptions
from orchestrator.cli.program import program
from orchestrator.errors import InputError
from orchestrator.values.measure import Comparison
from orchestrator.values.results import Difference
from tests.conftest import Cli, tiny_onnx
from tests.study.test_robustness import wait_for_agent

QUICK = {"threads": 1, "max_seconds": 1.0}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(tiny_onnx(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def heavy(tmp_path: Path) -> Path:
    onnx.save(tiny_onnx(kernel=41), tmp_path / "heavy.onnx")
    return tmp_path / "heavy.onnx"


def test_figures_of_one_model_are_complete(model: Path) -> None:
    found = orchestrator.measure(model, **QUICK)
    latency = found.latency
    assert latency.evidence == "measured-on-target"
    assert 0 < latency.low_ms <= latency.median_ms <= latency.high_ms
    assert latency.threads == 1
    assert found.size_bytes == model.stat().st_size
    assert 0 < found.compressed_bytes < found.size_bytes
    assert found.macs and found.parameters and found.peak_memory_bytes > 0
    assert found.environment["cpu"] and found.environment["runtime_version"]
    assert latency.conditions is not None and latency.conditions["on_cores"]


def test_measure_prints_one_json_object_with_the_promised_keys(cli: Cli, model: Path) -> None:
    done = cli("measure", str(model), "--threads", "1", "--max-seconds", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    promised = {"median_ms", "low_ms", "high_ms", "evidence", "device", "runtime", "threads", "p90_ms", "samples"}
    assert promised <= set(found)
    assert found["samples"] > 0
    assert ("energy_mj" in found) == bool(found.get("energy_mj")), "absent, not null, where there is no counter"


def test_time_on_this_host_is_never_called_the_targets(cli: Cli, model: Path) -> None:
    done = cli("measure", str(model), "--target", "raspberry-pi", "--threads", "1", "--max-seconds", "1")
    assert done.returncode == 0, done.stderr
    assert "measured-on-host" in done.stdout
    assert "timed on this host, which is no Raspberry Pi 4" in done.stdout


def test_raw_samples_are_kept_in_a_file(model: Path, tmp_path: Path) -> None:
    found = orchestrator.measure(model, samples=tmp_path / "raw.csv", **QUICK)
    with (tmp_path / "raw.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found.latency.samples
    assert np.median([float(row["wall_ms"]) for row in rows]) == pytest.approx(found.latency.median_ms)


def test_heavier_network_is_slower_and_the_other_way_round_faster(model: Path, heavy: Path) -> None:
    slower = orchestrator.compare(model, heavy, threads=1, max_seconds=3)
    assert slower.verdict == "slower" and slower.ratio.low > 1.02
    assert "longer by more than the margin of 2 %" in slower.reason
    faster = orchestrator.compare(heavy, model, threads=1, max_seconds=3)
    assert faster.verdict == "faster"


def test_compare_prints_ratio_interval_verdict_and_both_measurements(cli: Cli, model: Path, heavy: Path) -> None:
    done = cli("compare", str(model), str(heavy), "--threads", "1", "--max-seconds", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["low"] <= found["ratio"] <= found["high"]
    assert found["verdict"] == "slower"
    assert found["a"]["model"] == str(model) and found["b"]["median_ms"] > 0


def test_what_cannot_be_told_is_inconclusive_and_exit_code_3(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = orchestrator.compare(model, model, margin=1.0, **QUICK)
    unsure = replace(found, verdict="inconclusive", reason="it reaches across the edge")
    monkeypatch.setattr("orchestrator.api.measure.compare", lambda *arguments, **more: unsure)
    done = CliRunner().invoke(program, ["compare", str(model), str(model)])
    assert done.exit_code == 3
    assert done.stdout.splitlines()[-1] == "inconclusive: it reaches across the edge"


@pytest.mark.parametrize(("threads", "advised"), [(1, False), (2, True)])
def test_advice_where_nothing_can_be_told_depends_on_the_threads(threads: int, advised: bool) -> None:
    bench = SimpleNamespace(evaluator=SimpleNamespace(threads=threads), host_note=None)
    ratio = Difference(value=1.0, low=0.95, high=1.05)
    reason = measure._reason("inconclusive", ratio, MeasureOptions(), "wall", 0.0, bench)  # type: ignore[arg-type]
    assert "B takes 0.9500 to 1.0500 of A's time" in reason
    assert ("--threads 1, which is steadier" in reason) == advised


def test_same_within_a_wide_margin(model: Path) -> None:
    found: Comparison = orchestrator.compare(model, model, margin=1.0, **QUICK)
    assert found.verdict == "same"


def test_inputs_may_come_from_the_users_data(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", validation_x=np.zeros((3, 1, 12, 12), np.float32))
    assert "arrays.npz" in orchestrator.measure(model, data=str(tmp_path / "arrays.npz"), **QUICK).inputs
    np.savez(tmp_path / "wrong.npz", validation_x=np.zeros((3, 1, 10, 12), np.float32))
    with pytest.raises(InputError, match=r"'image' is float32\[1, 10, 12\], but .* takes image float32\[1,1,12,12\]"):
        orchestrator.measure(model, data=str(tmp_path / "wrong.npz"), **QUICK)


def test_bad_input_is_one_clear_line(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file '.*absent.onnx'"):
        orchestrator.measure(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match=r"text.onnx: (not an ONNX file|the file holds no operators)"):
        orchestrator.measure(tmp_path / "text.onnx")
    onnx.save(tiny_onnx(batch=8), tmp_path / "eight.onnx")
    with pytest.raises(InputError, match="has a fixed batch of 8"):
        orchestrator.measure(tmp_path / "eight.onnx")
    with pytest.raises(InputError, match="unknown option 'thread'; did you mean threads"):
        orchestrator.measure(model, thread=1)
    with pytest.raises(InputError, match="--max-seconds must be more than 0"):
        orchestrator.measure(model, max_seconds=0)
    with pytest.raises(InputError, match=r"--samples '.*raw.csv' cannot be written: No such file or directory"):
        orchestrator.measure(model, samples=tmp_path / "nowhere" / "raw.csv")
    with pytest.raises(InputError, match="unknown device"):
        orchestrator.measure(model, device="toaster")


def test_models_with_different_inputs_are_not_compared(model: Path, tmp_path: Path) -> None:
    other = tiny_onnx()
    other.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 24
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"the two models take different inputs.*\[1,1,12,12\].*\[1,1,24,12\]"):
        orchestrator.compare(model, tmp_path / "other.onnx")


def test_model_that_the_runtime_cannot_load_names_the_file_and_the_operator(model: Path, tmp_path: Path) -> None:
    broken = tiny_onnx()
    broken.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(broken, tmp_path / "broken.onnx")
    with pytest.raises(InputError, match=r"broken.onnx' cannot be run by onnxruntime on host: .*NoSuchOperator"):
        orchestrator.compare(model, tmp_path / "broken.onnx", **QUICK)


def test_dynamic_axes_ask_for_a_shape(cli: Cli, model: Path, tmp_path: Path) -> None:
    dynamic = tiny_onnx()
    dim = dynamic.graph.input[0].type.tensor_type.shape.dim[2]
    dim.Clear()
    dim.dim_param = "height"
    onnx.save(dynamic, tmp_path / "dynamic.onnx")
    with pytest.raises(InputError, match=r"dynamic axis 2 \('height'\) without a size; give the whole shape, as in --inp"):
        orchestrator.measure(tmp_path / "dynamic.onnx")
    done = cli("measure", str(tmp_path / "dynamic.onnx"), "--input-shape", "image=1,1,12,12", "--max-seconds", "1")
    assert done.returncode == 0, done.stderr


def test_ctrl_c_ends_a_measurement_at_once(cli: Cli, model: Path) -> None:
    process = cli.start("measure", str(model), "--threads", "1", "--max-seconds", "600", "--precision-goal", "0.0000001")
    wait_for_agent(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.strip() == "orchestrate: interrupted"
