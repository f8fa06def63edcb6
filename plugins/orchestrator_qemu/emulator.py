"""A warm guest: the real aarch64 runtime under qemu, which counts what a model's inference executes.

The runtime is imported once, which takes ten seconds. For each model the guest forks a child (see `server.py`), so that models
share the start, and the counts of one do not depend on those before it. They depend on the model, its input, the options, the
runtime, the guest's libraries and the CPU, and on nothing else; `tests/qemu/test_emulator.py` holds that.
"""

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil

from orchestrator.errors import EnvironmentFailure, JobFailed
from orchestrator.plugin.processes import GuardedProcess, ending
from orchestrator_qemu import trace
from orchestrator_qemu.cpus import Cpu
from orchestrator_qemu.guest_root import WORK, link, modules, temporary
from orchestrator_qemu.qemu import GUEST
from orchestrator_qemu.toolchain import ENVIRONMENT, LIBRARIES, STACK_BYTES, Toolchain
from orchestrator_qemu.trace import Trace

POLL_S = 0.1
POLLS_A_FAMILY = 5  # looking for children walks all of /proc
START_S = 900.0
GRACE_S = 5.0
STEADY = 2  # phases: loading, the first inference, the second

# Guests inherit limits, and what they allocate depends on that of the stack. A crash leaves no core file. The shell's
# own variables, with the folder's path among them, stay with it.
LIMITED = f'ulimit -c 0; ulimit -S -s {STACK_BYTES // 1024} 2>/dev/null; exec env -i "$@"'


