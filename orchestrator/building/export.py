"""Export of a torch module to ONNX, with a dynamic batch axis where the network allows one."""

import contextlib
import copy
import functools
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.nn.utils import parametrize

from orchestrator.building.network import FlatOutputs, Inputs, forward, tensors
from orchestrator.errors import MethodError

BATCH_AXIS = "batch"


def export_onnx(model: nn.Module, example: Inputs, path: Path) -> None:
    """Write the network as one ONNX file with weights inside; the first axis of every input is dynamic where possible.

    Args:
        path: File to write.
        model: In eval mode.
        example: A batch of two examples: torch.export takes an axis of length one for a constant.

    Raises:
        MethodError: the network cannot be exported; the exporter's own reason.
    """
    model = baked(model)
    names = list(example)
    outputs = [name.replace(".", "_") for name in tensors(forward(model, example))]
    flat = FlatOutputs(model, names).eval()
    shapes = ({0: torch.export.Dim(BATCH_AXIS, min=1)},) * len(names)
    reasons = []
    for inputs, dynamic in ((example, (shapes,)), ({n: t[:1] for n, t in example.items()}, None)):
        try:
            with _quiet(), _operators_once():
                torch.onnx.export(
                    flat,
                    tuple(inputs.values()),
                    path,
                    dynamo=True,
                    verbose=False,
                    input_names=names,
                    output_names=outputs,
                    dynamic_shapes=dynamic,
                    external_data=False,
                )
        except Exception as error:  # the exporter raises many kinds
            reasons.append(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
            continue
        _lighten(path)
        return
    raise MethodError(f"the network cannot be exported to ONNX: {reasons[-1]}")


def baked(model: nn.Module) -> nn.Module:
    """Return the network with its parametrized weights as plain ones; the network itself if it has none."""
    if not any(parametrize.is_parametrized(module) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return model


def _lighten(path: Path) -> None:
    """Drop where in the source each operator came from: a tenth of a small network's file, and of no use to a runtime."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.ClearField("metadata_props")
    for value in (*model.graph.value_info, *model.graph.initializer, *model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    onnx.save(model, path)


@contextlib.contextmanager
def _operators_once() -> Iterator[None]:
    """Let the exporter build its table of ONNX operators once a process, not for every network: half of a small one's export.

    Without translations of the caller's, the exporter only reads the table (torch 2.13).
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # another version of torch
        yield
        return
    build = ONNXRegistry.from_torchlib
    ONNXRegistry.from_torchlib = functools.partial(_operators, build)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = build  # type: ignore[method-assign]


@functools.cache
def _operators(build: Callable[..., object], *args: object, **options: object) -> object:
    return build(*args, **options)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's warnings and messages about its own internals."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(level)
