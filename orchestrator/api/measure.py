"""Measurements: time one exported model, or compare two."""

import csv
import functools
import hashlib
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import psutil

from orchestrator.api.resolve import profile_named, resolve_target, simulated_device
from orchestrator.building.data import DEFAULT_INPUT, Split, load_data
from orchestrator.building.references import absolute
from orchestrator.devices import interrupt
from orchestrator.errors import EnvironmentFailure, InputError, JobFailed, OrchestratorError
from orchestrator.hardware.graph import count
from orchestrator.hardware.shapes import TensorType, read_inputs
from orchestrator.measuring.disturbance import WAITED_SHARE
from orchestrator.measuring.model_info import scoring_batch
from orchestrator.measuring.scoring import Evaluator
from orchestrator.measuring.simulated import Run, Simulation
from orchestrator.measuring.timing import Plan, Timing
from orchestrator.plugin.device import Device, SimulatedDevice
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime import Runtime
from orchestrator.values.measure import Comparison, ModelMeasurement
from orchestrator.values.results import Difference, LatencyResult
from orchestrator.values.search import with_values
from orchestrator.values.target import Target

EXAMPLES = 16
LOADING_S = 600.0
MOST_BYTES_IN_ONE_FILE = 2_000_000_000
ROUNDS = 3
MEMORY_SHARE = 0.75
Verdict = Literal["faster", "slower", "same", "inconclusive"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureOptions:
    """The options of `orchestrate measure` and `compare`; their help describes each."""

    target: str = "host"
    device: str | None = None
    runtime: str | None = None
    threads: int | None = None
    data: str | None = None
    input_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    precision_goal: float = 0.02
    max_seconds: float = 10.0
    margin: float = 0.02
    seed: int = 0
    without_plugins: tuple[str, ...] = ()


def measure(
    model: str | Path, options: MeasureOptions | None = None, *, samples: str | Path | None = None, **values: Any
) -> ModelMeasurement:
    """Time one exported model on a target.

    Args:
        model: The file.
        options: The options; or give fields by name: `measure("model.onnx", target="host", threads=1)`.
        samples: A CSV file for the raw samples.
        **values: Fields of the options.

    Returns:
        The latency with its interval, memory, energy and size of the model.

    Raises:
        InputError: An option cannot be used, or the runtime cannot load the model.
        EnvironmentFailure: The device is unreachable or in use.
    """
    options = with_values(options or MeasureOptions(), values)
    _check_samples(samples)
    with open_bench([Path(model)], options) as bench:
        if bench.simulation is not None:
            _refuse_samples(samples)
            return bench.simulated_measurement(0, bench.simulated()[0])
        (timing,) = bench.time(Plan(precision_goal=options.precision_goal, max_seconds=options.max_seconds, rounds=ROUNDS))
        _write_samples(samples, {"model": timing})
        return bench.measurement(0, timing)


def compare(
    a: str | Path, b: str | Path, options: MeasureOptions | None = None, *, samples: str | Path | None = None, **values: Any
) -> Comparison:
    """Test whether B is faster than A on a target: timed side by side, in rounds of new processes.

    Args:
        a: The first model.
        b: The second model.
        options: The options; or give fields by name.
        samples: A CSV file for the raw samples.
        **values: Fields of the options.

    Returns:
        The ratio of B's time to A's with its interval, the verdict and both measurements.

    Raises:
        InputError: As `measure`, and if the two have different inputs.
        EnvironmentFailure: The device is unreachable or in use.
    """
    options = with_values(options or MeasureOptions(), values)
    _check_samples(samples)
    plan = Plan(
        precision_goal=options.precision_goal,
        max_seconds=options.max_seconds,
        rounds=ROUNDS,
        settled=lambda low, high: verdict(low, high, options.margin) != "inconclusive",
    )
    with open_bench([Path(b), Path(a)], options) as bench:
        if bench.simulation is not None:
            _refuse_samples(samples)
            return _compared_simulations(bench, options)
        above, below = bench.time(plan)
        _write_samples(samples, {"a": below, "b": above})
        return _compared(bench, above, below, options)


def verdict(low: float, high: float, margin: float) -> Verdict:
    """Return the verdict of an interval of the ratio of B's time to A's, given a margin that does not matter.

    `faster` and `slower` only if the whole interval is beyond the margin, `same` only if all of it is within: a
    test of difference and one of equivalence at once (Schuirmann 1987). Margins are ratios: 0.02 is from 1/1.02 to 1.02.
    """
    least, most = 1 / (1 + margin), 1 + margin
    if high < least:
        return "faster"
    if low > most:
        return "slower"
    return "same" if least <= low and high <= most else "inconclusive"


def _compared_simulations(bench: "Bench", options: MeasureOptions) -> Comparison:
    above, below = bench.simulated()
    if bench.simulation is None:
        raise RuntimeError("nothing is simulated here")
    ratio = bench.simulation.ratio(above, below)
    outcome = verdict(ratio.low, ratio.high, options.margin)
    return Comparison(
        ratio=ratio,
        verdict=outcome,
        margin=options.margin,
        basis="simulated",
        reason=_sentence(
            outcome,
            ratio,
            options.margin,
            "90 % band of the simulation",
            "the boards' own spread is no finer: give another --margin",
        ),
        a=bench.simulated_measurement(1, below),
        b=bench.simulated_measurement(0, above),
    )


def _compared(bench: "Bench", above: Timing, below: Timing, options: MeasureOptions) -> Comparison:
    waited = max(t.conditions.get("waited_share", 0.0) for t in (above, below))
    basis: Literal["wall", "cpu"] = "cpu" if waited > WAITED_SHARE and above.cpu_ratio is not None else "wall"
    ratio = above.cpu_ratio if basis == "cpu" else above.ratio
    if ratio is None:
        raise RuntimeError("two models were timed, and one has no ratio")
    outcome = verdict(ratio.low, ratio.high, options.margin)
    return Comparison(
        ratio=ratio,
        verdict=outcome,
        margin=options.margin,
        basis=basis,
        reason=_reason(outcome, ratio, options, basis, waited, bench),
        a=bench.measurement(1, below),
        b=bench.measurement(0, above),
    )


def _reason(outcome: str, ratio: Difference, options: MeasureOptions, basis: str, waited: float, bench: "Bench") -> str:
    # With threads on all cores, wake-ups scatter times by several per cent.
    steadier = "--threads 1, which is steadier, " if bench.evaluator.threads > 1 else ""
    fix = f"give more time with --max-seconds, {steadier}another --margin, or a quieter machine"
    reason = _sentence(outcome, ratio, options.margin, "95 % interval", fix)
    if basis == "cpu":
        reason += f"; of CPU time, for other work took the core away for {waited:.0%} of the wall time"
    return reason + (f"; {bench.host_note}" if bench.host_note else "")


def _sentence(outcome: str, ratio: Difference, margin: float, kind: str, fix: str) -> str:
    limit = f"{margin:.3g}" if margin < 0.001 else f"{margin * 100:.3g} %"
    interval = f"B takes {ratio.low:.4f} to {ratio.high:.4f} of A's time ({kind})"
    return {
        "faster": f"{interval}: shorter by more than the margin of {limit}",
        "slower": f"{interval}: longer by more than the margin of {limit}",
        "same": f"{interval}: the difference is within the margin of {limit}",
        "inconclusive": f"{interval}, which reaches across the edge of the margin of {limit}: {fix}",
    }[outcome]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Models that are ready to be timed on one device.

    Attributes:
        paths: The given files.
        files: The files that the runtime loads: the same, or its own form of them.
        shapes: Shapes of inputs with dynamic axes.
        inputs: Description of the inputs.
        names: Names of the inputs.
        simulation: Simulated execution, if the device is a simulated CPU.
    """

    paths: Sequence[Path]
    files: Sequence[Path]
    shapes: Mapping[str, Sequence[int]]
    inputs: str
    names: tuple[str, ...]
    evaluator: Evaluator
    runtime: Runtime
    registry: Registry
    simulation: Simulation | None = None

    @property
    def host_note(self) -> str | None:
        """Return a remark if this is not the target's own time."""
        target = self.evaluator.target
        return None if target.is_device else f"timed on this host, which is no {target.profile.title}"

    def time(self, plan: Plan, *, seed: int | None = None) -> list[Timing]:
        """Time all models side by side, in their order; ratios are to the last one.

        Raises:
            InputError: A model cannot be loaded or run, with the runtime's reason.
        """
        try:
            return self.evaluator.time(self.files, plan, seed=seed)
        except JobFailed as error:
            raise self._failed_model(error) from None

    def simulated(self) -> list[Run]:
        """Execute each model on the simulated CPU, in the order of the models.

        Raises:
            InputError: A model cannot be run, with the runtime's reason.
        """
        if self.simulation is None:
            raise RuntimeError("nothing is simulated here")
        runs = []
        for path, file in zip(self.paths, self.files, strict=True):
            try:
                runs.append(self.simulation.run(file, path))
            except JobFailed as error:
                raise _unusable(path, self.runtime, self.simulation.target.simulator or "", error) from None
        return runs

    def outputs(self, k: int, inputs: Mapping[str, Path], folder: Path) -> list[np.ndarray]:
        """Run one model on examples in a new process; on this host if the target is simulated.

        Args:
            k: Index of the model.
            inputs: `{input name: .npy file}`, first axis the examples.
            folder: A new folder for the files that the processes exchange.

        Raises:
            InputError: The model cannot be run.
        """
        path, file = self.paths[k], self.files[k]
        batch = scoring_batch(path) if path.suffix == ".onnx" else 1
        try:
            files = self.evaluator.outputs(file, inputs, folder, batch)
        except JobFailed as error:
            raise _unusable(path, self.runtime, self.evaluator.target.device, error) from None
        return [np.load(each, allow_pickle=False) for each in files]

    def simulated_measurement(self, k: int, run: Run) -> ModelMeasurement:
        """Return all values of one simulated model."""
        if self.simulation is None:
            raise RuntimeError("nothing is simulated here")
        return self._measurement(k, self.simulation.result(run, None), self.simulation.device.environment())

    def _failed_model(self, error: JobFailed) -> OrchestratorError:
        """Return which of the models failed, by running each alone."""
        device = self.evaluator.target.device
        if len(self.files) == 1:
            return _unusable(self.paths[0], self.runtime, device, error)
        for path, file in zip(self.paths, self.files, strict=True):
            try:
                self.evaluator.time([file], Plan(max_seconds=0.0))
            except JobFailed as reason:
                return _unusable(path, self.runtime, device, reason)
        names = " or ".join(f"'{path}'" for path in self.paths)
        return InputError(f"{names} failed on {device}, and each ran by itself afterwards: {error}")

    def measurement(self, k: int, timing: Timing) -> ModelMeasurement:
        """Return all values of one measured model."""
        latency = self.evaluator.latency(timing)
        note = "; ".join(part for part in (latency.note, self.host_note) if part)
        result = self._measurement(k, replace(latency, ratio=None, note=note or None), self.environment)
        return replace(result, peak_memory_bytes=timing.peak_memory_bytes, energy_mj=timing.energy_mj)

    def _measurement(self, k: int, latency: LatencyResult, environment: dict[str, Any]) -> ModelMeasurement:
        path, content = self.paths[k], self.files[k].read_bytes()
        counted = count(path, self.shapes) if path.suffix == ".onnx" else None
        return ModelMeasurement(
            model=str(path),
            digest=hashlib.sha256(content).hexdigest(),
            latency=latency,
            size_bytes=len(content),
            compressed_bytes=len(zlib.compress(content, 6)),
            macs=None if counted is None else counted.macs,
            parameters=None if counted is None else counted.parameters,
            inputs=self.inputs,
            environment=environment,
        )

    @functools.cached_property
    def environment(self) -> dict[str, Any]:
        """Return the description of the device, with the version of its runtime."""
        environment = self.evaluator.device.environment()
        versions = environment.get("versions", {})
        version = next((versions[module] for module in self.runtime.imports if module in versions), None)
        return {**environment, "runtime_version": version or self.runtime.version()}


@contextmanager
def open_bench(paths: Sequence[Path], options: MeasureOptions, splits: Mapping[str, Split] | None = None) -> Iterator[Bench]:
    """Check everything, prepare the device and the inputs, and release all of it at the end.

    Args:
        paths: The model files.
        options: The options.
        splits: The loaded splits of `options.data`, if the caller has them.
    """
    _check(options)
    registry = Registry.discover(without=options.without_plugins)
    forms = [_model_inputs(path, options) for path in paths]
    for path, form in zip(paths[:-1], forms[:-1], strict=True):
        _require_same_inputs(paths[-1], forms[-1], path, form)
    arrays, inputs = _inputs(paths[0], forms[0], options, splits)
    target, runtime, devices = resolve_target(
        profile_named(options.target, registry),
        registry,
        runtimes=() if options.runtime is None else (options.runtime,),
        device=options.device,
        threads=options.threads,
        searched=False,
    )
    device, simulated = devices[0], simulated_device(target, registry)
    try:
        if len(devices) > 1:
            raise InputError(f"--device '{options.device}' names {len(devices)} devices; one is measured on")
        with tempfile.TemporaryDirectory() as scratch, interrupt.heard():
            folder = Path(scratch)
            (simulated or device).check(runtime)
            files = [_loadable(path, runtime, simulated or device, folder / str(k)) for k, path in enumerate(paths)]
            input_files = {name: folder / f"input{k}.npy" for k, name in enumerate(arrays)}
            for name, file in input_files.items():
                np.save(file, arrays[name])
            evaluator = Evaluator(
                target,
                runtime,
                device,
                inputs=input_files,
                most_s=LOADING_S,
                memory_bytes=int(MEMORY_SHARE * psutil.virtual_memory().available),
                seed=options.seed,
            )
            yield Bench(
                paths=paths,
                files=files,
                shapes=options.input_shapes,
                inputs=inputs,
                names=tuple(arrays),
                evaluator=evaluator,
                runtime=runtime,
                registry=registry,
                simulation=None if simulated is None else _simulation(target, runtime, simulated, input_files, options),
            )
    finally:
        for each in (*devices, *([simulated] if simulated else [])):
            each.release()


def _simulation(
    target: Target, runtime: Runtime, device: SimulatedDevice, inputs: Mapping[str, Path], options: MeasureOptions
) -> Simulation:
    constants = target.profile.simulation(runtime.name, device.cpu())
    if constants is None:
        raise InputError(f"profile '{target.profile.name}' has no constants for {runtime.name} on {target.simulator}")
    return Simulation(
        target,
        runtime,
        device,
        constants,
        inputs=inputs,
        shapes=options.input_shapes,
        most_s=LOADING_S,
        memory_bytes=int(MEMORY_SHARE * psutil.virtual_memory().available),
    )


def _check(options: MeasureOptions) -> None:
    for option, value in (("--precision-goal", options.precision_goal), ("--max-seconds", options.max_seconds)):
        if not value > 0:
            raise InputError(f"{option} must be more than 0, but got {value}")
    if options.margin < 0:
        raise InputError(f"--margin must be 0 or more, but got {options.margin}")


def _model_inputs(path: Path, options: MeasureOptions) -> dict[str, TensorType]:
    """Return the inputs of a model; empty if the file is not ONNX and the data must name them."""
    if not path.is_file():
        raise InputError(f"there is no file '{path}'")
    if path.suffix != ".onnx":
        if options.data is None:
            raise InputError(f"'{path}' is no .onnx file, so its inputs are not known: give them with --data arrays.npz")
        return {}
    inputs = read_inputs(path, options.input_shapes)
    for name, kind in inputs.items():
        if not kind.shape:
            raise InputError(f"{path}: input '{name}' is a single number; its first axis must be the examples")
        if kind.shape[0] != 1:
            raise InputError(
                f"{path}: input '{name}' has a fixed batch of {kind.shape[0]}; export it with a batch of 1 or a dynamic one"
            )
    return inputs


def _require_same_inputs(a: Path, first: Mapping[str, TensorType], b: Path, second: Mapping[str, TensorType]) -> None:
    if first != second:
        raise InputError(
            f"the two models take different inputs, so their times cannot be compared: "
            f"'{a}' takes {_format_inputs(first)}, '{b}' takes {_format_inputs(second)}"
        )


def _format_inputs(form: Mapping[str, TensorType]) -> str:
    return ", ".join(f"{name} {_dtype(kind).name}[{','.join(map(str, kind.shape))}]" for name, kind in form.items()) or "?"


def _dtype(kind: TensorType) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.dtype))
    return dtype


