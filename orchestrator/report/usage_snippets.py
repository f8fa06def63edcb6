"""Programs in Python and C++ that run an exported model in onnxruntime with its actual inputs."""

from collections.abc import Sequence
from math import prod
from typing import Any

from orchestrator.report import formatting
from orchestrator.values.task import TensorSpec

KINDS = {
    "float32": "float", "float64": "double", "float16": "Ort::Float16_t",
    "int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "int64": "int64_t",
    "uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t", "uint64": "uint64_t",
}  # fmt: skip
"""C++ types by NumPy dtype."""


def python_program(file: str, threads: int) -> str:
    """Return a program that loads the file, runs it on zeros and prints the outputs."""
    return _rendered("run_onnx.py.j2", file=file, threads=threads)


def cpp_program(file: str, threads: int, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str | None:
    """Return the same program in C++17, or None if the inputs are unknown or of a type without a C++ vector.

    Args:
        file: Name of the model file.
        inputs: Inputs of the task; the omitted axis of the examples becomes 1.
        outputs: Outputs of the task.
        threads: Threads of one inference.
    """
    if not inputs or not outputs or any(spec.dtype not in KINDS for spec in (*inputs, *outputs)):
        return None
    return _rendered("run_onnx.cpp.j2", file=file, threads=threads, inputs=inputs, outputs=outputs, kinds=KINDS)


def _rendered(template: str, **content: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("orchestrator.report"),
        autoescape=False,  # noqa: S701 programs, whose texts are escaped as literals
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"pyliteral": lambda text: repr(formatting.line(text)), "cliteral": _literal, "prod": prod}
    return environment.get_template(template).render(**content)


def _literal(text: str) -> str:
    """Return a C++ string literal."""
    escaped = formatting.line(text).replace("\\", "\\\\").replace('"', '\\"').replace("?", "\\?")  # "??/" is a trigraph
    return f'"{escaped}"'
