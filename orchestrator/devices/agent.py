"""Runs one exported model on a device and answers requests about it. One file that needs only Python, NumPy and the runtime.

It is started as a script (the build worker borrows `die_with_parent`; nothing else of it is imported), so that the same file
serves on a board where nothing of ours is installed. Requests and replies are lines of JSON on standard input and on the file
descriptor that standard output was at the start (what libraries print goes to standard error). It ends when its input ends.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from typing import Any

import numpy as np

EXAMPLES_TIMED = 16


def resident_bytes(key: str) -> int | None:
    """VmRSS or VmHWM (peak) of this process; None where /proc is missing."""
    try:
        with open("/proc/self/status") as status:  # noqa: PTH123
            for line in status:
                if line.startswith(key):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
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
        return {}

    def time(self, seconds: float, runs: int) -> dict[str, Any]:
        """Inferences of one example each; [[wall seconds, CPU seconds of this thread, of the whole process], ...]."""
        samples: list[list[float]] = []
        end = time.perf_counter() + seconds
        while len(samples) < runs:
            example = self.timed[self.turn % len(self.timed)]
            self.turn += 1
            process, thread = time.process_time_ns(), time.thread_time_ns()
            wall = time.perf_counter_ns()
            self.run(example)
            wall = time.perf_counter_ns() - wall
            thread, process = time.thread_time_ns() - thread, time.process_time_ns() - process
            samples.append([wall * 1e-9, thread * 1e-9, process * 1e-9])
            if time.perf_counter() > end:
                break
        return {"samples": samples}

    def memory(self) -> dict[str, Any]:
        """Peak resident memory so far above that of the process before the model was loaded."""
        return {"peak_bytes": max(0, peak_bytes() - self.empty)}

    def predict(self, folder: str, batch: int) -> dict[str, Any]:
        """All examples through the model, each output into a .npy file."""
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
            for whole, output in zip(wholes, outputs, strict=True):
                whole[start:stop] = output
        paths = [os.path.join(folder, f"output{k}.npy") for k in range(len(wholes))]  # noqa: PTH118
        for path, whole in zip(paths, wholes, strict=True):
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


def main() -> None:
    """Answer requests until the input ends."""
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
    main()
