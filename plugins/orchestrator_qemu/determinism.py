"""Makes what the guest learns of its surroundings the same on every machine and every day: time, random bytes, names, numbers.

A runtime asks for the time in each inference, and what it does with the answer depends on it (onnxruntime sums up its statistics
when some seconds have passed: a hundred instructions in one inference and not in the next). So functions of the C library are
overwritten by ones that answer from a counter: each call takes a microsecond, whatever the emulating machine needs for it.

Runs in the guest, where nothing of ours is installed. The machine code is A64 (Arm Architecture Reference Manual, chapter C6).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

EPOCH_NS = 1_700_000_000_000_000_000
STEP_NS = 1000
PROCESS_ID = 4242
CORES = 4
FUNCTION_BYTES = 64
COUNTER = 14  # the words of a function that hold the counter's address

# Nanoseconds since 1970 into x3, a step later than the call before; then seconds into x5 and nanoseconds into x6.
NOW = [
    0x58000002 | COUNTER << 5,  # ldr x2, the address
    0xF9400043,  # ldr x3, [x2]
    0x91000063 | STEP_NS << 10,  # add x3, x3, #STEP_NS
    0xF9000043,  # str x3, [x2]
    0x52994004,  # mov w4, #0xca00
    0x72A77344,  # movk w4, #0x3b9a, lsl #16: 1,000,000,000
    0x9AC40865,  # udiv x5, x3, x4
    0x9B048CA6,  # msub x6, x5, x4, x3
]
RETURN_0 = [0x52800000, 0xD65F03C0]  # mov w0, #0; ret
FUNCTIONS = {
    "clock_gettime": [*NOW, 0xA9001825, *RETURN_0],  # stp x5, x6, [x1]
    "gettimeofday": [
        *NOW,
        0x52807D04,  # mov w4, #1000
        0x9AC408C6,  # udiv x6, x6, x4: microseconds
        0xA9001805,  # stp x5, x6, [x0]
        *RETURN_0,
    ],
    "time": [
        *NOW,
        0xB4000040,  # cbz x0, over the store
        0xF9000005,  # str x5, [x0]
        0xAA0503E0,  # mov x0, x5
        0xD65F03C0,  # ret
    ],
    # Bytes that count down to zero serve where nothing is secret.
    "getrandom": [
        0xAA0103E3,  # mov x3, x1
        0xB4000083,  # cbz x3, behind the loop
        0xD1000463,  # sub x3, x3, #1
        0x38236803,  # strb w3, [x0, x3]
        0x17FFFFFD,  # b, to the cbz
        0xAA0103E0,  # mov x0, x1
        0xD65F03C0,  # ret
    ],
    "getpid": [0x52800000 | PROCESS_ID << 5, 0xD65F03C0],  # mov w0, #PROCESS_ID; ret
}
JUMP = (0x58000050, 0xD61F0200)  # ldr x16, the number behind these two; br x16


def overwrite() -> tuple[mmap.mmap, ctypes.c_uint64]:
    """Overwrite the C library's functions, and what Python asks the kernel itself.

    Returns:
        What the functions need for as long as the process lives: it must not be freed.

    Raises:
        OSError: the library's code may not be written.
    """
    executable = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    code = mmap.mmap(-1, FUNCTION_BYTES * len(FUNCTIONS), prot=executable)
    counter = ctypes.c_uint64(EPOCH_NS)
    library = ctypes.CDLL(None, use_errno=True)
    library.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(code))
    for k, (name, words) in enumerate(FUNCTIONS.items()):
        padded = [*words, *[0] * (COUNTER - len(words))]
        code[k * FUNCTION_BYTES : (k + 1) * FUNCTION_BYTES] = struct.pack("<14IQ", *padded, ctypes.addressof(counter))
        place = ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
        page = place // mmap.PAGESIZE * mmap.PAGESIZE
        if library.mprotect(page, 2 * mmap.PAGESIZE, executable):
            raise OSError(ctypes.get_errno(), f"cannot overwrite {name}")
        ctypes.memmove(place, struct.pack("<IIQ", *JUMP, begin + k * FUNCTION_BYTES), 16)
    # A longer host name would put everything that is allocated later elsewhere.
    os.uname = lambda: os.uname_result(("Linux", "board", "6.1.0", "#1 SMP", "aarch64"))
    os.cpu_count = lambda: CORES
    return code, counter
