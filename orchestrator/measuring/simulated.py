"""Values of models on a simulated CPU: executed instructions and the resulting time."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator.devices.session import Session
from orchestrator.hardware.graph import count
from orchestrator.plugin.device import SimulatedDevice
from orchestrator.plugin.runtime import Runtime
from orchestrator.values.device import Job, Simulated
from orchestrator.values.evidence import Estimate, Evidence
from orchestrator.values.profile import NumberFormat, SimulationModel
from orchestrator.values.results import Difference, LatencyResult
from orchestrator.values.target import Target

TOLERANCE: Mapping[NumberFormat, float] = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2, "int8": 5e-2}
"""Largest difference of an output from this machine's, as a share of the output's range on the examples, by number format.

Kernels add in another order; integer kernels may round a value to the next step, of which the smallest is 1/255 of the
range, and layers accumulate such steps.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One simulated model."""

    found: Simulated
    estimate: Estimate
    number_format: NumberFormat


@dataclass(frozen=True, kw_only=True, slots=True)
class Equality:
    """Outputs of the simulated CPU beside this machine's, on the same examples.

    Attributes:
        difference: The largest difference, as a share of the output's range on the examples.
        tolerance: The largest difference that counts as equal.
    """

    difference: float
    tolerance: float

    @property
    def equal(self) -> bool:
        """Return True if the outputs are equal within the tolerance."""
        return self.difference <= self.tolerance


NOT_FINITE = 1e9  # beyond every tolerance, and representable in JSON


class Simulation:
    """Simulates exported models for one target.

    Args:
        device: The simulated CPU.
        target: The target.
        runtime: The runtime.
        inputs: `{input name: .npy file}`; the first example is run.
        most_s: Time limit of a model in seconds.
        memory_bytes: Memory limit of the emulator.
        left_s: Returns the seconds that are left for a model.
    """

    def __init__(
        self,
        target: Target,
        runtime: Runtime,
        device: SimulatedDevice,
        constants: SimulationModel,
        *,
        inputs: Mapping[str, Path],
        shapes: Mapping[str, Sequence[int]],
        most_s: float,
        memory_bytes: int,
        left_s: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._left_s = left_s
        self.target, self.device, self.constants = target, device, constants
        self._runtime, self._inputs, self._shapes = runtime, dict(inputs), dict(shapes)
        self._most_s, self._memory_bytes = most_s, memory_bytes

    def run(self, path: Path, graph: Path | None = None) -> Run:
        """Execute one model.

        Args:
            path: The file that the runtime loads.
            graph: The ONNX file that shows its number format, if the runtime's own file is another.

        Raises:
            JobFailed: It cannot be run within the limits.
            EnvironmentFailure: The emulator itself fails.
        """
        found = self.device.simulate(self._job(path, self._inputs), self._runtime)
        number_format = self.number_format(graph or path)
        estimate = self.device.latency(
            found, self.constants, self.target.profile, threads=self.target.threads, number_format=number_format
        )
        return Run(found=found, estimate=estimate, number_format=number_format)

    def ratio(self, run: Run, other: Run) -> Difference:
        """Return the ratio of two models' times."""
        return self.device.ratio(run.found, other.found, self.constants, threads=self.target.threads)

    def result(self, run: Run, baseline: Run | None) -> LatencyResult:
        """Return a simulated latency as results have it."""
        return LatencyResult(
            evidence=Evidence.SIMULATED,
            device=self.target.simulator or self.device.scheme,
            runtime=self._runtime.name,
            threads=self.target.threads,
            median_ms=run.estimate.value,
            low_ms=run.estimate.low,
            high_ms=run.estimate.high,
            note="; ".join([run.estimate.model, *self._doubts(run), f"constants: {self.constants.fitted_on}"]),
            ratio=None if baseline is None else self.ratio(run, baseline),
            conditions={
                "profile": self.target.profile.name,
                "counts": {name: value for name, value in run.found.counts.items() if not isinstance(value, Mapping)},
                "cycles": dict(self.constants.cycles),
                "versions": dict(run.found.versions),
            },
        )

    @staticmethod
    def _doubts(run: Run) -> list[str]:
        return [f"the band is wider for {', '.join(run.estimate.unknown)}"] if run.estimate.unknown else []

    def opened(self, path: Path, inputs: Mapping[str, Path], *, most_s: float) -> Session:
        """Load the model on the simulated CPU, for its outputs on these examples by the target's own kernels.

        Raises:
            JobFailed: It cannot be loaded within the limits.
        """
        return self.device.open(self._job(path, inputs, most_s))

    def _job(self, path: Path, inputs: Mapping[str, Path], most_s: float | None = None) -> Job:
        options = dict(self.target.support.options)
        return Job(
            model=path,
            load=self._runtime.source(),
            imports=self._runtime.imports,
            inputs=inputs,
            threads=1,
            options=options,
            timeout_s=min(most_s or self._most_s, self._left_s()),
            memory_bytes=self._memory_bytes,
        )

    def number_format(self, graph: Path) -> NumberFormat:
        """Return the number format of most of a model's arithmetic."""
        if graph.suffix != ".onnx":
            return "float32"
        macs: dict[NumberFormat, int] = {}
        for operator in count(graph, self._shapes).operators:
            macs[operator.number_format] = macs.get(operator.number_format, 0) + operator.macs
        return max(macs, key=lambda name: macs[name], default="float32")


def equality(there: Sequence[np.ndarray], here: Sequence[np.ndarray], number_format: NumberFormat) -> Equality:
    """Return how far outputs of the simulated CPU are from this machine's.

    Args:
        there: Outputs of the simulated CPU, for each output of the model an array, first axis the same examples.
        here: Outputs of this machine on the same examples.
        number_format: Number format of most of the model's arithmetic, which determines the tolerance.
    """
    largest = 0.0
    for one, other in zip(there, here, strict=True):
        one, other = one.astype(np.float64), other.astype(np.float64)
        finite = np.isfinite(other)
        if not np.array_equal(np.isfinite(one), finite):
            return Equality(difference=NOT_FINITE, tolerance=TOLERANCE[number_format])
        one, other = one[finite], other[finite]
        range_ = float(np.ptp(other)) if other.size else 0.0
        apart = float(np.max(np.abs(one - other), initial=0.0))
        largest = max(largest, apart / range_ if range_ else float(apart > 0))
    return Equality(difference=largest, tolerance=TOLERANCE[number_format])
