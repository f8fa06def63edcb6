"""A network that is only an ONNX file."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from orchestrator.errors import InputError


class OnnxModel:
    """An ONNX file, checked and loaded into onnxruntime for a first try.

    Raises:
        InputError: no such file, no ONNX, or onnxruntime cannot load it (its own reason).
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"--model: there is no file '{path}'")
        self.path = path.resolve()
        try:
            model = onnx.load(path)
            onnx.checker.check_model(model)
        except Exception as error:  # protobuf, checker and file errors share no base
            raise InputError(f"--model '{path}' is no valid ONNX file: {_first_line(error)}") from None
        try:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no public base
            raise InputError(f"--model '{path}' cannot be loaded by onnxruntime: {_first_line(error)}") from None
        self.input_names: list[str] = [value.name for value in self._session.get_inputs()]
        for value in self._session.get_inputs():
            if value.shape and isinstance(value.shape[0], int) and value.shape[0] != 1:
                raise InputError(
                    f"--model '{path}': input '{value.name}' has a fixed batch of {value.shape[0]}; "
                    "export it with a batch of 1 or a dynamic one"
                )

    def content(self) -> bytes:
        """Return the serialized model including external weights."""
        content: bytes = onnx.load(self.path).SerializeToString()
        return content

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name. A file whose batch axis is fixed at 1 is run example by example."""
        first = self._session.get_inputs()[0].shape
        count = len(next(iter(inputs.values())))
        step = first[0] if first and isinstance(first[0], int) else count
        parts: list[list[Any]] = [
            self._session.run(None, {name: array[at : at + step] for name, array in inputs.items()})
            for at in range(0, count, step)
        ]
        names = [value.name for value in self._session.get_outputs()]
        return {name: np.concatenate(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)}


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__
