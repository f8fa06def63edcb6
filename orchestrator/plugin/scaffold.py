"""`orchestrate plugins new`: a package with a method that works, its test and its entry point."""

import importlib.util
import keyword
import re
import sys
from pathlib import Path

from orchestrator.errors import EnvironmentFailure, InputError
from orchestrator.plugin.discovery import installed
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime_step import PREFIX

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
description = "A method for the orchestrator."
requires-python = ">=3.11"
dependencies = ["model-orchestrator>={orchestrator}"]

[project.optional-dependencies]
test = ["pytest>=8.3"]

# This is the whole registration.
[project.entry-points.orchestrator]
{name} = "{module}"

[tool.setuptools]
py-modules = ["{module}"]
"""

MODULE = '''\
"""A method for the orchestrator: weights are stored in half the bytes, and computed with as before."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from orchestrator.plugin import BuildContext, Method, Number, OnnxMethod, Parameter, ParameterValue, Refused, hookimpl


class {title}(OnnxMethod):
    """Large float32 constants become float16 with a Cast behind them, which the runtime does once, when it loads the file."""

    name = "{name}"
    version = 1  # raise it whenever the same parameters make another model
    family = "storage"
    summary = "Stores weights as float16 and computes in float32 (IEEE 754-2019, binary16)."
    after: ClassVar[frozenset[str]] = frozenset({{"graph", "quantization"}})
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Number(name="least", help="smaller constants stay as they are", low=64, high=1024, step=320, default=64, integer=True),
    )

    def offer(self, model: Path, parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        import onnx

        if not _large(onnx.load(model), 64):
            raise Refused("no float32 weight has 64 values or more")
        return parameters

    def transform(self, model: Path, parameters: Mapping[str, ParameterValue], context: BuildContext) -> Path:
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        changed = onnx.load(model)
        graph = changed.graph
        for index in _large(changed, int(parameters["least"])):
            tensor = graph.initializer[index]
            name = tensor.name
            half = numpy_helper.to_array(tensor).astype("float16")
            tensor.CopyFrom(numpy_helper.from_array(half, f"{{name}}.half"))
            graph.node.insert(0, helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
        path = context.workspace / "{module}.onnx"
        onnx.save(changed, path)
        return path


def _large(model: "object", least: int) -> list[int]:
    """Where the weights stand among the graph's constants: float32, two axes at least, within float16's range."""
    from onnx import TensorProto, numpy_helper

    found = []
    for index, tensor in enumerate(model.graph.initializer):  # type: ignore[attr-defined]
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        array = numpy_helper.to_array(tensor)
        if array.size >= least and abs(array).max() < 6e4:
            found.append(index)
    return found


@hookimpl
def orchestrator_methods() -> list[Method]:
    """{name}."""
    return [{title}()]
'''

TEST = '''\
"""The method keeps what the orchestrator relies on, and does what it says."""

import onnx

from {module} import {title}
from orchestrator.plugin.testing import MethodTests, make_case


class Test{title}(MethodTests):
    method = {title}()
    likeness = 0.999


def test_file_is_almost_half_as_large(tmp_path):
    case = make_case("residual-cnn")
    original = case.export(tmp_path, case.copy())
    made = {title}().transform(original, {{"least": 64}}, case.context(tmp_path / "work"))

    def weights(path):
        return sum(len(onnx.numpy_helper.to_array(tensor).tobytes()) for tensor in onnx.load(path).graph.initializer)

    assert weights(made) < 0.65 * weights(original)
'''

README = """\
# {name}

A plugin for the orchestrator with one method, `{name}`: weights are stored as float16 and computed with in float32. Files are
almost half as large; times stay as they are. Change it into your own.

    pip install -e ".[test]"
    pytest
    orchestrate plugins list
    orchestrate plugins check {name}
    orchestrate search --method {name} --trials 2

| file | what it is |
|---|---|
| `{module}.py` | the method: what it declares, what it offers for a network, what it does |
| `test_{module}.py` | the conformance kit, two lines, and a test of what the method is for |
| `pyproject.toml` | the entry point in the group `orchestrator` is the whole registration |

Rules: import `orchestrator.plugin` and nothing else of the orchestrator; import frameworks inside the functions that use them;
raise `version` in the class whenever the same parameters make another model.
"""


def write_package(name: str, output: Path | None, version: str) -> list[Path]:
    """Write the package; the files, in the order in which to read them.

    Args:
        name: Of the package, of its entry point and of its method: small letters, digits and hyphens.
        output: The folder, new or empty; None: `NAME` in the current one.
        version: Of the orchestrator that it needs at least.

    Raises:
        InputError: the name cannot be used, or the folder holds something.
        EnvironmentFailure: the folder cannot be written.
    """
    module = name.replace("-", "_")
    if not NAME.fullmatch(name) or keyword.iskeyword(module):
        raise InputError(f"'{name}' cannot name a plugin: use small letters, digits and hyphens, such as my-method")
    if name.startswith(PREFIX):
        raise InputError(f"'{name}' cannot name a plugin: names that begin with '{PREFIX}' are steps that choose a runtime")
    for found in installed():
        if name in (found.info.name, found.info.package):
            raise InputError(
                f"plugin '{found.info.name}' of {found.info.package} {found.info.version} has that name: choose another"
            )
    if name in Registry.discover().methods():
        raise InputError(f"a method is named '{name}' already: choose another")
    if module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        raise InputError(f"a module is named '{module}' already, and one would hide the other: choose another name")
    folder = output if output is not None else Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"'{folder}' is there already: give a new folder with --output")
    title = "".join(part.capitalize() for part in name.split("-"))
    words = {"name": name, "module": module, "title": title, "orchestrator": version}
    texts = {"README.md": README, f"{module}.py": MODULE, f"test_{module}.py": TEST, "pyproject.toml": PYPROJECT}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            (folder / file).write_text(text.format(**words), "utf-8")
    except OSError as error:
        raise EnvironmentFailure(f"'{folder}' cannot be written: {error.strerror}") from None
    return [folder / file for file in texts]
