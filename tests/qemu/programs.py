"""Small aarch64 programs of known counts, assembled here: nothing but Python makes them.

Encodings: Arm Architecture Reference Manual for A-profile, chapter C6. System calls: Linux's generic table.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

BASE = 0x400000
BUFFER = 0x800000  # behind the code, zeroed, and begins with a line
MARKER = 0x4F524348

PRCTL, EXIT, EXIT_GROUP, CLONE, WAIT4 = 167, 93, 94, 220, 260


def mov(register: int, value: int) -> list[int]:
    """Always two instructions, for values of up to 32 bits: movz, movk."""
    return [0xD2800000 | (value & 0xFFFF) << 5 | register, 0xF2A00000 | (value >> 16 & 0xFFFF) << 5 | register]


def add(register: int, value: int) -> int:
    return 0x91000000 | value << 10 | register << 5 | register


def subtract_and_compare(register: int, value: int = 1) -> int:
    return 0xF1000000 | value << 10 | register << 5 | register


def branch_if_not_zero(words: int) -> int:
    """b.ne to so many words from here."""
    return 0x54000001 | (words & 0x7FFFF) << 5


def load(register: int, base: int) -> int:
    """ldr Xregister, [Xbase]"""
    return 0xF9400000 | base << 5 | register


def store(register: int, base: int) -> int:
    return 0xF9000000 | base << 5 | register


def skip_if_zero(register: int, words: int) -> int:
    """cbz to so many words from here."""
    return 0xB4000000 | (words & 0x7FFFF) << 5 | register


def call(number: int) -> list[int]:
    """A system call; three instructions."""
    return [*mov(8, number), 0xD4000001]


def mark(command: int) -> list[int]:
    """The marker that the plugin listens to; seven instructions."""
    return [*mov(0, MARKER), *mov(1, command), *call(PRCTL)]


def begin() -> list[int]:
    return mark(0)


def end() -> list[int]:
    return mark(1)


MARK_INSTRUCTIONS = len(end())


def loop(times: int, body: Sequence[int], *, counter: int = 9) -> list[int]:
    """`times` (len(body) + 2) + 2 instructions."""
    return [*mov(counter, times), *body, subtract_and_compare(counter), branch_if_not_zero(-len(body) - 1)]


def walk(lines: int, access: int, *, base: int = 10) -> list[int]:
    """One access to each of so many lines of the buffer, in order."""
    return [*mov(base, BUFFER), *loop(lines, [access, add(base, 64)])]


def leave() -> list[int]:
    return [*mov(0, 0), *call(EXIT_GROUP)]


def write(path: Path, words: Sequence[int]) -> Path:
    """An executable of these instructions and a megabyte of zeros at `BUFFER`: an ELF header, two segments, no sections."""
    code = struct.pack(f"<{len(words)}I", *words)
    offset = 0x1000
    header = struct.pack(
        "<4s5B7xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 0, 2, 183, 1, BASE + offset, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    whole = offset + len(code)
    segments = struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, whole, whole, 0x1000)
    segments += struct.pack("<IIQQQQQQ", 1, 6, 0, BUFFER, BUFFER, 0, 1 << 20, 0x1000)
    path.write_bytes((header + segments).ljust(offset, b"\0") + code)
    path.chmod(0o755)
    return path
