"""The size criterion: exact bytes of the shipped files."""

from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

from orchestrator.errors import InputError
from orchestrator.report import formatting
from orchestrator.values.check import Criterion, Judgement


def judge_size(candidate: Path, baseline: Path, limit: float) -> Criterion:
    """Compare the sizes of two models on disk, with external data of ONNX files.

    Raises:
        InputError: One cannot be read.
    """
    ours, theirs = size_bytes(candidate), size_bytes(baseline)
    change = ours / theirs - 1
    verdict: Judgement = "regressed" if ours > theirs * (1 + limit) else "ok"
    return Criterion(
        name="size",
        verdict=verdict,
        reason=f"{formatting.size(ours)} beside {formatting.size(theirs)}: "
        + ("the same" if ours == theirs else f"{abs(change) * 100:.3g} % {'more' if change > 0 else 'less'}")
        + f", {limit * 100:.3g} % more is allowed",
        unit="bytes",
        limit=limit,
        baseline=float(theirs),
        candidate=float(ours),
        change=change,
        low=change,
        high=change,
    )


def size_bytes(path: Path) -> int:
    """Return the bytes of a model file and of the external data of an ONNX file.

    Raises:
        InputError: It is empty or not ONNX, or a file of weights is missing.
    """
    total = path.stat().st_size
    if not total:
        raise InputError(f"'{path}' is empty")
    if path.suffix != ".onnx":
        return total
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf's errors have no public base class
        raise InputError(f"'{path}' is no valid ONNX file: {str(error).splitlines()[0][:200]}") from None
    beside = {
        entry.value
        for tensor in graph.initializer
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in sorted(beside):
        file = path.parent / name
        if not file.is_file():
            raise InputError(f"'{path}' keeps weights in '{file}', which is not there")
        total += file.stat().st_size
    return total