def _inputs(
    path: Path, form: Mapping[str, TensorType], options: MeasureOptions, splits: Mapping[str, Split] | None
) -> tuple[dict[str, np.ndarray], str]:
    """Return examples by input name, and their description."""
    if options.data is not None:
        split = (splits or load_data(absolute(options.data)))["validation"].arrays()
        arrays = {name: array[:EXAMPLES] for name, array in (split.inputs or {}).items()}
        if set(arrays) == {DEFAULT_INPUT} and len(form) == 1:
            arrays = {next(iter(form)): arrays[DEFAULT_INPUT]}
        for name in form:
            if name not in arrays:
                raise InputError(f"--data '{options.data}' has no input '{name}', which '{path}' takes ({_format_inputs(form)})")
            if tuple(arrays[name].shape[1:]) != form[name].shape[1:] or arrays[name].dtype != _dtype(form[name]):
                got = f"{arrays[name].dtype.name}{list(arrays[name].shape[1:])}"
                raise InputError(
                    f"--data '{options.data}': an example of '{name}' is {got}, but '{path}' takes {_format_inputs(form)} "
                    f"(give the shape of dynamic axes with --input-shape)"
                )
        names = form or arrays
        return {name: np.ascontiguousarray(arrays[name]) for name in names}, f"the first examples of {options.data}"
    random = np.random.default_rng(options.seed)
    arrays = {}
    for name, kind in form.items():
        shape, dtype = (EXAMPLES, *kind.shape[1:]), _dtype(kind)
        # Zeros and ones are valid as token ids, masks and flags.
        arrays[name] = (random.standard_normal(shape) if dtype.kind == "f" else random.integers(0, 2, shape)).astype(dtype)
    return arrays, "random (normal; whole numbers 0 and 1)"


