"""Estimates: a model's latency, computed from its graph and the target's profile."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from orchestrator.api.resolve import profile_named
from orchestrator.errors import InputError, unknown
from orchestrator.hardware.estimate import estimate as of_graph
from orchestrator.plugin.registry import Registry
from orchestrator.values.measure import LatencyEstimate
from orchestrator.values.profile import HardwareProfile, NumberFormat

PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""Short names of number formats."""


def estimate(
    model: str | Path,
    *,
    target: str,
    runtime: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    without_plugins: Sequence[str] = (),
) -> LatencyEstimate:
    """Estimate the latency of an exported model on a target, without running anything.

    Args:
        model: An ONNX file.
        target: Name, alias or file of a profile.
        runtime: Runtime of the estimate, or None for the first of the profile that has constants.
        threads: Threads of one inference, or None for the profile's.
        precision: "fp32", "fp16" or "int8" to compute all arithmetic in that format; None for the formats of the graph.
        input_shapes: Full shapes of inputs with dynamic axes, by name.
        without_plugins: Names of plugins that are not loaded.

    Returns:
        The estimate with its 90 % band, and its parts by operator.

    Raises:
        InputError: An argument cannot be used, or the profile has no constants for it.
    """
    path = Path(model)
    if not path.is_file():
        raise InputError(f"there is no file '{path}'")
    if path.suffix != ".onnx":
        raise InputError(f"'{path}' is no .onnx file, and an estimate is computed from the ONNX graph: give the exported model")
    profile = profile_named(target, Registry.discover(without=without_plugins))
    runtime = _runtime(profile, runtime)
    support = profile.runtime(runtime)
    if threads is not None and threads < 1:
        raise InputError(f"--threads must be 1 or more, but got {threads}")
    if threads is not None and profile.kind != "gpu" and threads > profile.cores:
        raise InputError(f"--threads {threads}: '{profile.name}' has {profile.cores} cores")
    return of_graph(
        path,
        profile,
        runtime,
        threads or (support.threads if support else 1),
        input_shapes,
        number_format=None if precision is None else _number_format(precision),
    )


def _runtime(profile: HardwareProfile, requested: str | None) -> str:
    able = list(dict.fromkeys(table.runtime for table in profile.latency_models))
    listed = [support.name for support in profile.runtimes]
    if requested is not None:
        if requested not in able and requested not in listed:
            raise InputError(unknown("runtime", requested, able or listed))
        return requested
    if not able:
        characterize = "" if profile.device is None else "; `orchestrate profiles characterize` measures them"
        raise InputError(
            f"target '{profile.name}' has no latency model: no constants of that machine are known, so nothing can be "
            f"estimated{characterize}"
        )
    return next((name for name in listed if name in able), able[0])


def _number_format(precision: str) -> NumberFormat:
    known: tuple[NumberFormat, ...] = get_args(NumberFormat)
    name = PRECISIONS.get(precision, precision)
    for number_format in known:
        if number_format == name:
            return number_format
    raise InputError(unknown("precision", precision, [*PRECISIONS, "int8"]))