class Emulator:
    """An emulator that counts models on one simulated CPU. A context manager; used by one thread at a time.

    Args:
        toolchain: What is set up here.
        cpu: The simulated CPU.
        load: The source text of the runtime's `load` (`Runtime.source`).
        imports: The modules that it imports.
        packages: Wheels that the guest finds, {name: version}; None: the toolchain's default ones.
        waiting: Called every tenth of a second while the guest works; what it raises ends the guest.
    """

    def __init__(
        self,
        toolchain: Toolchain,
        cpu: Cpu,
        *,
        load: str,
        imports: tuple[str, ...],
        packages: Mapping[str, str] | None = None,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self._toolchain, self._cpu, self._waiting = toolchain, cpu, waiting
        self._packages = dict(toolchain.packages if packages is None else packages)
        self._lying = {
            path: toolchain.package(name, version)
            for (name, version), path in zip(sorted(self._packages.items()), toolchain.paths(self._packages), strict=True)
        }
        self._start = {"imports": list(imports), "load": load}
        self._guest: _Guest | None = None
        self._open = contextlib.ExitStack()

    def count(
        self,
        model: Path,
        inputs: Mapping[str, Path],
        options: Mapping[str, Any],
        *,
        timeout_s: float,
        memory_bytes: int | None = None,
    ) -> Trace:
        """Count one inference of one thread in the steady state.

        Args:
            model: The file that the runtime loads.
            inputs: `{input name: path of a .npy file}`, first axis the examples; the first example is used.
            options: Session options of the runtime.
            timeout_s: After so many seconds the model is given up.
            memory_bytes: It is given up when the guest grows by more than this; None: no limit.

        Raises:
            JobFailed: the model could not be loaded or run, or crashed, hung or outgrew its memory. The emulator goes on.
            EnvironmentFailure: the guest does not start, or the disk is full.
        """
        count = functools.partial(self._counted, model, inputs, options, timeout_s=timeout_s, memory_bytes=memory_bytes)
        try:
            return count()
        except _GuestGone:  # a model runs in a child of its own: the guest was killed from outside, perhaps long before
            return count()

    def _counted(
        self,
        model: Path,
        inputs: Mapping[str, Path],
        options: Mapping[str, Any],
        *,
        timeout_s: float,
        memory_bytes: int | None,
    ) -> Trace:
        guest = self._warm()
        guest.trace.unlink(missing_ok=True)
        try:
            with guest.request_files(model, inputs, options):
                guest.ask(timeout_s=timeout_s, memory_bytes=memory_bytes, waiting=self._waiting)
            phases = trace.read(guest.trace)
        except _GuestGone:
            self.close()
            raise
        except JobFailed:
            if not guest.alive:
                self.close()
            raise
        except BaseException:
            self.close()
            raise
        if len(phases) <= STEADY:
            raise EnvironmentFailure(f"the counting plugin wrote {len(phases)} phases instead of {STEADY + 1}: is the disk full?")
        return phases[STEADY]

    def _warm(self) -> "_Guest":
        if self._guest is not None and not self._guest.alive:
            self.close()  # it was killed between two models
        if self._guest is None:
            toolchain = self._toolchain
            with contextlib.ExitStack() as opened:
                folder = opened.enter_context(temporary(toolchain.root(self._cpu), self._lying, toolchain.folder / "running"))
                guest = _Guest(toolchain, self._cpu, folder, self._start, self._lying)
                opened.callback(guest.kill)
                guest.await_ready(self._waiting)
                self._open = opened.pop_all()
            self._guest = guest
        return self._guest

    def close(self) -> None:
        """End the guest. May be called twice; the next model starts a new one."""
        self._guest = None
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _GuestGone(JobFailed):
    """The process that forks for each model has ended."""


class _Guest:
    """The guest's processes."""

    def __init__(
        self, toolchain: Toolchain, cpu: Cpu, folder: Path, start: Mapping[str, Any], packages: Mapping[str, Path]
    ) -> None:
        self.trace = folder / "trace.bin"
        self._work = folder / "root" / WORK
        for name in GUEST:
            (self._work / name).write_bytes(Path(__file__).with_name(name).read_bytes())
        python = f"usr/bin/python{toolchain.python}"
        library = f"/usr/lib/python{toolchain.python}"
        paths = [f"/{WORK}", *packages, library, f"{library}/lib-dynload"]
        listed = modules(folder / "root", paths, python=toolchain.python)
        (self._work / "start.txt").write_text(repr({"paths": paths, "modules": listed, **start}))
        # Named from the root folder, so that the path that the guest sees has the same length everywhere.
        libraries = [f"{path}/{LIBRARIES}" for path, package in packages.items() if (package / LIBRARIES).exists()]
        search = ["-E", f"LD_LIBRARY_PATH={':'.join(libraries)}"] if libraries else []
        program = [*search, "-0", f"/{python}", python, "-s", "-S", "-B", f"/{WORK}/{GUEST[0]}"]
        command = toolchain.command(cpu, root=folder / "root", trace=self.trace, program=program)
        command = ["/bin/sh", "-c", LIMITED, "sh", *(f"{key}={value}" for key, value in ENVIRONMENT.items()), *command]
        self._process = GuardedProcess(command, os.environ, folder / "root")
        self._resident = psutil.Process(self._process.pid)

    @property
    def alive(self) -> bool:
        """True while it takes further requests."""
        return self._process.alive

    def await_ready(self, waiting: Callable[[], None]) -> None:
        """Wait until the runtime is imported.

        Raises:
            EnvironmentFailure: it cannot be, or takes too long.
        """
        deadline = time.monotonic() + START_S
        while (line := self._line(waiting)) is None:
            if time.monotonic() > deadline:
                raise EnvironmentFailure(f"the guest has not started within {START_S:.0f} s")
        if not line:
            raise EnvironmentFailure(f"the guest does not start: {self._last_error() or 'no message'}")

    @contextlib.contextmanager
    def request_files(self, model: Path, inputs: Mapping[str, Path], options: Mapping[str, Any]) -> Any:
        """Write a request, and delete its files afterwards."""
        model_name = f"model{model.suffix}"
        examples = {f"input{k}.npy": path for k, path in enumerate(inputs.values())}
        request = {
            "model": f"/{WORK}/{model_name}",
            "inputs": {name: f"/{WORK}/input{k}.npy" for k, name in enumerate(inputs)},
            "options": dict(options),
        }
        try:
            link(model.resolve(), self._work / model_name)
            for name, path in examples.items():
                first = np.load(path, mmap_mode="r", allow_pickle=False)[:1]
                np.save(self._work / name, np.ascontiguousarray(first), allow_pickle=False)
            (self._work / "request.json").write_text(json.dumps(request))
            yield
        except FileNotFoundError as error:
            raise JobFailed("input", f"{error.filename} is not there") from None
        except OSError as error:
            raise EnvironmentFailure(f"cannot copy the model for the guest: {error}") from None
        finally:
            for name in (model_name, *examples, "request.json"):
                (self._work / name).unlink(missing_ok=True)

    def ask(self, *, timeout_s: float, memory_bytes: int | None, waiting: Callable[[], None]) -> None:
        """Request the counts of the model.

        Raises:
            JobFailed: the child raised, crashed, hung or outgrew its memory.
        """
        deadline, polls = time.monotonic() + timeout_s, 0
        replies: list[dict[str, Any]] = []
        failed: JobFailed | None = None
        try:
            empty = self._resident.memory_info().rss
        except psutil.Error:
            raise _GuestGone("crash", f"the guest ended: {self._last_error()}") from None
        self._send()
        while not replies or "ended" not in replies[-1]:
            line = self._line(waiting)
            if line:
                replies.append(json.loads(line))
                continue
            if line is not None:
                raise failed or _GuestGone("crash", f"the guest ended: {self._last_error()}")
            polls += 1
            if failed is None and time.monotonic() > deadline:
                failed = JobFailed("timeout", f"no answer within {timeout_s:.0f} s")
                self._kill_child()
            elif failed is None and memory_bytes is not None and polls % POLLS_A_FAMILY == 0:
                grown = self._child_bytes() - empty
                if grown > memory_bytes:
                    limit = f"more than the limit of {memory_bytes / 1e6:.0f} MB"
                    failed = JobFailed("out-of-memory", f"took {grown / 1e6:.0f} MB of memory, {limit}")
                    self._kill_child()
            elif failed is not None and time.monotonic() > deadline + GRACE_S:
                self.kill()
        if failed is not None:
            raise failed
        self._judge(replies)

    def _send(self) -> None:
        try:
            self._process.write(b".")
        except (OSError, ValueError):
            raise _GuestGone("crash", f"the guest ended: {self._last_error()}") from None

    def _judge(self, replies: list[dict[str, Any]]) -> None:
        error = next((reply["error"] for reply in replies if "error" in reply), None)
        if error is None:
            status = replies[-1]["ended"]
            if status == 0 and len(replies) > 1:
                return
            error = ending(os.waitstatus_to_exitcode(status), self._process.last_words.encode(), "the guest")
        raise JobFailed(error["kind"], error["message"])

    def _line(self, waiting: Callable[[], None]) -> str | None:
        """Return the next line, None if there is none yet, or an empty string at the end."""
        waiting()
        line = self._process.line(POLL_S)
        if line == "":
            self._process.end(GRACE_S)
        return line

    def _kill_child(self) -> None:
        """Kill the process that serves (it has no children), not the one that watches it."""
        for process in self._process.descendants():
            with contextlib.suppress(psutil.Error):
                if not process.children():
                    process.kill()

    def _child_bytes(self) -> int:
        sizes = []
        for process in self._process.descendants():
            with contextlib.suppress(psutil.Error):
                sizes.append(process.memory_info().rss)
        return max(sizes, default=0)

    def _last_error(self) -> str:
        lines = self._process.last_words.strip().splitlines()
        return lines[-1].strip()[:300] if lines else ""

    def kill(self) -> None:
        """End all of its processes."""
        self._process.kill()
