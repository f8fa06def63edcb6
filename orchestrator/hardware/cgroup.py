"""Limits of the process by its control group (cgroup v1 and v2), read without root."""

import math
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def cpu_quota() -> float | None:
    """Return the mean number of CPUs that the process may use, or None without a quota."""
    quotas = []
    for folder in _folders("cpu"):
        match [*_numbers(folder / "cpu.max"), *_numbers(folder / "cpu.cfs_quota_us")]:
            case [quota, period]:  # v2: both in one file, "max" where there is none
                quotas.append(quota / period)
            case [quota]:
                quotas += [quota / period for period in _numbers(folder / "cpu.cfs_period_us")]
    return min((q for q in quotas if q > 0 and math.isfinite(q)), default=None)


def memory_limit() -> int | None:
    """Return the bytes beyond which the process is killed, or None without a limit."""
    limits: list[float] = []
    for folder in _folders("memory"):
        limits += [*_numbers(folder / "memory.max"), *_numbers(folder / "memory.limit_in_bytes")]
    # v1 writes "no limit" as the largest multiple of a page below 2^63.
    return min((int(b) for b in limits if 0 < b < 2**62), default=None)


def _folders(controller: str) -> list[Path]:
    """Return the group's own folder and all above it, whose limits apply too. Inside a container only the root is visible."""
    found = []
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = ROOT / controller if controllers else ROOT
        group = mount / path.lstrip("/")
        found += [group, *(p for p in group.parents if p == mount or mount in p.parents)]
    return found


def _numbers(file: Path) -> list[float]:
    """Return the numbers in a file; none if it cannot be read. 'max' is infinite."""
    try:
        return [math.inf if word == "max" else float(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []
