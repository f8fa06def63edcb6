"""Setup of simulated execution on a Debian or Ubuntu machine, without root (`orchestrate devices setup qemu-aarch64`).

The guest's Python and libraries are packages of this machine's own release for arm64; qemu is the system's, or a package of the
same release; runtimes are the wheels that a board would install. All of it lies in the user's cache folder (see `toolchain.py`),
is built beside it, checked by importing the runtime on each simulated CPU, and takes its place when it is whole.
"""

import contextlib
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from orchestrator.errors import FULL, EnvironmentFailure, InputError
from orchestrator_qemu import wheels
from orchestrator_qemu.cpus import CPUS, Cpu
from orchestrator_qemu.debian import Apt, architecture, release
from orchestrator_qemu.guest_root import PATHS, describe, link_tree
from orchestrator_qemu.qemu import PLUGIN, PROGRAM, Qemu, compile_counter, source_version
from orchestrator_qemu.toolchain import LIBRARIES, MANIFEST, Toolchain, folder

UNFINISHED = ".orchestrate-unfinished-"
"""Prefix of temporary folders of a setup: the folder may be the user's own."""
OURS = ("manifest.json*", "counter.*", "packages", "roots", "qemu", "running", "running.lock", f"{UNFINISHED}*")
"""All files in the folder of a setup."""
Progress = Callable[[str], None]

GUEST = "arm64"
NEEDED = ("libc6", "libgcc-s1", "libstdc++6", "zlib1g")
# What Python's own extension modules need; names change from release to release, and some modules may do without.
WANTED = ("libexpat1", "libffi8", "libffi7", "libssl3", "libssl3t64", "libbz2-1.0", "liblzma5", "libgomp1")
STARTUP = ("__init__", "aliases", "ascii", "latin_1", "utf_8")  # of the package `encodings`
LOCK_S = 1.0
CHECK_S = 900.0
RUNTIMES = ("onnxruntime",)


def set_up(*, runtime_wheels: Mapping[str, str | None] | None = None, at: Path | None = None, progress: Progress) -> Toolchain:
    """Prepare simulated execution, or repair it; quick if nothing is missing.

    Args:
        runtime_wheels: {package: version} that models run with unless others are asked for, None: the newest; without it
            onnxruntime in the version that is installed here, so that the same file is scored here and simulated there.
        at: The folder; None: the user's.
        progress: Is told what is done, a line each.

    Raises:
        InputError: there is no such wheel for the guest.
        EnvironmentFailure: it cannot be done on this machine; one line says why.
    """
    at = at or folder()
    asked = dict(runtime_wheels) if runtime_wheels is not None else {name: metadata.version(name) for name in RUNTIMES}
    asked.setdefault("numpy", metadata.version("numpy"))
    with _alone(at):
        there = _usable(at)
        if there is not None and there.packages and not _runs(there):
            progress("the setup does not run: it is built again")
            shutil.rmtree(at / "packages", ignore_errors=True)
            there = None
        if there is None:
            progress("preparing the guest and the emulator")
            there = _build(at, progress)
        return _with_wheels(there, asked, progress)


def remove(*, at: Path | None = None) -> Path | None:
    """Delete the files of a setup, and no others, and return its folder, or None if there was none."""
    at = at or folder()
    if not at.is_dir():
        return None
    with _alone(at):
        ours = [path for name in OURS for path in at.glob(name)]
        (at / MANIFEST).unlink(missing_ok=True)  # first: half a set-up is none
        for path in ours:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            at.rmdir()
    _lock_of(at).unlink(missing_ok=True)
    return at if ours else None


def add_package(toolchain: Toolchain, name: str, version: str, *, libraries: Sequence[str] = (), progress: Progress) -> None:
    """Add a wheel for `Emulator(packages=...)`, unless it is there.

    Args:
        toolchain: The setup.
        name: Of the package, as pip has it.
        version: Of the package.
        libraries: Packages of the distribution that it needs; their shared libraries go with the wheel.
        progress: Called with one line for each step.
    """
    target = toolchain.package(name, version)
    if target.exists():
        return
    with _alone(toolchain.folder), tempfile.TemporaryDirectory(dir=toolchain.folder, prefix=UNFINISHED) as part:
        progress(f"fetching {name} {version}")
        found = wheels.fetch(name, version, python=toolchain.python, glibc=_glibc(toolchain.guest), into=Path(part))
        if libraries:
            apt = Apt(Path(part) / "apt", GUEST)
            apt.update()
            apt.unpack(libraries, Path(part) / "unpacked")
            lib = Path(part) / f"{name}-{found}" / LIBRARIES
            lib.mkdir()
            for library in (Path(part) / "unpacked").rglob("*.so*"):
                if not library.is_dir():
                    shutil.copy(library, lib / library.name)
        (Path(part) / f"{name}-{found}").rename(target)


