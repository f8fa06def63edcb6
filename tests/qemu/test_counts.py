"""From a trace to counts."""

import json
from dataclasses import replace

import pytest

from orchestrator.errors import InputError
from orchestrator_qemu import counts
from orchestrator_qemu.blocks import pieces
from orchestrator_qemu.counts import Counts, count
from orchestrator_qemu.cpus import CPUS
from orchestrator_qemu.trace import Trace, TranslatedBlock

FMLA, LDR_Q, STR_Q, NOP = 0x4E22CC20, 0x3DC00000, 0x3D800000, 0xD503201F
SUBS, RET = 0xF1000400, 0xD65F03C0
A72 = CPUS["cortex-a72"]


def back(instructions: int) -> int:
    """b.ne to so many instructions before."""
    return 0x54000001 | (-instructions & 0x7FFFF) << 5


def block(address: int, executions: int, *words: int) -> TranslatedBlock:
    return TranslatedBlock(address=address, words=words, executions=executions)


def trace(*blocks: TranslatedBlock, misses: tuple[int, ...] = (1000, 100)) -> Trace:
    return Trace(blocks=blocks, accesses=5000, misses=misses)


def test_blocks_are_joined_when_one_runs_on_into_the_other_as_often() -> None:
    first, second = block(0x1000, 7, NOP, FMLA), block(0x1008, 7, SUBS, back(3))
    (piece,) = pieces([first, second])
    assert (piece.words, piece.executions, piece.loop) == (first.words + second.words, 7, True)


def test_blocks_stay_apart_when_counts_differ_or_a_branch_lies_between() -> None:
    found = list(pieces([block(0x1000, 7, NOP), block(0x1004, 8, NOP, RET), block(0x100C, 8, NOP)]))
    assert [(p.words, p.executions, p.loop) for p in found] == [
        ((NOP,), 7, False),
        ((NOP, RET), 8, False),
        ((NOP,), 8, False),
    ]


def test_every_execution_is_counted_once_when_blocks_overlap() -> None:
    blocks = [
        block(0x1000, 5, NOP, NOP),
        block(0x1000, 5, NOP, NOP, NOP),  # the same place, translated to another length
        block(0x1004, 5, NOP),
        block(0x1008, 5, SUBS, back(1)),
        block(0x100C, 5, NOP),
    ]
    found = list(pieces(blocks))
    assert sum(p.executions * len(p.words) for p in found) == sum(b.executions * len(b.words) for b in blocks)


def test_long_straight_code_is_cut_and_nothing_is_lost() -> None:
    blocks = [block(0x1000 + 400 * i, 3, *[NOP] * 100) for i in range(50)]
    found = list(pieces(blocks))
    assert len(found) > 1
    assert sum(len(p.words) for p in found) == 5000


def test_counts_follow_from_the_trace() -> None:
    found = count(trace(block(0x1000, 10, LDR_Q, FMLA, STR_Q, SUBS, back(4)), block(0x2000, 3, NOP, RET)), A72)
    assert found.instructions == 56
    assert (found.l1_misses, found.l2_misses) == (1000, 100)
    assert (found.loaded_bytes, found.stored_bytes) == (160, 160)
    assert found.by_class == {
        "vector load": 10,
        "float multiply-add": 10,
        "vector store": 10,
        "integer": 10,
        "branch": 13,
        "no operation": 3,
    }
    assert sum(found.kernels.values()) == found.pipeline_cycles
    # The version says when figures can change: whoever changes them raises it, and then these.
    assert (counts.VERSION.partition("/")[0], found.pipeline_cycles) == ("1", 23)


def test_order_of_blocks_does_not_matter() -> None:
    blocks = (block(0x1000, 10, LDR_Q, FMLA, SUBS, back(3)), block(0x2000, 3, NOP, RET), block(0x3000, 7, STR_Q, RET))
    assert count(trace(*blocks), A72) == count(trace(*reversed(blocks)), A72)


def test_the_same_code_elsewhere_is_the_same_kernel() -> None:
    words = (LDR_Q, FMLA, SUBS, back(3))
    here, there = count(trace(block(0x1000, 10, *words)), A72), count(trace(block(0x7000, 10, *words)), A72)
    assert here == there


def test_counts_come_back_as_they_were_kept() -> None:
    found = count(trace(block(0x1000, 10, LDR_Q, FMLA, SUBS, back(3))), CPUS["cortex-a53"])
    assert Counts.from_plain(json.loads(json.dumps(found.plain()))) == found


def test_counts_of_another_version_are_refused() -> None:
    kept = count(trace(block(0x1000, 10, NOP)), A72).plain()
    with pytest.raises(InputError, match="version '0/"):
        Counts.from_plain({**kept, "version": "0/x"})
    with pytest.raises(InputError, match="l1_misses, kernels missing"):
        Counts.from_plain({k: v for k, v in kept.items() if k not in ("l1_misses", "kernels")})


def test_trace_without_inference_or_caches_is_refused() -> None:
    with pytest.raises(InputError, match="no executed instruction"):
        count(trace(), A72)
    with pytest.raises(InputError, match="without caches"):
        count(replace(trace(block(0x1000, 1, NOP)), misses=()), A72)
