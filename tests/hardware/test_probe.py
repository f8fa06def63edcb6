"""The probe: a legal profile of whatever machine runs the tests, and the right choices for machines that do not."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from orchestrator.hardware import cgroup, probe
from orchestrator.hardware.machine_files import CPUS, GATHER, PATTERNS, MachineFiles, cpu_list, gathered
from orchestrator.values.profile import HardwareProfile

X86_VNNI = "processor : 0\nmodel name : Some CPU\nflags : fpu avx2 avx512f avx512_vnni\n"
X86_AVX2 = "processor : 0\nflags : fpu avx2\n"
ARM_DOT = "processor : 0\nFeatures : fp asimd asimddp\n"
ARM_PLAIN = "processor : 0\nFeatures : fp asimd crc32\n"
A55, A76 = "0x00000000412fd050", "0x00000000414fd0b0"


def pretended(machine: str, cpuinfo: str, cpus: int = 4, files: Mapping[str, str] | None = None) -> MachineFiles:
    """A machine that is not here."""
    texts = {"/proc/cpuinfo": cpuinfo, "/proc/meminfo": "MemTotal:  4194304 kB\nMemFree: 1 kB", **(files or {})}
    return MachineFiles(machine=machine, cpus=tuple(range(cpus)), read=texts.get)


def described(files: MachineFiles) -> HardwareProfile:
    return probe.describe(files, name="board", fallback_title="a board", cores=len(files.cpus))


def big_little() -> dict[str, str]:
    """Eight cores as a Rockchip RK3588 tells of them: four small ones first."""
    files = {}
    for cpu in range(8):
        big = cpu >= 4
        folder = f"{CPUS}/cpu{cpu}"
        files[f"{folder}/regs/identification/midr_el1"] = A76 if big else A55
        files[f"{folder}/cpu_capacity"] = "1024" if big else "530"
        files[f"{folder}/cpufreq/cpuinfo_max_freq"] = "2400000" if big else "1800000"
        files[f"{folder}/topology/core_id"] = str(cpu % 4)
        files[f"{folder}/topology/physical_package_id"] = "1" if big else "0"
        for index, (level, kind, size) in enumerate(
            (
                ("1", "Data", "64K" if big else "32K"),
                ("1", "Instruction", "64K"),
                ("2", "Unified", "512K"),
                ("3", "Unified", "3072K"),
            )
        ):
            cache = f"{folder}/cache/index{index}"
            shared = "0-7" if level == "3" else str(cpu)
            files |= {f"{cache}/level": level, f"{cache}/type": kind, f"{cache}/size": size, f"{cache}/shared_cpu_list": shared}
    return files


def test_probe_gives_a_profile_of_the_schema_when_run_here() -> None:
    profile = probe.probe_host()
    TypeAdapter(HardwareProfile).validate_json(json.dumps(asdict(profile)), strict=True)
    assert (profile.name, profile.device) == ("host", "host")
    assert profile.memory.bandwidth_bytes_per_second is None
    support = profile.runtime("onnxruntime")
    assert support is not None
    assert 1 <= support.threads <= sum(cluster.cores for cluster in profile.clusters)


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "schemes", "multiple"),
    [
        ("x86_64", X86_VNNI, ("u8s8", "u8u8"), 16),
        ("x86_64", X86_AVX2, ("u8s8", "u8u8"), 8),
        ("aarch64", ARM_DOT, ("s8s8", "u8s8"), 4),
        ("aarch64", ARM_PLAIN, ("u8s8", "s8s8"), 4),
    ],
)
def test_schemes_and_channel_multiples_follow_when_the_instruction_set_differs(
    machine: str, cpuinfo: str, schemes: tuple[str, ...], multiple: int
) -> None:
    support = described(pretended(machine, cpuinfo)).runtime("onnxruntime")
    assert support is not None
    assert support.int8_schemes == schemes
    assert support.channel_multiple["float32"] == multiple
    assert support.formats == ("float32", "int8")


def test_clusters_are_told_apart_fastest_first_when_cores_differ() -> None:
    profile = described(pretended("aarch64", ARM_DOT, 8, big_little()))
    big, little = profile.clusters
    assert (big.name, big.cores, big.clock_hz) == ("Cortex-A76", 4, 2.4e9)
    assert (little.name, little.cores, little.clock_hz) == ("Cortex-A55", 4, 1.8e9)
    assert (big.l1d_bytes, big.l2_bytes, big.l2_shared_by, big.l3_bytes) == (65536, 524288, 1, 3145728)
    assert profile.runtimes[0].threads == 4, "the small cores would hold the big ones up"
    assert profile.memory.size_bytes == 4 << 30


def test_two_threads_of_a_core_count_as_one_core_when_the_system_tells() -> None:
    files = {f"{CPUS}/cpu{cpu}/topology/core_id": str(cpu // 2) for cpu in range(4)}
    files |= {f"{CPUS}/cpu0/cache/index0/{key}": text for key, text in (("level", "2"), ("type", "Unified"), ("size", "1M"))}
    files[f"{CPUS}/cpu0/cache/index0/shared_cpu_list"] = "0-1"
    (cluster,) = described(pretended("x86_64", X86_AVX2, 4, files)).clusters
    assert (cluster.cores, cluster.l2_bytes, cluster.l2_shared_by) == (2, 1 << 20, 1)
    assert cluster.isa == ("avx2",)


def test_what_is_gathered_elsewhere_gives_the_same_machine_as_reading_it_here() -> None:
    names: dict[str, Any] = {}
    exec(GATHER, names)
    (answer,) = names["load"]("", 1, {"patterns": " ".join(PATTERNS)})({})
    there = gathered(answer[0].tobytes())
    assert there.features() == probe.this_machine().features()
    assert there.memory_bytes() == probe.this_machine().memory_bytes()
    assert set(probe.this_machine().cpus) <= set(there.cpus)


def test_lists_of_cpus_are_read_when_they_hold_ranges() -> None:
    assert cpu_list("0-2,8, 10-11") == (0, 1, 2, 8, 10, 11)
    assert cpu_list(None) == ()


def test_threads_shrink_when_a_quota_allows_less_than_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "this_machine", lambda: pretended("x86_64", X86_AVX2, 8))
    threads = {}
    for quota in (None, 2.5, 0.5, 64.0):
        monkeypatch.setattr(probe, "cpu_quota", lambda quota=quota: quota)
        threads[quota] = probe.probe_host().runtimes[0].threads
    assert threads == {None: 8, 2.5: 2, 0.5: 1, 64.0: 8}


def test_limit_is_in_the_profile_when_the_control_group_sets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "memory_limit", lambda: 1000)
    limits = probe.probe_host().limits
    assert limits is not None
    assert limits.memory_bytes == 1000


def test_quota_and_limit_are_read_when_the_groups_are_of_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "batch" / "job"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("max 100000\n")
    (group.parent / "cpu.max").write_text("150000 100000\n")
    (group / "memory.max").write_text("5000\n")
    (group.parent / "memory.max").write_text("max\n")
    (tmp_path / "member").write_text("0::/batch/job\n")
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "MEMBERSHIP", tmp_path / "member")
    assert cgroup.cpu_quota() == 1.5
    assert cgroup.memory_limit() == 5000


def test_quota_and_limit_are_read_when_the_groups_are_of_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, memory = tmp_path / "cpu" / "job", tmp_path / "memory" / "job"
    cpu.mkdir(parents=True)
    memory.mkdir(parents=True)
    (cpu / "cpu.cfs_quota_us").write_text("50000\n")
    (cpu / "cpu.cfs_period_us").write_text("100000\n")
    (cpu.parent / "cpu.cfs_quota_us").write_text("-1\n")
    (cpu.parent / "cpu.cfs_period_us").write_text("100000\n")
    (memory / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "member").write_text("4:cpu,cpuacct:/job\n5:memory:/job\n1:name=systemd:/job\n")
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "MEMBERSHIP", tmp_path / "member")
    assert cgroup.cpu_quota() == 0.5
    assert cgroup.memory_limit() is None


def test_nothing_is_claimed_when_there_are_no_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "MEMBERSHIP", tmp_path / "none")
    assert cgroup.cpu_quota() is None
    assert cgroup.memory_limit() is None
