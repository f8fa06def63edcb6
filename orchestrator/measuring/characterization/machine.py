"""The machine's own description and its memory bandwidth, by jobs that need only Python and NumPy there."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.devices.session import Session
from orchestrator.errors import JobFailed
from orchestrator.hardware.machine_files import GATHER, PATTERNS, MachineFiles, gathered
from orchestrator.plugin.device import Device
from orchestrator.values.device import Job

TIMEOUT_S = 120.0
CACHES = 4  # arrays this many times the last cache do not fit it
LEAST_COPY_BYTES = 64 << 20
MEMORY_SHARE = 16  # a part of the memory so small that both arrays fit anywhere
COPY_SECONDS = 1.0

_COPY = """
def load(path, threads, options):
    import concurrent.futures
    import numpy

    size = int(options["bytes"]) // threads
    pairs = [(numpy.ones(size, numpy.uint8), numpy.zeros(size, numpy.uint8)) for _ in range(threads)]
    pool = concurrent.futures.ThreadPoolExecutor(threads) if threads > 1 else None

    def run(inputs):
        if pool is None:
            numpy.copyto(pairs[0][1], pairs[0][0])
        else:
            list(pool.map(lambda pair: numpy.copyto(pair[1], pair[0]), pairs))
        return []

    return run
"""


def machine_files(device: Device, folder: Path) -> MachineFiles | None:
    """Return the description by the device's operating system, or None if it does not run such a job.

    Args:
        device: The device.
        folder: A folder for scratch files.

    Raises:
        DeviceUnavailable: The device is lost.
    """
    try:
        with _session(device, GATHER, folder, threads=1, options={"patterns": " ".join(PATTERNS)}) as session:
            (answer,) = session.predict(folder, batch=1)
            return gathered(np.load(answer, allow_pickle=False)[0].tobytes())
    except JobFailed:
        return None


def memory_bandwidth(
    device: Device, folder: Path, *, threads: int, last_cache_bytes: int | None, memory_bytes: int
) -> float | None:
    """Return the bytes a second that copying a large array moves, read and written together, or None if the device cannot do it.

    The best of all repetitions, as in STREAM (McCalpin, IEEE TCCA newsletter, December 1995).

    Args:
        device: The device.
        folder: A folder for scratch files.
        threads: Number of cores that copy at once.
        memory_bytes: Memory of the machine.
        last_cache_bytes: The largest cache; the array is several times as large.

    Raises:
        DeviceUnavailable: The device is lost.
    """
    size = max(LEAST_COPY_BYTES, CACHES * (last_cache_bytes or 0))
    size = min(size, memory_bytes // MEMORY_SHARE) // threads * threads
    if size < CACHES * (last_cache_bytes or 1):
        return None  # data in the cache do not show the memory bandwidth
    try:
        with _session(device, _COPY, folder, threads=threads, options={"bytes": size}) as session:
            samples = session.time(seconds=COPY_SECONDS, runs=1000)
    except JobFailed:
        return None
    best = min((wall for wall, _, _ in samples), default=math.inf)
    return 2 * size / best if 0 < best < math.inf else None


def _session(device: Device, load: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> Session:
    """Start a process on the device that runs `load`, with the file and the input that every job needs."""
    folder.mkdir(parents=True, exist_ok=True)
    nothing, one = folder / "nothing.bin", folder / "one.npy"
    nothing.write_bytes(b"0")
    np.save(one, np.zeros((1, 1), np.float32))
    return device.open(
        Job(model=nothing, load=load, imports=(), inputs={"x": one}, threads=threads, options=options, timeout_s=TIMEOUT_S)
    )
