"""The run directory: who may write to it, what lies where, and how records get there whole."""

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
from orchestrator.study.request import RUN_STATE, RunState
from orchestrator.values.files import drop_half_line, left_behind, write_atomic
from orchestrator.values.results import CandidateResult

CANDIDATE = TypeAdapter(CandidateResult)
BEFORE_IT_BEGINS = ("work", "samples", "log.jsonl", "study.journal")
"""What a start leaves that was killed before there was anything to resume."""
DONE = "done"
"""The last event of a run that came to its end."""


class RunDirectory:
    """The files of one run.

    Attributes:
        work: Everything that is not for people: data laid out for scoring, candidates, baseline outputs.
        samples: The raw times of each candidate, ms, as `.npz` files; they stay when a candidate's model is dropped.
        again: What the measurement at the end found.
        unkept: Seconds by phase, over all processes of the run, that no candidate's record holds.
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
        self.again = self.work / "again.json"
        self.unkept = self._spent()[1]
        self._held = False  # whether this process has written or read what the run was asked to do

    @classmethod
    def create(cls, path: Path) -> "RunDirectory":
        """A new run directory.

        Raises:
            InputError: it holds a run already, is no folder, or cannot be written.
        """
        if path.exists() and not path.is_dir():
            raise InputError(f"--output '{path}' is a file; give a folder")
        if (path / "work" / "run.json").exists():
            cls(path)._refuse_if_in_use()
            raise InputError(f"--output '{path}' holds a run already; go on with: orchestrate resume {path}")
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
        """A run directory that exists.

        Raises:
            InputError: there is none.
        """
        run = cls(path)
        if not run._state.is_file():
            raise InputError(f"'{path}' is no run directory: it has no work/run.json")
        return run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory alone; the lock goes with the process, however that ends.

        Raises:
            RunInUseError: another process holds it; says which.
            EnvironmentFailure: the directory cannot be written.
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
            way_on = "fix it, or copy the run to where it can be written"
            raise EnvironmentFailure(f"run directory '{self.path}' cannot be written: {error.strerror}; {way_on}") from None
        try:
            yield
        finally:
            lock.release()

    def _refuse_if_in_use(self) -> None:
        """Find out whether another process holds the directory, without holding it.

        Raises:
            RunInUseError: one does; says which.
        """
        with suppress(OSError):  # where it cannot be written, nobody works in it
            try:
                with FileLock(self.work / "lock", timeout=0):
                    pass
            except Timeout:
                raise self._in_use() from None

    def _in_use(self) -> RunInUseError:
        try:
            who = self._owner.read_text()
        except OSError:
            who = ""
        return RunInUseError(f"run directory '{self.path}' is in use by {who or 'another process'}; wait for it or end it")

    def _tidy(self) -> None:
        """Remove what killed processes left half done; nobody else is there."""
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
                old.rename(final)  # killed between taking the old one away and putting the new one in its place
        for path in (self.work / "publishing", *self.work.glob("*.simulated")):
            shutil.rmtree(path, ignore_errors=True)
        if self.begun:
            for folder in self.candidates.iterdir():
                if folder.is_dir() and not folder.with_name(f"{folder.name}.json").exists():
                    shutil.rmtree(folder)  # it was being built

    def clear(self) -> None:
        """Forget what a start left that was killed before there was anything to resume: it may be of another model."""
        for entry in self.work.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name not in ("lock", "owner"):
                entry.unlink()
        self.discard()
        self.candidates.mkdir()

    def discard(self) -> None:
        """Delete what lies beside `work` of a run that never began."""
        shutil.rmtree(self.samples, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        self.study.unlink(missing_ok=True)

    @property
    def begun(self) -> bool:
        """Whether there is something to resume."""
        return self._state.is_file()

    @property
    def done(self) -> bool:
        """Whether it came to its end, and nobody has gone on with it since."""
        try:
            return bool(json.loads(self.log.read_text().splitlines()[-1])["event"] == DONE)
        except (OSError, ValueError, LookupError):  # none yet, or a loss of power cut it short
            return False

    def write_state(self, state: RunState) -> None:
        """Keep what the run was asked to do."""
        write_atomic(self._state, RUN_STATE.dump_json(state, indent=1))
        self._held = True

    def state(self) -> RunState:
        """What the run was asked to do.

        Raises:
            InputError: the file is damaged or of another version.
        """
        try:
            state: RunState = RUN_STATE.validate_json(self._state.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(
                f"'{self._state}' was not written by this version: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            ) from None
        self._held = True
        return state

    def write_candidate(self, candidate: CandidateResult) -> None:
        """Keep a candidate; from now on it is never lost.

        Raises:
            EnvironmentFailure: the run's files were deleted meanwhile.
            OSError: the disk is full, ...
        """
        if self._held:
            for path in (self._state, self.data, self.candidates):
                if not path.exists():
                    raise EnvironmentFailure(f"'{path}' was deleted by somebody else")
        write_atomic(self.candidates / f"{candidate.id}.json", json.dumps(asdict(candidate), indent=1))

    def read_candidates(self) -> dict[str, CandidateResult]:
        """All candidates that were kept, by id, in the order of their trials."""
        found = []
        for path in self.candidates.glob("*.json"):
            try:
                found.append(CANDIDATE.validate_json(path.read_bytes()))
            except ValidationError:
                raise InputError(f"'{path}' is damaged; delete it, and resume makes that candidate again") from None
        found.sort(key=lambda c: (c.trial if c.trial is not None else -1, c.id))
        return {candidate.id: candidate for candidate in found}

    def drop_unreferenced(self, known: Mapping[str, CandidateResult]) -> None:
        """Delete the files of candidates whose record names none, and outputs that were being scored: a kill left them."""
        for folder in self.candidates.iterdir():
            record = known.get(folder.name)
            if record is None or not folder.is_dir():
                continue
            if record.artifact is None or record.artifact.path is None:
                shutil.rmtree(folder, ignore_errors=True)
            for outputs in folder.glob("*.work"):
                shutil.rmtree(outputs, ignore_errors=True)

    def forget_candidate(self, identifier: str) -> None:
        """Delete a candidate's record and files, so that it can be made again."""
        self.drop(identifier)
        (self.candidates / f"{identifier}.json").unlink(missing_ok=True)

    def write_samples(self, identifier: str, **samples: Sequence[float]) -> None:
        """Keep raw times, ms, under their names beside those that are there already; nothing for an empty sequence.

        Raises:
            OSError: the disk is full, ...
        """
        arrays = {name: np.asarray(values, np.float64) for name, values in samples.items() if len(values)}
        if not arrays:
            return
        self.samples.mkdir(exist_ok=True)
        path = self.samples / f"{identifier}.npz"
        if path.is_file():
            # Damaged by a loss of power: the new ones are worth having all the same.
            with suppress(ValueError, EOFError, zipfile.BadZipFile), np.load(path) as before:
                arrays = {**before, **arrays}
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **arrays)
        write_atomic(path, content.getvalue(), durable=False)

    def folder(self, identifier: str) -> Path:
        """Where a candidate's files lie."""
        return self.candidates / identifier

    def drop(self, identifier: str) -> None:
        """Delete a candidate's files; its record stays."""
        shutil.rmtree(self.folder(identifier), ignore_errors=True)

    def spend(self, phase: str, seconds: float) -> None:
        """Seconds of a phase that no candidate's record holds: it was broken off, or a later process prepared once more."""
        self.unkept[phase] = self.unkept.get(phase, 0.0) + seconds

    def write_elapsed(self, seconds: float) -> None:
        """Keep how much of the budget is spent."""
        unkept = {phase: round(value, 1) for phase, value in dict(self.unkept).items()}  # a copy: another thread spends
        write_atomic(self._elapsed, json.dumps({"seconds": round(seconds, 1), "unkept": unkept}), durable=False)

    def elapsed(self) -> float:
        """Seconds that the run has taken so far, over all its resumptions."""
        return self._spent()[0]

    def _spent(self) -> tuple[float, dict[str, float]]:
        try:
            found = json.loads(self._elapsed.read_text())
            return float(found["seconds"]), {str(k): float(v) for k, v in found["unkept"].items()}
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or a loss of power took it
            return 0.0, {}

    def event(self, **fields: Any) -> None:
        """One line of the log."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields})
        with self.log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def replace_folder(self, name: str, made: Path) -> None:
        """Put a finished folder in the place of an older one."""
        final, old = self.path / name, self.work / f"old-{name.replace('/', '-')}"
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        final.parent.mkdir(parents=True, exist_ok=True)
        made.rename(final)
        shutil.rmtree(old, ignore_errors=True)
