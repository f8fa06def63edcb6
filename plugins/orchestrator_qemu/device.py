"""Simulated Arm CPUs as devices: the target's own runtime under qemu's user-mode emulation, with counted instructions.

The counts depend on the model, the runtime and the CPU alone, so they are cached without expiry under the digest of these.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from orchestrator.errors import InputError, OrchestratorError, unknown
from orchestrator.plugin import DeviceListing, Finding, Job, Runtime, SetupOptions, Simulated, SimulatedDevice
from orchestrator.plugin.processes import AGENT, AgentSession, GuardedProcess, check_interrupt
from orchestrator.values.evidence import Estimate
from orchestrator.values.files import write_atomic
from orchestrator.values.finding import FindingState
from orchestrator.values.profile import HardwareProfile, NumberFormat, SimulationModel
from orchestrator.values.results import Difference
from orchestrator_qemu.cpus import CPUS, Cpu
from orchestrator_qemu.toolchain import SETUP, SETUP_REFERENCE, Toolchain

if TYPE_CHECKING:  # the decoder's library is loaded when something is simulated
    from orchestrator_qemu.emulator import Emulator

Progress = Callable[[str], None]


class QemuDevice(SimulatedDevice):
    """Simulated Arm CPUs, after `orchestrate devices setup qemu-aarch64`: qemu:cortex-a53, qemu:cortex-a72, qemu:cortex-a76."""

    scheme = "qemu"

    def __init__(self, cpu: Cpu | None = None) -> None:
        self._chosen = cpu
        self._emulators: dict[str, Emulator] = {}
        self._found: Toolchain | None = None

    def attach(self, reference: str) -> "QemuDevice":
        """Return the CPU that a reference names."""
        name = reference.partition(":")[2]
        if not name:
            raise InputError(f"--device {self.scheme}:CPU needs a CPU: {', '.join(CPUS)}")
        if name not in CPUS:
            raise InputError(unknown("simulated CPU", name, CPUS))
        return QemuDevice(CPUS[name])

    def cpu(self) -> str:
        """Return the CPU's name."""
        return self._cpu.name

    def board(self) -> str:
        """Return the profile of the CPU's usual board."""
        return self._cpu.board

    def check(self, runtime: Runtime) -> None:
        """Check that the installed version of the runtime is set up."""
        toolchain = self._toolchain
        module = _module(runtime)
        version = toolchain.packages.get(module)
        if version is None:
            known = ", ".join(sorted(toolchain.packages))
            raise InputError(f"{runtime.name} is not set up for simulated execution (these are: {known}): {SETUP}")
        if version != runtime.version():
            raise InputError(
                f"{runtime.name} {version} is set up for simulated execution, but {runtime.version()} exports and scores "
                f"models here: {SETUP}"
            )

    def environment(self) -> dict[str, Any]:
        """Return the simulated CPU and the versions of the toolchain."""
        toolchain = self._toolchain
        return {
            "cpu": f"{self._cpu.name} (simulated)",
            "machine": "aarch64",
            "system": f"qemu {toolchain.qemu_version}, user mode",
            "versions": dict(toolchain.packages),
            "folder": str(toolchain.folder),
        }

    def cores(self) -> int:
        """Return 1: inferences are simulated on one core."""
        return 1

    def open(self, job: Job) -> AgentSession:
        """Load a model under emulation, for its outputs."""
        toolchain = self._toolchain
        command = [*toolchain.command(self._cpu), "-u", str(AGENT)]
        process = GuardedProcess(command, toolchain.environment(), job.model.parent)
        inputs = {name: str(path) for name, path in job.inputs.items()}
        return AgentSession(job, process, model=str(job.model), inputs=inputs, memory_bytes=job.memory_bytes)

    def simulate(self, job: Job, runtime: Runtime) -> Simulated:
        """Return the counts of one inference, from the cache if possible."""
        from orchestrator_qemu import counts

        versions = self._versions(runtime)
        cached = _CachedCounts(_key(job, versions))
        plain = cached.read()
        if plain is None:
            trace = self._emulator(job, runtime).count(
                job.model, job.inputs, job.options, timeout_s=job.timeout_s, memory_bytes=job.memory_bytes
            )
            plain = counts.count(trace, self._cpu).plain()
            cached.write(plain, versions)
        return Simulated(counts=plain, versions=versions)

    def latency(
        self, found: Simulated, constants: SimulationModel, profile: HardwareProfile, *, threads: int, number_format: NumberFormat
    ) -> Estimate:
        """Return the latency of one inference, with its band."""
        from orchestrator_qemu import cost
        from orchestrator_qemu.counts import Counts

        clock = next((c.clock_hz for c in profile.clusters if c.name == constants.cluster), None)
        if clock is None:
            raise InputError(f"profile '{profile.name}' gives no clock for its cluster '{constants.cluster}'")
        counts = Counts.from_plain(found.counts)
        return cost.latency(counts, constants, clock_hz=clock, threads=threads, number_format=number_format)

    def ratio(self, a: Simulated, b: Simulated, constants: SimulationModel, *, threads: int) -> Difference:
        """Return A's time over B's, with its band."""
        from orchestrator_qemu import cost
        from orchestrator_qemu.counts import Counts

        value, low, high = cost.ratio(Counts.from_plain(a.counts), Counts.from_plain(b.counts), constants, threads=threads)
        return Difference(value=value, low=low, high=high)

    def release(self) -> None:
        """End the emulators."""
        for emulator in self._emulators.values():
            emulator.close()
        self._emulators.clear()

    def reference_form(self) -> str:
        """Return the form of references."""
        return f"{self.scheme}:CPU"

    def references(self) -> list[str]:
        """Return all simulated CPUs."""
        return [f"{self.scheme}:{name}" for name in CPUS]

    def setup_references(self) -> list[str]:
        """Return the reference that sets up all simulated CPUs."""
        return [SETUP_REFERENCE]

    def listing(self) -> list[DeviceListing]:
        """Return all simulated CPUs if they are set up, otherwise how to set them up."""
        try:
            toolchain = Toolchain.find()
        except OrchestratorError as error:
            return [DeviceListing(reference=self.reference_form(), text=f"simulated Arm CPU, not usable: {error}")]
        if toolchain is None:
            return [DeviceListing(reference=self.reference_form(), text=f"simulated Arm CPU, after `{SETUP}`")]
        text = f"simulated CPU, set up with {toolchain.summary()}"
        return [
            DeviceListing(reference=f"{self.scheme}:{name}", text=text, facts={"board": cpu.board}) for name, cpu in CPUS.items()
        ]

    def diagnose(self) -> list[Finding]:
        """Examine the toolchain, or what its setup needs."""
        from orchestrator_qemu.debian import release

        def finding(state: FindingState, text: str, fix: str = "") -> list[Finding]:
            return [Finding(section="devices", name=self.scheme, state=state, text=text, fix=fix)]

        try:
            toolchain = Toolchain.find()
        except OrchestratorError as error:
            return finding("broken", str(error).removesuffix(f": {SETUP}"), SETUP)
        if toolchain is not None:
            return finding("ok", f"simulates {', '.join(CPUS)} with {toolchain.summary()}")
        try:
            release()
        except OrchestratorError as error:
            return finding("missing", f"no simulated CPUs: {error}")
        compiler = "" if shutil.which("gcc") else "apt-get install gcc libc6-dev, then: "
        return finding("missing", "no simulated CPUs: boards that are not here are only estimated", compiler + SETUP)

    def setup(self, reference: str, options: SetupOptions, progress: Progress) -> str:
        """Set up all simulated CPUs."""
        from orchestrator_qemu.provision import set_up

        if options.offline:
            raise InputError(f"--offline is for boards: {SETUP_REFERENCE} is built from packages that are fetched")
        wheels = {_module(options.runtime): options.version or options.runtime.version()}
        toolchain = set_up(runtime_wheels=wheels, progress=progress)
        usage = " or ".join(f"{self.scheme}:{name}" for name in CPUS)
        return f"{SETUP_REFERENCE} is set up with {toolchain.summary()}\nuse it with --device {usage}, or by a target's name"

    def remove(self, reference: str) -> str | None:
        """Delete the toolchain."""
        from orchestrator_qemu.provision import remove

        folder = remove()
        return None if folder is None else str(folder)

    @property
    def _cpu(self) -> Cpu:
        if self._chosen is None:
            raise InputError(f"a simulated CPU is named, {self.scheme}:CPU: {', '.join(CPUS)}")
        return self._chosen

    @property
    def _toolchain(self) -> Toolchain:
        if self._found is None:
            self._found = Toolchain.find()
        if self._found is None:
            raise InputError(f"simulated execution is not set up here: {SETUP}")
        return self._found

    def _emulator(self, job: Job, runtime: Runtime) -> "Emulator":
        """Return the emulator of a runtime, which is imported once for all models."""
        from orchestrator_qemu.emulator import Emulator

        if runtime.name not in self._emulators:
            self._emulators[runtime.name] = Emulator(
                self._toolchain, self._cpu, load=job.load, imports=job.imports, waiting=check_interrupt
            )
        return self._emulators[runtime.name]

    def _versions(self, runtime: Runtime) -> dict[str, str]:
        """Return the versions of everything that the counts depend on."""
        from orchestrator_qemu import counts

        toolchain = self._toolchain
        packages = {name: toolchain.packages[name] for name in ("numpy", _module(runtime)) if name in toolchain.packages}
        return {
            **packages,
            "cpu": self._cpu.name,
            "guest": toolchain.guest_version,
            "qemu": toolchain.qemu_version,
            "counter": toolchain.counter_version,
            "pipeline model": counts.VERSION,
        }


