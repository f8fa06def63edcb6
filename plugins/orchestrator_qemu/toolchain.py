"""The toolchain of simulated execution on this machine: qemu, the counting plugin, a guest with Python and the runtimes.

It lies in one folder of the user's cache:

    manifest.json   what is there, with versions; written last, so that half a set-up is none
    counter.so      the counting plugin, compiled for this qemu
    packages/       wheels, each unpacked in a folder NAME-VERSION: several versions stand side by side
    roots/CPU/      what the guest sees as `/`: Debian's or Ubuntu's arm64 packages (hard links), and the CPU's own /proc and /sys
    qemu/           qemu with its libraries, where the system has none that takes plugins
    running/        the roots of emulators at work

`provision.py` makes it; `emulator.py` runs models in it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import platformdirs

from orchestrator.errors import EnvironmentFailure
from orchestrator_qemu.cpus import Cpu
from orchestrator_qemu.guest_root import PATHS
from orchestrator_qemu.qemu import GUEST, PLUGIN, Qemu, source_version

LAYOUT = 3
MANIFEST = "manifest.json"
PLACE = "ORCHESTRATE_QEMU"
SETUP_REFERENCE = "qemu-aarch64"
SETUP = f"orchestrate devices setup {SETUP_REFERENCE}"
LIBRARIES = "lib"  # in a package: shared libraries of the distribution that it needs
STACK_BYTES = 8 << 20

# Everything that a guest's addresses and code may depend on, and nothing of the user's own. The telemetry threads of onnxruntime
# (1.29 and later) would count into the figures, besides what they tell others.
ENVIRONMENT = {
    "LC_ALL": "C",  # any other would be read from this machine's files
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONNOUSERSITE": "1",
    "PYTHONUTF8": "1",
}


def folder() -> Path:
    """Return the folder of this user's setup: in the cache, or the value of ORCHESTRATE_QEMU."""
    said = os.environ.get(PLACE)
    if said:
        return Path(said).expanduser().resolve()
    return platformdirs.user_cache_path("orchestrator", appauthor=False) / "qemu-aarch64"


@dataclass(frozen=True, kw_only=True, slots=True)
class Toolchain:
    """A complete setup.

    Attributes:
        folder: Where it lies.
        qemu: The command that starts qemu.
        qemu_version: As it says itself.
        plugin_version: The digest of the source that the plugin was compiled from.
        distribution: The one that the guest's packages come from ("debian 12").
        guest: These packages, {name: version}.
        python: The guest's Python ("3.11").
        packages: Wheels that are used unless others are asked for: {name: version}.
    """

    folder: Path
    qemu: tuple[str, ...]
    qemu_version: str
    plugin_version: str
    distribution: str
    guest: Mapping[str, str] = field(repr=False)
    python: str
    packages: Mapping[str, str]

    @classmethod
    def find(cls, at: Path | None = None) -> "Toolchain | None":
        """Return the setup in this folder (None: the user's), or None if there is none.

        Raises:
            EnvironmentFailure: there is one that another version of the orchestrator made, or whose parts are gone.
        """
        toolchain = cls.read(at or folder())
        if toolchain is not None:
            toolchain.verify()
        return toolchain

    @classmethod
    def read(cls, at: Path) -> "Toolchain | None":
        """Return the content of the manifest, unchecked, or None if it cannot be read."""
        try:
            said = json.loads((at / MANIFEST).read_text())
            if said.pop("layout") != LAYOUT:
                return None
            return cls(folder=at, **{**said, "qemu": tuple(said["qemu"])})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self) -> None:
        """Write the manifest, which completes the setup."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "folder"}
        part = self.folder / f"{MANIFEST}.part"
        part.write_text(json.dumps({"layout": LAYOUT, **said}, indent=1, default=dict))
        part.replace(self.folder / MANIFEST)

    def summary(self) -> str:
        """Return the versions of qemu and of the packages, in one line."""
        packages = ", ".join(f"{name} {number}" for name, number in sorted(self.packages.items()))
        return f"qemu {self.qemu_version}: {packages}"

    def verify(self) -> None:
        """Check quickly that nothing is missing; only qemu is started, for its version.

        Raises:
            EnvironmentFailure: something is; one line says what, and what to do.
        """
        if self.plugin_version != source_version(*PLUGIN):
            raise EnvironmentFailure(f"simulated execution was set up by another version of the orchestrator: {SETUP}")
        parts = [self.counter, *(self.package(name, version) for name, version in self.packages.items())]
        missing = [path for path in (*parts, self.folder / "roots") if not path.exists()]
        if missing:
            raise EnvironmentFailure(f"{missing[0]}, a part of simulated execution, is gone: {SETUP}")
        there = Qemu.of(self.qemu).version
        if there != self.qemu_version:
            raise EnvironmentFailure(f"qemu is {there} now, but simulated execution was set up for {self.qemu_version}: {SETUP}")

    @property
    def counter(self) -> Path:
        """The compiled plugin."""
        return self.folder / "counter.so"

    @property
    def counter_version(self) -> str:
        """The digest of our files that the counts depend on: the plugin and the guest's side."""
        return source_version(*PLUGIN, *GUEST)

    @property
    def guest_version(self) -> str:
        """The parts of the guest that counts depend on, in one line: the distribution, its Python and its C library."""
        libraries = ", ".join(f"{name} {self.guest[name]}" for name in ("libc6", "libstdc++6") if name in self.guest)
        return f"{self.distribution}, Python {self.python}, {libraries}"

    def root(self, cpu: Cpu) -> Path:
        """Return the folder that is `/` in the guest."""
        return self.folder / "roots" / cpu.name

    def package(self, name: str, version: str) -> Path:
        """Return the folder of an unpacked wheel."""
        return self.folder / "packages" / f"{name}-{version}"

    def command(
        self, cpu: Cpu, *, root: Path | None = None, trace: Path | None = None, caches: bool = True, program: Sequence[str] = ()
    ) -> list[str]:
        """Return the command line of the guest's Python on a simulated CPU; options and a script may follow.

        Args:
            cpu: The simulated CPU.
            root: The folder that is `/` in the guest; None: the root of that CPU, which nobody writes to.
            trace: Where the counting plugin writes; None: nothing is counted, which is twice as fast.
            caches: Whether the caches are simulated while it counts.
            program: How Python is named to qemu, and what follows; None of it: by its path.
        """
        root = root or self.root(cpu)
        command = [*self.qemu, "-cpu", cpu.name, "-L", str(root), "-s", str(STACK_BYTES), "-seed", "1"]
        if trace is not None:
            plugin = f"{_escaped(self.counter)},out={_escaped(trace)}"
            if caches:
                plugin += ",caches=" + ":".join(f"{cache.kilobytes}:{cache.ways}" for cache in cpu.caches)
            command += ["-plugin", plugin]
        return [*command, *(program or [str(root / "usr" / "bin" / f"python{self.python}")])]

    def environment(self) -> dict[str, str]:
        """Return all environment variables of the guest, whose Python finds the default packages."""
        return {**ENVIRONMENT, "PYTHONPATH": ":".join(self.paths(self.packages))}

    @staticmethod
    def paths(packages: Mapping[str, str]) -> list[str]:
        """Return the paths of packages in the guest."""
        return [f"/{PATHS}/{name}-{version}" for name, version in sorted(packages.items())]


def _escaped(path: Path) -> str:
    """Escape a path for an option of qemu, where a comma ends a value."""
    return str(path).replace(",", ",,")
