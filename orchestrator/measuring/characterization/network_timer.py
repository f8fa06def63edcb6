"""Timing of many small networks on one device within a budget: in groups, each beside the same reference network.

A machine drifts while dozens of networks are timed. Each is compared with the reference that was interleaved with it, and only
these ratios are used; the reference's own time is the median over all groups. Settings (number formats, numbers of threads) are
linked in the same way: their references are timed beside each other.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.devices.session import Session
from orchestrator.errors import InputError, JobFailed
from orchestrator.measuring.disturbance import WAITED_SHARE
from orchestrator.measuring.timing import Plan, Timing, time_models
from orchestrator.plugin.device import Device
from orchestrator.plugin.runtime import Runtime
from orchestrator.values.device import Job
from orchestrator.values.results import Difference

GROUP = 6
TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedNetwork:
    """A network in files: the file that the runtime loads, and its inputs by name."""

    name: str
    file: Path
    inputs: Mapping[str, Path]


@dataclass(frozen=True, kw_only=True, slots=True)
class Relative:
    """A network's time over that of the reference beside it, with its 95 % interval."""

    name: str
    ratio: Difference


class NetworkTimer:
    """Times networks with one number of threads on one device.

    Args:
        device: The device.
        runtime: The runtime.
        reference: The reference network.
        threads: Threads of one inference.
        options: The runtime's session options.
        memory_bytes: Memory limit of a process.
        seconds: Seconds of each group, loading included.
    """

    def __init__(
        self,
        device: Device,
        runtime: Runtime,
        *,
        reference: PlacedNetwork,
        threads: int,
        options: Mapping[str, Any],
        memory_bytes: int,
        seconds: float,
        seed: int,
    ) -> None:
        self._device, self._runtime, self._reference, self._threads = device, runtime, reference, threads
        self._options, self._memory_bytes, self._seed = options, memory_bytes, seed
        self._plan = Plan(precision_goal=0.02, max_seconds=seconds)
        self._references: list[float] = []
        self._tie: tuple[NetworkTimer, Difference] | None = None
        self.relative: dict[str, Relative] = {}
        self.failed: dict[str, str] = {}
        self.sessions = 0
        self.spent_s = 0.0

    @property
    def reference_ms(self) -> float:
        """Return the reference's time for one inference: the median over all groups so far, or that of the linked timer."""
        if self._tie is not None:
            other, ratio = self._tie
            return ratio.value * other.reference_ms
        return float(np.median(self._references))

    @property
    def drift(self) -> float:
        """Return the largest time of the reference over its smallest."""
        return max(self._references) / min(self._references)

    def milliseconds(self) -> dict[str, Difference]:
        """Return every network's time for one inference, with its 95 % interval, the reference included."""
        unit = self.reference_ms
        spread = float(np.median(self._references)) / unit  # a link changes the unit, and the interval with it
        low, high = min(self._references) / spread, max(self._references) / spread
        found = {
            name: Difference(value=r.ratio.value * unit, low=r.ratio.low * unit, high=r.ratio.high * unit)
            for name, r in self.relative.items()
        }
        return {self._reference.name: Difference(value=unit, low=low, high=high), **found}

    def tie(self, other: "NetworkTimer") -> None:
        """Time the two references beside each other, and derive this one's milliseconds from the other's.

        Raises:
            JobFailed: One of them cannot be run.
            DeviceUnavailable: The device is lost.
            Interrupted: The user interrupted it.
        """
        begin = time.monotonic()
        single = self._threads == other._threads == 1
        openers = [self._opener(self._reference), other._opener(other._reference)]
        above, below = time_models(openers, plan=self._plan, seed=self._seed, single_thread=single, device=self._device.scheme)
        self.spent_s += time.monotonic() - begin
        self.sessions += 2
        ratio = _ratio(above, _by_cpu([above, below]) if single else False)
        if ratio is not None:
            self._tie = other, ratio

    def time(self, networks: Sequence[PlacedNetwork]) -> None:
        """Time networks in groups; those that cannot be run are stored in `failed` with the reason.

        Raises:
            InputError: The reference itself cannot be run, or the device's timer is too coarse.
            DeviceUnavailable: The device is lost.
            Interrupted: The user interrupted it.
        """
        for start in range(0, len(networks), GROUP):
            group = networks[start : start + GROUP]
            try:
                self._group(group)
            except JobFailed:
                self._one_by_one(group)

    def _one_by_one(self, group: Sequence[PlacedNetwork]) -> None:
        for network in group:
            try:
                self._group([network])
            except JobFailed as error:
                self.failed[network.name] = str(error)
        if group and all(network.name in self.failed for network in group):
            self._try_reference()

    def _try_reference(self) -> None:
        try:
            self._group([])
        except JobFailed as error:
            raise InputError(
                f"{self._runtime.name} cannot run '{self._reference.name}' on this device, so nothing can be compared: {error}"
            ) from None

    def _group(self, group: Sequence[PlacedNetwork]) -> None:
        begin = time.monotonic()
        timings = time_models(
            [self._opener(network) for network in (*group, self._reference)],
            plan=self._plan,
            seed=self._seed + self.sessions,
            single_thread=self._threads == 1,
            device=self._device.scheme,
        )
        self.sessions += len(group) + 1
        self.spent_s += time.monotonic() - begin
        by_cpu = self._threads == 1 and _by_cpu(timings)
        self._references.append(_milliseconds(timings[-1], by_cpu))
        for network, timing in zip(group, timings[:-1], strict=True):
            if (ratio := _ratio(timing, by_cpu)) is not None:
                self.relative[network.name] = Relative(name=network.name, ratio=ratio)

    def _opener(self, network: PlacedNetwork) -> Callable[[], Session]:
        job = Job(
            model=network.file,
            load=self._runtime.source(),
            imports=self._runtime.imports,
            inputs=network.inputs,
            threads=self._threads,
            options=self._options,
            timeout_s=TIMEOUT_S,
            memory_bytes=self._memory_bytes,
        )
        return lambda: self._device.open(job)


def _by_cpu(timings: Sequence[Timing]) -> bool:
    return max(float(timing.conditions.get("waited_share", 0.0)) for timing in timings) > WAITED_SHARE


def _ratio(timing: Timing, by_cpu: bool) -> Difference | None:
    ratio = timing.cpu_ratio if by_cpu and timing.cpu_ratio is not None else timing.ratio
    return ratio if ratio is not None and 0 < ratio.value < math.inf else None


def _milliseconds(timing: Timing, by_cpu: bool) -> float:
    return timing.cpu_median_ms if by_cpu and timing.cpu_median_ms else timing.measurement.median