def _loadable(path: Path, runtime: Runtime, device: Device, folder: Path) -> Path:
    """Return the file that the runtime loads: its own form of the model, in one file for other machines."""
    folder.mkdir()
    if path.suffix == runtime.suffix != ".onnx":
        return path.resolve()
    if device.remote:
        model = onnx.load(path)  # with its external data
        if model.ByteSize() > MOST_BYTES_IN_ONE_FILE:
            raise InputError(f"'{path}' is larger than 2 GB, and cannot be sent to {device.scheme} in one file")
        onnx.save(model, folder / path.name)
        path = folder / path.name
    return runtime.convert(path.resolve(), folder)


def _unusable(path: Path, runtime: Runtime, device: str, reason: JobFailed) -> OrchestratorError:
    if reason.kind == "surroundings":
        return EnvironmentFailure(f"{device}: {reason}")
    return InputError(f"'{path}' cannot be run by {runtime.name} on {device}: {reason}")


def _check_samples(path: str | Path | None) -> None:
    """Fail before the measurement if the file cannot be written."""
    if path is None:
        return
    try:
        Path(path).open("a").close()
    except OSError as error:
        raise InputError(f"--samples '{path}' cannot be written: {error.strerror}") from None


def _refuse_samples(path: str | Path | None) -> None:
    if path is not None:
        raise InputError("--samples keeps measured times, and a simulated CPU has none")


def _write_samples(path: str | Path | None, timings: Mapping[str, Timing]) -> None:
    if path is None:
        return
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "round", "block", "wall_ms", "cpu_ms"])
        for name, timing in timings.items():
            writer.writerows((name, *row) for row in timing.table)
