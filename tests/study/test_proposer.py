"""Which recipe comes next, and what the study is told of one that is asked for twice."""

from contextlib import suppress
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from orchestrator.study.proposer import PendingCandidate, Proposer
from orchestrator.study.recovery import enqueue_first, settle
from orchestrator.values.recipe import Recipe, Step
from tests.study.conftest import Make


def recipe(number: int) -> Recipe:
    return Recipe(steps=(Step(method="m", version=1, parameters={"k": number}),))


class Space:
    """Recipes that differ by one number."""

    def suggest(self, trial: optuna.Trial) -> Recipe:
        return recipe(trial.suggest_int("k", 0, 9))

    def parameters(self, made: Recipe) -> dict[str, Any]:
        return dict(made.steps[0].parameters)

    def random(self, generator: np.random.Generator) -> Recipe:
        return recipe(int(generator.integers(3)))


class Archive:
    """What is known, and no limits."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.stopping = self

    def constraints(self, candidate: Any) -> dict[str, float]:
        return {}

    def for_sampler(self, candidate: Any) -> Any:
        return candidate if candidate.state == "complete" else None


@pytest.fixture
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(directions=["maximize", "minimize", "minimize"])


def questions(study: optuna.Study, archive: Archive) -> Proposer:
    return Proposer(study, Space(), archive, np.random.default_rng(0))  # type: ignore[arg-type]


def asked(study: optuna.Study, archive: Archive, under_way: dict[str, PendingCandidate]) -> PendingCandidate | None:
    found = questions(study, archive).ask(under_way)
    if found is None:
        return None
    trial, made = found
    return under_way.setdefault(made.identifier, PendingCandidate(recipe=made, trial=trial, timeout_s=1))


def test_trial_that_asks_for_what_is_under_way_is_told_the_same(study: optuna.Study, make: Make) -> None:
    archive, under_way = Archive(), dict[str, PendingCandidate]()
    for k in (1, 1, 2):
        study.enqueue_trial({"k": k})
    first = asked(study, archive, under_way)
    second = asked(study, archive, under_way)
    assert first is not None and second is not None
    assert (first.recipe, second.recipe) == (recipe(1), recipe(2))
    assert [trial.number for trial in first.duplicates] == [1]
    questions(study, archive).tell(first, make("a", latency=7))  # type: ignore[arg-type]
    told = study.get_trials(states=(TrialState.COMPLETE,))
    assert [(trial.number, trial.values) for trial in told] == [(0, [0.9, 7.0, 1000.0]), (1, [0.9, 7.0, 1000.0])]


def test_search_ends_when_all_is_known_or_under_way(study: optuna.Study, make: Make) -> None:
    archive, under_way = Archive(), dict[str, PendingCandidate]()
    archive.known[recipe(0).identifier] = make("a")
    for k in (1, 2):
        study.enqueue_trial({"k": k})
        assert asked(study, archive, under_way) is not None
    for k in (0, 1, 2):
        study.enqueue_trial({"k": k})
    assert asked(study, archive, under_way) is None


def test_what_is_to_be_tried_again_comes_ahead_of_what_waits(study: optuna.Study) -> None:
    for k in (1, 2):
        study.enqueue_trial({"k": k})
    enqueue_first(study, [{"k": 7}, {"k": 8}])
    assert [study.ask().suggest_int("k", 0, 9) for _ in range(4)] == [7, 8, 1, 2]


class KilledError(Exception):
    """In the place of a SIGKILL."""


@pytest.mark.parametrize("after", range(8))
def test_nothing_that_waits_is_lost_when_it_is_killed_in_between(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    for k in (1, 2):
        study.enqueue_trial({"k": k})
    study.ask().suggest_int("k", 0, 9)  # the first one is under way
    calls = iter(range(100))

    def killed(call: Any) -> Any:
        def counted(*arguments: Any, **more: Any) -> Any:
            if next(calls) == after:
                raise KilledError
            return call(*arguments, **more)

        return counted

    with monkeypatch.context() as patch, suppress(KilledError):
        for name in ("tell", "enqueue_trial"):
            patch.setattr(study, name, killed(getattr(study, name)))
        settle(study, {}, Archive())
        enqueue_first(study, [{"k": 7}])
    settle(study, {}, Archive())
    enqueue_first(study, [{"k": 7}])
    waiting = [trial.system_attrs["fixed_params"]["k"] for trial in study.get_trials(states=(TrialState.WAITING,))]
    assert (waiting[0], sorted(waiting)) == (7, [1, 2, 7]), "each once, and first what is to be"
    assert not study.get_trials(states=(TrialState.RUNNING,))
