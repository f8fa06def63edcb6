"""The guest's side of the emulator: imports the runtime once, then forks a child for each request.

It runs under qemu as the simulated CPU, with the emulator's root folder as `/`, and needs only Python, NumPy and the runtime. It
finds `/work/start.json` ({"paths", "imports", "load"}: where the runtime lies, what to import, the source text of its `load`).
Each byte on standard input asks for what `/work/request.json` says. A child reads that, writes to `/work`, and answers with a
line of JSON; another line tells how the child ended.

The process that forks looks at nothing and keeps nothing, so that each child begins in the same state, whichever request it is:
what the caches see depends on addresses, and these on everything that was allocated before. A process of its own between the
two watches standard input meanwhile, for the child must not outlive the orchestrator.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import steady  # type: ignore[import-not-found]  # lies beside this file in the guest

MARKER = 0x4F524348  # prctl's option that the counting plugin listens to
BEGIN, END = 0, 1
PR_SET_PDEATHSIG = 1
WATCH_MS = 200

prctl = ctypes.CDLL(None).prctl
prctl.argtypes = (ctypes.c_int, ctypes.c_ulong)
prctl.restype = ctypes.c_int


def say(message: dict[str, Any]) -> None:
    """A line of JSON to the emulator."""
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(REPLIES, data) :]


def example(np: Any, inputs: dict[str, str], k: int) -> dict[str, Any]:
    """Example k of each input, as a batch of one."""
    return {name: np.array(np.load(path, mmap_mode="r", allow_pickle=False)[k : k + 1]) for name, path in inputs.items()}


def serve(load: Callable[..., Any]) -> None:
    """Answer the request that lies there: count a model's inference.

    The first inference plans memory; the second is what every later one is like.
    """
    CLOCK.value = steady.EPOCH_NS
    with open("/work/request.json") as file:  # noqa: PTH123
        request = json.load(file)
    try:
        import numpy as np

        prctl(MARKER, BEGIN)
        run = load(request["model"], 1, request["options"])
        prctl(MARKER, END)
        inputs = example(np, request["inputs"], 0)
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
    """Have a child serve, end it when nobody listens any more, and tell how it ended."""
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


def main() -> None:
    """Import, tell that all is ready, and fork for each request until the input ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.chdir("/")
    with open("/work/start.json") as file:  # noqa: PTH123
        start = json.load(file)
    sys.path[:0] = start["paths"]
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
CODE, CLOCK = steady.overwrite()
failed = 1
try:
    main()
    failed = 0
except Exception:
    traceback.print_exc()
finally:
    os._exit(failed)  # Python would free the memory of the overwritten functions, and then call them
