"""Simulated latencies and outputs of candidates, for a target that is not at hand."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from orchestrator.errors import EnvironmentFailure, InputError, JobFailed
from orchestrator.measuring.simulated import Equality, Run, Simulation, equality
from orchestrator.values.evidence import Evidence
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult, Failure

FIRST_EXAMPLES = 2
LEAST_EXAMPLES = 8

Hopeless = Callable[[CandidateResult], str | None]
"""Returns why a candidate cannot reach the front, so that it is not simulated; or None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pace:
    """Speed of the simulation, for outputs alone.

    Attributes:
        start_s: Seconds until a model is loaded.
        work_a_second: Simulated milliseconds that are executed in a second.
    """

    start_s: float
    work_a_second: float


class SimulatedLatency:
    """Simulation of candidates; disabled without a simulation.

    Attributes:
        notes: What the user should know.
    """

    def __init__(self, simulation: Simulation | None) -> None:
        self._optional = simulation
        self._original: Path | None = None
        self._original_run: Run | None = None
        self._versions: Mapping[str, str] = {}
        self._pace: _Pace | None = None
        self.notes: list[str] = []

    @property
    def enabled(self) -> bool:
        """Return True if candidates are simulated."""
        return self._optional is not None

    @property
    def device(self) -> str:
        """Return the reference of the simulated CPU."""
        return self._simulation.target.simulator or self._simulation.device.scheme

    def adopt(self, original: Path, evidence: str, versions: Mapping[str, str]) -> None:
        """Take over the original of a run that is resumed.

        One front compares one kind of evidence: nothing is simulated if the original was not.

        Args:
            original: File of the original.
            evidence: Evidence of its objective latency.
            versions: Versions that it was simulated with.
        """
        self._original, self._versions = original, versions
        if self.enabled and evidence != Evidence.SIMULATED:
            self._optional = None
            self.notes.append("latencies are estimated from the graph, for the original could not be simulated")

    def with_latency(self, candidate: CandidateResult, path: Path, hopeless: Hopeless) -> CandidateResult:
        """Return the complete candidate with its simulated latency first, or as stopped if it cannot reach the front.

        Raises:
            JobFailed: It cannot be simulated.
            EnvironmentFailure: The emulator itself fails.
        """
        if candidate.id == BASELINE:
            return self._with_original(candidate, path)
        if reason := hopeless(candidate):
            return replace(candidate, state="stopped", failure=Failure(kind="limit", step="estimate", message=reason))
        if self._original_run is None:
            if self._original is None:
                raise RuntimeError("simulate the original before every other candidate")
            self._original_run = self._simulation.run(self._original)
            now = dict(self._original_run.found.versions)
            if self._versions and now != dict(self._versions):
                changed = ", ".join(name for name in now if now[name] != self._versions.get(name))
                raise EnvironmentFailure(f"the run was simulated with other versions of {changed}: begin a new run")
        first = self._simulation.result(self._simulation.run(path), self._original_run)
        return replace(candidate, latency=[first, *candidate.latency])

    def _with_original(self, baseline: CandidateResult, path: Path) -> CandidateResult:
        try:
            self._original, self._original_run = path, self._simulation.run(path)
        except (JobFailed, InputError, EnvironmentFailure) as error:
            if baseline.latency[0].evidence != Evidence.ESTIMATED:
                raise
            self._optional = None
            self.notes.append(f"latencies are estimated from the graph, for the original cannot be simulated: {error}")
            return baseline
        return replace(baseline, latency=[self._simulation.result(self._original_run, None), *baseline.latency])

    def outputs(
        self, path: Path, inputs: Mapping[str, Path], folder: Path, *, batch: int, seconds: float, most_s: float
    ) -> tuple[dict[str, Path], list[Path]]:
        """Run a model by the simulated CPU's own kernels, on as many of the first examples as `seconds` allow.

        Returns:
            The inputs that it ran and its outputs, both as .npy files in `folder`.
        """
        run = self._simulation.run(path)
        if self._pace is None:
            examples = _first(inputs, FIRST_EXAMPLES, folder)
            began = time.monotonic()
            with self._simulation.opened(path, examples, most_s=most_s) as session:
                opened = time.monotonic()
                session.predict(folder, batch=1)
            took = time.monotonic() - opened
            self._pace = _Pace(start_s=opened - began, work_a_second=FIRST_EXAMPLES * run.estimate.value / took)
        count = int((seconds - self._pace.start_s) * self._pace.work_a_second / run.estimate.value)
        examples, outputs = _first(inputs, max(LEAST_EXAMPLES, count), folder), folder / "there"
        outputs.mkdir()
        with self._simulation.opened(path, examples, most_s=most_s) as session:
            return examples, session.predict(outputs, batch=batch)

    def equality(self, path: Path, simulated: Sequence[Path], here: Sequence[Path]) -> Equality:
        """Return how far a model's simulated outputs are from this machine's."""
        arrays = [[np.load(file) for file in files] for files in (simulated, here)]
        return equality(arrays[0], arrays[1], self._simulation.number_format(path))

    @property
    def _simulation(self) -> Simulation:
        if self._optional is None:
            raise RuntimeError("nothing is simulated")
        return self._optional


def _first(inputs: Mapping[str, Path], examples: int, folder: Path) -> dict[str, Path]:
    """Return files with the first examples of each input."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"input{k}.npy" for k, name in enumerate(inputs)}
    for name, path in inputs.items():
        np.save(files[name], np.load(path, mmap_mode="r")[:examples])
    return files
