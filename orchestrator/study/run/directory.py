"""The run directory: its lock, its files, and the atomic writing of records."""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import EnvironmentFailure, InputError, RunInUseError
from orchestrator.study.run.request import RUN_STATE, RunState
from orchestrator.values.files import drop_half_line, left_behind, write_atomic
from orchestrator.values.results import CandidateResult

CANDIDATE_RECORD = TypeAdapter(CandidateResult)
BEFORE_IT_BEGINS = ("work", "samples", "log.jsonl", "study.journal")
"""Entries that a start leaves which was killed before there was anything to resume."""
DONE = "done"
"""The last event of a run that ended."""


class RunDirectory:
    """The files of one run.

    Attributes:
        work: Internal files: data for scoring, candidates, outputs of the baseline.
        samples: Raw times of each candidate, ms, as `.npz` files; they stay when a candidate's model is deleted.
        remeasurement: Results of the measurement at the end.
        unrecorded: Seconds by phase, over all processes of the run, that no candidate's record holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path = path.resolve()  # the processes that read and write here have working folders of their own
        self.work = path / "work"
        self.candidates = self.work / "candidates"
        self.data = self.work / "data"
        self.samples = path / "samples"
        self.study = path / "study.journal"
        self.log = path / "log.jsonl"
        self._state = self.work / "run.json"
        self._elapsed = self.work / "elapsed"
        self._owner = self.work / "owner"
        self.remeasurement = self.work / "again.json"
        self.unrecorded = self._spent()[1]
        self._has_state = False  # this process has written or read the run's state

    @classmethod
    def create(cls, path: Path) -> "RunDirectory":
        """Return a new run directory.

        Raises:
            InputError: It holds a run already, is no folder, or cannot be written.
        """
        if path.exists() and not path.is_dir():
            raise InputError(f"--output '{path}' is a file; give a folder")
        if (path / "work" / "run.json").exists():
            cls(path)._refuse_if_in_use()
            raise InputError(f"--output '{path}' holds a run already; continue with: orchestrate resume {path}")
        if path.is_dir() and any(entry.name not in BEFORE_IT_BEGINS for entry in path.iterdir()):
            raise InputError(f"--output '{path}' is not empty; give a new folder")
        run = cls(path)
        try:
            run.candidates.mkdir(parents=True, exist_ok=True)
            write_atomic(run.work / "probe", "")
            (run.work / "probe").unlink()
        except OSError as error:
            raise InputError(f"--output '{path}' cannot be written: {error.strerror}") from None
        return run

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Return a run directory that exists.

        Raises:
            InputError: It does not exist.
        """
        run = cls(path)
        if not run._state.is_file():
            raise InputError(f"'{path}' is no run directory: it has no work/run.json")
        return run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory exclusively; the lock ends with the process, in whatever way that ends.

        Raises:
            RunInUseError: Another process holds it.
            EnvironmentFailure: The directory cannot be written.
        """
        lock = FileLock(self.work / "lock", timeout=0)
        try:
            lock.acquire()
            write_atomic(self._owner, f"process {os.getpid()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", durable=False)
            self._tidy()
        except Timeout:
            raise self._in_use() from None
        except OSError as error:
            lock.release()
            fix = "fix it, or copy the run to where it can be written"
            raise EnvironmentFailure(f"run directory '{self.path}' cannot be written: {error.strerror}; {fix}") from None
        try:
            yield
        finally:
            lock.release()

    def _refuse_if_in_use(self) -> None:
        """Check that no other process holds the directory, without holding it.

        Raises:
            RunInUseError: Another process does.
        """
        with suppress(OSError):  # no process works in a directory that cannot be written
            try:
                with FileLock(self.work / "lock", timeout=0):
                    pass
            except Timeout:
                raise self._in_use() from None

    def _in_use(self) -> RunInUseError:
        try:
            owner = self._owner.read_text()
        except OSError:
            owner = ""
        return RunInUseError(f"run directory '{self.path}' is in use by {owner or 'another process'}; wait for it or end it")

    def _tidy(self) -> None:
        """Remove what killed processes left incomplete; this process holds the lock."""
        for folder in (self.path, self.work, self.candidates, self.samples):
            for path in left_behind(folder):
                path.unlink(missing_ok=True)
        for path in list(self.work.rglob("*.partial*")):  # files, and folders of several
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if self.log.is_file():
            drop_half_line(self.log)
        for old in self.work.glob("old-*"):
            final = self.path / old.name.removeprefix("old-")
            if final.exists():
                shutil.rmtree(old)
            else:
                old.rename(final)  # killed between moving the old one away and the new one to its place
        for path in (self.work / "publishing", *self.work.glob("*.simulated")):
            shutil.rmtree(path, ignore_errors=True)
        if self.begun:
            for folder in self.candidates.iterdir():
                if folder.is_dir() and not folder.with_name(f"{folder.name}.json").exists():
                    shutil.rmtree(folder)  # it was being built

    def clear(self) -> None:
        """Delete what a start left which was killed before there was anything to resume: it may be of another model."""
        for entry in self.work.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name not in ("lock", "owner"):
                entry.unlink()
        self.discard()
        self.candidates.mkdir()

    def discard(self) -> None:
        """Delete the files beside `work` of a run that never began."""
        shutil.rmtree(self.samples, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        self.study.unlink(missing_ok=True)

    @property
    def begun(self) -> bool:
        """Return True if there is something to resume."""
        return self._state.is_file()

    @property
    def done(self) -> bool:
        """Return True if the run ended and was not resumed since."""
        try:
            return bool(json.loads(self.log.read_text().splitlines()[-1])["event"] == DONE)
        except (OSError, ValueError, LookupError):  # none yet, or a loss of power cut it short
            return False

    def write_state(self, state: RunState) -> None:
        """Write the request and the task of the run."""
        write_atomic(self._state, RUN_STATE.dump_json(state, indent=1))
        self._has_state = True

    def state(self) -> RunState:
        """Return the request and the task of the run.

        Raises:
            InputError: The file is damaged or of another version.
        """
        try:
            state: RunState = RUN_STATE.validate_json(self._state.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(
                f"'{self._state}' was not written by this version: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            ) from None
        self._has_state = True
        return state

    def write_candidate(self, candidate: CandidateResult) -> None:
        """Write a candidate's record.

        Raises:
            EnvironmentFailure: The run's files were deleted meanwhile.
            OSError: The disk is full or read-only.
        """
        if self._has_state:
            for path in (self._state, self.data, self.candidates):
                if not path.exists():
                    raise EnvironmentFailure(f"'{path}' was deleted during the run")
        write_atomic(self.candidates / f"{candidate.id}.json", json.dumps(asdict(candidate), indent=1))

    def read_candidates(self) -> dict[str, CandidateResult]:
        """Return the candidates with a record by id, in the order of their trials."""
        candidates = []
        for path in self.candidates.glob("*.json"):
            try:
                candidates.append(CANDIDATE_RECORD.validate_json(path.read_bytes()))
            except ValidationError:
                raise InputError(f"'{path}' is damaged; delete it, and resume builds that candidate again") from None
        candidates.sort(key=lambda c: (c.trial if c.trial is not None else -1, c.id))
        return {candidate.id: candidate for candidate in candidates}

    def drop_unreferenced(self, known: Mapping[str, CandidateResult]) -> None:
        """Delete files that a kill left: of candidates whose record has none, and outputs that were being scored."""
        for folder in self.candidates.iterdir():
            record = known.get(folder.name)
            if record is None or not folder.is_dir():
                continue
            if record.artifact is None or record.artifact.path is None:
                shutil.rmtree(folder, ignore_errors=True)
            for outputs in folder.glob("*.work"):
                shutil.rmtree(outputs, ignore_errors=True)

    def forget_candidate(self, identifier: str) -> None:
        """Delete a candidate's record and files, so that it can be built again."""
        self.drop(identifier)
        (self.candidates / f"{identifier}.json").unlink(missing_ok=True)

    def write_samples(self, identifier: str, **samples: Sequence[float]) -> None:
        """Add raw times, ms, under their names to those of a candidate; empty sequences are left out.

        Raises:
            OSError: The disk is full or read-only.
        """
        arrays = {name: np.asarray(values, np.float64) for name, values in samples.items() if len(values)}
        if not arrays:
            return
        self.samples.mkdir(exist_ok=True)
        path = self.samples / f"{identifier}.npz"
        if path.is_file():
            # A file that a loss of power damaged is replaced.
            with suppress(ValueError, EOFError, zipfile.BadZipFile), np.load(path) as before:
                arrays = {**before, **arrays}
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **arrays)
        write_atomic(path, content.getvalue(), durable=False)

    def folder(self, identifier: str) -> Path:
        """Return the folder of a candidate's files."""
        return self.candidates / identifier

    def drop(self, identifier: str) -> None:
        """Delete a candidate's files; its record stays."""
        shutil.rmtree(self.folder(identifier), ignore_errors=True)

    def spend(self, phase: str, seconds: float) -> None:
        """Add seconds of a phase that no candidate's record holds: it was aborted, or a later process prepared again."""
        self.unrecorded[phase] = self.unrecorded.get(phase, 0.0) + seconds

    def write_elapsed(self, seconds: float) -> None:
        """Write the spent part of the budget."""
        unrecorded = {phase: round(value, 1) for phase, value in dict(self.unrecorded).items()}  # a copy: another thread spends
        write_atomic(self._elapsed, json.dumps({"seconds": round(seconds, 1), "unkept": unrecorded}), durable=False)

    def elapsed(self) -> float:
        """Return the seconds that the run has taken so far, over all its resumptions."""
        return self._spent()[0]

    def _spent(self) -> tuple[float, dict[str, float]]:
        try:
            content = json.loads(self._elapsed.read_text())
            return float(content["seconds"]), {str(k): float(v) for k, v in content["unkept"].items()}
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or a loss of power took it
            return 0.0, {}

    def event(self, **fields: Any) -> None:
        """Append an event to the log."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields})
        with self.log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def replace_folder(self, name: str, new: Path) -> None:
        """Move a complete folder to the place of an older one."""
        final, old = self.path / name, self.work / f"old-{name.replace('/', '-')}"
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        final.parent.mkdir(parents=True, exist_ok=True)
        new.rename(final)
        shutil.rmtree(old, ignore_errors=True)
