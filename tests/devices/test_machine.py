"""What the agent reads of a machine: on this one, and on others that are laid out as folders."""

from pathlib import Path

import pytest

from orchestrator.devices import agent


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders of an imaginary machine."""
    for name in ("CPUS", "THERMAL", "POWERCAP", "FIRMWARE_THROTTLED"):
        monkeypatch.setattr(agent, name, str(tmp_path / name.lower()))
    return tmp_path


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


def test_fast_cores_of_a_phone_come_first(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "usable_cores", lambda: list(range(8)))
    for core, capacity in enumerate([1024, 1024, 250, 250, 250, 250, 870, 870]):
        write(machine / f"cpus/cpu{core}/cpu_capacity", capacity)
    assert agent.fastest_cores(1) == [1]
    assert agent.fastest_cores(2) == [0, 1]
    assert agent.fastest_cores(4) == [0, 1, 6, 7]
    assert agent.fastest_cores(99) == list(range(8))


def test_no_two_threads_share_a_physical_core_while_there_are_others(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "usable_cores", lambda: [0, 1, 2, 3])
    for core, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        write(machine / f"cpus/cpu{core}/topology/thread_siblings_list", siblings)
    assert agent.fastest_cores(2) == [2, 3]
    assert agent.fastest_cores(3) == [1, 2, 3]


def test_energy_is_that_of_the_packages_and_not_of_their_parts(machine: Path) -> None:
    assert agent.energy_joules() is None, "no counter, no figure"
    write(machine / "powercap/intel-rapl:0/energy_uj", 5_000_000)
    write(machine / "powercap/intel-rapl:1/energy_uj", 2_000_000)
    write(machine / "powercap/intel-rapl:0:0/energy_uj", 4_000_000)
    assert agent.energy_joules() == pytest.approx(7.0)
    write(machine / "powercap/intel-rapl:1/energy_uj", "")
    assert agent.energy_joules() is None, "half of it would be wrong"


def test_clock_heat_and_throttling_are_read_where_they_are(machine: Path) -> None:
    nothing = agent.state([0])
    assert (nothing["clock_mhz"], nothing["temperature_c"], nothing["throttled"], nothing["throttling"]) == (None,) * 4
    write(machine / "cpus/cpu0/cpufreq/scaling_cur_freq", 1_800_000)
    write(machine / "cpus/cpu1/cpufreq/scaling_cur_freq", 600_000)
    write(machine / "thermal/thermal_zone0/temp", 48_312)
    write(machine / "thermal/thermal_zone1/temp", 61_000)
    write(machine / "cpus/cpu0/thermal_throttle/core_throttle_count", 3)
    write(machine / "firmware_throttled", "50005")
    found = agent.state([0])
    assert found["clock_mhz"] == 1800
    assert found["temperature_c"] == 61
    assert found["throttled"] == 3
    assert found["throttling"] is True
    write(machine / "firmware_throttled", "50000")
    assert agent.state([0])["throttling"] is False, "it did, and does no more"


def test_state_of_this_machine_counts_on() -> None:
    first = agent.state([])
    sum(k * k for k in range(200_000))
    second = agent.state([])
    assert second["at_s"] > first["at_s"]
    if first["busy_s"] is not None:
        assert second["busy_s"] >= first["busy_s"]
    assert agent.facts()["cores"] >= 1
    assert 0 < agent.timer_resolution() < 0.1
