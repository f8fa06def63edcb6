"""Counts of one phase of a guest's execution, and the reader of the counting plugin's file.

A trace holds how often each translated block was executed, with the block's instruction words; the pipeline model is applied
to them afterwards, so that a better model needs no new emulation. A block is what qemu translates in one piece: it ends at a
branch, at the end of a page, or where the translator stops for reasons of its own, so one block of the program may be
several here, and may overlap with others.

The file is little-endian: for each phase the number `PHASE`, the number of blocks, of cache levels (0: caches were not
simulated); for each block its address, its executions, its number of instructions, and the 32-bit words of these, filled up to
an even number; then the memory accesses and the misses of each level. All numbers but the words have 64 bits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import EnvironmentFailure

PHASE = 0x3145_5341_4850  # "PHASE1"


@dataclass(frozen=True, kw_only=True, slots=True)
class TranslatedBlock:
    """One translated block.

    Attributes:
        address: Of its first instruction, in the guest.
        words: Its instructions, 32 bits each.
        executions: How often it was entered.
    """

    address: int
    words: tuple[int, ...]
    executions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """One phase: what was executed between two markers.

    Attributes:
        blocks: Each that was executed at least once, by address.
        accesses: Loads and stores as qemu does them (before version 8 it halves those of 128 bits); 0 where caches were not
            simulated.
        misses: Of the data caches, first level first; empty where they were not simulated. A level is asked for a line that
            the one before it missed.
    """

    blocks: tuple[TranslatedBlock, ...]
    accesses: int
    misses: tuple[int, ...]

    @property
    def instructions(self) -> int:
        """The number of executed instructions."""
        return sum(block.executions * len(block.words) for block in self.blocks)


def read(path: Path) -> list[Trace]:
    """Read the phases of a plugin's file, in the order in which they ended.

    Raises:
        EnvironmentFailure: the file is cut short or is no trace.
    """
    data = path.read_bytes()
    numbers = np.frombuffer(data[: len(data) // 8 * 8], dtype="<u8")
    try:
        return list(_phases(numbers))
    except IndexError:
        raise EnvironmentFailure(f"{path} is cut short: is the disk full?") from None
    except ValueError as error:
        raise EnvironmentFailure(f"{path} is no trace of the counting plugin: {error}") from None


def _phases(numbers: NDArray[np.uint64]) -> Iterator[Trace]:
    words, k = numbers.view("<u4"), 0
    while k < len(numbers):
        if numbers[k] != PHASE:
            raise ValueError(f"{int(numbers[k]):#x} stands where a phase begins")
        count, levels = int(numbers[k + 1]), int(numbers[k + 2])
        k += 3
        blocks = []
        for _ in range(count):
            address, executions, length = int(numbers[k]), int(numbers[k + 1]), int(numbers[k + 2])
            k += 3
            end = k + (length + 1) // 2
            if end > len(numbers):
                raise IndexError
            blocks.append(
                TranslatedBlock(address=address, executions=executions, words=tuple(words[2 * k : 2 * k + length].tolist()))
            )
            k = end
        accesses, misses = int(numbers[k]), tuple(numbers[k + 1 : k + 1 + levels].tolist())
        if len(misses) != levels:
            raise IndexError
        k += 1 + levels
        blocks.sort(key=lambda block: (block.address, block.words))
        yield Trace(blocks=tuple(blocks), accesses=accesses, misses=misses)
