"""Ctrl-C and SIGTERM: the first signal is recorded and acted on by `check`, the second ends the program at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from orchestrator.errors import Interrupted

EXIT_CODE = 130
_requested = threading.Event()


def check() -> None:
    """Raise if the user has asked to stop.

    Raises:
        Interrupted: The user has; raised only here, so that no file is left half written.
    """
    if _requested.is_set():
        raise Interrupted("interrupted")


def request() -> None:
    """Request a stop at the next `check`, as Ctrl-C does. Thread-safe."""
    _requested.set()


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Record signals while the body runs. Has no effect outside the main thread, where signals cannot be caught."""
    _requested.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        if _requested.is_set():
            os._exit(EXIT_CODE)
        _requested.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _requested.clear()
