"""Root folders of guests. What is not in there, qemu's user mode looks for in the machine's own `/`."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock

from orchestrator.errors import EnvironmentFailure
from orchestrator_qemu.cpus import Cpu

CORES = 4
WORK = "work"  # the guest's folder for models and answers
PATHS = "site"  # and for wheels

NOMINAL_KHZ = 1_500_000  # what runtimes are told of the clock; they only compare cores by it

# What libraries look for and must not find on this machine: the loader's files, the time zone, the system's name, accelerators.
EMPTY_FILES = (
    "etc/ld.so.cache",
    "etc/ld.so.preload",
    "etc/localtime",
    "etc/lsb-release",
    "etc/nsswitch.conf",
    "etc/os-release",
    "etc/passwd",
)
EMPTY_FOLDERS = ("sys/bus/pci/devices", "sys/class/accel", "sys/class/drm", "sys/devices/system/node")


def link_tree(source: Path, target: Path, *, without: str = "") -> None:
    """Copy a folder without entries of that name; files become hard links, or copies if the disk supports none."""
    ignore = shutil.ignore_patterns(without) if without else None
    shutil.copytree(source, target, symlinks=True, copy_function=link, dirs_exist_ok=True, ignore=ignore)


def link(source: str | Path, target: str | Path) -> None:
    """Hard link a file, or copy it."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def describe(cpu: Cpu, root: Path) -> None:
    """Write what runtimes read to learn which CPU this is: onnxruntime crashes where they contradict qemu's `-cpu`.

    In the words of Linux: Documentation/ABI/testing/sysfs-devices-system-cpu.
    """
    folder = root / "sys/devices/system/cpu"
    every = f"0-{CORES - 1}"
    files = dict.fromkeys(("possible", "present", "online"), every) | {"kernel_max": str(CORES - 1)}
    for core in range(CORES):
        files |= {
            f"cpu{core}/topology/{name}": value
            for name, value in {
                "core_id": str(core),
                "physical_package_id": "0",
                "cluster_id": "0",
                "core_siblings_list": every,
                "cluster_cpus_list": every,
                "package_cpus_list": every,
                "thread_siblings_list": str(core),
            }.items()
        }
        files |= {f"cpu{core}/cpufreq/cpuinfo_{end}_freq": str(NOMINAL_KHZ) for end in ("min", "max")}
        files |= _caches(cpu, core)
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{value}\n")

    lines = [
        f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: {cpu.features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        f"CPU variant\t: {cpu.variant}\nCPU part\t: {cpu.part}\nCPU revision\t: {cpu.revision}\n\n"
        for core in range(CORES)
    ]
    for name in ("etc", "proc", WORK, *EMPTY_FOLDERS):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "proc/cpuinfo").write_text("".join(lines))
    for name in EMPTY_FILES:
        (root / name).unlink(missing_ok=True)  # it may be a link to another root's
        (root / name).touch()


def _caches(cpu: Cpu, core: int) -> dict[str, str]:
    """Return the files that describe caches: L1 for data and instructions; the last level is shared."""
    levels = [(1, "Data", cpu.caches[0]), (1, "Instruction", cpu.caches[0])]
    levels += [(level, "Unified", cache) for level, cache in enumerate(cpu.caches[1:], start=2)]
    files: dict[str, str] = {}
    for index, (level, kind, cache) in enumerate(levels):
        shared = f"0-{CORES - 1}" if level == len(cpu.caches) else str(core)
        values = {
            "level": level,
            "type": kind,
            "size": f"{cache.kilobytes}K",
            "ways_of_associativity": cache.ways,
            "coherency_line_size": 64,
            "number_of_sets": cache.kilobytes * 1024 // 64 // cache.ways,
            "shared_cpu_list": shared,
        }
        files |= {f"cpu{core}/cache/index{index}/{name}": str(value) for name, value in values.items()}
    return files


def modules(root: Path, paths: Iterable[str], *, python: str) -> dict[str, tuple[str, str, str]]:
    """Return the modules of these folders of the guest, in order of priority: the list by which `guest.py` finds modules."""
    tag = f"cpython-{python.replace('.', '')}"
    found: dict[str, tuple[str, str, str]] = {}

    def look(folder: Path, seen_as: str, prefix: str) -> None:
        entries = sorted(folder.iterdir(), key=lambda entry: (entry.suffix != ".so", entry.name))
        for entry in entries:
            name, path = prefix + entry.name.partition(".")[0], f"{seen_as}/{entry.name}"
            compiled = folder / "__pycache__" / f"{entry.stem}.{tag}.pyc"
            if entry.is_dir():
                if entry.name.isidentifier() and entry.name != "__pycache__" and name not in found:
                    file, cached = "__init__.py", f"__pycache__/__init__.{tag}.pyc"
                    parts = [f"{path}/{part}" if (entry / part).exists() else "" for part in (file, cached)]
                    found[name] = (parts[0], parts[1], path)
                    look(entry, path, f"{name}.")
            elif entry.suffix == ".so":
                found.setdefault(name, (path, "", ""))
            elif entry.suffix == ".py" and entry.stem != "__init__":
                found.setdefault(name, (path, f"{seen_as}/__pycache__/{compiled.name}" if compiled.exists() else "", ""))

    for path in paths:
        look(root / path.lstrip("/"), path, "")
    return found


@contextlib.contextmanager
def temporary(source: Path, packages: Mapping[str, Path], folder: Path) -> Iterator[Path]:
    """Create a temporary folder with a `root` like `source` that also contains packages ({path in the guest: folder}).

    A root of its own for each emulator lets the guest find everything under paths that are the same everywhere: a longer path
    would put all that is allocated after it elsewhere, and the caches would see that.

    Raises:
        EnvironmentFailure: the disk is full, or may not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):  # no process sweeps a folder between its creation and its lock
            _sweep(folder)
            mine = Path(tempfile.mkdtemp(dir=folder))
            held = os.open(mine, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX)
    except OSError as error:
        raise EnvironmentFailure(f"cannot write to {folder}: {error.strerror}") from None
    try:
        try:
            link_tree(source, mine / "root", without=PATHS)
            for path, package in packages.items():
                link_tree(package, mine / "root" / path.lstrip("/"))
        except (OSError, shutil.Error) as error:
            raise EnvironmentFailure(f"cannot create the guest's folder {mine}: {error}") from None
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)
        os.close(held)


def _sweep(folder: Path) -> None:
    """Remove the folders of killed processes, whose locks are free."""
    for left in folder.iterdir():
        with contextlib.suppress(OSError):
            held = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(held)
