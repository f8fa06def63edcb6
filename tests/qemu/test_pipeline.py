"""Cycles of blocks on the three cores, for code whose answer follows from the guides."""

import random

import pytest

from orchestrator.errors import InputError
from orchestrator_qemu import pipeline
from orchestrator_qemu.cores import CORES, OutOfOrderCore
from orchestrator_qemu.instructions import decode

SUBS, B_NE = 0xF1000400, 0x54000001  # subs x0, x0, #1; b.ne
NOP, ADD, STR_Q = 0xD503201F, 0x91000421, 0x3D800000  # nop; add x1, x1, #1; str q0, [x0]
VARIED = (0x4E22CC20, 0x4E22D420, 0x4E829420, 0x0E628020, 0x4E823820, 0x3DC00000, 0xAD400400, 0x3D800000, ADD, 0x9B027C20, NOP)


def fmla(register: int, wide: bool = True) -> int:
    """fmla vR.4s (or .2s), v30.4s, v31.4s"""
    return (0x4E20CC00 if wide else 0x0E20CC00) | 31 << 16 | 30 << 5 | register


def loop(*words: int) -> tuple[int, ...]:
    """With a counter and a branch to its beginning."""
    back = -(len(words) + 1) & 0x7FFFF
    return (*words, SUBS, B_NE | back << 5)


@pytest.mark.parametrize(
    ("cpu", "cycles"),
    [
        ("cortex-a53", 24 / 1),  # one 128-bit instruction a cycle: 24 independent sums need 24
        ("cortex-a72", 24 * 2 / 2),  # two slots each, on two 64-bit pipes
        ("cortex-a76", 24 / 2),  # one slot each, on two 128-bit pipes
    ],
)
def test_independent_multiply_adds_take_the_vector_pipes_throughput(cpu: str, cycles: float) -> None:
    assert pipeline.cycles(cpu, loop(*(fmla(r) for r in range(24))), True) == pytest.approx(cycles, abs=1)


@pytest.mark.parametrize(("cpu", "forwarding"), [("cortex-a53", 4), ("cortex-a72", 3), ("cortex-a76", 2)])
def test_one_accumulator_takes_the_forwarding_latency_each_time(cpu: str, forwarding: int) -> None:
    assert pipeline.cycles(cpu, loop(*[fmla(0)] * 16), True) == pytest.approx(16 * forwarding, abs=1)


@pytest.mark.parametrize(("cpu", "latency"), [("cortex-a53", 4), ("cortex-a72", 4), ("cortex-a76", 2)])
def test_a_chain_of_additions_takes_their_latency(cpu: str, latency: int) -> None:
    fadd = 0x4E20D400 | 1 << 16  # fadd v0.4s, v0.4s, v1.4s
    assert pipeline.cycles(cpu, loop(*[fadd] * 16), True) == pytest.approx(16 * latency, abs=1)


@pytest.mark.parametrize(("cpu", "width"), [("cortex-a72", 3), ("cortex-a76", 4)])
def test_work_without_pipelines_takes_the_width_of_the_core(cpu: str, width: int) -> None:
    assert pipeline.cycles(cpu, (NOP,) * 24, False) == 24 / width


def test_128_bit_stores_take_two_cycles_when_the_store_path_has_64_bits() -> None:
    assert pipeline.cycles("cortex-a72", (STR_Q,) * 8, False) == 16
    assert pipeline.cycles("cortex-a76", (STR_Q,) * 8, False) == 8


def test_in_order_core_starts_two_at_once_when_they_do_not_need_each_other() -> None:
    alone = pipeline.cycles("cortex-a53", (ADD,) * 8, False)
    paired = pipeline.cycles("cortex-a53", (ADD, NOP) * 8, False)
    assert (alone, paired) == (8, 8)


def test_in_order_core_waits_for_a_load_and_out_of_order_core_does_not() -> None:
    load, use = 0x3DC00000, 0x4E20D400 | 1 << 16  # ldr q0, [x0]; fadd v0.4s, v0.4s, v1.4s
    words = loop(load, use, load, use, load, use, load, use)
    assert pipeline.cycles("cortex-a53", words, True) > 2 * pipeline.cycles("cortex-a76", words, True)


def test_passes_of_a_loop_overlap_when_they_do_not_need_each_other() -> None:
    # ldr q0, [x1], #16; fmul, fmul, fmul on what was loaded; str q0, [x2], #16: a chain of 14 cycles in each pass.
    words = loop(0x3CC10420, *[0x6E20DC00 | 1 << 16] * 3, 0x3C810440)
    assert pipeline.cycles("cortex-a76", words, True) < 4 < pipeline.cycles("cortex-a53", words, True)


@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76"])
def test_a_loop_is_never_faster_than_its_throughput(cpu: str) -> None:
    core = CORES[cpu]
    assert isinstance(core, OutOfOrderCore)
    chance = random.Random(0)
    for _ in range(50):
        words = loop(*chance.choices(VARIED, k=chance.randint(1, 40)))
        bound = pipeline.throughput(core, [decode(w) for w in words])
        assert pipeline.cycles(cpu, words, True) >= bound


def test_unknown_cpu_is_named_when_there_is_no_table() -> None:
    with pytest.raises(InputError, match=r"unknown simulated CPU 'cortex-a77'; did you mean"):
        pipeline.cycles("cortex-a77", (NOP,), False)
