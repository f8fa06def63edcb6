"""Ctrl-C and SIGTERM: the first is noted and heard at the next safe place, the second ends the program at once."""

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
    """Raise where the user has asked to stop.

    Raises:
        Interrupted: so that no file is left half written, only from places that call this.
    """
    if _requested.is_set():
        raise Interrupted("interrupted")


def request() -> None:
    """Stop at the next safe place, as after Ctrl-C: what is under way is wanted no more. From any thread."""
    _requested.set()


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Note signals while the body runs. In a thread other than the main one signals cannot be caught: nothing changes there."""
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
