"""The device class: times of machines of one class can be compared.

It consists of the CPU model, the available cores, the memory (in powers of two: machines of one kind differ by a few megabytes),
the runtime with its version, and the threads of one inference.
"""

import math
import os
import platform
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from orchestrator.errors import Refused
from orchestrator.plugin.device import Device
from orchestrator.plugin.runtime import Runtime
from orchestrator.values.results import CandidateResult

VARIABLE = "ORCHESTRATE_DEVICE_CLASS"
"""Environment variable that overrides the description: machines with one name here are of one class."""
GIB = 1 << 30


def hostname() -> str:
    """Return the name of this machine."""
    return platform.node() or "unknown"


def device_class(device: Device, runtime: Runtime, threads: int) -> str:
    """Return the class of a device as text; equal texts are one class.

    Args:
        device: This host, or a connected board.
        runtime: Runtime of the target.
        threads: Threads of one inference on the target.
    """
    return class_of(
        device.environment(),
        cores=device.cores(),
        runtime=f"{runtime.name} {_version(runtime)}",
        threads=threads,
        named=None if device.remote else os.environ.get(VARIABLE),
    )


def class_of(facts: Mapping[str, Any], *, cores: int, runtime: str, threads: int, named: str | None = None) -> str:
    """Return the class from a description of the machine.

    Args:
        facts: `cpu`, `machine` (instruction set) and `memory_bytes` of a device's environment.
        cores: Cores that the runtime may use.
        runtime: The runtime with its version.
        threads: Threads of one inference.
        named: A name that replaces the description of the machine.
    """
    if named:
        machine = named
    else:
        memory = facts.get("memory_bytes")
        size = f"memory class {2.0 ** round(math.log2(memory / GIB)):g} GiB" if memory else "memory not known"
        machine = f"{facts.get('cpu', 'processor not known')} ({facts.get('machine', '?')}), {cores} cores, {size}"
    return f"{machine}; {runtime}, {min(threads, cores)} threads"


def _version(runtime: Runtime) -> str:
    try:
        return runtime.version()
    except Refused as reason:
        return f"unusable ({reason})"


def timed_here(candidate: CandidateResult, own_class: str) -> CandidateResult:
    """Return the candidate with this machine's name in the conditions of its measured times that have none yet."""
    conditions = {"machine": hostname(), "device_class": own_class}
    latency = [
        replace(one, conditions={**conditions, **(one.conditions or {})}) if one.evidence.is_measured else one
        for one in candidate.latency
    ]
    return replace(candidate, latency=latency)


def sharing_notes(candidates: Iterable[CandidateResult]) -> list[str]:
    """Return how many candidates each machine has built, as a note; none if the study was not shared."""
    built = Counter(c.machines["built"] for c in candidates if "built" in c.machines)
    if not built:
        return []
    listed = ", ".join(f"{count} on {machine}" for machine, count in built.most_common())
    return [f"the search was shared: of the candidates were built {listed}"]


class TimingLock:
    """Lock that lets one process of a machine measure for a study: simultaneous measurements disturb each other.

    The lock ends with the process, in whatever way that ends.
    """

    def __init__(self, study: str) -> None:
        name = "".join(letter if letter.isalnum() else "-" for letter in study)
        self._lock = FileLock(Path(tempfile.gettempdir()) / f"orchestrator-times-{name}.lock")

    def acquire(self) -> bool:
        """Return True if this process holds the lock."""
        try:
            self._lock.acquire(timeout=0)
        except (Timeout, OSError):  # another process, or another user
            return False
        return True

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()
