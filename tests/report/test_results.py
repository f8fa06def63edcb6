"""results.json: what is written can be read, and what cannot be read is said in one line."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import InputError
from orchestrator.report.results import read_results, render_json, write_results
from orchestrator.values.files import write_atomic
from orchestrator.values.results import RunResult


def test_results_are_the_same_when_written_and_read(digits_run: RunResult, tmp_path: Path) -> None:
    write_results(digits_run, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == digits_run
    assert read_results(tmp_path) == digits_run, "the run's folder will do"
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_empty_run_is_the_same_when_written_and_read(empty_run: RunResult, tmp_path: Path) -> None:
    write_results(empty_run, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == empty_run


def test_unknown_keys_are_passed_over(digits_run: RunResult, tmp_path: Path) -> None:
    data = json.loads(render_json(digits_run))
    data["later"] = data["baseline"]["later"] = data["baseline"]["latency"][0]["later"] = {"new": 1}
    (tmp_path / "results.json").write_text(json.dumps(data))
    assert read_results(tmp_path / "results.json") == digits_run


def test_numpy_numbers_are_written_as_numbers(digits_run: RunResult) -> None:
    run = dataclasses.replace(digits_run, seconds={"total": np.float32(1.5)}, search={"seed": np.int64(7)})
    data = json.loads(render_json(run))
    assert data["seconds"] == {"total": 1.5}
    assert data["search"] == {"seed": 7}


def test_nan_becomes_null_where_a_figure_may_be_absent(digits_run: RunResult) -> None:
    latency = dataclasses.replace(digits_run.baseline.latency[1], p99_ms=float("nan"), p90_ms=float("inf"))
    run = dataclasses.replace(digits_run, baseline=dataclasses.replace(digits_run.baseline, latency=[latency]))
    written = json.loads(render_json(run))["baseline"]["latency"][0]
    assert written["p99_ms"] is None
    assert written["p90_ms"] is None


def test_nan_is_refused_where_a_figure_must_be(digits_run: RunResult, tmp_path: Path) -> None:
    latency = dataclasses.replace(digits_run.baseline.latency[0], median_ms=float("nan"))
    run = dataclasses.replace(digits_run, baseline=dataclasses.replace(digits_run.baseline, latency=[latency]))
    with pytest.raises(ValueError, match=r"baseline\.latency\.0\.median_ms"):
        write_results(run, tmp_path / "results.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not valid JSON"),
        ('{"schema": 1, "task"', "not valid JSON"),
        ("[" * 100_000, "damaged"),
        (b"\xff\xfe\x00", "not valid JSON"),
        ('{"schema": 1, "reason": NaN}', "not a finite number"),
        ('{"schema": 1, "reason": 1e999}', "not a finite number"),
        ("[]", "no 'schema'"),
        ("{}", "no 'schema'"),
        ('{"schema": 2}', "has schema 2; this version reads schema 1"),
        ('{"schema": "1"}', "has schema '1'"),
        ('{"schema": 1}', "damaged: task: Field required"),
    ],
)
def test_damaged_file_is_one_clear_line(content: str | bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_results(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.json", tmp_path):
        with pytest.raises(InputError, match="there is no"):
            read_results(path)


def test_front_of_unknown_candidates_is_damaged(digits_run: RunResult, tmp_path: Path) -> None:
    for run in (dataclasses.replace(digits_run, front=["gone"]), dataclasses.replace(digits_run, recommended="gone")):
        write_results(run, tmp_path / "results.json")
        with pytest.raises(InputError, match="no candidate 'gone'"):
            read_results(tmp_path / "results.json")


def test_write_atomic_keeps_the_old_file_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.json"
    write_atomic(file, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_write_atomic_takes_text_and_bytes(tmp_path: Path) -> None:
    write_atomic(tmp_path / "text", "Größe\n")
    write_atomic(tmp_path / "bytes", b"\x00\xff")
    assert (tmp_path / "text").read_bytes() == "Größe\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
