"""Runs one exported model on a device and answers requests about it. One file that needs only Python, NumPy and the runtime.

It is started as a script (this host's own parts borrow some functions), so that the same file serves on a board where nothing
of ours is installed; so it keeps to Python 3.8. Requests and replies are lines of JSON on standard input and on the file
descriptor that standard output was at the start (what libraries print goes to standard error). It ends when its input ends.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import platform
import sys
import time
from typing import Any

EXAMPLES_TIMED = 16
CPUS = "/sys/devices/system/cpu"
THERMAL = "/sys/class/thermal"
POWERCAP = "/sys/class/powercap"
FIRMWARE_THROTTLED = "/sys/devices/platform/soc/soc:firmware/get_throttled"  # of a Raspberry Pi


def read_text(path: str) -> str | None:
    """What a file holds, without the line's end; None where it is not there or may not be read."""
    try:
        with open(path) as file:  # noqa: PTH123
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return None


def read_number(path: str, base: int = 10) -> int | None:
    """The whole number that a file holds, or None."""
    text = read_text(path)
    try:
        return None if text is None else int(text, base)
    except ValueError:
        return None


# -- memory ---------------------------------------------------------------------------------------------------------


def resident_bytes(key: str) -> int | None:
    """VmRSS or VmHWM (peak) of this process; None where /proc is missing."""
    for line in (read_text("/proc/self/status") or "").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return None


def peak_bytes() -> int:
    """Peak resident memory of this process, bytes."""
    peak = resident_bytes("VmHWM:")
    if peak is None:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak *= 1 if sys.platform == "darwin" else 1024
    return peak


def reset_peak() -> int:
    """Let the peak start anew, so that what the imports took is not counted as the model's."""
    try:
        with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123
            file.write("5")
    except OSError:
        pass
    return resident_bytes("VmRSS:") or peak_bytes()


# -- the machine ----------------------------------------------------------------------------------------------------


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may use; where that cannot be asked, of all."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def fastest_cores(threads: int) -> list[int]:
    """The cores for so many threads: the fastest first, no two of one physical core while there are others, high numbers first.

    High numbers, for core 0 serves most interrupts. The same call gives the same cores, so that two models are timed on the same.
    """

    def speed(core: int) -> tuple[int, int]:
        folder = f"{CPUS}/cpu{core}"
        capacity = read_number(f"{folder}/cpu_capacity") or 0  # big.LITTLE: 1024 for the fastest
        return capacity, read_number(f"{folder}/cpufreq/cpuinfo_max_freq") or 0

    ordered = sorted(usable_cores(), key=lambda core: (*speed(core), core), reverse=True)
    firsts: list[int] = []
    seconds: list[int] = []
    taken: set[str] = set()
    for core in ordered:
        physical = read_text(f"{CPUS}/cpu{core}/topology/thread_siblings_list") or str(core)
        (seconds if physical in taken else firsts).append(core)
        taken.add(physical)
    return sorted((firsts + seconds)[:threads])


def keep_on(threads: int) -> list[int]:
    """Keep this process on the fastest cores; on which, or on none where the system cannot do that."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = fastest_cores(threads)
    try:
        os.sched_setaffinity(0, cores)
    except OSError:
        return []
    return cores


def cpu_model() -> str:
    """The processor's name; on Linux from /proc/cpuinfo or the device tree, where `platform` has only the architecture."""
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    board = read_text("/proc/device-tree/model")
    return (board or "").strip("\0") or platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """The machine's memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def facts() -> dict[str, Any]:
    """What a reader must know of the machine; what cannot be read is left out."""
    cores = usable_cores()
    found: dict[str, Any] = {
        "cpu": cpu_model(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cores": len(cores),
        "memory_bytes": memory_bytes(),
    }
    policies = [f"{CPUS}/cpu{core}/cpufreq" for core in cores]
    governors = {read_text(f"{policy}/scaling_governor") for policy in policies} - {None}
    clocks = [clock for clock in (read_number(f"{policy}/cpuinfo_max_freq") for policy in policies) if clock]
    if governors:
        found["governor"] = ", ".join(sorted(str(name) for name in governors))
    if clocks:
        found["max_clock_mhz"] = max(clocks) / 1e3
    if hasattr(os, "getloadavg"):
        found["load"] = [round(value, 2) for value in os.getloadavg()]
    return {key: value for key, value in found.items() if value is not None}


def busy_seconds() -> tuple[float, float] | tuple[None, None]:
    """Core seconds since the start: (all that ran, all that a hypervisor took away)."""
    text = read_text("/proc/stat")
    if text is None:
        try:
            import psutil

            times = psutil.cpu_times()
        except Exception:  # a system without /proc may have it; a board need not
            return None, None
        return times.user + times.system + getattr(times, "nice", 0.0), 0.0
    user, nice, system, _, _, irq, softirq, steal = (int(word) for word in text.split(None, 9)[1:9])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / ticks, steal / ticks


def energy_joules() -> float | None:
    """What the processor packages have used since some moment (RAPL); None where there is no counter or it may not be read."""
    used = []
    for zone in glob.glob(f"{POWERCAP}/intel-rapl:*"):  # noqa: PTH207
        if zone.count(":") == 1:  # packages, not their parts
            used.append(read_number(f"{zone}/energy_uj"))
    return None if not used or None in used else sum(number or 0 for number in used) * 1e-6


def state(cores: list[int]) -> dict[str, Any]:
    """The machine's counters now; `clock_mhz` is of these cores."""
    busy, stolen = busy_seconds()
    clocks = [read_number(f"{CPUS}/cpu{core}/cpufreq/scaling_cur_freq") for core in cores or usable_cores()]
    known = [clock for clock in clocks if clock]
    heats = [read_number(f"{zone}/temp") for zone in glob.glob(f"{THERMAL}/thermal_zone*")]  # noqa: PTH207
    hot = [heat for heat in heats if heat and heat > 0]
    slowed = [read_number(path) for path in glob.glob(f"{CPUS}/cpu*/thermal_throttle/*_throttle_count")]  # noqa: PTH207
    firmware = read_text(FIRMWARE_THROTTLED)
    if firmware is not None:
        with contextlib.suppress(ValueError):
            slowed.append(bin(int(firmware, 16) & 0xF).count("1"))  # under-voltage, clock capped, throttled, soft limit: now
    counts = [count for count in slowed if count is not None]
    return {
        "at_s": time.monotonic(),
        "busy_s": busy,
        "stolen_s": stolen,
        "cores": os.cpu_count() or 1,
        "clock_mhz": sum(known) / len(known) / 1e3 if known else None,
        "temperature_c": max(hot) / 1e3 if hot else None,
        "throttled": sum(counts) if counts else None,
        "energy_j": energy_joules(),
    }


