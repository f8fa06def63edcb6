"""The probe: a profile of this machine from its operating system."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import psutil

from orchestrator.hardware.cgroup import cpu_quota, memory_limit
from orchestrator.hardware.cores import clusters, kernel_features
from orchestrator.hardware.machine_files import CHASSIS, MODEL, MachineFiles, this_machine
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

LAPTOPS = ("8", "9", "10", "14", "30", "31", "32")
RACKS = ("17", "23", "28", "29")
SOURCES = {
    "probed": "read from the operating system when the run began (psutil, /proc/cpuinfo, /sys, sysctl)",
    "cgroup": "the control group's memory limit, beyond which the process is killed",
    "mlas": "onnxruntime's CPU kernels (MLAS): float32 kernels work on as many channels as one vector register holds floats "
    "(16 with AVX-512, 8 with AVX2, 4 with NEON), int8 kernels on as many as it holds 32-bit sums; those for NEON pack the "
    "weights 8 columns wide. Most operators have no float16 kernel: such files run by way of float32. Order of the int8 schemes: "
    "by time, measured on x86 with VNNI (S8S8 was slower than float32 there and is left out); by executed instructions on Arm "
    "(S8S8 needs fewest with dot product, U8S8 without).",
}


def probe_host() -> HardwareProfile:
    """Describe this machine without timing and without root; unknown values are left out."""
    files = this_machine()
    total = psutil.virtual_memory().total
    limit = memory_limit()
    limited = limit is not None and limit < total
    features = _mac_features() if sys.platform == "darwin" else files.features()
    cores = _host_clusters(files, features)
    return HardwareProfile(
        schema=1,
        name="host",
        title=f"this machine ({files.title() or _mac_title() or platform.processor() or platform.machine()})",
        kind=_kind(files, features),
        device="host",
        sources={name: text for name, text in SOURCES.items() if name != "cgroup" or limited},
        clusters=cores,
        memory=Memory(size_bytes=total, source="probed"),
        runtimes=(_onnxruntime(files, features, _threads(cores, cpu_quota())),),
        limits=DefaultLimits(memory_bytes=limit, source="cgroup") if limited else None,
    )


def describe(files: MachineFiles, *, name: str, fallback_title: str, cores: int) -> HardwareProfile:
    """Describe another machine from its gathered files.

    Args:
        files: The files.
        name: Name of the profile.
        fallback_title: Title if its files do not name the processor.
        cores: Usable cores.
    """
    found = clusters(files, "probed") if files.cpus else (_plain_cluster(files, files.features(), cores),)
    return HardwareProfile(
        schema=1,
        name=name,
        title=files.title() or fallback_title,
        kind=_kind(files, files.features()),
        sources={key: SOURCES[key] for key in ("probed", "mlas")},
        clusters=found,
        memory=Memory(size_bytes=files.memory_bytes() or 1, source="probed"),
        runtimes=(_onnxruntime(files, files.features(), _threads(found, float(cores))),),
    )


def described(reference: str, facts: Mapping[str, Any], runtime: str) -> HardwareProfile:
    """Return the profile of a device without one, from its own description: sufficient to time on it, not to search for it."""
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


def _onnxruntime(files: MachineFiles, features: frozenset[str], threads: int) -> RuntimeSupport:
    multiples: dict[NumberFormat, int]
    schemes: tuple[Int8Scheme, ...]
    if files.is_arm:
        multiples = {"float32": 4, "int8": 8}
        schemes = ("s8s8", "u8s8") if "asimddp" in features else ("u8s8", "s8s8")
    else:
        width = 16 if "avx512f" in features else 8
        multiples = {"float32": width, "int8": width}
        schemes = ("u8s8", "u8u8")
    return RuntimeSupport(
        name="onnxruntime",
        threads=threads,
        formats=("float32", "int8"),
        legal_formats=("float32", "float16", "int8"),
        int8_schemes=schemes,
        channel_multiple=multiples,
        source="mlas",
    )


def _threads(cores: tuple[Cluster, ...], quota: float | None) -> int:
    """Return one thread a core, without the slowest of several clusters, whose cores would delay the others."""
    useful = sum(cluster.cores for cluster in (cores[:-1] if len(cores) > 1 else cores))
    return useful if quota is None else max(1, min(useful, int(quota)))


def _host_clusters(files: MachineFiles, features: frozenset[str]) -> tuple[Cluster, ...]:
    if sys.platform == "darwin":
        return (_plain_cluster(files, features, psutil.cpu_count(logical=False) or len(files.cpus)),)
    return clusters(files, "probed")


def _plain_cluster(files: MachineFiles, features: frozenset[str], cores: int) -> Cluster:
    """Return all cores as one cluster, if the system has no files about each."""
    return Cluster(
        name=files.machine or "cpu",
        cores=max(1, cores),
        clock_hz=_stated_clock() if sys.platform == "darwin" else None,
        isa=kernel_features(features),
        l1d_bytes=_mac_number("hw.l1dcachesize"),
        l2_bytes=_mac_number("hw.l2cachesize"),
        source="probed",
    )


def _kind(files: MachineFiles, features: frozenset[str]) -> MachineKind:
    """Return the kind of machine, by its device tree (boards), SMBIOS chassis type or hypervisor (a server)."""
    if files.read(MODEL) is not None:
        return "edge"
    chassis = files.read(CHASSIS)
    if "hypervisor" in features or chassis in RACKS:
        return "server"
    return "laptop" if chassis in LAPTOPS else "desktop"


def _stated_clock() -> float | None:
    """Return the highest clock that the system states, else the present one, or None."""
    try:
        clock = psutil.cpu_freq()
    except (NotImplementedError, OSError, RuntimeError):
        return None
    if clock is None:
        return None
    return (clock.max or clock.current) * 1e6 or None


def _mac_features() -> frozenset[str]:
    if platform.machine().lower() == "arm64":
        names = {"FEAT_DotProd": "asimddp", "FEAT_FP16": "asimdhp", "FEAT_I8MM": "i8mm", "FEAT_BF16": "bf16"}
        present = {linux for mac, linux in names.items() if _sysctl(f"hw.optional.arm.{mac}") == "1"}
        return frozenset(present | {"asimd", "neon"})
    words = f"{_sysctl('machdep.cpu.features') or ''} {_sysctl('machdep.cpu.leaf7_features') or ''}".lower().split()
    return frozenset({"avx1.0": "avx"}.get(word, word.replace(".", "_")) for word in words)


def _mac_title() -> str | None:
    return _sysctl("machdep.cpu.brand_string")


def _mac_number(key: str) -> int | None:
    text = _sysctl(key)
    return int(text) or None if text and text.isdigit() else None


def _sysctl(key: str) -> str | None:
    """Return one value of macOS's sysctl, or None."""
    if sys.platform != "darwin":
        return None
    try:
        answer = subprocess.run(["/usr/sbin/sysctl", "-n", key], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
