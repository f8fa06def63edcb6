"""A worker's folder of its own in the system's temporary one; those of workers that were killed are removed."""

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
"""A folder of this age may not be locked yet."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A private folder that is gone afterwards, and if this process is killed, when the next one makes its own.

    Whether its process lives is told by a lock, not by a process id: containers share temporary folders and not process ids.
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
            found = folder.lstat()
            if found.st_uid == os.getuid() and time.time() - found.st_mtime > YOUNG_S:
                with FileLock(folder / LOCK, timeout=0):
                    shutil.rmtree(folder)
