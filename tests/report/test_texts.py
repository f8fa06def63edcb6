"""The card, the Markdown table, the terminal and the words that all of them use."""

import dataclasses
import io
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from rich.console import Console

from orchestrator.report import formatting, selection
from orchestrator.report.card import render_card
from orchestrator.report.headline import headline, key_figures
from orchestrator.report.terminal import print_summary
from orchestrator.report.usage_snippets import KINDS, cpp_program
from orchestrator.study.pareto import dominance
from orchestrator.values.results import Difference, LatencyResult, RunResult
from orchestrator.values.task import TensorSpec
from orchestrator_reports import orchestrator_reports

FORMATS = {name: form.run for name, form in orchestrator_reports().items() if form.run is not None}
INCLUDED = [*filter(None, os.environ.get("CPATH", "").split(os.pathsep)), "/usr/include", "/usr/local/include"]
HEADERS = [path for folder in INCLUDED for path in Path(folder).rglob("onnxruntime_cxx_api.h")]
LIBRARY = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
DECLARATIONS = """
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>
enum OrtLoggingLevel { ORT_LOGGING_LEVEL_WARNING };
enum OrtAllocatorType { OrtArenaAllocator };
enum OrtMemType { OrtMemTypeDefault };
struct OrtMemoryInfo;
namespace Ort {
struct Env { Env(OrtLoggingLevel, const char* = ""); };
struct SessionOptions { SessionOptions& SetIntraOpNumThreads(int); };
struct RunOptions { explicit RunOptions(std::nullptr_t); };
struct MemoryInfo {
  static MemoryInfo CreateCpu(OrtAllocatorType, OrtMemType);
  operator const OrtMemoryInfo*() const;
};
struct Float16_t { uint16_t val; float ToFloat() const; };
struct TensorTypeAndShapeInfo { size_t GetElementCount() const; };
struct Value {
  template <typename T>
  static Value CreateTensor(const OrtMemoryInfo*, T*, size_t, const int64_t*, size_t);
  template <typename T>
  const T* GetTensorData() const;
  TensorTypeAndShapeInfo GetTensorTypeAndShapeInfo() const;
  Value(Value&&) = default;
};
struct Session {
  Session(const Env&, const char*, const SessionOptions&);
  std::vector<Value> Run(const RunOptions&, const char* const*, const Value*, size_t, const char* const*, size_t);
};
}  // namespace Ort
"""


