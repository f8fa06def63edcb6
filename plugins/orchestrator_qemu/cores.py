"""Tables of the pipelines of Cortex-A53, A72 and A76: the resources of an instruction, their duration, its latency.

The tables were written from the sources below before anything was compared with a measured time, and nothing in them was
fitted; what they miss is left to the three constants of a board (`cost.py`). One thing was chosen on measured times, for
no source says it: whether a pipeline can pass by an instruction that waits (`fills_gaps`). The A72 comes out nearer to "no", the
A76 to "yes"; docs/simulation.md has the figures of both.

- Cortex-A72: Arm Cortex-A72 Software Optimization Guide (UAN 0016A), chapters 2 (pipelines) and 3 (latencies; in brackets there:
  latency to the accumulator of a later multiply-accumulate of the same kind).
- Cortex-A76: Arm Cortex-A76 Software Optimization Guide, the same chapters; LLVM's AArch64SchedNeoverseN1.td describes the same
  pipelines. Coarser here: shifts and narrowing count as any integer work, 128-bit integer multiplications as one slot.
- Windows of 128 instructions: LLVM's AArch64SchedA57.td (the A72's predecessor) and AArch64SchedNeoverseN1.td (of the A76).
- Cortex-A53: Arm publishes no guide. Dual issue in order, one load/store, 64 bits loaded a cycle, two 64-bit vector pipes and
  the latencies are those of the schedulers to which Arm contributed (GCC config/aarch64 and config/arm cortex-a53.md, LLVM
  AArch64SchedA53.td) and of ncnn's measurements (docs/developer-guide/arm-a53-a55-dual-issue.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from orchestrator_qemu.instructions import Instruction, Kind


class Port(StrEnum):
    """Pipelines as the guides name them; VECTOR is both vector pipes, VECTOR_0 and VECTOR_1 are what only one of them can do."""

    VECTOR = "vector"
    VECTOR_0 = "vector 0"
    VECTOR_1 = "vector 1"
    LOAD = "load"
    STORE = "store"
    INTEGER = "integer"
    MULTIPLY = "multi-cycle integer"
    BRANCH = "branch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """The resources of one instruction on an out-of-order core.

    Attributes:
        ports: Cycles on each kind of pipeline.
        latency: Cycles until another instruction can use the result.
        forwarding: Cycles until the accumulator of a later instruction of the same mnemonic can use it; None: no such path.
    """

    ports: tuple[tuple[Port, int], ...]
    latency: int
    forwarding: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OutOfOrderCore:
    """An out-of-order core.

    Attributes:
        width: Instructions that enter the window in one cycle, in order.
        window: Instructions that may be under way at once.
        pipes: Pipelines of each kind.
        fills_gaps: Whether a pipeline starts a younger instruction while an older one waits for its operands.
        demand: What an instruction asks of them.
    """

    width: int
    window: int
    pipes: Mapping[Port, int]
    fills_gaps: bool
    demand: Callable[[Instruction], Demand]


@dataclass(frozen=True, kw_only=True, slots=True)
class InOrderCore:
    """An in-order core.

    Attributes:
        width: Instructions that can start in one cycle, of these at most one load or store and one branch.
        vector_slots: 64-bit vector pipes: an instruction on 128 bits takes two.
        latency: Cycles until the result can be used, by kind; 1 for others.
        forwarding: The same for the accumulator of a later multiply-accumulate of the same mnemonic, by kind; 1 for others.
        load_latency, vector_load_latency: Of loads; vector loads take longer by each further cycle that they occupy.
        load_bytes, store_bytes: Bytes that plain vector loads and stores move in one cycle; all others move `load_bytes`.
        divide_occupancy: Cycles for which a vector division keeps the vector pipes.
        pairing_bytes: A vector load of this many bytes or more lets nothing start beside it after it.
    """

    width: int
    vector_slots: int
    latency: Mapping[Kind, int]
    forwarding: Mapping[Kind, int]
    load_latency: int
    vector_load_latency: int
    load_bytes: int
    store_bytes: int
    divide_occupancy: int
    pairing_bytes: int


_NO_WORK = Demand(ports=(), latency=0)
_INTEGER = Demand(ports=((Port.INTEGER, 1),), latency=1)
# What both guides say alike.
_COMMON = {
    Kind.PREFETCH: Demand(ports=((Port.LOAD, 1),), latency=1),
    Kind.LOAD: Demand(ports=((Port.LOAD, 1),), latency=4),
    Kind.STORE: Demand(ports=((Port.STORE, 1),), latency=1),
    Kind.BRANCH: Demand(ports=((Port.BRANCH, 1),), latency=1),
    Kind.INTEGER: _INTEGER,
    Kind.NOTHING: _NO_WORK,
}
_INTERLEAVING = ("zip", "uzp", "trn")


def _registers_loaded(instruction: Instruction) -> int:
    """Return the 128-bit registers of a vector load; two of 64 bits count as one."""
    whole = instruction.wide or instruction.loaded_bytes >= 16 * instruction.transfers
    return max(1, instruction.transfers if whole else (instruction.transfers + 1) // 2)


def _cortex_a72(instruction: Instruction) -> Demand:
    kind, wide = instruction.kind, instruction.wide
    width = 2 if wide else 1  # the vector pipes are 64 bits wide: 128 bits take two slots
    if kind is Kind.FLOAT_MULTIPLY_ADD:
        return Demand(ports=((Port.VECTOR, width),), latency=7, forwarding=3)
    if kind in (Kind.FLOAT, Kind.CONVERT):
        return Demand(ports=((Port.VECTOR, width),), latency=4)
    if kind is Kind.FLOAT_DIVIDE:
        return Demand(ports=((Port.VECTOR, 14 if wide else 10),), latency=14)
    if kind in (Kind.VECTOR_MULTIPLY, Kind.DOT):
        lengthening = instruction.mnemonic.endswith(("l", "l2"))
        cycles = 2 if wide and not lengthening else 1
        return Demand(ports=((Port.VECTOR_0, cycles), (Port.VECTOR, 1)), latency=4, forwarding=1)
    if kind is Kind.REDUCE:
        return Demand(ports=((Port.VECTOR_1, 1), (Port.VECTOR, 1)), latency=4, forwarding=1)
    if kind is Kind.PERMUTE:
        cycles = 2 if wide and instruction.mnemonic.startswith(_INTERLEAVING) else 1
        return Demand(ports=((Port.VECTOR, cycles),), latency=3)
    if kind is Kind.VECTOR_INTEGER:
        return Demand(ports=((Port.VECTOR, 1),), latency=3)
    if kind in (Kind.VECTOR_LOAD, Kind.STRUCTURE_LOAD):
        registers = _registers_loaded(instruction)
        spread: tuple[tuple[Port, int], ...] = ((Port.VECTOR, registers),) if kind is Kind.STRUCTURE_LOAD else ()
        return Demand(ports=((Port.LOAD, registers), *spread), latency=5 + (registers if registers > 1 else 0))
    if kind in (Kind.VECTOR_STORE, Kind.STRUCTURE_STORE):
        halves = max(1, instruction.stored_bytes // 8)
        spread = ((Port.VECTOR, max(1, halves // 2)),) if kind is Kind.STRUCTURE_STORE else ()
        return Demand(ports=((Port.STORE, halves), *spread), latency=1)
    if kind is Kind.MULTIPLY:
        return Demand(ports=((Port.MULTIPLY, 1),), latency=3)
    if kind is Kind.DIVIDE:
        return Demand(ports=((Port.MULTIPLY, 8),), latency=8)
    return _COMMON[kind]


def _cortex_a76(instruction: Instruction) -> Demand:
    kind = instruction.kind
    if kind is Kind.FLOAT_MULTIPLY_ADD:
        return Demand(ports=((Port.VECTOR, 1),), latency=4, forwarding=2)
    if kind is Kind.FLOAT:
        return Demand(ports=((Port.VECTOR, 1),), latency=3 if instruction.mnemonic == "fmul" else 2)
    if kind is Kind.CONVERT:
        return Demand(ports=((Port.VECTOR_0, 1), (Port.VECTOR, 1)), latency=3)
    if kind is Kind.FLOAT_DIVIDE:
        return Demand(ports=((Port.VECTOR_0, 8), (Port.VECTOR, 8)), latency=10)
    if kind is Kind.DOT:
        return Demand(ports=((Port.VECTOR, 1),), latency=2, forwarding=1)
    if kind is Kind.VECTOR_MULTIPLY:
        return Demand(ports=((Port.VECTOR_0, 1), (Port.VECTOR, 1)), latency=4, forwarding=1)
    if kind is Kind.REDUCE:
        return Demand(ports=((Port.VECTOR_1, 1), (Port.VECTOR, 1)), latency=3, forwarding=1)
    if kind in (Kind.PERMUTE, Kind.VECTOR_INTEGER):
        return Demand(ports=((Port.VECTOR, 1),), latency=2)
    if kind in (Kind.VECTOR_LOAD, Kind.STRUCTURE_LOAD):
        registers = _registers_loaded(instruction)
        spread: tuple[tuple[Port, int], ...] = ((Port.VECTOR, registers),) if kind is Kind.STRUCTURE_LOAD else ()
        return Demand(ports=((Port.LOAD, registers), *spread), latency=6 if registers > 1 else 5)
    if kind in (Kind.VECTOR_STORE, Kind.STRUCTURE_STORE):
        whole = max(1, (instruction.stored_bytes + 15) // 16)
        return Demand(ports=((Port.STORE, whole), (Port.VECTOR, whole)), latency=1)
    if kind is Kind.MULTIPLY:
        return Demand(ports=((Port.MULTIPLY, 1),), latency=2)
    if kind is Kind.DIVIDE:
        return Demand(ports=((Port.MULTIPLY, 6),), latency=8)
    return _COMMON[kind]


CORES: Mapping[str, OutOfOrderCore | InOrderCore] = {
    "cortex-a53": InOrderCore(
        width=2,
        vector_slots=2,
        latency={
            Kind.FLOAT_MULTIPLY_ADD: 8,
            Kind.FLOAT: 4,
            Kind.CONVERT: 4,
            Kind.VECTOR_MULTIPLY: 4,
            Kind.REDUCE: 4,
            Kind.DOT: 4,
            Kind.FLOAT_DIVIDE: 18,
            Kind.PERMUTE: 2,
            Kind.VECTOR_INTEGER: 2,
            Kind.MULTIPLY: 4,
            Kind.DIVIDE: 8,
        },
        forwarding={Kind.FLOAT_MULTIPLY_ADD: 4},
        load_latency=3,
        vector_load_latency=4,
        load_bytes=8,
        store_bytes=16,
        divide_occupancy=18,
        pairing_bytes=16,
    ),
    "cortex-a72": OutOfOrderCore(
        width=3,
        window=128,
        pipes={
            Port.VECTOR: 2,
            Port.VECTOR_0: 1,
            Port.VECTOR_1: 1,
            Port.LOAD: 1,
            Port.STORE: 1,
            Port.INTEGER: 2,
            Port.MULTIPLY: 1,
            Port.BRANCH: 1,
        },
        fills_gaps=False,
        demand=_cortex_a72,
    ),
    "cortex-a76": OutOfOrderCore(
        width=4,
        window=128,
        pipes={
            Port.VECTOR: 2,
            Port.VECTOR_0: 1,
            Port.VECTOR_1: 1,
            Port.LOAD: 2,
            Port.STORE: 1,
            Port.INTEGER: 3,
            Port.MULTIPLY: 1,
            Port.BRANCH: 1,
        },
        fills_gaps=True,
        demand=_cortex_a76,
    ),
}
"""By the name of the CPU (`cpus.py`)."""