def _usable(at: Path) -> Toolchain | None:
    """Return the setup if its parts are complete; an outdated plugin is compiled again."""
    there = Toolchain.read(at)
    if there is None:
        return None
    try:
        if there.plugin_version != source_version(*PLUGIN):
            compile_counter(Qemu.of(there.qemu), there.counter)
            there = replace(there, plugin_version=source_version(*PLUGIN))
        there.verify()
    except EnvironmentFailure:
        return None
    return there


def _runs(there: Toolchain) -> bool:
    """Return True if its packages can be imported: files may be damaged."""
    try:
        _check(there, next(iter(CPUS.values())))
    except EnvironmentFailure:
        return False
    return True


def _build(at: Path, progress: Progress) -> Toolchain:
    """Build a new setup without wheels, in place of an earlier one, whose wheels stay."""
    distribution = " ".join(release())
    part = Path(tempfile.mkdtemp(dir=at, prefix=UNFINISHED))
    try:
        qemu = _qemu(part, progress)
        compile_counter(qemu, part / "counter.so")
        progress(f"qemu {qemu.version}; the counting plugin is compiled")

        apt = Apt(part / "apt", GUEST)
        apt.update()
        python, names = _guest_packages(apt)
        progress(f"fetching Python {python} and libraries of {distribution} for {GUEST}")
        guest = apt.unpack(names, part / "guest")
        shutil.rmtree(part / "apt")
        if not (part / "guest" / "lib").exists():
            (part / "guest" / "lib").symlink_to("usr/lib")  # the package that brings this link holds nothing else of use
        toolchain = Toolchain(
            folder=at,
            qemu=qemu.command,
            qemu_version=qemu.version,
            plugin_version=source_version(*PLUGIN),
            distribution=distribution,
            guest=guest,
            python=python,
            packages={},
        )
        shared = part / "guest"
        library = shared / "usr" / "lib" / f"python{python}"
        _compile(toolchain, shared, library, under=shared, seen_as="/")
        _archive_startup(library)
        for cpu in CPUS.values():
            link_tree(shared, part / "roots" / cpu.name)
            describe(cpu, part / "roots" / cpu.name)
            (part / "roots" / cpu.name / PATHS).symlink_to(at / "packages")
        shutil.rmtree(shared)

        (at / "packages").mkdir(exist_ok=True)
        (at / MANIFEST).unlink(missing_ok=True)
        for name in ("roots", "qemu", "counter.so"):
            _replace(part / name, at / name)
        return replace(toolchain, qemu=tuple(word.replace(str(part), str(at)) for word in qemu.command))
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace(new: Path, old: Path) -> None:
    if old.is_dir():
        shutil.rmtree(old)
    old.unlink(missing_ok=True)
    if new.exists():
        new.rename(old)


def _qemu(part: Path, progress: Progress) -> Qemu:
    """Return the system's qemu, or one that is unpacked into the folder."""
    try:
        return Qemu.on_path()
    except EnvironmentFailure as error:
        progress(f"{error}; fetching one")
    apt = Apt(part / "apt-host", architecture())
    apt.update()
    names = apt.closure(["qemu-user"])
    apt.unpack(names, part / "qemu")
    shutil.rmtree(part / "apt-host")
    program = part / "qemu" / "usr" / "bin" / PROGRAM
    if not program.exists():
        raise EnvironmentFailure(f"the package qemu-user of this release holds no {PROGRAM}")
    loaders = sorted((part / "qemu").glob("**/ld-linux*.so.*"))
    libraries = sorted({str(path.parent) for path in (part / "qemu").rglob("*.so.*") if path.is_file()})
    if not loaders:
        return Qemu.of([str(program)])
    return Qemu.of([str(loaders[0]), "--library-path", ":".join(libraries), str(program)])


def _guest_packages(apt: Apt) -> tuple[str, list[str]]:
    """Return the release's Python ("3.11"), and the names of the packages that the guest needs."""
    found = apt.versions(["python3", *NEEDED, *WANTED])
    python = re.match(r"\d+\.\d+", found.get("python3", ""))
    missing = [name for name in NEEDED if name not in found]
    if python is None or missing:
        raise EnvironmentFailure(f"this release has no package {', '.join(missing or ['python3'])} for {GUEST}")
    minor = python[0]
    pythons = [f"python{minor}-minimal", f"libpython{minor}-minimal", f"libpython{minor}-stdlib"]
    return minor, [*pythons, *NEEDED, *(name for name in WANTED if name in found)]


