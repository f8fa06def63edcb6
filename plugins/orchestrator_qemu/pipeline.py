"""Cycles of a block of instructions on a core whose caches always hit: an out-of-order and an in-order model.

A loop is costed in its steady state, several passes with what one hands to the next; a block that is no loop by what limits
its throughput, for on an out-of-order core its neighbours fill the gaps, and in order as one pass. Branches are predicted and
instructions fetched without fail. Measured times differ from this by what a board's constants say.
"""

import functools
import math
from collections.abc import Sequence

from orchestrator.errors import InputError, unknown
from orchestrator_qemu.cores import CORES, InOrderCore, OutOfOrderCore, Port
from orchestrator_qemu.instructions import MEMORY_KINDS, VECTOR_KINDS, Instruction, Kind, decode

# Passes through a loop: the first ones fill the pipeline (and the window of an out-of-order core) and are not counted.
_FILLING, _COUNTED = 2, 4
_IN_ORDER_PASSES, _IN_ORDER_FILLING = 4, 1
# A base register that a load or store moves on is ready after one cycle. Plain loads are left out: their base and their
# result are both integer registers, which the decoder does not tell apart.
_MOVES_BASE = MEMORY_KINDS - {Kind.LOAD, Kind.PREFETCH}


@functools.lru_cache(maxsize=1 << 16)
def cycles(cpu: str, words: tuple[int, ...], loop: bool) -> float:
    """Return the cycles of one pass through a block.

    Args:
        cpu: "cortex-a53", "cortex-a72" or "cortex-a76".
        words: Its instructions, 32 bits each; at least one.
        loop: Whether its last instruction branches to its first one.

    Raises:
        InputError: no table for that CPU.
    """
    core = CORES.get(cpu)
    if core is None:
        raise InputError(unknown("simulated CPU", cpu, CORES))
    instructions = [decode(word) for word in words]
    if isinstance(core, InOrderCore):
        return in_order(core, instructions, loop=loop)
    return out_of_order(core, instructions) if loop else throughput(core, instructions)


def throughput(core: OutOfOrderCore, instructions: Sequence[Instruction]) -> float:
    """Return the lower bound of cycles by the core's width and pipelines, without dependencies."""
    used: dict[Port, int] = {}
    for instruction in instructions:
        for port, busy in core.demand(instruction).ports:
            used[port] = used.get(port, 0) + busy
    return max([len(instructions) / core.width, *(busy / core.pipes[port] for port, busy in used.items())])


def out_of_order(core: OutOfOrderCore, instructions: Sequence[Instruction]) -> float:
    """Return the cycles of one pass through a loop in its steady state.

    Instructions enter in order, start when their operands are there and a pipeline takes them (older ones choose first), and
    leave in order; no more than the window holds are under way.
    """
    demands = [core.demand(instruction) for instruction in instructions]
    kind = _SharedPipes if core.fills_gaps else _QueuedPipes
    pipes = {port: kind(count) for port, count in core.pipes.items()}
    results = _Results()
    left: list[float] = []  # when each instruction so far has left the window
    entered = last = 0.0
    ends = []
    passes = _FILLING + _COUNTED + math.ceil(core.window / len(instructions))
    for _ in range(passes):
        for instruction, demand in zip(instructions, demands, strict=True):
            oldest = left[-core.window] if len(left) >= core.window else 0.0
            entered = max(entered + 1.0 / core.width, oldest)
            ready = results.ready(instruction, entered, forwarded=demand.forwarding is not None)
            started = max([ready, *(pipes[port].take(ready, busy) for port, busy in demand.ports)])
            for register in instruction.writes:
                moved_base = instruction.kind in _MOVES_BASE and register.startswith("x")
                results.put(register, started + (1 if moved_base else max(demand.latency, 1)))
                if register == instruction.accumulator and demand.forwarding is not None:
                    results.forward(register, instruction.mnemonic, started + demand.forwarding)
            last = max(last, started + 1)
            left.append(last)
        ends.append(last)
    steady = (ends[-1] - ends[-1 - _COUNTED]) / _COUNTED
    # The passes that are counted begin and end in the middle of others' work, which can make them look a little too short.
    return max(steady, throughput(core, instructions))


class _QueuedPipes:
    """Equal pipelines with in-order issue: each instruction goes to the pipeline that is free first."""

    def __init__(self, count: int) -> None:
        self._free = [0.0] * count

    def take(self, ready: float, busy: int) -> float:
        """Take `busy` slots from a time on; returns when the last one starts."""
        started = ready
        for _ in range(busy):
            first = min(range(len(self._free)), key=self._free.__getitem__)
            start = max(ready, self._free[first])
            self._free[first] = start + 1
            started = max(started, start)
        return started


