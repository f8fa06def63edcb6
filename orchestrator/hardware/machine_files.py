"""Files of the operating system that describe a machine's processor, read here or gathered on another machine."""

import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPUS = "/sys/devices/system/cpu"
CPUINFO = "/proc/cpuinfo"
MEMINFO = "/proc/meminfo"
MODEL = "/proc/device-tree/model"
CHASSIS = "/sys/class/dmi/id/chassis_type"
EFFICIENT = "/sys/devices/cpu_atom/cpus"  # of Intel's hybrid processors

PATTERNS = (
    CPUINFO,
    MEMINFO,
    MODEL,
    CHASSIS,
    EFFICIENT,
    f"{CPUS}/cpu[0-9]*/cpu_capacity",
    f"{CPUS}/cpu[0-9]*/cpufreq/cpuinfo_max_freq",
    f"{CPUS}/cpu[0-9]*/regs/identification/midr_el1",
    f"{CPUS}/cpu[0-9]*/topology/physical_package_id",
    f"{CPUS}/cpu[0-9]*/topology/core_id",
    f"{CPUS}/cpu[0-9]*/cache/index[0-9]*/level",
    f"{CPUS}/cpu[0-9]*/cache/index[0-9]*/type",
    f"{CPUS}/cpu[0-9]*/cache/index[0-9]*/size",
    f"{CPUS}/cpu[0-9]*/cache/index[0-9]*/shared_cpu_list",
)
"""All files that a description needs."""

GATHER = """
def load(path, threads, options):
    import glob, json, platform
    import numpy

    files = {}
    for pattern in options["patterns"].split():
        for name in glob.glob(pattern):
            try:
                with open(name, errors="replace") as file:
                    files[name] = file.read()
            except OSError:
                pass
    text = json.dumps({"machine": platform.machine(), "files": files}).encode()
    answer = numpy.frombuffer(text, dtype=numpy.uint8).reshape(1, -1)
    return lambda inputs: [answer]
"""
"""A runtime's `load` whose one output, of one example, are the bytes of a JSON object that `gathered` reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineFiles:
    """A machine as described by its files.

    Attributes:
        machine: Its architecture, as in `platform.machine`.
        cpus: Numbers of the usable logical CPUs.
        read: Returns the stripped text of a file, or None if it does not exist or is not readable.
    """

    machine: str
    cpus: tuple[int, ...]
    read: Callable[[str], str | None]

    @property
    def is_arm(self) -> bool:
        """Return True for a 64-bit Arm machine."""
        return self.machine.lower() in ("aarch64", "arm64", "armv8l")

    def features(self) -> frozenset[str]:
        """Return the instruction-set features by Linux's names."""
        found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", self.read(CPUINFO) or "", re.MULTILINE)
        words = frozenset(found[1].split()) if found else frozenset()
        return words | {"neon"} if "asimd" in words else words

    def memory_bytes(self) -> int | None:
        """Return the machine's memory in bytes."""
        found = re.search(r"^MemTotal:\s*(\d+) kB", self.read(MEMINFO) or "", re.MULTILINE)
        return int(found[1]) * 1024 if found else None

    def title(self) -> str | None:
        """Return the processor's name, after that of the board if there is one."""
        board = (self.read(MODEL) or "").strip("\0 \n")
        named = re.search(r"^model name\s*:\s*(.*)$", self.read(CPUINFO) or "", re.MULTILINE)
        return ", ".join(part for part in (board, named[1].strip() if named else "") if part) or None


def this_machine() -> MachineFiles:
    """Return the files of this machine."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return MachineFiles(machine=platform.machine(), cpus=tuple(cpus), read=_read)


def gathered(answer: bytes) -> MachineFiles:
    """Return the files of the machine on which `GATHER` ran.

    Args:
        answer: Its output.
    """
    found: Mapping[str, Any] = json.loads(answer)
    files: Mapping[str, str] = found["files"]
    numbers = {int(match[1]) for name in files if (match := re.match(rf"{CPUS}/cpu(\d+)/", name))}
    return MachineFiles(
        machine=found["machine"],
        cpus=tuple(sorted(numbers)),
        read=lambda path: files[path].strip() if path in files else None,
    )


def cpu_list(text: str | None) -> tuple[int, ...]:
    """Parse a kernel's list of CPUs: "0-3,8" as (0, 1, 2, 3, 8)."""
    found: list[int] = []
    for part in (text or "").split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit():
            found += range(int(first), int(last if last.isdigit() else first) + 1)
    return tuple(found)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return None
