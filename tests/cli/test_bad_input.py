"""Bad input gets one clear line and exit code 2 before any work, and leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from orchestrator.cli import main
from tests.conftest import Project, tiny_onnx
from tests.local_builder import use_local_builder

BROKEN_PROFILE = """
schema = 1
name = "odd"
title = "odd"
kind = "edge"
colour = "red"
"""


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must be refused, and return its one line; the builder is in this process unless asked otherwise."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: str, builder_process: bool = False) -> str:
        with pytest.raises(SystemExit) as end, monkeypatch.context() as patch:
            if not builder_process:
                use_local_builder(patch)
            main(list(arguments))
        out, err = capfd.readouterr()
        lines = err.strip().splitlines()
        assert end.value.code == 2, err
        assert lines[-1].startswith("orchestrate: ")
        assert "Traceback" not in err
        assert len(lines) == 1, "one line"
        assert not list(folder.iterdir()), "nothing is left behind"
        return lines[-1]

    return run


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--target", "raspbery-pi"], "unknown target 'raspbery-pi'; did you mean raspberry-pi"),
        (["--target", "nowhere.toml"], "nowhere.toml"),
        (["--search", "quik"], "unknown search 'quik'; did you mean quick?"),
        (["--method", "static-int4"], "unknown method 'static-int4'; did you mean static-int8"),
        (["--runtime", "onnxrutime"], "unknown runtime 'onnxrutime'; did you mean onnxruntime"),
        (["--without-plugin", "prunning"], "unknown plugin 'prunning'; did you mean pruning"),
        (["--device", "toaster://kitchen"], "unknown device 'toaster://kitchen'"),
        (["--max-latency", "fast"], "--max-latency 'fast' cannot be read; write it like 30s, 20ms"),
        (["--max-latency", "20"], "--max-latency '20' cannot be read"),
        (["--max-size", "500 parsecs"], "--max-size '500 parsecs' cannot be read; write it like 500kB"),
        (["--max-drop", "one"], "--max-drop 'one' cannot be read; write it like 1% or 0.01"),
        (["--timeout", "-5m"], "--timeout '-5m' cannot be read"),
        (["--trials", "0"], "--trials must be 1 or more, but got 0"),
        (["--threads", "0"], "--threads must be 1 or more, but got 0"),
        (["--input-shape", "image=a,b"], "--input-shape 'image=a,b' cannot be read; write it like NAME=1,3,32,32"),
        (["--model", "model.onnx"], "--model needs --data beside it"),
        (["--model", "gone.onnx", "--data", "gone.npz"], "--model: there is no file 'gone.onnx'"),
        (["--model", "model.pt", "--data", "gone.npz"], "--model 'model.pt' must be file.py:factory"),
        (["--trails", "3"], "No such option"),
    ],
)
def test_options_are_refused_when_they_cannot_be_read(refused: Callable[..., str], arguments: list[str], line: str) -> None:
    assert line in refused("search", *arguments)


ENDS_OR_RAISES = ("model:crashes", "model:leaves", "model:raises")
"""What these do to the builder's process is a part of the test."""