def printed(run: RunResult, width: int = 80, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_summary(run, Console(file=file, width=width, force_terminal=False), Path("runs/digits"))
    file.flush()
    file.seek(0)
    return file.read()


def tiny_model(path: Path) -> None:
    """Two inputs of different types, one with a dynamic batch."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])
    mask = helper.make_tensor_value_info("mask", TensorProto.INT64, [1])
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 1, 8, 8]),
        helper.make_tensor_value_info("kept", TensorProto.INT64, [1]),
    ]
    nodes = [helper.make_node("Relu", ["image"], ["scores"]), helper.make_node("Identity", ["mask"], ["kept"])]
    graph = helper.make_graph(nodes, "tiny", [image, mask], outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def test_code_of_the_card_runs(
    digits_run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    found = re.search(r"```python\n(.*?)```", render_card(digits_run, digits_run.candidate("5be27f6a10")), re.S)
    assert found is not None
    names: dict[str, object] = {}
    exec(found.group(1), names)
    assert capsys.readouterr().out.split("\n")[:2] == ["scores (1, 1, 8, 8) float32", "kept (1,) int64"]
    assert isinstance(names["inputs"], dict)
    assert names["inputs"]["mask"].dtype == np.int64


def test_card_gives_every_figure_its_evidence(digits_run: RunResult) -> None:
    card = render_card(digits_run, digits_run.candidate("5be27f6a10"))
    assert "| latency, estimated, raspberry-pi-4 (onnxruntime, 1 thread) | ~ 1.12 ms |" in card
    assert "| latency, measured, this host (onnxruntime, 1 thread) | 0.204 ms |" in card
    assert "test split (360 examples) | 97.7 %" in card
    assert "   - ratio: 0.3" in card
    assert digits_run.candidate("5be27f6a10").artifact.digest in card  # type: ignore[union-attr]
    assert digits_run.task.digest in card


def test_cpp_of_the_card_names_what_the_file_has(digits_run: RunResult, tmp_path: Path) -> None:
    tiny_model(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    inputs = (TensorSpec(name="image", dtype="float32", shape=(1, 8, 8)), TensorSpec(name="mask", dtype="int64", shape=()))
    outputs = (TensorSpec(name="scores", dtype="float32", shape=(1, 8, 8)), TensorSpec(name="kept", dtype="int64", shape=()))
    card = render_card(digits_run, digits_run.candidate("5be27f6a10"), inputs=inputs, outputs=outputs)
    found = re.search(r"```cpp\n(.*?)```", card, re.S)
    assert found is not None
    code = found.group(1)
    assert re.search(r"input_names\{(.*?)\}", code).group(1) == ", ".join(f'"{e.name}"' for e in session.get_inputs())  # type: ignore[union-attr]
    assert re.search(r"output_names\{(.*?)\}", code).group(1) == ", ".join(f'"{e.name}"' for e in session.get_outputs())  # type: ignore[union-attr]
    kinds = {"tensor(float)": "float", "tensor(int64)": "int64_t"}
    for k, entry in enumerate(session.get_inputs()):
        shape = [size if isinstance(size, int) else 1 for size in entry.shape]
        assert f"shape_{k}{{{', '.join(map(str, shape))}}}" in code
        assert f"std::vector<{kinds[entry.type]}> data_{k}({int(np.prod(shape))});" in code
    assert code.count("{") == code.count("}")
    assert "SetIntraOpNumThreads(1)" in code
    strings = (*inputs[:1], TensorSpec(name="text", dtype="str", shape=()))
    assert "```cpp" not in render_card(digits_run, digits_run.baseline, inputs=strings, outputs=outputs)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
def test_cpp_of_the_card_compiles(tmp_path: Path) -> None:
    """Against onnxruntime's own header where it is installed, else against the declarations that the program uses."""
    specs = [TensorSpec(name=f"in {kind}", dtype=kind, shape=(3, 4)) for kind in KINDS]
    code = cpp_program('odd "name"??/.onnx', 4, specs, specs)
    assert code is not None
    (tmp_path / "run.cpp").write_text(code)
    (tmp_path / "onnxruntime_cxx_api.h").write_text(DECLARATIONS)
    folder = HEADERS[0].parent if HEADERS else tmp_path
    arguments = ["g++", "-std=c++17", "-fsyntax-only", "-Wall", "-Werror", f"-I{folder}", str(tmp_path / "run.cpp")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("g++") is None or not HEADERS or not LIBRARY, reason="no g++ or no header of onnxruntime here")
def test_cpp_of_the_card_answers_as_python_does(digits_run: RunResult, tmp_path: Path) -> None:
    """Compiled against onnxruntime's header and run with the library that the Python package brings."""
    tiny_model(tmp_path / "model.onnx")
    inputs = (TensorSpec(name="image", dtype="float32", shape=(1, 8, 8)), TensorSpec(name="mask", dtype="int64", shape=()))
    outputs = (TensorSpec(name="scores", dtype="float32", shape=(1, 8, 8)), TensorSpec(name="kept", dtype="int64", shape=()))
    code = cpp_program("model.onnx", 1, inputs, outputs)
    assert code is not None
    (tmp_path / "run.cpp").write_text(code)
    (tmp_path / "libonnxruntime.so").symlink_to(LIBRARY[0])
    (tmp_path / LIBRARY[0].name.rsplit(".", 2)[0]).symlink_to(LIBRARY[0])  # the name that the library calls itself
    build = [
        "g++",
        "-std=c++17",
        "-Wall",
        f"-I{HEADERS[0].parent}",
        "run.cpp",
        "-o",
        "run",
        "-L.",
        "-lonnxruntime",
        "-Wl,-rpath,.",
    ]
    built = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    said = subprocess.run(["./run"], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    zeros = {"image": np.zeros((1, 1, 8, 8), np.float32), "mask": np.zeros((1,), np.int64)}
    answers = [np.asarray(answer) for answer in session.run(None, zeros)]
    lines = [line.rsplit(maxsplit=1) for line in said.stdout.splitlines()]
    assert [line[0] for line in lines] == [
        f"scores: {answers[0].size} values, the first",
        f"kept: {answers[1].size} values, the first",
    ]
    assert [float(line[1]) for line in lines] == pytest.approx([float(answer.flat[0]) for answer in answers], rel=1e-4)


def test_card_says_which_limits_are_kept_and_what_is_weak(digits_run: RunResult) -> None:
    card = render_card(digits_run, digits_run.candidate("c7714d0e93"))
    assert "| latency at most 2 ms | 0.710 ms | kept |" in card
    assert "| accuracy drops by at most 2 points | −1.3 points | kept |" in card  # noqa: RUF001
    assert "| file at most 200 kB | 34.9 kB | kept |" in card
    assert "Its latency on Raspberry Pi 4 was estimated, never measured there: ~ 0.710 ms may be anything in" in card
    assert "Its accuracy is worse than the original's beyond chance" in card
    assert "The test split has 360 examples" in card
    over = render_card(digits_run, digits_run.candidate("77aa03d2c8"))
    assert "| latency at most 2 ms | 3.90 ms | broken |" in over
    assert "is known on the validation split alone, which also chose it among 11 candidates" in over


def test_runtime_plugin_may_bring_its_own_way_to_run(digits_run: RunResult) -> None:
    card = render_card(digits_run, digits_run.candidate("5be27f6a10"), usage="Give it to `benchncnn`.")
    assert "Give it to `benchncnn`." in card
    assert "```python" not in card
    assert "SHA-256 of `model.onnx`" in card


def test_card_says_where_another_runtime_than_the_programs_took_its_figures(digits_run: RunResult) -> None:
    candidate = digits_run.candidate("5be27f6a10")
    assert candidate.artifact is not None
    assert "does not say how to run it" not in render_card(digits_run, candidate)
    other = dataclasses.replace(candidate, artifact=dataclasses.replace(candidate.artifact, runtime="fastnn"))
    assert "It was scored and timed in fastnn, whose plugin does not say how to run it" in render_card(digits_run, other)


def test_card_of_a_bare_candidate_and_of_another_format(digits_run: RunResult, empty_run: RunResult) -> None:
    assert "Nothing was measured." in render_card(empty_run, empty_run.baseline)
    best = digits_run.candidate("5be27f6a10")
    assert best.artifact is not None
    other = dataclasses.replace(best, artifact=dataclasses.replace(best.artifact, path="a/model.tflite", runtime="litert"))
    assert "`model.tflite` is in the format of the runtime litert" in render_card(digits_run, other)


def test_markdown_holds_the_table_and_no_html(digits_run: RunResult) -> None:
    text = FORMATS["markdown"](digits_run)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 1 + len(digits_run.candidates)
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "latency on Raspberry Pi 4 (estimated)" in rows[0]
    assert "latency on this host (measured)" in rows[0]
    assert "<script" not in text


@pytest.mark.parametrize("name", ["digits_run", "empty_run", "failed_run", "host_run"])
@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_format_renders_every_run(name: str, form: str, request: pytest.FixtureRequest) -> None:
    assert FORMATS[form](request.getfixturevalue(name)).endswith("\n")


@pytest.mark.parametrize("name", ["digits_run", "empty_run", "failed_run", "host_run"])
@pytest.mark.parametrize("width", [40, 80, 140])
def test_terminal_keeps_to_its_width(name: str, width: int, request: pytest.FixtureRequest) -> None:
    text = printed(request.getfixturevalue(name), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert str(Path("runs/digits/report.html")) in text


def test_terminal_is_readable_at_80_columns(digits_run: RunResult) -> None:
    lines = printed(digits_run).splitlines()
    text = "\n".join(lines)
    for whole in ("★ 5be27f6a10 recommended", "→ recovery-distillation", "~ 1.12 ms", "[0.87, 1.42]", "0.204 ms"):
        assert whole in text
    assert "estimated" in text
    assert "measured" in text
    order = [text.index(name) for name in ("baseline", "c7714d0e93", "5be27f6a10", "3fa1c09b2e", "a90d11e7c4")]
    assert order == sorted(order), "the baseline first, then from fast to slow"
    assert str(Path("runs/digits/recommended")) in text


def test_terminal_leaves_out_what_finds_no_room_but_not_the_recommended(digits_run: RunResult) -> None:
    many = [
        dataclasses.replace(digits_run.candidates[0], id=f"c{number:09d}", latency=digits_run.candidates[4].latency)
        for number in range(30)
    ]
    run = dataclasses.replace(
        digits_run, candidates=[*many, *digits_run.candidates], front=[*(c.id for c in many), *digits_run.front]
    )
    text = printed(run)
    assert "25 more on the front" in text
    assert "★ 5be27f6a10" in text


def test_terminal_that_is_not_utf8_and_hostile_texts(digits_run: RunResult) -> None:
    text = printed(dataclasses.replace(digits_run, reason="[bold]x[/nonsense] \x1b[2J"), encoding="ascii")
    assert "* 5be27f6a10" in text
    assert "[bold]x[/nonsense]" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formatting.milliseconds(0.6312), "0.631 ms"),
        (formatting.milliseconds(1234.5), "1,234 ms"),
        (formatting.milliseconds(None), formatting.NONE),
        (formatting.size(812), "812 bytes"),
        (formatting.size(81_300), "81.3 kB"),
        (formatting.count(4_120_000), "4.12 M"),
        (formatting.number(0.0), "0"),
        (formatting.quality("accuracy", 0.978), "97.8 %"),
        (formatting.quality("fidelity", 0.9931), "0.9931"),
        (formatting.difference("accuracy", Difference(value=-0.003, low=0, high=0)), "−0.3 points"),  # noqa: RUF001
        (formatting.difference("accuracy", Difference(value=-0.0001, low=0, high=0)), "±0.0 points"),
        (formatting.seconds(200), "3 min 20 s"),
        (formatting.seconds(0.4), "0.4 s"),
        (formatting.limit_words("max_drop", 0.01, "accuracy"), "accuracy drops by at most 1 point"),
        (formatting.limit_words("max_drop", 0.01, "fidelity"), "fidelity drops by at most 0.01"),
        (formatting.recipe_words([]), "the original"),
        (formatting.clean("a\x1b[31mb\u202ec\ud800"), "a[31mbc?"),
    ],
)
def test_words(shown: str, expected: str) -> None:
    assert shown == expected


