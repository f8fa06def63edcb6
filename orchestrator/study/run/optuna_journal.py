"""The Optuna journal of one run: a file that this process alone writes, for the run directory's lock is held."""

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

    A trial writes some twenty records; a flush takes milliseconds each. What a loss of power takes from its end, the candidates'
    own records give back (`restoring.py`); a killed process loses nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        for left in path.parent.glob(f"{path.name}.lock*"):  # of versions that locked it
            left.unlink(missing_ok=True)
        if path.exists():
            _cut_unwritten(path)
            drop_half_line(path)
        super().__init__(str(path))
        # Kept open and never made anew: records after a deletion would be the end of a journal without its beginning.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The records from that number on; the file is not even opened where there are none."""
        if self._log_number_offset.get(log_number_from) == os.fstat(self._file).st_size:
            return
        yield from super().read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records, all of them or none.

        Raises:
            EnvironmentFailure: the file was deleted meanwhile.
            OSError: the disk is full, ...
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        found = os.fstat(self._file)
        if found.st_nlink == 0:
            raise EnvironmentFailure(f"the study '{self._path}' was deleted by somebody else")
        try:
            written = os.write(self._file, lines)
            if written < len(lines):
                os.write(self._file, lines[written:])  # says why it does not go on
        except OSError as error:
            os.ftruncate(self._file, found.st_size)
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


def _cut_unwritten(path: Path) -> None:
    """Cut a journal where a loss of power left zeros in the place of records; `restoring.py` makes up for what followed."""
    content = path.read_bytes()
    first = content.find(b"\0")
    if first >= 0:
        os.truncate(path, content.rfind(b"\n", 0, first) + 1)
