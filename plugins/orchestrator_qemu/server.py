"""The guest's side of the emulator: imports the runtime once, then forks a child for each request.

It runs under qemu as the simulated CPU, with the emulator's root folder as `/`, and needs only Python, NumPy and the runtime. It
is given {"imports", "load"}: what to import, and the source text of the runtime's `load`. Each byte on standard input asks for
what `/work/request.json` says. A child reads that and answers with a line of JSON; another line tells how the child ended.

The process that forks looks at nothing and keeps nothing, so that each child begins in the same state, whichever request it is:
what the caches see depends on addresses, and these on everything that was allocated before. A process of its own between the
two watches standard input meanwhile, for the child must not outlive the orchestrator.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import json
import os
import select
import signal
import traceback
from collections.abc import Callable
from typing import Any

import determinism  # type: ignore[import-not-found]  # lies beside this file in the guest

MARKER = 0x4F524348  # prctl's option that the counting plugin listens to
BEGIN, END = 0, 1
PR_SET_PDEATHSIG = 1
WATCH_MS = 200

prctl = ctypes.CDLL(None).prctl
prctl.argtypes = (ctypes.c_int, ctypes.c_ulong)
prctl.restype = ctypes.c_int


def say(message: dict[str, Any]) -> None:
    """Send a line of JSON to the emulator."""
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(REPLIES, data) :]


def read(path: str) -> bytes:
    """Read a file."""
    with io.FileIO(path) as file:  # no buffer: its size would be the disk's choice
        return file.readall()


def serve(load: Callable[..., Any]) -> None:
    """Answer the request that lies there: count a model's inference.

    The first inference plans memory; the second is what every later one is like.
    """
    CLOCK.value = determinism.EPOCH_NS
    request = json.loads(read("/work/request.json"))
    try:
        import numpy as np

        prctl(MARKER, BEGIN)
        run = load(request["model"], 1, request["options"])
        prctl(MARKER, END)
        read_array = np.lib.format.read_array
        inputs = {name: read_array(io.BytesIO(read(path))) for name, path in request["inputs"].items()}
        run(inputs)
        prctl(MARKER, END)
        run(inputs)
        prctl(MARKER, END)
        say({"result": {}})
    except MemoryError as error:
        say({"error": {"kind": "out-of-memory", "message": f"MemoryError: {error}"}})
    except Exception as error:  # whatever a runtime raises is an answer
        say({"error": {"kind": "error", "message": f"{type(error).__name__}: {error}"}})


def watch(load: Callable[..., Any]) -> None:
    """Let a child serve, end it when the emulator is gone, and report how it ended."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    child = os.fork()
    if child == 0:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        serve(load)
        os._exit(0)
    listener = select.poll()
    listener.register(0, 0)  # a closed pipe is told without asking for it
    ended, status = 0, 0
    while not ended:
        if listener.poll(WATCH_MS):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return
        ended, status = os.waitpid(child, os.WNOHANG)
    say({"ended": status})


def main(start: dict[str, Any]) -> None:
    """Serve until the input ends, and end the process."""
    try:
        listen(start)
    except Exception:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # Python would free the memory of the overwritten functions, and then call them


def listen(start: dict[str, Any]) -> None:
    """Import, tell that all is ready, and fork for each request until the input ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.chdir("/")
    for name in ("numpy", *start["imports"]):
        __import__(name)
    namespace: dict[str, Any] = {}
    exec(compile(start["load"], "<runtime>", "exec"), namespace)  # noqa: S102 the runtime plugin's own code
    load = namespace["load"]
    gc.collect()
    gc.freeze()
    gc.disable()  # when garbage is collected must not depend on what came before
    say({"ready": True})
    while os.read(0, 1):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BrokenPipeError):
                watch(load)
            os._exit(0)
        os.waitpid(child, 0)
        del child  # or its number would lie elsewhere in every other turn, and with it all that comes after


REPLIES = os.dup(1)
os.dup2(2, 1)  # what libraries print is no answer
CODE, CLOCK = determinism.overwrite()
