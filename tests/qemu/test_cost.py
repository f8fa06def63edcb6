"""Milliseconds and ratios from counts."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import InputError, ProfileError
from orchestrator.hardware.profile_file import load_profile
from orchestrator.values.profile import SimulationModel
from orchestrator_qemu import cost
from orchestrator_qemu.counts import Counts
from orchestrator_qemu.cpus import CPUS

COUNTS = Counts(
    instructions=2_000_000,
    pipeline_cycles=1_000_000,
    l1_misses=20_000,
    l2_misses=5_000,
    by_class={"float multiply-add": 2_000_000},
    kernels={"a": 900_000, "b": 60_000, "other": 40_000},
    loaded_bytes=4_000_000,
    stored_bytes=1_000_000,
)
MODEL = SimulationModel(
    runtime="onnxruntime",
    cpu="cortex-a72",
    cluster="Cortex-A72",
    cycles={"pipeline": 0.8, "l1_miss": 10.0, "l2_miss": 20.0},
    error={"float32": 1.2, "int8": 1.3},
    ratio_error=1.4,
    thread_speedup=(1.4, 1.6, 1.7),
    thread_error=1.5,
    fitted_on="nothing",
    source="test",
)
PROFILES = {p.stem: p for p in (Path(__file__).parents[2] / "hardware_profiles").glob("*.toml")}
CYCLES = 0.8e6 + 10 * 20e3 + 20 * 5e3


def test_milliseconds_follow_from_the_constants_and_the_clock() -> None:
    found = cost.latency(COUNTS, MODEL, clock_hz=2e9, threads=1, number_format="float32")
    assert found.value == pytest.approx(CYCLES / 2e9 * 1e3)
    assert (found.low, found.high) == pytest.approx((found.value / 1.2, found.value * 1.2))
    assert (found.unit, found.unknown) == ("ms", ())
    assert "cortex-a72" in found.model


def test_band_is_that_of_the_number_format() -> None:
    found = cost.latency(COUNTS, MODEL, clock_hz=2e9, threads=1, number_format="int8")
    assert found.high / found.value == pytest.approx(1.3)


def test_threads_divide_the_time_and_widen_the_band() -> None:
    one = cost.latency(COUNTS, MODEL, clock_hz=2e9, threads=1, number_format="float32")
    four = cost.latency(COUNTS, MODEL, clock_hz=2e9, threads=4, number_format="float32")
    assert one.value / four.value == pytest.approx(1.7)
    assert four.high / four.value == pytest.approx(math.exp(math.hypot(math.log(1.2), math.log(1.5))))


def test_threads_beyond_the_last_known_bring_nothing_but_doubt() -> None:
    four = cost.latency(COUNTS, MODEL, clock_hz=2e9, threads=4, number_format="float32")
    eight = cost.latency(COUNTS, MODEL, clock_hz=2e9, threads=8, number_format="float32")
    assert eight.value == four.value
    assert eight.high > four.high
    assert eight.unknown == ("speed-up of more than 4 threads",)


def test_number_format_without_a_band_is_named_and_takes_a_wider_one() -> None:
    found = cost.latency(COUNTS, MODEL, clock_hz=2e9, threads=1, number_format="float16")
    assert found.unknown == ("float16 arithmetic",)
    assert found.high / found.value > 1.3


def test_ratio_is_exactly_one_when_the_counts_are_equal() -> None:
    assert cost.ratio(COUNTS, replace(COUNTS), MODEL) == (1.0, 1.0, 1.0)


def test_ratio_is_as_sure_as_the_work_is_common() -> None:
    more = replace(COUNTS, pipeline_cycles=1_125_000, kernels={**COUNTS.kernels, "c": 125_000})
    value, low, high = cost.ratio(more, COUNTS, MODEL)
    assert value == pytest.approx((CYCLES + 1e5) / CYCLES)
    assert high / value == pytest.approx(1.4 ** (1e5 / (CYCLES + 1e5)))
    assert 1 < low < value < high


def test_ratio_turns_around_when_the_models_change_places() -> None:
    other = replace(COUNTS, pipeline_cycles=3_000_000, l1_misses=9_000, kernels={"a": 500_000, "z": 2_500_000})
    value, low, high = cost.ratio(other, COUNTS, MODEL)
    assert cost.ratio(COUNTS, other, MODEL) == pytest.approx((1 / value, 1 / high, 1 / low))


def test_ratio_has_the_full_band_when_no_kernel_is_common() -> None:
    other = replace(COUNTS, l1_misses=0, l2_misses=0, kernels={"z": 1_000_000})
    value, _, high = cost.ratio(replace(COUNTS, l1_misses=0, l2_misses=0), other, MODEL)
    assert high / value == pytest.approx(1.4)


def test_constants_that_make_work_free_are_refused() -> None:
    with pytest.raises(ProfileError, match="cost nothing"):
        cost.cycles(COUNTS, replace(MODEL, cycles={}))


def test_clock_and_threads_must_be_positive() -> None:
    with pytest.raises(InputError, match="must be positive"):
        cost.latency(COUNTS, MODEL, clock_hz=0.0, threads=1, number_format="float32")
    with pytest.raises(InputError, match="must be positive"):
        cost.latency(COUNTS, MODEL, clock_hz=1e9, threads=0, number_format="float32")


@pytest.mark.parametrize("cpu", CPUS.values(), ids=lambda cpu: cpu.name)
def test_each_simulated_cpu_has_a_board_with_constants(cpu) -> None:
    profile = load_profile(cpu.board, PROFILES)
    assert profile.simulation("onnxruntime", cpu.name) is not None


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_constants_of_built_in_profiles_give_milliseconds(name: str) -> None:
    profile = load_profile(name, PROFILES)
    clocks = {cluster.name: cluster.clock_hz for cluster in profile.clusters}
    for constants in profile.simulations:
        assert constants.cpu in CPUS
        assert profile.runtime(constants.runtime) is not None
        clock_hz = clocks[constants.cluster]
        assert clock_hz is not None
        for number_format in constants.error:
            found = cost.latency(COUNTS, constants, clock_hz=clock_hz, threads=4, number_format=number_format)
            assert 0 < found.low < found.value < found.high
            assert found.unknown == ()
