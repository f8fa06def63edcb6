"""The run's own journal: whole records or none, and trials that it lost come back from the candidates' records."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from orchestrator.building.protocol import OfferReply
from orchestrator.errors import EnvironmentFailure
from orchestrator.plugin.parameters import Number
from orchestrator.plugin.registry import Registry
from orchestrator.study.recovery import restore
from orchestrator.study.run.optuna_journal import RunJournal
from orchestrator.study.run.optuna_study import CANDIDATE, open_study, tell
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.direction import Direction
from orchestrator.values.results import CandidateResult, StepResult
from tests.study.conftest import Make


@pytest.fixture
def space() -> SearchSpace:
    offers = (
        OfferReply(
            method="static-int8",
            version=Registry.discover().methods()["static-int8"].version,
            family="quantization",
            parameters=(Number(name="share", help="", low=0.0, high=1.0, step=0.125, default=0.5),),
        ),
    )
    return SearchSpace(offers, Registry.discover().methods())


class View:
    """What a sampler learns: complete candidates as they are, within a limit."""

    def for_sampler(self, candidate: CandidateResult) -> CandidateResult | None:
        return candidate if candidate.state == "complete" else None

    def constraints(self, candidate: CandidateResult) -> dict[str, float]:
        return {"limit": -0.1} if candidate.state == "complete" else {}


def candidates(space: SearchSpace, make: Make, study: optuna.Study, count: int) -> list[CandidateResult]:
    """Trials of a study, told with what came of them; every third failed, and between them are recipes that came twice."""
    found = []
    while len(found) < count:
        trial = study.ask()
        recipe = space.suggest(trial)
        if not recipe.steps or any(c.id == recipe.identifier for c in found):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        trial.set_user_attr(CANDIDATE, recipe.identifier)
        steps = [StepResult(method=s.method, version=s.version, parameters=dict(s.parameters)) for s in recipe.steps]
        made: dict[str, Any] = {"quality": 0.5 + len(found) / 100, "latency": 10.0 - len(found), "trial": trial.number}
        candidate = make(recipe.identifier, **made)
        state = "failed" if len(found) % 3 == 2 else "complete"
        found.append(CandidateResult(**{**{f: getattr(candidate, f) for f in FIELDS}, "recipe": steps, "state": state}))
        tell(study, trial, found[-1], View())
    return found


FIELDS = ("id", "artifact", "quality", "latency", "trial", "peak_memory_bytes")


def content(study: optuna.Study) -> list[tuple[Any, ...]]:
    """All that a sampler learns of trials whose candidates are known."""
    known = [trial for trial in study.get_trials() if CANDIDATE in trial.user_attrs]
    return [(t.number, t.state, t.values, t.params, t.distributions, t.constraints, t.user_attrs["candidate"]) for t in known]


@pytest.mark.parametrize("kept_share", [0.0, 0.4])
def test_study_that_lost_its_end_is_restored_from_the_records(
    tmp_path: Path, space: SearchSpace, make: Make, kept_share: float
) -> None:
    path = tmp_path / "study.journal"
    study = open_study(path, None, optuna.samplers.RandomSampler(seed=1), Direction.MAXIMIZE, "a")
    known = candidates(space, make, study, 7)
    whole = content(study)
    del study
    if kept_share:
        os.truncate(path, int(path.stat().st_size * kept_share))
    else:
        path.unlink()
    study = open_study(path, None, optuna.samplers.RandomSampler(seed=1), Direction.MAXIMIZE, "a")
    lost = restore(study, space, known, View())
    assert 0 < lost <= 7
    now = {row[-1]: row for row in content(study)}
    if kept_share:  # the trial that was cut in two keeps its number, and comes again under another
        assert {name: row[1:] for name, row in now.items()} == {row[-1]: row[1:] for row in whole}
    else:
        assert sorted(now.values()) == whole
    assert restore(study, space, known, View()) == 0
    assert study.ask().number > max(c.trial or 0 for c in known)


def test_optunas_own_tools_read_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = open_study(path, None, optuna.samplers.RandomSampler(seed=1), Direction.MAXIMIZE, "a")
    study.ask()
    (summary,) = optuna.get_all_study_summaries(JournalStorage(JournalFileBackend(str(path))))
    assert summary.n_trials == 1


def test_zeros_and_half_lines_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    RunJournal(path).append_logs([{"a": 1}, {"b": 2}])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"c": \0\0\0\0\n{"d": 4}\n{"e"')
    assert list(RunJournal(path).read_logs(0)) == [{"a": 1}, {"b": 2}]
    path.write_bytes(whole + b'{"c":')
    RunJournal(path).append_logs([{"d": 4}])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": 1}, {"b": 2}, {"d": 4}]


def test_records_after_a_deletion_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    journal = RunJournal(path)
    path.unlink()
    with pytest.raises(EnvironmentFailure, match=r"study\.journal' was deleted during the run"):
        journal.append_logs([{"a": 1}])
    assert not path.exists()


def test_record_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.journal"
    journal = RunJournal(path)
    journal.append_logs([{"a": 1}])
    write = os.write

    def full(file: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", none)
        return write(file, data[:3])

    def none(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left on device"):
        journal.append_logs([{"b": 2}])
    assert path.read_text() == '{"a":1}\n'
