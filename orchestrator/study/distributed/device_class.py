"""The device class: machines of one class give times that may stand beside each other.

CPU model, cores that may be used, memory (in powers of two: machines of one kind report a few megabytes more or less), the
runtime with its version, and the threads of one inference.
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
from orchestrator.values.evidence import MEASURED
from orchestrator.values.results import CandidateResult

VARIABLE = "ORCHESTRATE_DEVICE_CLASS"
"""Where the user knows better: machines that are given one name here are of one class, whatever they say of themselves."""
GIB = 1 << 30


def hostname() -> str:
    """The name of this machine."""
    return platform.node() or "unknown"


def device_class(device: Device, runtime: Runtime, threads: int) -> str:
    """The class of a device in words; equal texts are one class.

    Args:
        device: This host, or a board that is connected.
        threads: Of one inference on the target.
    """
    return class_of(
        device.environment(),
        cores=device.cores(),
        runtime=f"{runtime.name} {_version(runtime)}",
        threads=threads,
        named=None if device.remote else os.environ.get(VARIABLE),
    )


def class_of(facts: Mapping[str, Any], *, cores: int, runtime: str, threads: int, named: str | None = None) -> str:
    """The same from what is known of a machine.

    Args:
        facts: `cpu`, `machine` (instruction set) and `memory_bytes`, as a device's environment has them.
        named: A name that stands for the machine itself.
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
    """The candidate whose measured times name this machine, those that name none yet."""
    where = {"machine": hostname(), "device_class": own_class}
    latency = [
        replace(one, conditions={**where, **(one.conditions or {})}) if one.evidence in MEASURED else one
        for one in candidate.latency
    ]
    return replace(candidate, latency=latency)


def shares(candidates: Iterable[CandidateResult]) -> list[str]:
    """How the work was shared, as a note; nothing where it was not."""
    built = Counter(c.machines["built"] for c in candidates if "built" in c.machines)
    if not built:
        return []
    listed = ", ".join(f"{count} on {machine}" for machine, count in built.most_common())
    return [f"the search was shared: of the candidates were built {listed}"]


class OnlyTimer:
    """Lets one worker of a machine and a search take times; the others there only build: times taken at once are worth little.

    The lock goes with the process, however that ends.
    """

    def __init__(self, study: str) -> None:
        name = "".join(letter if letter.isalnum() else "-" for letter in study)
        self._lock = FileLock(Path(tempfile.gettempdir()) / f"orchestrator-times-{name}.lock")

    def acquire(self) -> bool:
        """Whether this process is the one."""
        try:
            self._lock.acquire(timeout=0)
        except (Timeout, OSError):  # another process, or another user
            return False
        return True

    def release(self) -> None:
        """Let another one."""
        self._lock.release()
