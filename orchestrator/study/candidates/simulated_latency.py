"""A search's side of simulated execution: which candidates are worth it, and what comes of them."""

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
"""Why a candidate cannot reach the front, so that it need not be simulated; None: it may."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pace:
    """How fast models run here for their outputs alone.

    Attributes:
        start_s: Seconds until one is loaded.
        work_a_second: Simulated milliseconds that are executed in a second.
    """

    start_s: float
    work_a_second: float


class SimulatedLatency:
    """What stands in for a target that is not here; without a simulation it stands aside.

    Attributes:
        notes: What the user should know.
    """

    def __init__(self, simulation: Simulation | None) -> None:
        self._simulation = simulation
        self._original: Path | None = None
        self._original_run: Run | None = None
        self._versions: Mapping[str, str] = {}
        self._pace: _Pace | None = None
        self.notes: list[str] = []

    @property
    def works(self) -> bool:
        """Whether candidates are simulated."""
        return self._simulation is not None

    @property
    def device(self) -> str:
        """The simulated CPU's reference."""
        return self._there.target.simulator or self._there.device.scheme

    def adopt(self, original: Path, evidence: str, versions: Mapping[str, str]) -> None:
        """The run is resumed: its original, the evidence of its objective latency, and the versions that it was counted with.

        Where that is no simulated one nothing is simulated now, for one front compares one kind of figure.
        """
        self._original, self._versions = original, versions
        if self._simulation is not None and evidence != Evidence.SIMULATED.value:
            self._simulation = None
            self.notes.append("latencies are estimated from the graph, for the original could not be simulated")

    def with_latency(self, candidate: CandidateResult, path: Path, hopeless: Hopeless) -> CandidateResult:
        """The complete candidate with its simulated latency first, or as one that was stopped before that.

        Raises:
            JobFailed: it cannot be simulated.
            EnvironmentFailure: the emulator itself fails.
        """
        if candidate.id == BASELINE:
            return self._with_original(candidate, path)
        if reason := hopeless(candidate):
            return replace(candidate, state="stopped", failure=Failure(kind="limit", step="estimate", message=reason))
        if self._original_run is None:
            if self._original is None:
                raise RuntimeError("the original comes before every other candidate")
            self._original_run = self._there.run(self._original)
            now = dict(self._original_run.found.versions)
            if self._versions and now != dict(self._versions):
                changed = ", ".join(name for name in now if now[name] != self._versions.get(name))
                raise EnvironmentFailure(f"the run was simulated with other versions of {changed}: begin a new run")
        first = self._there.result(self._there.run(path), self._original_run)
        return replace(candidate, latency=[first, *candidate.latency])

    def _with_original(self, baseline: CandidateResult, path: Path) -> CandidateResult:
        try:
            self._original, self._original_run = path, self._there.run(path)
        except (JobFailed, InputError, EnvironmentFailure) as error:
            if baseline.latency[0].evidence != Evidence.ESTIMATED.value:
                raise
            self._simulation = None
            self.notes.append(f"latencies are estimated from the graph, for the original cannot be simulated: {error}")
            return baseline
        return replace(baseline, latency=[self._there.result(self._original_run, None), *baseline.latency])

    def outputs(
        self, path: Path, inputs: Mapping[str, Path], folder: Path, *, batch: int, seconds: float, most_s: float
    ) -> tuple[dict[str, Path], list[Path]]:
        """Outputs by the simulated CPU's own kernels, on as many of the first examples as `seconds` allow.

        Returns:
            The inputs that it ran, and its outputs, both as .npy files in `folder`.
        """
        run = self._there.run(path)
        pace = self._pace
        if pace is None:
            some = _first(inputs, FIRST_EXAMPLES, folder)
            begin = time.monotonic()
            with self._there.opened(path, some, most_s=most_s) as session:
                opened = time.monotonic()
                session.predict(folder, batch=1)
            took = time.monotonic() - opened
            pace = self._pace = _Pace(start_s=opened - begin, work_a_second=FIRST_EXAMPLES * run.estimate.value / took)
        count = int((seconds - pace.start_s) * pace.work_a_second / run.estimate.value)
        part, there = _first(inputs, max(LEAST_EXAMPLES, count), folder), folder / "there"
        there.mkdir()
        with self._there.opened(path, part, most_s=most_s) as session:
            return part, session.predict(there, batch=batch)

    def equality(self, path: Path, there: Sequence[Path], here: Sequence[Path]) -> Equality:
        """How far its outputs lie from this machine's."""
        arrays = [[np.load(file) for file in files] for files in (there, here)]
        return equality(arrays[0], arrays[1], self._there.number_format(path))

    @property
    def _there(self) -> Simulation:
        if self._simulation is None:
            raise RuntimeError("nothing is simulated here")
        return self._simulation


def _first(inputs: Mapping[str, Path], examples: int, folder: Path) -> dict[str, Path]:
    """The first examples of each input, as files of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    part = {name: folder / f"input{k}.npy" for k, name in enumerate(inputs)}
    for name, path in inputs.items():
        np.save(part[name], np.load(path, mmap_mode="r")[:examples])
    return part