class _CachedCounts:
    """Counts in the user's cache folder, without expiry: the same key always gives the same counts."""

    def __init__(self, key: str) -> None:
        self._path = platformdirs.user_cache_path("orchestrator", appauthor=False) / "simulated" / key[:2] / f"{key}.json"

    def read(self) -> dict[str, Any] | None:
        """Return the counts, or None if there are none or the file is damaged."""
        from orchestrator_qemu.counts import Counts

        try:
            found: dict[str, Any] = json.loads(self._path.read_text())["counts"]
            Counts.from_plain(found)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, InputError):
            return None
        return found

    def write(self, counts: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        """Write the counts atomically; if the disk refuses, they are counted again next time."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, json.dumps({"versions": dict(versions), "counts": dict(counts)}, indent=1))


def _module(runtime: Runtime) -> str:
    return runtime.imports[0] if runtime.imports else runtime.name


def _key(job: Job, versions: Mapping[str, str]) -> str:
    """Return the digest of everything that the counts depend on: the model, its first example, the options and versions."""
    import numpy as np

    inputs = {}
    for name, path in job.inputs.items():
        example = np.ascontiguousarray(np.load(path, mmap_mode="r")[:1])
        inputs[name] = [str(example.dtype), list(example.shape), hashlib.sha256(example.tobytes()).hexdigest()]
    parts = {
        "model": _digest(job.model),
        "load": hashlib.sha256(job.load.encode()).hexdigest(),
        "inputs": inputs,
        "options": dict(job.options),
        "versions": dict(versions),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
