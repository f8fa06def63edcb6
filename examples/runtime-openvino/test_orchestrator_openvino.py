"""The kit, what the card says, and which recipes OpenVINO cannot read."""

import re
import shutil
import subprocess
from pathlib import Path

import openvino
import orchestrator_openvino
import pytest

from orchestrator.plugin import Recipe, Step
from orchestrator.plugin.testing import PluginTests, RuntimeTests, make_case, target


class TestOpenVino(RuntimeTests):
    runtime = orchestrator_openvino.OpenVino()


class TestPlugin(PluginTests):
    plugin = orchestrator_openvino


def test_form_that_openvino_cannot_read_is_illegal_there_and_nowhere_else():
    quantized = Step(method="static-int8", version=1, parameters={"form": "qoperator"})
    there = Recipe(steps=(quantized, Step(method="on-openvino", version=1)))
    assert orchestrator_openvino.orchestrator_check_recipe(recipe=there, target=target())
    assert not orchestrator_openvino.orchestrator_check_recipe(recipe=Recipe(steps=(quantized,)), target=target())


def programs(language):
    said = orchestrator_openvino.OpenVino().usage("model.onnx", 1)
    return re.search(rf"```{language}\n(.*?)```", said, re.DOTALL).group(1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    case = make_case("plain-cnn")
    case.export(tmp_path, case.model).rename(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_program_of_the_card_runs_in_python(folder, capsys):
    exec(programs("python"), {})  # noqa: S102
    assert "float32" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
def test_program_of_the_card_runs_in_cpp(folder):
    (folder / "run.cpp").write_text(programs("cpp"))
    package = Path(openvino.__file__).parent  # the wheel has the headers and the library
    library = next((package / "libs").glob("libopenvino.so*"))
    command = [
        "g++",
        "-std=c++17",
        f"-I{package / 'include'}",
        "run.cpp",
        str(library),
        f"-Wl,-rpath,{package / 'libs'}",
        "-o",
        "run",
    ]
    subprocess.run(command, check=True)
    assert " values" in subprocess.run(["./run"], check=True, capture_output=True, text=True).stdout
