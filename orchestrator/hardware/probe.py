"""The profile of the machine that the program runs on, from what the operating system tells anyone."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from orchestrator.hardware.cgroup import cpu_quota, memory_limit
from orchestrator.values.profile import (
    Cluster,
    DefaultLimits,
    HardwareProfile,
    Int8Scheme,
    MachineKind,
    Memory,
    NumberFormat,
    RuntimeSupport,
)

_CPUS = Path("/sys/devices/system/cpu")
_SOURCES = {
    "probed": "read from the operating system when the run began (psutil, /proc/cpuinfo, /sys, sysctl)",
    "cgroup": "the control group's memory limit, beyond which the process is killed",
    "mlas": "onnxruntime's CPU kernels (MLAS): float32 kernels work on as many channels as one vector register holds floats "
    "(16 with AVX-512, 8 with AVX2, 4 with NEON), int8 kernels on as many as it holds 32-bit sums; those for NEON pack the "
    "weights 8 columns wide. Order of the int8 schemes: by time, measured on x86 with VNNI (S8S8 was slower than float32 "
    "there and is left out); by executed instructions on Arm (S8S8 needs fewest with dot product, U8S8 without).",
}


def probe_host() -> HardwareProfile:
    """Describe this machine: nothing is timed, nothing needs root, and what cannot be read is left out."""
    features = _features()
    cores = _cores()
    total = psutil.virtual_memory().total
    limit = memory_limit()
    limited = limit is not None and limit < total
    return HardwareProfile(
        schema=1,
        name="host",
        title=f"this machine ({_title()})",
        kind=_kind(features),
        device="host",
        sources={name: text for name, text in _SOURCES.items() if name != "cgroup" or limited},
        clusters=(
            Cluster(
                name=platform.machine() or "cpu",
                cores=cores,
                clock_hz=_clock_hz(),
                isa=tuple(sorted(features)),
                l1d_bytes=_cache_bytes(1, "hw.l1dcachesize"),
                l2_bytes=_cache_bytes(2, "hw.l2cachesize"),
                source="probed",
            ),
        ),
        memory=Memory(size_bytes=total, source="probed"),
        runtimes=(_onnxruntime(features, cores),),
        limits=DefaultLimits(memory_bytes=limit, source="cgroup") if limited else None,
    )


def described(reference: str, facts: Mapping[str, Any], runtime: str) -> HardwareProfile:
    """The profile of a device that has none, from what it says of itself: enough to time on it, not to search for it."""
    cores = int(facts.get("cores") or 1)
    return HardwareProfile(
        schema=1,
        name=reference,
        title=str(facts.get("cpu") or reference),
        kind="edge",
        device=reference,
        sources={"device": "read from the device when the measurement began"},
        clusters=(Cluster(name=str(facts.get("machine") or "cpu"), cores=cores, isa=(), source="device"),),
        memory=Memory(size_bytes=int(facts.get("memory_bytes") or 1), source="device"),
        runtimes=(RuntimeSupport(name=runtime, threads=cores, formats=("float32",), source="device"),),
    )


def _onnxruntime(features: frozenset[str], cores: int) -> RuntimeSupport:
    multiples: dict[NumberFormat, int]
    schemes: tuple[Int8Scheme, ...]
    if _is_arm():
        multiples = {"float32": 4, "int8": 8}
        schemes = ("s8s8", "u8s8") if "asimddp" in features else ("u8s8", "s8s8")
    else:
        width = 16 if "avx512f" in features else 8
        multiples = {"float32": width, "int8": width}
        schemes = ("u8s8", "u8u8")
    quota = cpu_quota()
    threads = cores if quota is None else max(1, min(cores, int(quota)))
    return RuntimeSupport(
        name="onnxruntime",
        threads=threads,
        formats=("float32", "int8"),
        int8_schemes=schemes,
        channel_multiple=multiples,
        source="mlas",
    )


def _is_arm() -> bool:
    return platform.machine().lower() in ("aarch64", "arm64", "armv8l")


def _available() -> list[int]:
    """The logical CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(psutil.cpu_count(logical=True) or 1))


def _cores() -> int:
    """Physical cores among them: two threads of one core share its arithmetic units."""
    available = _available()
    folders = [_CPUS / f"cpu{number}" / "topology" for number in available]
    places = {(_read(folder / "physical_package_id"), _read(folder / "core_id")) for folder in folders}
    if all(core is not None for _, core in places):
        return len(places)
    return max(1, min(len(available), psutil.cpu_count(logical=False) or len(available)))


def _features() -> frozenset[str]:
    """Instruction-set features by the names that Linux uses."""
    if sys.platform == "darwin":
        return _mac_features()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", _read(Path("/proc/cpuinfo")) or "", re.MULTILINE)
    words = frozenset(found[1].split()) if found else frozenset()
    return words | {"neon"} if "asimd" in words else words


def _mac_features() -> frozenset[str]:
    if _is_arm():
        names = {"FEAT_DotProd": "asimddp", "FEAT_FP16": "asimdhp", "FEAT_I8MM": "i8mm", "FEAT_BF16": "bf16"}
        present = {linux for mac, linux in names.items() if _sysctl(f"hw.optional.arm.{mac}") == "1"}
        return frozenset(present | {"asimd", "neon"})
    words = f"{_sysctl('machdep.cpu.features') or ''} {_sysctl('machdep.cpu.leaf7_features') or ''}".lower().split()
    return frozenset({"avx1.0": "avx"}.get(word, word.replace(".", "_")) for word in words)


def _title() -> str:
    board = (_read(Path("/proc/device-tree/model")) or "").strip("\0 \n")
    named = re.search(r"^model name\s*:\s*(.*)$", _read(Path("/proc/cpuinfo")) or "", re.MULTILINE)
    cpu = named[1].strip() if named else _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()
    return f"{board}, {cpu}" if board else cpu


def _kind(features: frozenset[str]) -> MachineKind:
    """Boards describe themselves by a device tree; a hypervisor or a rack chassis (SMBIOS types 17, 23, 28, 29) is a server."""
    if Path("/proc/device-tree/model").exists():
        return "edge"
    chassis = _read(Path("/sys/class/dmi/id/chassis_type"))
    return "server" if "hypervisor" in features or chassis in ("17", "23", "28", "29") else "desktop"


def _clock_hz() -> float | None:
    """The highest clock that the system states, else the present one; None where it tells neither."""
    try:
        clock = psutil.cpu_freq()
    except (NotImplementedError, OSError, RuntimeError):
        return None
    if clock is None:
        return None
    return (clock.max or clock.current) * 1e6 or None


def _cache_bytes(level: int, mac_key: str) -> int | None:
    """One core's data cache of that level."""
    for index in sorted(_CPUS.glob("cpu0/cache/index*")):
        if _read(index / "level") == str(level) and _read(index / "type") in ("Data", "Unified"):
            size = re.fullmatch(r"(\d+)([KM])", _read(index / "size") or "")
            return int(size[1]) * {"K": 1024, "M": 1024**2}[size[2]] if size else None
    size_text = _sysctl(mac_key)
    return int(size_text) if size_text and size_text.isdigit() and int(size_text) > 0 else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _sysctl(key: str) -> str | None:
    """One value of macOS's sysctl; None elsewhere, or where the machine has no such key."""
    if sys.platform != "darwin":
        return None
    try:
        answer = subprocess.run(["/usr/sbin/sysctl", "-n", key], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
