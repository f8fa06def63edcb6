"""Decoding A64 words."""

import pytest

from orchestrator_qemu.instructions import Kind, decode


@pytest.mark.parametrize(
    ("word", "mnemonic", "kind"),
    [
        (0x4E22CC20, "fmla", Kind.FLOAT_MULTIPLY_ADD),  # v0.4s, v1.4s, v2.4s
        (0x1F020C20, "fmadd", Kind.FLOAT_MULTIPLY_ADD),  # s0, s1, s2, s3
        (0x4E22D420, "fadd", Kind.FLOAT),  # v0.4s, v1.4s, v2.4s
        (0x6E22FC20, "fdiv", Kind.FLOAT_DIVIDE),
        (0x4E21D820, "scvtf", Kind.CONVERT),
        (0x4E829420, "sdot", Kind.DOT),  # v0.4s, v1.16b, v2.16b
        (0x0E628020, "smlal", Kind.VECTOR_MULTIPLY),  # v0.4s, v1.4h, v2.4h
        (0x4EB1B820, "addv", Kind.REDUCE),
        (0x4E823820, "zip1", Kind.PERMUTE),
        (0x4EA20C20, "sqadd", Kind.VECTOR_INTEGER),
        (0xF9800000, "prfm", Kind.PREFETCH),
        (0x91000400, "add", Kind.INTEGER),  # x0, x0, #1
        (0x9B027C20, "mul", Kind.MULTIPLY),
        (0x9AC20820, "udiv", Kind.DIVIDE),
        (0xD65F03C0, "ret", Kind.BRANCH),
        (0xD503201F, "nop", Kind.NOTHING),
        (0xFFFFFFFF, "?", Kind.INTEGER),
    ],
)
def test_kind_is_that_of_the_guides_when_decoded(word: int, mnemonic: str, kind: Kind) -> None:
    instruction = decode(word)
    assert (instruction.mnemonic, instruction.kind) == (mnemonic, kind)


@pytest.mark.parametrize(
    ("word", "kind", "loaded", "stored", "transfers"),
    [
        (0x39400020, Kind.LOAD, 1, 0, 1),  # ldrb w0, [x1]
        (0x79400020, Kind.LOAD, 2, 0, 1),  # ldrh w0, [x1]
        (0xB9800020, Kind.LOAD, 4, 0, 1),  # ldrsw x0, [x1]
        (0x79000020, Kind.STORE, 0, 2, 1),  # strh w0, [x1]
        (0xC8027C20, Kind.STORE, 0, 8, 1),  # stxr w2, x0, [x1]
        (0xFD400000, Kind.VECTOR_LOAD, 8, 0, 1),  # ldr d0, [x0]
        (0xAD400400, Kind.VECTOR_LOAD, 32, 0, 2),  # ldp q0, q1, [x0]
        (0x3D800000, Kind.VECTOR_STORE, 0, 16, 1),  # str q0, [x0]
        (0x4C402800, Kind.VECTOR_LOAD, 64, 0, 4),  # ld1 {v0.4s to v3.4s}, [x0]
        (0x4D40C800, Kind.STRUCTURE_LOAD, 4, 0, 1),  # ld1r {v0.4s}, [x0]
        (0x4D408000, Kind.STRUCTURE_LOAD, 4, 0, 1),  # ld1 {v0.s}[2], [x0]
        (0x4C008800, Kind.STRUCTURE_STORE, 0, 32, 2),  # st2 {v0.4s, v1.4s}, [x0]
    ],
)
def test_bytes_are_those_that_one_execution_moves(word: int, kind: Kind, loaded: int, stored: int, transfers: int) -> None:
    found = decode(word)
    assert (found.kind, found.loaded_bytes, found.stored_bytes, found.transfers) == (kind, loaded, stored, transfers)


@pytest.mark.parametrize(
    ("word", "reads", "writes", "accumulator"),
    [
        (0x4E22CC20, {"v0", "v1", "v2"}, {"v0"}, "v0"),  # fmla v0.4s, v1.4s, v2.4s
        (0x4E420C20, {"v0", "v1", "v2"}, {"v0"}, "v0"),  # fmla v0.8h, v1.8h, v2.8h: not in capstone's account
        (0x4E829420, {"v0", "v1", "v2"}, {"v0"}, "v0"),  # sdot v0.4s, v1.16b, v2.16b: neither
        (0x4E421420, {"v1", "v2"}, {"v0"}, None),  # fadd v0.8h, v1.8h, v2.8h: neither
        (0x4C402800, {"x0"}, {"v0", "v1", "v2", "v3"}, None),  # ld1 of four registers
        (0x4CDF2800, {"x0"}, {"v0", "v1", "v2", "v3", "x0"}, None),  # the same, moving the base on
        (0x4D408000, {"x0", "v0"}, {"v0"}, None),  # one lane: the others stay
        (0x4C008800, {"x0", "v0", "v1"}, set(), None),  # st2
        (0xA9BF7BFD, {"x29", "x30", "x31"}, {"x31"}, None),  # stp x29, x30, [sp, #-16]!
        (0xF1000400, {"x0"}, {"x0", "nzcv"}, None),  # subs x0, x0, #1
        (0xAA1F03E0, set(), {"x0"}, None),  # mov x0, xzr: nobody waits for zero
    ],
)
def test_registers_are_those_that_others_wait_for(word: int, reads: set[str], writes: set[str], accumulator: str | None) -> None:
    found = decode(word)
    assert (found.reads, found.writes, found.accumulator) == (reads, writes, accumulator)


@pytest.mark.parametrize(("word", "offset"), [(0x14000002, 8), (0x54FFFFE1, -4), (0xB4000040, 8), (0xD65F03C0, None)])
def test_branch_offset_is_relative_to_the_branch_when_it_is_direct(word: int, offset: int | None) -> None:
    assert decode(word).branch_offset == offset
