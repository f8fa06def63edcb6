"""Searches that are killed at random moments, and what must hold of the run directory after each kill."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from orchestrator.report.results import read_results
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.files import left_behind
from tests.conftest import orchestrate

VICTIMS = ("main", "worker", "agent", "everything")
MARK = "ORCHESTRATE_KILLED_AS"
MOST_S = 300.0
PATIENCE_S = 10.0
EMPTY = {"hsperfdata_root"}


@dataclass(kw_only=True)
class Killed:
    """One run directory whose processes are killed.

    Args:
        folder: Holds the run and the processes' temporary files; empty.
        options: Of `orchestrate search`, without the output.
        seed: Of the moments and the victims.
        store: A folder where candidates of earlier searches lie; None: there is none.

    Attributes:
        found: What did not hold.
        kills: How often each victim was killed.
    """

    folder: Path
    options: Sequence[str]
    seed: int
    store: Path | None = None
    found: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    _kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    _asked: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.run, self._random = self.folder / "run", random.Random(self.seed)
        self._temporary, self._mark = self.folder / "tmp", uuid.uuid4().hex
        self._temporary.mkdir(parents=True)

    def until_done(self, kills: int) -> None:
        """Kill so many times, then let it end; what does not hold is in `found`."""
        process = self._start()
        while sum(self.kills.values()) < kills and self._wait(process):
            self._kill(process)
            self._check_kept()
            if process.poll() is not None:
                process = self._start()
        for _ in range(2):  # a worker that was killed while the task was loaded ends the program, and it can be begun again
            if self._end(process) in (0, 1):
                break
            process = self._start()
        if (code := self._end(process)) not in (0, 1):
            self._complain(f"it does not come to an end: exit code {code}, {self._said()}")
            return
        self._check_kept()
        self._check_end()

    # -- its processes --------------------------------------------------------------------------------------------------

    def _start(self) -> "subprocess.Popen[bytes]":
        begun = (self.run / "work" / "run.json").is_file()
        arguments = ["resume", str(self.run)] if begun else ["search", *self.options, "--output", str(self.run)]
        store = "none" if self.store is None else str(self.store)
        environment = {**os.environ, "TMPDIR": str(self._temporary), MARK: self._mark, "ORCHESTRATE_STORE": store}
        with (self.folder / "said").open("wb") as said:
            return subprocess.Popen(
                orchestrate(*arguments),
                cwd=self.folder,
                env=environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def _said(self) -> str:
        return (self.folder / "said").read_text().strip()[-300:]

    def _wait(self, process: "subprocess.Popen[bytes]") -> bool:
        """Until a random moment; False where the search ended before."""
        if self._random.random() < 0.5:  # some time after its start, which is mostly preparing
            end = time.monotonic() + self._random.uniform(0, 8)
        else:  # while it works on the next candidates
            wanted = len(self._records()) + self._random.randint(0, 2)
            deadline = time.monotonic() + MOST_S
            while len(self._records()) < wanted and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            end = time.monotonic() + self._random.uniform(0, 2)
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.005)
        return process.poll() is None

    def _kill(self, process: "subprocess.Popen[bytes]") -> None:
        """One of its processes, or all."""
        victim = self._random.choice(VICTIMS)
        chosen, children = self._chosen(victim, process.pid)
        end = time.monotonic() + PATIENCE_S  # for one that lives only while a model is timed or run
        while not chosen and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
            chosen, children = self._chosen(victim, process.pid)
        for pid in chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if chosen:
            self.kills[victim] += 1
        if process.pid in chosen:
            process.wait()
            if left := psutil.wait_procs(children, timeout=15)[1]:
                self._complain(f"processes outlive the kill of {victim}: {[_command(p) for p in left]}")
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)

    def _chosen(self, victim: str, pid: int) -> tuple[list[int], list[psutil.Process]]:
        """The processes that are killed, and all below the main one."""
        children = self._children(pid)
        if victim in ("main", "everything"):
            return [pid, *(c.pid for c in children if victim == "everything")], children
        part = {"worker": "orchestrator.building.builder_process", "agent": "agent.py"}[victim]
        return [c.pid for c in children if part in _command(c)], children

    def _children(self, pid: int) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return psutil.Process(pid).children(recursive=True)
        return []

    def _end(self, process: "subprocess.Popen[bytes]") -> int:
        try:
            return process.wait(MOST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    # -- what must hold -------------------------------------------------------------------------------------------------

    def _complain(self, what: str) -> None:
        self.found.append(f"seed {self.seed}, after {sum(self.kills.values())} kills: {what}")

    def _records(self) -> list[Path]:
        return list((self.run / "work" / "candidates").glob("*.json"))

    def _check_kept(self) -> None:
        """Every file that is read back is whole; what was complete is still there, as it was, and was not asked for again."""
        if not (self.run / "work" / "run.json").is_file():
            if self._records():
                self._complain("the original was complete, and there is nothing to resume")
            return
        run = RunDirectory.open(self.run)
        try:
            run.state()
            now = {name: _essence(record) for name, record in run.read_candidates().items()}
            if (self.run / "results.json").is_file():
                read_results(self.run)
        except Exception as error:  # whatever it is: it must be readable at any moment
            self._complain(f"{type(error).__name__}: {error}")
            return
        for name, before in self._kept.items():
            if now.get(name) != before:
                self._complain(f"{name} was {before} and is {now.get(name)}")
        asked = Counter(event["id"] for event in self._events() if event.get("event") == "trial")
        for name in now:
            if name in self._asked and asked[name] > self._asked[name]:
                self._complain(f"{name} was complete and was made again")
        self._kept, self._asked = now, {name: asked[name] for name in now}

    def _events(self) -> list[dict[str, Any]]:
        found = []
        for line in (self.run / "log.jsonl").read_text().splitlines():
            with contextlib.suppress(ValueError):  # the last one, where the process was killed while it wrote
                found.append(json.loads(line))
        return found

    def _check_end(self) -> None:
        """All trials are there, once, and nothing is left of those that were killed."""
        results = read_results(self.run)
        names = [c.id for c in results.candidates]
        if sorted({*names, "baseline"}) != sorted(self._kept):
            self._complain(f"the results hold {sorted(names)}, and the records {sorted(self._kept)}")
        for what, values in (("ids", names), ("trial numbers", [c.trial for c in results.candidates])):
            if len(set(values)) < len(values):
                self._complain(f"{what} come twice: {values}")
        for name in (*results.front, *([results.recommended] if results.recommended else [])):
            artifact = results.candidate(name).artifact
            if artifact is None or artifact.path is None or not (self.run / artifact.path).is_file():
                self._complain(f"the front's {name} has no file")
        for path in left_over(self.run):
            self._complain(f"left behind: {path.relative_to(self.run)}")
        for path in self._temporary.iterdir():
            if path.name not in EMPTY:
                self._complain(f"left behind: the temporary {path.name}")
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark:
                    self._complain(f"still runs: {_command(process)}")


def left_over(path: Path) -> list[Path]:
    """What a finished run directory must not hold."""
    run = RunDirectory(path)
    records = {p.stem for p in run.candidates.glob("*.json")}
    found = [p for folder in (run.path, run.work, run.candidates, run.samples) for p in left_behind(folder)]
    found += [*run.work.glob("old-*"), *run.work.glob("publishing"), *path.rglob("*.partial*"), *path.glob("study.journal.*")]
    return found + [p for p in run.candidates.iterdir() if p.is_dir() and p.name not in records]


def _essence(record: Any) -> dict[str, Any]:
    """What of a record never changes: its file may be dropped, and the test split comes at the end."""
    quality = record.quality.validation.value if record.quality else None
    latency = [(one.evidence, one.median_ms) for one in record.latency]
    return {"state": record.state, "trial": record.trial, "quality": quality, "latency": latency, "seconds": record.seconds}


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
