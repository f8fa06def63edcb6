"""A device: another Python environment of this machine, such as one with another version of the runtime.

`--device interpreter:/opt/new/bin/python` runs every model there. It needs NumPy and the runtime, and nothing of ours.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.plugin import Device, DeviceUnavailable, InputError, Job, JobFailed, Runtime, Session, hookimpl

# What runs there: one request a line, one reply a line. Only this text travels.
AGENT = r"""
import json, os, resource, sys, time
replies = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # what libraries print goes to the errors
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def load(job):
    import importlib
    import numpy as np
    for name in job["imports"]:
        importlib.import_module(name)
    state["before"] = peak()
    state["inputs"] = {name: np.load(path, mmap_mode="r") for name, path in job["inputs"].items()}
    namespace = {}
    exec(compile(job["load"], "<runtime>", "exec"), namespace)
    state["run"] = namespace["load"](job["model"], job["threads"], job["options"])
    state["one"] = {name: np.ascontiguousarray(array[:1]) for name, array in state["inputs"].items()}
    state["run"](state["one"])
def timed(seconds, runs, inner):
    run, one, samples = state["run"], state["one"], []
    end = time.perf_counter() + seconds
    while len(samples) < runs and (not samples or time.perf_counter() < end):
        wall, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
        for _ in range(inner):
            run(one)
        stop = time.perf_counter(), time.thread_time(), time.process_time()
        samples.append([(b - a) / inner for a, b in zip((wall, thread, process), stop)])
    return samples
def predict(folder, batch):
    import numpy as np
    count = len(next(iter(state["inputs"].values())))
    parts = []
    for start in range(0, count, batch):
        part = {name: np.ascontiguousarray(array[start:start + batch]) for name, array in state["inputs"].items()}
        parts.append([np.asarray(output) for output in state["run"](part)])
    paths = []
    for k, outputs in enumerate(zip(*parts)):
        paths.append(os.path.join(folder, "output%d.npy" % k))
        np.save(paths[-1], np.concatenate(outputs))
    return paths
state = {}
doing = {"load": load, "time": timed, "predict": predict, "peak": lambda: peak() - state["before"]}
for line in sys.stdin:
    asked = json.loads(line)
    try:
        reply = {"found": doing[asked["do"]](*asked["with"])}
    except MemoryError:
        reply = {"failed": "out-of-memory", "why": "it outgrew its memory"}
    except Exception as error:
        reply = {"failed": "error", "why": type(error).__name__ + ": " + str(error)}
    replies.write(json.dumps(reply) + "\n")
"""

# What tells this device from another, and this one from itself after an update: figures are kept for later runs under it.
FACTS = r"""
import json, os, platform
from importlib.metadata import distributions
cpu = platform.processor() or platform.machine()
if os.path.exists("/proc/cpuinfo"):
    with open("/proc/cpuinfo") as file:
        cpu = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), cpu)
print(json.dumps({
    "cpu": cpu, "system": platform.platform(), "host": platform.node(), "python": platform.python_version(),
    "cores": os.cpu_count(), "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    "versions": {found.name: found.version for found in distributions() if found.name},
}))
"""


class Interpreter(Device):
    """A Python interpreter, named by its path."""

    scheme = "interpreter"

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python

    def attach(self, reference: str) -> "Interpreter":
        scheme, _, python = reference.partition(":")
        if scheme != self.scheme:
            raise InputError(f"device '{reference}' must be {self.scheme}:/path/to/python")
        return Interpreter(python or sys.executable)

    def check(self, runtime: Runtime) -> None:
        missing = self._ask(f"import {', '.join(('numpy', *runtime.imports))}")
        if missing.returncode != 0:
            said = (missing.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            raise InputError(f"{self._python} cannot run {runtime.name}: {said}")

    def environment(self) -> dict[str, Any]:
        done = self._ask(FACTS)
        if done.returncode != 0:
            raise DeviceUnavailable(f"{self._python} does not answer")
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    def cores(self) -> int:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def open(self, job: Job) -> "InterpreterSession":
        return InterpreterSession(self._python, job)

    def _ask(self, code: str) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run([self._python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        except OSError as error:
            raise InputError(f"device {self.scheme}:{self._python} cannot be started: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise DeviceUnavailable(f"{self._python} does not answer") from None


class InterpreterSession(Session):
    """One model in a process of that interpreter."""

    def __init__(self, python: str, job: Job) -> None:
        self._timeout_s, self._replies = job.timeout_s, queue.Queue[str]()
        self._process = subprocess.Popen(
            [python, "-u", "-c", AGENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(job.threads)},
        )
        threading.Thread(target=self._listen, daemon=True).start()
        inputs: Mapping[str, str] = {name: str(path) for name, path in job.inputs.items()}
        told = {"model": str(job.model), "load": job.load, "imports": job.imports, "inputs": inputs, "threads": job.threads}
        try:
            self._ask("load", {**told, "options": dict(job.options)})
        except BaseException:
            self.close()
            raise

    def time(self, *, seconds: float, runs: int, inner: int = 1) -> list[tuple[float, float, float]]:
        return [(wall, thread, process) for wall, thread, process in self._ask("time", seconds, runs, inner)]

    def predict(self, folder: Path, *, batch: int) -> list[Path]:
        return [Path(path) for path in self._ask("predict", str(folder), batch)]

    def peak_memory_bytes(self) -> int:
        return max(0, int(self._ask("peak")))

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _listen(self) -> None:
        if self._process.stdout is not None:
            try:
                for line in self._process.stdout:
                    self._replies.put(line)
            except ValueError:  # closed
                pass
        self._replies.put("")

    def _ask(self, do: str, *arguments: Any) -> Any:
        try:
            if self._process.stdin is not None:
                self._process.stdin.write(json.dumps({"do": do, "with": arguments}) + "\n")
                self._process.stdin.flush()
            line = self._replies.get(timeout=self._timeout_s)
        except queue.Empty:
            raise JobFailed("timeout", f"no answer within {self._timeout_s:.0f} s", do) from None
        except OSError:
            line = ""
        if not line:
            raise JobFailed("crash", f"the process died ({self._process.wait()})", do)
        reply = json.loads(line)
        if "failed" in reply:
            raise JobFailed(reply["failed"], reply["why"], do)
        return reply["found"]


@hookimpl
def orchestrator_devices() -> list[Device]:
    """interpreter."""
    return [Interpreter()]
