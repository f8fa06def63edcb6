"""Counts of one inference, from a trace of executed blocks: cycles, cache misses, memory traffic."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import capstone

from orchestrator.errors import InputError
from orchestrator_qemu import pipeline
from orchestrator_qemu.blocks import pieces
from orchestrator_qemu.cpus import Cpu
from orchestrator_qemu.instructions import decode
from orchestrator_qemu.trace import Trace

# To be raised with every change to the decoder, the blocks, the tables or the models that can change a figure.
_GENERATION = 1
VERSION = f"{_GENERATION}/capstone-{'.'.join(map(str, capstone.cs_version()[:2]))}"
"""Version of the model that computes counts from a trace; counts of different versions are never compared."""

# Pieces of code with less than this share of the cycles are kept together.
_KERNEL_SHARE = 1 / 500
OTHER = "other"
"""Their name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """The counts of one inference on one thread.

    Attributes:
        instructions: Executed.
        pipeline_cycles: Of the pipeline model, as if the caches always hit.
        l1_misses, l2_misses: Lines of 64 bytes that the first and the second level of data cache had to fetch.
        by_class: Executed instructions by their kind (`instructions.Kind`).
        kernels: The pipeline cycles by the piece of straight-line code that they were spent in, under a digest of its
            instructions; pieces of no weight under "other". Two models that share kernels share the errors made in them.
        loaded_bytes, stored_bytes: Moved between registers and memory.
    """

    instructions: int
    pipeline_cycles: int
    l1_misses: int
    l2_misses: int
    by_class: Mapping[str, int]
    kernels: Mapping[str, int]
    loaded_bytes: int
    stored_bytes: int

    def plain(self) -> dict[str, Any]:
        """Return the JSON form, with the version of the model."""
        return {
            "version": VERSION,
            "instructions": self.instructions,
            "pipeline_cycles": self.pipeline_cycles,
            "l1_misses": self.l1_misses,
            "l2_misses": self.l2_misses,
            "loaded_bytes": self.loaded_bytes,
            "stored_bytes": self.stored_bytes,
            "by_class": dict(sorted(self.by_class.items())),
            "kernels": dict(sorted(self.kernels.items())),
        }

    @classmethod
    def from_plain(cls, kept: Mapping[str, Any]) -> "Counts":
        """Read the result of `plain`.

        Raises:
            InputError: of another version, or not counts at all.
        """
        if kept.get("version") != VERSION:
            raise InputError(f"counts of version {kept.get('version')!r}; this is version {VERSION!r}: count anew")
        names = ("instructions", "pipeline_cycles", "l1_misses", "l2_misses", "loaded_bytes", "stored_bytes")
        wrong = [name for name in names if not isinstance(kept.get(name), int)]
        wrong += [name for name in ("by_class", "kernels") if not isinstance(kept.get(name), Mapping)]
        if wrong:
            raise InputError(f"these are no counts: {', '.join(wrong)} missing or no figure; count anew")
        numbers = {name: kept[name] for name in names}
        return cls(**numbers, by_class=dict(kept["by_class"]), kernels=dict(kept["kernels"]))


def count(trace: Trace, cpu: Cpu) -> Counts:
    """Compute the counts of a trace.

    Args:
        trace: One inference, with the caches of `cpu` simulated.
        cpu: The CPU that was simulated.

    Raises:
        InputError: the trace is empty, or was made without caches.
    """
    if not trace.blocks:
        raise InputError("the trace holds no executed instruction: the marker was not reached between two inferences")
    if len(trace.misses) < min(2, len(cpu.caches)):
        raise InputError("the trace was made without caches; milliseconds need their misses")
    kinds: Counter[str] = Counter()
    instructions = loaded = stored = 0
    cycles: dict[tuple[int, ...], list[float]] = {}
    for piece in pieces(trace.blocks):
        times = piece.executions
        instructions += times * len(piece.words)
        for word in piece.words:
            instruction = decode(word)
            kinds[instruction.kind.value] += times
            loaded += times * instruction.loaded_bytes
            stored += times * instruction.stored_bytes
        cycles.setdefault(piece.words, []).append(times * pipeline.cycles(cpu.name, piece.words, piece.loop))
    # Exact sums, so that the order of the blocks does not matter.
    total = round(math.fsum(c for found in cycles.values() for c in found))
    return Counts(
        instructions=instructions,
        pipeline_cycles=total,
        l1_misses=trace.misses[0],
        l2_misses=trace.misses[1] if len(trace.misses) > 1 else 0,
        by_class=dict(kinds),
        kernels=_kernels({words: round(math.fsum(found)) for words, found in cycles.items()}, total),
        loaded_bytes=loaded,
        stored_bytes=stored,
    )


def _kernels(cycles: Mapping[tuple[int, ...], int], total: int) -> dict[str, int]:
    """Split the pieces into those with a relevant share, by digest, and the rest."""
    heavy = {_digest(words): spent for words, spent in cycles.items() if spent >= total * _KERNEL_SHARE}
    return {**heavy, OTHER: total - sum(heavy.values())}


def _digest(words: tuple[int, ...]) -> str:
    """Return the digest of the instructions: the same code at another address is the same kernel."""
    return hashlib.sha256(b"".join(word.to_bytes(4, "little") for word in words)).hexdigest()[:12]
