"""Findings on the machine: processor, memory, limits, causes of noise, disk space, environment variables."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import psutil

from orchestrator.building.store import OFF, store_bytes, store_folder
from orchestrator.devices.agent import facts as machine_facts
from orchestrator.devices.agent import read_text
from orchestrator.errors import InputError
from orchestrator.hardware.cgroup import cpu_quota, memory_limit
from orchestrator.values.finding import Finding, FindingState

RUNS = "runs"  # where `orchestrate search` writes without --output
LEAST_MEMORY = 2 << 30  # torch, the network and its data in one process, the runtime in another
LEAST_DISK = 1 << 30
BUSY = 0.5  # load per core above which measured times are noisy
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
OF_TRAINING = THREADS[:2]  # torch heeds these
TURBO = (("/sys/devices/system/cpu/intel_pstate/no_turbo", "0"), ("/sys/devices/system/cpu/cpufreq/boost", "1"))


def machine() -> Iterator[Finding]:
    """Examine the machine and its limits."""
    facts = machine_facts()
    physical = psutil.cpu_count(logical=False)
    cores = int(facts["cores"])
    yield _found("processor", "ok", f"{facts.get('cpu', 'not known')}, {facts['machine']}, {facts['system']}")
    yield _found("cores", "ok", f"{cores} usable" + (f", {physical} physical" if physical else ""))
    yield from _limits(cores)
    yield from _steadiness(facts, cores)
    yield from _disks()
    yield from _store()
    yield from _environment(cores)


def _limits(cores: int) -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    limit = memory_limit()
    free = min(memory.available, limit or memory.available)
    text = f"{_gb(memory.total)}, {_gb(memory.available)} free"
    fix = "close other programs, or give the machine more" if free < LEAST_MEMORY else ""
    yield _found("memory", "warning" if fix else "ok", text, fix)
    if limit is not None and limit < memory.total:
        low = limit < LEAST_MEMORY
        text = f"the control group (a container, a batch system) allows {_gb(limit)}"
        yield _found("memory limit", "warning" if low else "ok", text, "raise the container's memory limit" if low else "")
    quota = cpu_quota()
    if quota is not None and quota < cores:
        text = f"the control group allows {quota:g} of {cores} cores on average: times come in bursts"
        yield _found("cpu limit", "warning", text, "pin whole cores instead (docker run --cpuset-cpus), or take --threads 1")


def _steadiness(facts: dict[str, object], cores: int) -> Iterator[Finding]:
    """Examine causes of noise in measured times."""
    governor = facts.get("governor")
    if governor is None:
        yield _found("governor", "ok", "not readable, as on most virtual machines")
    else:
        steady = governor in ("performance", "schedutil")
        fix = "" if steady else "for steadier times: sudo cpupower frequency-set -g performance"
        yield _found("governor", "ok" if steady else "warning", str(governor), fix)
    for path, on in TURBO:
        said = read_text(path)
        if said is not None:
            yield _found("turbo", "ok", "on: the clock depends on load and heat" if said.strip() == on else "off")
            break
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
        busy = load > BUSY * cores
        text = f"{load:.1f} processes wanted a core in the last minute"
        yield _found("load", "warning" if busy else "ok", text, "times taken now are marked as disturbed: wait" if busy else "")


def _disks() -> Iterator[Finding]:
    places = {
        "runs": (Path.cwd() / RUNS, True),
        "cache": (platformdirs.user_cache_path("orchestrator", appauthor=False), False),
        "scratch": (Path(tempfile.gettempdir()), True),
    }
    for name, (folder, needed) in places.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not os.access(there, os.W_OK):
            fix = "go to another folder, or name one with --output" if name == "runs" else f"make {there} writable"
            yield _found(name, "broken", f"{folder} cannot be written", fix, needed=needed)
            continue
        free = shutil.disk_usage(there).free
        fix = "make room: a run needs some hundred megabytes" if free < LEAST_DISK else ""
        yield _found(name, "warning" if fix else "ok", f"{folder}: {_gb(free)} free", fix)


def _store() -> Iterator[Finding]:
    folder = store_folder(None)
    if folder is None:
        yield _found("store", "ok", f"off (ORCHESTRATE_STORE={OFF}): nothing is kept for later runs")
        return
    try:
        bound = store_bytes()
    except InputError as error:
        yield _found("store", "broken", str(error), needed=True)
        return
    size = sum(_sizes(folder))
    yield _found("store", "ok", f"{folder}: {_gb(size)} of at most {_gb(bound)}")


def _environment(cores: int) -> Iterator[Finding]:
    for name in THREADS:
        said = os.environ.get(name)
        if said is None:
            continue
        few = name in OF_TRAINING and said.isdigit() and int(said) < cores
        text = f"{said}" + (f": trainings use {said} of {cores} cores" if few else "")
        yield _found(name, "warning" if few else "ok", text, f"unset {name}" if few else "")
    for name in sorted(os.environ):
        if name.startswith("ORCHESTRATE_"):
            yield _found(name, "ok", os.environ[name])


def _sizes(folder: Path) -> Iterator[int]:
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                yield (Path(path) / name).stat().st_size
            except OSError:  # evicted meanwhile
                continue


def _found(name: str, state: FindingState, text: str, fix: str = "", *, needed: bool = False) -> Finding:
    return Finding(section="machine", name=name, state=state, text=text, fix=fix, needed=needed)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