def timed(run: RunResult, ratio: Difference, *, evidence: str = "measured-on-target", disturbed: str | None = None) -> RunResult:
    """The run with its recommended candidate at that ratio to the original, and as large a file as the original's."""
    best = run.candidate("5be27f6a10")
    assert run.baseline.artifact is not None
    assert best.artifact is not None

    def like(latency: LatencyResult) -> LatencyResult:
        return dataclasses.replace(latency, evidence=evidence, ratio=None, disturbed=None)

    latency = dataclasses.replace(
        like(run.baseline.latency[0]), median_ms=run.baseline.latency[0].median_ms * ratio.value, ratio=ratio, disturbed=disturbed
    )
    artifact = dataclasses.replace(best.artifact, size_bytes=run.baseline.artifact.size_bytes)
    base = dataclasses.replace(run.baseline, latency=[like(run.baseline.latency[0])])
    return dataclasses.replace(
        run, baseline=base, candidates=[dataclasses.replace(best, latency=[latency], artifact=artifact)], front=[best.id]
    )


def near(value: float, width: float = 0.01) -> Difference:
    return Difference(value=value, low=value * (1 - width), high=value * (1 + width))


@pytest.mark.parametrize("evidence", ["measured-on-target", "simulated"])
def test_difference_within_the_noise_is_no_gain_and_no_loss(evidence: str, digits_run: RunResult) -> None:
    for ratio in (Difference(value=0.95, low=0.85, high=1.06), Difference(value=1.04, low=0.99, high=1.1)):
        said = headline(timed(digits_run, ratio, evidence=evidence))
        assert "no smaller than the original, and no faster beyond the uncertainty" in said
        assert "times" not in said
        assert "slower" not in said


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (0.95, "5 % faster"),
        (1 / 1.3796, "37 % faster"),
        (1 / 1.999, "99 % faster"),
        (0.5, "2.0 times faster"),
        (1 / 2.39, "2.3 times faster"),
        (1 / 12.9, "12 times faster"),
        (1.051, "6 % slower"),
        (2.31, "2.4 times slower"),
    ],
)
def test_gain_is_never_rounded_into_a_larger_one(ratio: float, said: str, digits_run: RunResult) -> None:
    assert f" {said} on Raspberry Pi 4 (measured) than the original" in headline(timed(digits_run, near(ratio)))


def test_disturbed_ratio_has_to_differ_by_twice_as_much_as_for_the_front(digits_run: RunResult) -> None:
    ratio = Difference(value=0.95, low=0.93, high=0.98)
    assert "5 % faster" in headline(timed(digits_run, ratio))
    assert "faster on" not in headline(timed(digits_run, ratio, disturbed="a busy machine"))
    assert selection.DISTURBED == dominance.DISTURBED


def test_gain_of_estimates_is_told_beyond_their_bands_alone(digits_run: RunResult) -> None:
    def estimated(share: float) -> RunResult:
        best, base = digits_run.candidate("5be27f6a10"), digits_run.baseline.latency[0]
        scaled = {name: getattr(base, name) * share for name in ("median_ms", "low_ms", "high_ms")}
        moved = dataclasses.replace(best, latency=[dataclasses.replace(base, **scaled)])
        return dataclasses.replace(digits_run, candidates=[moved], front=[best.id])

    assert "2.0 times faster on Raspberry Pi 4 (estimated)" in headline(estimated(0.5))
    within = estimated(0.8)
    assert "faster" not in headline(within)
    change = next(figure.change for figure in key_figures(within) if figure.evidence == "estimated")
    assert change == "not told apart from the original's"
