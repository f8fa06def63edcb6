"""Quantization of a characterization network (QDQ, as exporters write it), to measure the speed of int8."""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.measuring.characterization.graph import INPUT
from orchestrator.values.profile import Int8Scheme

_WARNINGS, _ERRORS = 2, 3  # severities of onnxruntime's own log; the first is its default
EXAMPLES = 2  # random calibration batches: only their range matters


def quantize(source: Path, target: Path, shape: Sequence[int], scheme: Int8Scheme) -> None:
    """Write the network of `source` to `target` with its operators quantized, weights per channel.

    Args:
        source: The float ONNX file.
        target: The file to write.
        shape: Shape of its one float32 input.
        scheme: Types of activations and weights.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            random = np.random.default_rng(0)
            self._examples = [random.standard_normal(tuple(shape)).astype(np.float32) for _ in range(EXAMPLES)]

        def get_next(self) -> Any:
            return {INPUT: self._examples.pop()} if self._examples else None

    kinds = {"u": QuantType.QUInt8, "s": QuantType.QInt8}
    with _quiet():
        quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=kinds[scheme[0]],
            weight_type=kinds[scheme[2]],
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantizer, which prints, warns and logs through the root logger."""
    import onnxruntime

    root = logging.getLogger()
    handler = logging.NullHandler()  # otherwise its first log call would install a handler for the whole program
    root.addHandler(handler)
    root.addFilter(_not_the_quantizers)
    onnxruntime.set_default_logger_severity(_ERRORS)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
        root.removeFilter(_not_the_quantizers)
        root.removeHandler(handler)


def _not_the_quantizers(record: logging.LogRecord) -> bool:
    return "onnxruntime" not in record.pathname
