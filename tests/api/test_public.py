"""The public Python API: one list of names, each importable without a framework until it is used."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import orchestrator


def test_every_public_name_has_its_module_and_a_docstring() -> None:
    assert set(orchestrator.__all__) == set(orchestrator._MODULES)
    for name in orchestrator.__all__:
        assert inspect.getdoc(getattr(orchestrator, name)), name


def test_imports_for_type_checkers_are_those_of_the_table() -> None:
    tree = ast.parse(Path(inspect.getfile(orchestrator)).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    modules = {alias.name: node.module for node in imports for alias in node.names}
    assert modules == {name: f"orchestrator.{module}" for name, module in orchestrator._MODULES.items()}


def test_types_of_the_signatures_are_exported() -> None:
    options = {"SearchOptions", "MeasureOptions", "CheckOptions", "CharacterizeOptions", "WorkerOptions"}
    results = {"RunResult", "ModelMeasurement", "Comparison", "CheckResult", "LatencyEstimate", "CharacterizedMachine"}
    assert options | results <= set(orchestrator.__all__)


def test_importing_the_package_loads_no_framework() -> None:
    code = "import orchestrator, sys; print([m for m in ('torch', 'onnx', 'optuna', 'numpy', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