def timer_resolution() -> float:
    """The smallest step of the wall clock that is seen, seconds."""
    steps = []
    for _ in range(200):
        begin = time.perf_counter_ns()
        end = begin
        while end == begin:
            end = time.perf_counter_ns()
        steps.append(end - begin)
    return min(steps) * 1e-9


# -- one model ------------------------------------------------------------------------------------------------------


class Agent:
    """The state of the process: the loaded model and its inputs."""

    def load(
        self,
        model: str,
        load: str,
        imports: list[str],
        inputs: dict[str, str],
        threads: int,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        """Load the model; the memory that is there before it does not count."""
        self.cores = keep_on(threads)
        import numpy as np

        for name in imports:
            __import__(name)
        self.inputs = {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in inputs.items()}
        self.count = len(next(iter(self.inputs.values())))
        chosen = range(min(EXAMPLES_TIMED, self.count))
        self.timed = [{name: np.array(array[i : i + 1]) for name, array in self.inputs.items()} for i in chosen]
        namespace: dict[str, Any] = {}
        exec(compile(load, "<runtime>", "exec"), namespace)  # noqa: S102 the runtime plugin's own code
        self.empty = reset_peak()
        self.run = namespace["load"](model, threads, options)
        self.turn = 0
        return {"cores": self.cores}

    def time(self, seconds: float, runs: int, inner: int = 1) -> dict[str, Any]:
        """Samples of `inner` inferences, of one example each; [[wall, CPU of this thread, of the process] a sample], seconds."""
        samples: list[list[float]] = []
        run, share = self.run, 1e-9 / inner
        end = time.perf_counter() + seconds
        while len(samples) < runs:
            examples = [self.timed[(self.turn + k) % len(self.timed)] for k in range(inner)]
            self.turn += inner
            process, thread = time.process_time_ns(), time.thread_time_ns()
            wall = time.perf_counter_ns()
            for example in examples:
                run(example)
            wall = time.perf_counter_ns() - wall
            thread, process = time.thread_time_ns() - thread, time.process_time_ns() - process
            samples.append([wall * share, thread * share, process * share])
            if time.perf_counter() > end:
                break
        return {"samples": samples}

    def resolution(self) -> dict[str, Any]:
        """The smallest step of the timer, seconds."""
        return {"seconds": timer_resolution()}

    def state(self) -> dict[str, Any]:
        """The machine's counters now."""
        return state(self.cores)

    def memory(self) -> dict[str, Any]:
        """Peak resident memory so far above that of the process before the model was loaded."""
        return {"peak_bytes": max(0, peak_bytes() - self.empty)}

    def predict(self, folder: str, batch: int) -> dict[str, Any]:
        """All examples through the model, each output into a .npy file."""
        import numpy as np

        wholes: list[Any] = []
        for start in range(0, self.count, batch):
            stop = min(start + batch, self.count)
            outputs = self.run({name: np.array(array[start:stop]) for name, array in self.inputs.items()})
            outputs = [np.asarray(output) for output in outputs]
            for k, output in enumerate(outputs):
                if output.ndim == 0 or len(output) != stop - start:
                    raise ValueError(
                        f"output {k} has shape {output.shape} for {stop - start} examples: its first axis must be the examples"
                    )
            if not wholes:
                wholes = [np.empty((self.count, *output.shape[1:]), output.dtype) for output in outputs]
            for whole, output in zip(wholes, outputs):  # noqa: B905 strict came with Python 3.10
                whole[start:stop] = output
        paths = [os.path.join(folder, f"output{k}.npy") for k in range(len(wholes))]  # noqa: PTH118
        for path, whole in zip(paths, wholes):  # noqa: B905
            np.save(path, whole)
        return {"paths": paths}


def die_with_parent() -> None:
    """On Linux, have the kernel end this process when the orchestrator is killed, whatever it computes just then."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        try:
            with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
                file.write("800")  # if memory runs out, this process goes before the orchestrator
        except OSError:
            pass


def answer() -> None:
    """Answer requests about one model until the input ends."""
    die_with_parent()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    agent = Agent()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"result": getattr(agent, request.pop("do"))(**request)}
        except MemoryError as error:
            reply = {"error": {"kind": "out-of-memory", "message": f"MemoryError: {error}"}}
        except OSError as error:
            kind = "surroundings" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO) else "error"
            reply = {"error": {"kind": kind, "message": f"{type(error).__name__}: {error}"}}
        except Exception as error:  # whatever the runtime raises is the answer
            reply = {"error": {"kind": "error", "message": f"{type(error).__name__}: {error}"}}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    answer()
