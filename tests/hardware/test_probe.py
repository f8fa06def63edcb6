"""The probe: a legal profile of whatever machine runs the tests, and the right choices for machines that do not."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from orchestrator.hardware import cgroup, probe
from orchestrator.values.profile import HardwareProfile

X86_VNNI = "processor : 0\nmodel name : Some CPU\nflags : fpu avx2 avx512f avx512_vnni\n"
X86_AVX2 = "processor : 0\nflags : fpu avx2\n"
ARM_DOT = "processor : 0\nFeatures : fp asimd asimddp\n"
ARM_PLAIN = "processor : 0\nFeatures : fp asimd crc32\n"


def pretend(monkeypatch: pytest.MonkeyPatch, machine: str, cpuinfo: str) -> None:
    read = probe._read
    monkeypatch.setattr(probe.platform, "machine", lambda: machine)
    monkeypatch.setattr(probe.sys, "platform", "linux")
    monkeypatch.setattr(probe, "_read", lambda path: cpuinfo if path == Path("/proc/cpuinfo") else read(path))


def test_probe_gives_a_profile_of_the_schema_when_run_here() -> None:
    profile = probe.probe_host()
    TypeAdapter(HardwareProfile).validate_json(json.dumps(asdict(profile)), strict=True)
    assert (profile.name, profile.device) == ("host", "host")
    assert profile.memory.bandwidth_bytes_per_second is None
    support = profile.runtime("onnxruntime")
    assert support is not None
    assert 1 <= support.threads <= profile.clusters[0].cores


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
    monkeypatch: pytest.MonkeyPatch, machine: str, cpuinfo: str, schemes: tuple[str, ...], multiple: int
) -> None:
    pretend(monkeypatch, machine, cpuinfo)
    support = probe.probe_host().runtime("onnxruntime")
    assert support is not None
    assert support.int8_schemes == schemes
    assert support.channel_multiple["float32"] == multiple
    assert support.formats == ("float32", "int8")


def test_threads_shrink_when_a_quota_allows_less_than_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_cores", lambda: 8)
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
