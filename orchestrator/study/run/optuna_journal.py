"""The Optuna journal of one run: a file that only this process writes, which holds the lock of the run directory."""

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from orchestrator.errors import EnvironmentFailure
from orchestrator.values.files import drop_half_line


class RunJournal(JournalFileBackend):
    """Optuna's journal file without a lock of its own and without a flush to the disk for each record.

    A trial writes some twenty records; a flush takes milliseconds each. Trials that a loss of power cuts off are restored from
    the candidates' own records (`recovery.py`); a killed process loses nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        for left in path.parent.glob(f"{path.name}.lock*"):  # of versions that locked it
            left.unlink(missing_ok=True)
        if path.exists():
            _cut_unwritten(path)
            drop_half_line(path)
        super().__init__(str(path))
        # Kept open and never created again: records after a deletion would be a journal without its beginning.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Return the records from a number on, without opening the file if there are none."""
        if self._log_number_offset.get(log_number_from) == os.fstat(self._file).st_size:
            return
        yield from super().read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write all records or none.

        Raises:
            EnvironmentFailure: The file was deleted meanwhile.
            OSError: The disk is full or read-only.
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        status = os.fstat(self._file)
        if status.st_nlink == 0:
            raise EnvironmentFailure(f"the study '{self._path}' was deleted during the run")
        try:
            written = os.write(self._file, lines)
            if written < len(lines):
                os.write(self._file, lines[written:])  # raises the reason
        except OSError as error:
            os.ftruncate(self._file, status.st_size)
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


def _cut_unwritten(path: Path) -> None:
    """Cut a journal at the zeros that a loss of power left; `recovery.py` restores what followed."""
    content = path.read_bytes()
    first = content.find(b"\0")
    if first >= 0:
        os.truncate(path, content.rfind(b"\n", 0, first) + 1)
