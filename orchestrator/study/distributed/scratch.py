"""Scratch folders of workers in the system's temporary folder; those of killed workers are removed."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "orchestrator-worker-"
LOCK = "lock"
YOUNG_S = 60.0
"""Age of a folder that may not be locked yet."""


@contextmanager
def scratch() -> Iterator[Path]:
    """Create a private folder that is deleted afterwards or, if this process is killed, when another worker creates its own.

    A lock and not a process id shows if its process is alive: containers share temporary folders and not process ids.
    """
    base = Path(tempfile.gettempdir())
    _sweep(base)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    lock = FileLock(folder / LOCK)
    lock.acquire()
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(base: Path) -> None:
    for folder in base.glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):
            status = folder.lstat()
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > YOUNG_S:
                with FileLock(folder / LOCK, timeout=0):
                    shutil.rmtree(folder)
