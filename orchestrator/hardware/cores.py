"""The cores of a machine by cluster, from the files of its operating system."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.hardware.machine_files import CPUINFO, CPUS, EFFICIENT, MachineFiles, cpu_list
from orchestrator.values.profile import Cluster

ARM_CORES = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD49: "Neoverse-N2",
    0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
    0xD82: "Cortex-X4",
}
"""Part numbers of Arm's cores (MIDR_EL1, bits 4 to 15), from Linux's arch/arm64/include/asm/cputype.h."""

KERNEL_FEATURES = re.compile(
    r"neon|fp|asimd|asimdhp|asimddp|fphp|atomics|crc32|i8mm|bf16|sve2?|sme2?|sse4_[12]|avx|avx2|fma|f16c|avx512_?[a-z0-9]+"
    r"|avx_vnni(_int8|_int16)?|avx_ne_convert|amx_[a-z0-9]+"
)
"""Instruction-set features that kernels of neural networks use, of the hundred or more that a processor lists."""

_ARM = 0x41  # the implementer, MIDR_EL1 bits 24 to 31


@dataclass(frozen=True, slots=True)
class _Kind:
    """Properties that distinguish the cores of different clusters."""

    midr: int | None
    capacity: int
    efficient: bool


def clusters(files: MachineFiles, source: str) -> tuple[Cluster, ...]:
    """Return the usable physical cores, the fastest cluster first; two threads of one core share its arithmetic units.

    Unknown caches and clocks are left out. On a machine without such files there is one cluster.
    """
    groups: dict[_Kind, list[int]] = {}
    efficient = set(cpu_list(files.read(EFFICIENT)))
    for cpu in files.cpus:
        midr = files.read(f"{CPUS}/cpu{cpu}/regs/identification/midr_el1")
        capacity = files.read(f"{CPUS}/cpu{cpu}/cpu_capacity") or "0"
        kind = _Kind(
            midr=int(midr, 16) if midr else None,
            capacity=int(capacity) if capacity.isdigit() else 0,
            efficient=cpu in efficient,
        )
        groups.setdefault(kind, []).append(cpu)
    ordered = sorted(groups.items(), key=lambda item: (-item[0].capacity, item[0].efficient))
    names = [_name(kind, files.machine, len(ordered)) for kind, _ in ordered]
    return tuple(
        _cluster(name if names.count(name) == 1 else f"{name} {names[:i].count(name) + 1}", cpus, files, source)
        for i, (name, (_, cpus)) in enumerate(zip(names, ordered, strict=True))
    )


def kernel_features(features: frozenset[str]) -> tuple[str, ...]:
    """Return the features that kernels use, in order."""
    return tuple(sorted(word for word in features if KERNEL_FEATURES.fullmatch(word)))


def _name(kind: _Kind, machine: str, kinds: int) -> str:
    if kind.midr is not None and kind.midr >> 24 == _ARM:
        part = (kind.midr >> 4) & 0xFFF
        return ARM_CORES.get(part, f"Arm core {part:#x}")
    if kinds > 1:
        return "efficient core" if kind.efficient else "performance core"
    return machine or "cpu"


def _cluster(name: str, cpus: Sequence[int], files: MachineFiles, source: str) -> Cluster:
    sharing = _sharing(cpus[0], 2, files)
    shared_cores = len(_places(sharing, files)) if sharing else None
    return Cluster(
        name=name,
        cores=len(_places(cpus, files)) or len(cpus),
        clock_hz=_clock_hz(cpus, files),
        isa=kernel_features(files.features()),
        l1d_bytes=_cache_bytes(cpus[0], 1, files),
        l2_bytes=_cache_bytes(cpus[0], 2, files),
        l2_shared_by=min(shared_cores, len(_places(cpus, files))) if shared_cores else None,
        l3_bytes=_cache_bytes(cpus[0], 3, files),
        source=source,
    )


def _places(cpus: Sequence[int], files: MachineFiles) -> set[tuple[str, str]]:
    """Return the physical cores of logical CPUs; each CPU is one by itself if the system does not tell."""
    found = set()
    for cpu in cpus:
        folder = f"{CPUS}/cpu{cpu}/topology"
        package, core = files.read(f"{folder}/physical_package_id"), files.read(f"{folder}/core_id")
        found.add((package or "", core if core is not None else f"cpu{cpu}"))
    return found


def _clock_hz(cpus: Sequence[int], files: MachineFiles) -> float | None:
    clocks = [files.read(f"{CPUS}/cpu{cpu}/cpufreq/cpuinfo_max_freq") for cpu in cpus]
    known = [int(clock) * 1e3 for clock in clocks if clock and clock.isdigit() and int(clock) > 0]
    if not known:  # a virtual machine has no frequency files, but on x86 the present clock
        known = [float(clock) * 1e6 for clock in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", files.read(CPUINFO) or "", re.MULTILINE)]
    return max(known, default=None)


def _index(cpu: int, level: int, files: MachineFiles) -> str | None:
    """Return the folder of one CPU's data cache of a level."""
    for number in range(6):
        folder = f"{CPUS}/cpu{cpu}/cache/index{number}"
        if files.read(f"{folder}/level") == str(level) and files.read(f"{folder}/type") in ("Data", "Unified"):
            return folder
    return None


def _cache_bytes(cpu: int, level: int, files: MachineFiles) -> int | None:
    folder = _index(cpu, level, files)
    size = re.fullmatch(r"(\d+)([KM])", (folder and files.read(f"{folder}/size")) or "")
    return int(size[1]) * {"K": 1024, "M": 1024**2}[size[2]] or None if size else None


def _sharing(cpu: int, level: int, files: MachineFiles) -> tuple[int, ...]:
    folder = _index(cpu, level, files)
    return cpu_list(files.read(f"{folder}/shared_cpu_list")) if folder else ()