@pytest.mark.parametrize(
    ("model", "data", "line"),
    [
        ("model:nett", "data:splits", "unknown function 'nett'; did you mean net?"),
        ("model:raises", "data:splits", "raised RuntimeError: no weights today"),
        ("model:leaves", "data:splits", "raised SystemExit: the weights are not installed"),
        ("model:no_module", "data:splits", "must return a torch.nn.Module, but got a int"),
        ("model:wrong_channels", "data:splits", "fails on the data (input: float32 (2, 1, 12, 12))"),
        ("model:nan_weights", "data:splits", "the weight 'head.weight' holds NaN or infinity"),
        ("model:crashes", "data:splits", "SIGSEGV"),
        ("model:net", "data:raises", "raised FileNotFoundError: images.bin"),
        ("model:net", "data:no_validation", "has no validation split (it has train, test)"),
        ("model:net", "data:wrong_split_name", "unknown split 'valid'; did you mean validation?"),
        ("model:net", "data:no_mapping", "must return a mapping of splits, but got a list"),
        ("model:net", "data:empty", "split 'validation' is empty"),
        ("model:net", "data:nan_inputs", "inputs hold NaN or infinity in 1 of 48 examples"),
        ("model:net", "data:labels_out_of_range", "labels must be 0 to 2, for the model has 3 outputs, but they go from 0 to 7"),
        ("model:net", "data:fewer_labels", "48 inputs but 47 labels; they must be equal"),
        ("model:net", "data:words", "must be numbers, but have the type"),
        ("model:net", "data:objects", "must be numbers, but have the type object"),
        ("model:net", "data:unlike", "they must be alike"),
        ("model:net", "data:doubles", "fails on the data"),
        ("model:net", "data:real_labels", "metric 'accuracy' needs whole-number labels"),
    ],
)
def test_model_and_data_are_refused_when_they_do_not_fit(
    refused: Callable[..., str], project: Project, model: str, data: str, line: str
) -> None:
    arguments = ["search", "--model", project.ref(model), "--data", project.ref(data), "--trials", "1"]
    assert line in refused(*arguments, builder_process=model in ENDS_OR_RAISES)


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("--metric", "acuracy", "unknown metric 'acuracy'; did you mean accuracy?"),
        ("--metric", "extras:nothing", "unknown function 'nothing'"),
        ("--metric", "extras:one_argument", "must take (outputs, labels)"),
        ("--metric", "extras:fails", "raised ZeroDivisionError: nothing to divide"),
        ("--loss", "crossentropy", "unknown loss 'crossentropy'; did you mean cross-entropy?"),
        ("--loss", "extras:one_argument", "must take (outputs, labels)"),
        ("--student", "model.onnx", "must be a factory of a torch network, which can be trained"),
        ("--student", "model:smal", "unknown function 'smal'; did you mean small?"),
        ("--student", "model:no_module", "must return a torch.nn.Module, but got a int"),
        ("--student", "model:wrong_channels", "fails on the data"),
        (
            "--student",
            "model:four_classes",
            "outputs of the model's shapes {'output': (3,)}, but gave {'output': (4,)}",
        ),
    ],
)
def test_functions_are_refused_when_they_cannot_be_used(
    refused: Callable[..., str], project: Project, option: str, value: str, line: str
) -> None:
    reference = project.ref(value) if ":" in value else value
    model, data = project.ref("model:net"), project.ref("data:splits")
    assert line in refused("search", "--model", model, "--data", data, option, reference, "--trials", "1")


def test_accuracy_is_refused_when_there_are_no_labels(refused: Callable[..., str], project: Project) -> None:
    model, data = project.ref("model:net"), project.ref("data:unlabelled")
    said = refused("search", "--model", model, "--data", data, "--metric", "accuracy", "--trials", "1")
    assert "needs labels, and the validation split has none; try --metric fidelity" in said


def test_pickled_arrays_are_refused_and_not_executed(refused: Callable[..., str], project: Project, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'boom')!r}, 'w')",))

    np.savez(project.folder / "evil.npz", validation_x=np.array([Bomb()], dtype=object), validation_y=np.array([0]))
    said = refused("search", "--model", project.onnx[1], "--data", str(project.folder / "evil.npz"), "--trials", "1")
    assert "is no readable .npz of plain arrays" in said
    assert not (tmp_path / "boom").exists()


def test_npz_is_refused_when_an_array_has_an_unknown_name(refused: Callable[..., str], project: Project) -> None:
    np.savez(project.folder / "odd.npz", val_x=np.zeros((4, 1, 12, 12), np.float32))
    said = refused("search", "--model", project.onnx[1], "--data", str(project.folder / "odd.npz"), "--trials", "1")
    assert "the array 'val_x' is not named SPLIT_x, SPLIT_y or SPLIT_x.INPUT" in said


