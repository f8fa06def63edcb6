"""`orchestrate profiles` as a person types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli import main

BROKEN = """\
schema = 1
name = "odd"
title = "An odd board"
kind = "edge"

[sources]
sheet = "data sheet"
left = "nobody needs it"

[[clusters]]
name = "big"
cores = 4
clock = 1.8
isa = ["neon"]
source = "sheet"

[memory]
size_bytes = 4
source = "sheet"

[[runtimes]]
name = "onnxruntime"
threads = 4
formats = ["float32"]
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["profiles", *arguments])
        out, err = capfd.readouterr()
        return int(end.value.code or 0), out, err

    return command


def test_every_machine_of_the_issue_is_listed_with_how_its_latencies_are_known(run: Run) -> None:
    code, out, _ = run("list")
    assert code == 0
    for name in ("host ", "raspberry-pi-zero-2-w", "raspberry-pi-3b-plus", "raspberry-pi-4, raspberry-pi ", "raspberry-pi-5 "):
        assert name in out
    for name in ("snapdragon-855-plus", "snapdragon-8-gen-2", "jetson-orin-nano", "rk3588", "laptop-x86", "nvidia-t4"):
        assert name in out
    rows = json.loads(run("list", "--json")[1])
    assert rows[0] == {"names": ["host"], "title": "this machine, probed", "evidence": "measured here"}
    assert all(row["evidence"] for row in rows)


def test_machine_is_shown_readably_with_its_sources(run: Run) -> None:
    code, out, _ = run("show", "raspberry-pi")
    assert code == 0
    assert "4 x Cortex-A72, 1.80 GHz; L1 data 32 KiB; L2 1 MiB shared by 4" in out
    assert "4 GiB, 5.56 GB/s reached" in out
    assert "int8 (activations, weights), best first: u8s8, s8s8" in out
    assert "bcm2711" in out
    shown = json.loads(run("show", "raspberry-pi", "--json")[1])
    assert shown["clusters"][0]["clock_hz"] == 1.8e9
    assert run("show", "raspberry-pi", "--json", "--toml")[0] == 2


def test_own_profile_begins_with_another_when_it_is_shown_as_toml(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(run("show", "rk3588", "--toml")[1])
    assert run("check", "mine.toml") == (0, "mine.toml: the profile is valid\n", "")


def test_every_problem_has_its_line_when_a_profile_is_checked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text(BROKEN)
    code, out, err = run("check", "odd.toml")
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert [line.split(" ")[0] for line in lines] == [
        "odd.toml:8:",
        "odd.toml:13:",
        "odd.toml:18:",
        "odd.toml:21:",
        "orchestrate:",
    ]
    assert "write clock_hz, in hertz" in lines[1]
    assert "if 4 GiB are meant" in lines[2]
    assert "these values have no source" in lines[3]
    assert lines[-1] == "orchestrate: odd.toml has 4 problems, listed above"


def test_single_problem_is_the_only_line(run: Run, tmp_path: Path) -> None:
    text = run("show", "rk3588", "--toml")[1].replace("schema = 1", "schema = 2")
    (tmp_path / "one.toml").write_text(text)
    code, _, err = run("check", "one.toml")
    assert code == 2
    assert err.splitlines() == ["orchestrate: one.toml:1: schema: must be 1, but got 2"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["check", "raspberry-pi"], "'raspberry-pi' is no .toml file"),
        (["check", "gone.toml"], "gone.toml: there is no such file"),
        (["show", "raspbery-pi"], "did you mean raspberry-pi"),
        (["characterize", "--threads", "two"], "--threads 'two' cannot be read; write it like 1,4"),
        (["characterize", "--seconds", "0"], "--seconds must be more than 0"),
        (["characterize", "--runtime", "onnxrt"], "unknown runtime 'onnxrt'"),
        (["characterize", "--device", "qemu:cortex-a72"], "is simulated and has no times to measure"),
        (["characterize", "--device", "toaster"], "unknown device 'toaster'"),
        (["characterize", "--output", "nowhere/x.toml", "--seconds", "1"], "there is no folder 'nowhere'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(run: Run, tmp_path: Path, arguments: list[str], line: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("orchestrate: ")
    assert line in last
    assert not list(tmp_path.iterdir())