class _SharedPipes:
    """Equal pipelines with one queue: ready instructions start in the first free cycle, before older ones that wait."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken: dict[int, int] = {}
        self._next: dict[int, int] = {}

    def take(self, ready: float, busy: int) -> float:
        """Take the first `busy` free slots from a time on; returns the cycle of the last one."""
        cycle = math.ceil(ready)
        for _ in range(busy):
            cycle = self._free(cycle)
            taken = self._taken[cycle] = self._taken.get(cycle, 0) + 1
            if taken == self._count:
                self._next[cycle] = cycle + 1
        return cycle

    def _free(self, cycle: int) -> int:
        """Return the first free cycle from this one on, and shorten the search for the next call."""
        way = []
        while cycle in self._next:
            way.append(cycle)
            cycle = self._next[cycle]
        for full in way:
            self._next[full] = cycle
        return cycle


class _Results:
    """The time at which each register can be read, in general and by the accumulator of the same operation."""

    def __init__(self) -> None:
        self._ready: dict[str, float] = {}
        self._forwarded: dict[str, tuple[str, float]] = {}

    def ready(self, instruction: Instruction, since: float, *, forwarded: bool = True) -> float:
        """Return the time at which all operands of an instruction are available, not before `since`."""
        time = since
        for register in instruction.reads:
            there = self._ready.get(register, 0.0)
            if forwarded and register == instruction.accumulator:
                mnemonic, early = self._forwarded.get(register, ("", 0.0))
                if mnemonic == instruction.mnemonic:
                    there = early
            time = max(time, there)
        return time

    def put(self, register: str, time: float) -> None:
        """Set the time of a register's new value."""
        self._ready[register] = time
        self._forwarded.pop(register, None)

    def forward(self, register: str, mnemonic: str, time: float) -> None:
        """Set the earlier time for the accumulator of that mnemonic."""
        self._forwarded[register] = (mnemonic, time)


class _Cycle:
    """The instructions issued in one cycle of an in-order core."""

    __slots__ = ("branches", "memory", "started", "vector")

    def __init__(self) -> None:
        self.started = self.memory = self.vector = self.branches = 0


def in_order(core: InOrderCore, instructions: Sequence[Instruction], *, loop: bool) -> float:
    """Return the cycles of one pass: of a loop in its steady state, otherwise of a single one."""
    results, cycle = _Results(), _Cycle()
    now = memory_free = vector_free = 0.0
    ends = []
    for _ in range(_IN_ORDER_PASSES if loop else 1):
        for instruction in instructions:
            kind = instruction.kind
            memory, vector = kind in MEMORY_KINDS, kind in VECTOR_KINDS
            earliest = results.ready(instruction, now)
            if memory:
                earliest = max(earliest, memory_free)
            if vector:
                earliest = max(earliest, vector_free)
            slots = (2 if instruction.wide else 1) if vector else 0
            if earliest > now:
                now, cycle = earliest, _Cycle()
            elif (
                cycle.started >= core.width
                or (memory and cycle.memory)
                or (vector and cycle.vector + slots > core.vector_slots)
                or (kind is Kind.BRANCH and cycle.branches)
            ):
                now, cycle = now + 1, _Cycle()
            cycle.started += 1
            cycle.vector += slots
            cycle.branches += kind is Kind.BRANCH
            latency = core.latency.get(kind, 1)
            if memory:
                cycle.memory = 1
                occupied = _memory_cycles(core, instruction)
                memory_free = now + occupied
                latency = core.load_latency if kind is Kind.LOAD else core.vector_load_latency + occupied - 1
                if kind in (Kind.VECTOR_LOAD, Kind.STRUCTURE_LOAD) and instruction.loaded_bytes >= core.pairing_bytes:
                    cycle.started = core.width
            if kind is Kind.FLOAT_DIVIDE:
                vector_free = now + core.divide_occupancy
            for register in instruction.writes:
                moved_base = kind in _MOVES_BASE and register.startswith("x")
                results.put(register, now + (1 if moved_base else latency))
                if register == instruction.accumulator:
                    results.forward(register, instruction.mnemonic, now + core.forwarding.get(kind, 1))
        ends.append(now + 1)
    if not loop:
        return ends[0]
    return (ends[-1] - ends[_IN_ORDER_FILLING - 1]) / (_IN_ORDER_PASSES - _IN_ORDER_FILLING)


def _memory_cycles(core: InOrderCore, instruction: Instruction) -> int:
    """Return the cycles of a load or store in the load/store pipeline; interleaving takes one more."""
    moved = max(instruction.loaded_bytes, instruction.stored_bytes)
    if instruction.kind is Kind.VECTOR_STORE:
        return max(1, moved // core.store_bytes)
    interleaving = 1 if instruction.kind in (Kind.STRUCTURE_LOAD, Kind.STRUCTURE_STORE) else 0
    return max(1, moved // core.load_bytes) + interleaving