def test_onnx_file_is_refused_when_it_is_none(refused: Callable[..., str], project: Project) -> None:
    (project.folder / "model.onnx").write_bytes(b"not an ONNX file")
    assert "is no valid ONNX file" in refused("search", *project.onnx, "--trials", "1")


def test_onnx_file_is_refused_when_its_batch_is_fixed_at_more_than_one(refused: Callable[..., str], project: Project) -> None:
    onnx.save(tiny_onnx(batch=3), project.folder / "model.onnx")
    assert "fixed batch of 3" in refused("search", *project.onnx, "--trials", "1")


def test_onnx_inputs_are_refused_when_names_differ(refused: Callable[..., str], project: Project) -> None:
    np.savez(project.folder / "arrays.npz", **{"validation_x.picture": np.zeros((4, 1, 12, 12), np.float32)})
    assert "unknown input 'picture'" in refused("search", *project.onnx, "--trials", "1")


def test_input_shape_is_refused_when_it_does_not_fit_the_data(refused: Callable[..., str], project: Project) -> None:
    said = refused("search", *project.onnx, "--input-shape", "image=1,1,24,24", "--trials", "1")
    assert "the data have examples of shape (1, 12, 12)" in said


def test_profile_is_refused_when_it_has_an_unknown_key(refused: Callable[..., str], project: Project, tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text(BROKEN_PROFILE)
    said = refused("search", *project.onnx, "--target", str(tmp_path / "odd.toml"))
    assert "colour" in said
    assert "odd.toml" in said


def test_search_file_is_refused_when_it_has_an_unknown_key(refused: Callable[..., str], project: Project, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('schema = 1\nname = "mine"\ntitle = "mine"\ntrial = 3\n')
    said = refused("search", *project.onnx, "--search", str(tmp_path / "mine.toml"))
    assert "unknown key 'trial'; did you mean trials" in said


def test_output_is_refused_when_it_is_a_file_or_not_empty(refused: Callable[..., str], project: Project, tmp_path: Path) -> None:
    assert "is a file; give a folder" in refused("search", *project.onnx, "--output", str(project.folder / "model.py"))
    assert "is not empty; give a new folder" in refused("search", *project.onnx, "--output", str(project.folder))
    assert "cannot be written" in refused("search", *project.onnx, "--output", "/proc/run")


def test_resume_report_and_build_are_refused_when_there_is_nothing(refused: Callable[..., str]) -> None:
    assert "is no run directory" in refused("resume", "nothing")
    assert "nothing" in refused("report", "nothing")
    assert "cannot be read" in refused("build", "nothing.toml", "--output", "made")


def test_command_is_refused_with_the_nearest_name(refused: Callable[..., str]) -> None:
    assert "unknown command 'serch'; did you mean search?" in refused("serch")


def test_method_of_a_plugin_that_cannot_be_imported_is_refused_with_its_reason(
    cli: object, project: Project, installer: Callable[..., None]
) -> None:
    installer("broken-methods", "import a_module_that_is_not_there")
    done = cli("search", *project.onnx, "--method", "broken-method", "--trials", "1")  # type: ignore[operator]
    assert done.returncode == 2
    assert "plugin 'broken-methods' could not be used: ModuleNotFoundError" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_student_is_refused_where_nothing_would_use_it(refused: Callable[..., str], project: Project) -> None:
    student = ["--student", project.ref("model:small")]
    model = ["--model", project.ref("model:net"), "--data", project.ref("data:splits")]
    assert "--student needs the method 'student'" in refused("search", *model, *student, "--method", "static-int8")
    assert "--student needs the method 'student'" in refused("search", *model, *student, "--without", "student")
    assert "--student needs a torch network as --model" in refused("search", *project.onnx, *student)
