"""Straight-line pieces of the program from qemu's translated blocks: fall-through blocks joined, loops recognised.

qemu ends a block at the end of a page and where it pleases, so that one loop body may be several. What follows on without a
branch and was executed exactly as often belongs together; a piece that ends by branching to its own beginning is a loop.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator_qemu.instructions import Kind, decode
from orchestrator_qemu.trace import TranslatedBlock

_WORD_BYTES = 4
# Longer pieces are cut: the pipeline's fill at the cut is negligible against so many instructions.
_LONGEST = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A sequence of instructions, with the number of its executions."""

    words: tuple[int, ...]
    executions: int
    loop: bool


def pieces(blocks: Sequence[TranslatedBlock]) -> Iterator[Piece]:
    """Join the blocks of a trace; every execution of every block is in exactly one piece."""
    following = _followers(blocks)
    joined = set(following.values())
    for index, block in enumerate(blocks):
        if index not in joined:
            yield from _chain(blocks, following, index, block)


def _followers(blocks: Sequence[TranslatedBlock]) -> dict[int, int]:
    """Return the fall-through successor of each block, by their positions."""
    at: dict[int, list[int]] = {}
    for index, block in enumerate(blocks):
        at.setdefault(block.address, []).append(index)
    found: dict[int, int] = {}
    taken: set[int] = set()
    for index, block in enumerate(blocks):
        if not block.words or decode(block.words[-1]).kind is Kind.BRANCH:
            continue
        for next_index in at.get(block.address + _WORD_BYTES * len(block.words), ()):
            # Two blocks that end at the same place may both seem to run on into it; it can belong to one of them only.
            if blocks[next_index].executions == block.executions and next_index not in taken:
                found[index] = next_index
                taken.add(next_index)
                break
    return found


def _chain(blocks: Sequence[TranslatedBlock], following: dict[int, int], index: int, block: TranslatedBlock) -> Iterator[Piece]:
    """Return the pieces that begin with one block."""
    start, words = block.address, list(block.words)
    while True:
        following_index = following.get(index)
        if following_index is None or len(words) >= _LONGEST:
            last = decode(words[-1])
            end = start + _WORD_BYTES * (len(words) - 1)
            loop = last.branch_offset is not None and end + last.branch_offset == start
            yield Piece(words=tuple(words), executions=block.executions, loop=loop)
            if following_index is None:
                return
            start, words = blocks[following_index].address, []
        words += blocks[following_index].words
        index = following_index