def _glibc(guest: Mapping[str, str]) -> str:
    """Return the version of the guest's C library as "2.36"; distributions write "2.36-9+deb12u13"."""
    return ".".join(re.split(r"[.-]", guest["libc6"])[:2])


def _with_wheels(there: Toolchain, asked: Mapping[str, str | None], progress: Progress) -> Toolchain:
    """Return the setup with these default packages, after a check, and write its manifest."""
    packages: dict[str, str] = {}
    for name, version in asked.items():
        if version is not None and there.package(name, version).exists():
            packages[name] = version
            continue
        progress(f"fetching {name} {version or ''}".rstrip())
        packages[name] = _fetch(there, name, version)
    toolchain = replace(there, packages=packages)
    if Toolchain.read(there.folder) == toolchain:
        return toolchain
    for cpu in CPUS.values():
        progress(f"checking {', '.join(f'{name} {version}' for name, version in packages.items())} on {cpu.name}")
        _check(toolchain, cpu)
    toolchain.write()
    return toolchain


def _fetch(there: Toolchain, name: str, version: str | None) -> str:
    """Add a compiled wheel to the packages, atomically, and return its version."""
    glibc = _glibc(there.guest)
    with tempfile.TemporaryDirectory(dir=there.folder, prefix=UNFINISHED) as part:
        into = Path(part)
        try:
            found = wheels.fetch(name, version, python=there.python, glibc=glibc, into=into)
        except InputError:
            if name != "numpy":
                raise
            found = wheels.fetch(name, None, python=there.python, glibc=glibc, into=into)  # it only carries arrays
        made, target = into / f"{name}-{found}", there.package(name, found)
        _compile(there, there.root(next(iter(CPUS.values()))), made, under=into, seen_as=f"/{PATHS}")
        _replace(made, target)
    return found


def _compile(there: Toolchain, root: Path, files: Path, *, under: Path, seen_as: str) -> None:
    """Compile Python files, so that guests need not do that at each start.

    Args:
        root: The guest's `/`.
        there: The setup.
        files: The folder.
        under: A parent folder.
        seen_as: The parent's path in the guest.
    """
    script = ["-m", "compileall", "-q", "-s", str(under), "-p", seen_as, "--invalidation-mode", "unchecked-hash"]
    command = [*there.command(next(iter(CPUS.values())), root=root), "-s", "-S", *script, str(files)]
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True}
    try:
        subprocess.run(command, env=there.environment(), timeout=CHECK_S, check=False, **quiet)
    except subprocess.TimeoutExpired:
        raise EnvironmentFailure(f"compiling {files.name} in the guest took more than {CHECK_S:g} s") from None


def _archive_startup(library: Path) -> None:
    """Put the modules of the interpreter's start into the archive that it searches first (`python311.zip`).

    From folders it would list their files in the order of the disk, which nothing later can quite undo.
    """
    with zipfile.ZipFile(library.with_name(f"{library.name.replace('.', '')}.zip"), "w") as archive:
        for name in STARTUP:
            for compiled in (library / "encodings" / "__pycache__").glob(f"{name}.*.pyc"):
                archive.writestr(zipfile.ZipInfo(f"encodings/{name}.pyc"), compiled.read_bytes())


def _check(toolchain: Toolchain, cpu: Cpu) -> None:
    """Import the packages on a simulated CPU, with the plugin."""
    with tempfile.TemporaryDirectory() as work:
        trace = Path(work) / "trace.bin"
        imports = ", ".join(toolchain.packages)
        command = [*toolchain.command(cpu, trace=trace), "-s", "-S", "-c", f"import {imports}; print('imported')"]
        try:
            done = subprocess.run(
                command,
                env=toolchain.environment(),
                cwd=work,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=CHECK_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EnvironmentFailure(f"importing {imports} on {cpu.name} took longer than {CHECK_S:.0f} s") from None
    if "imported" not in done.stdout:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise EnvironmentFailure(f"{imports} cannot be imported on {cpu.name}: {lines[-1][:300]}")


def _lock_of(at: Path) -> Path:
    return at.with_name(f"{at.name}.lock")


@contextmanager
def _alone(at: Path) -> Iterator[None]:
    """Hold the folder's lock; errors of the disk become one line."""
    try:
        at.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock_of(at), timeout=LOCK_S):
            for left in list(at.glob(f"{UNFINISHED}*")):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            yield
    except Timeout:
        raise EnvironmentFailure(f"another process is setting up simulated execution in {at}; wait for it") from None
    except OSError as error:
        why = "the disk is full or cannot be written" if error.errno in FULL else (error.strerror or str(error))
        raise EnvironmentFailure(f"cannot set up simulated execution in {at}: {why}") from None
