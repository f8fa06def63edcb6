"""References to the user's own files."""

from pathlib import Path

import pytest

from orchestrator.building.references import absolute, call_factory, load_function
from orchestrator.errors import InputError


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def test_folder_of_a_factory_is_importable_while_it_is_loaded_and_called(tmp_path: Path) -> None:
    write(tmp_path, "helpers_of_mine.py", "VALUE = 3\n")
    path = write(
        tmp_path,
        "model.py",
        "from helpers_of_mine import VALUE\ndef make():\n    import helpers_of_mine as h\n    return h.VALUE + VALUE\n",
    )
    assert call_factory(f"{path}:make", "--model") == 6


def test_two_files_of_one_name_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    for folder, value in (("one", 1), ("two", 2)):
        write(tmp_path / folder, "weights.py", f"VALUE = {value}\n")
        write(tmp_path / folder, "model.py", "from weights import VALUE\ndef make():\n    return VALUE\n")
    found = [call_factory(f"{tmp_path / folder / 'model.py'}:make", "--model") for folder in ("one", "two", "one")]
    assert found == [1, 2, 1]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("raise SystemExit('bye')", "raised SystemExit: bye"),
        ("raise ValueError('first\\nsecond')", "raised ValueError: first"),
        ("raise KeyError", "raised KeyError: (no message)"),
    ],
)
def test_whatever_a_factory_raises_becomes_one_line(tmp_path: Path, body: str, line: str) -> None:
    path = write(tmp_path, "model.py", f"def make():\n    {body}\n")
    with pytest.raises(InputError) as error:
        call_factory(f"{path}:make", "--model")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_syntax_error_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "model.py", "def make(:\n")
    with pytest.raises(InputError, match=r"running '.*model.py' raised SyntaxError"):
        load_function(f"{path}:make", "--model")


def test_module_by_name_is_imported() -> None:
    assert call_factory("collections:OrderedDict", "--model") == {}
    with pytest.raises(InputError, match="importing 'no_such_module' raised ModuleNotFoundError"):
        load_function("no_such_module:make", "--model")


def test_what_is_no_function_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "model.py", "net = 3\n")
    with pytest.raises(InputError, match="'net' in .* is no function but a int"):
        load_function(f"{path}:net", "--model")


def test_references_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("a/model.py:net") == f"{tmp_path}/a/model.py:net"
    assert absolute("model.onnx") == f"{tmp_path}/model.onnx"
    assert absolute("package.module:net") == "package.module:net"
