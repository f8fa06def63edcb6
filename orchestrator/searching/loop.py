"""The loop of a search: ask, build, measure, score, tell; within the budget, whatever fails, and the same for the same seed."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import optuna

from orchestrator.devices import interrupt
from orchestrator.plugin.device import DeviceUnavailable
from orchestrator.plugin.registry import Registry
from orchestrator.searching import study as studies
from orchestrator.searching.archive import Archive
from orchestrator.searching.asking import Questions, UnderWay
from orchestrator.searching.budget import LEAST_FOR_A_TRIAL_S, Budget
from orchestrator.searching.fleet import Fleet
from orchestrator.searching.request import RunState
from orchestrator.searching.restoring import restore
from orchestrator.searching.run_directory import RunDirectory
from orchestrator.searching.space import Space
from orchestrator.searching.trial import DEVICE, Built, Laboratory
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import CandidateResult, Failure, StepResult


class Loop:
    """All trials of one process of a run.

    A candidate is told to the study exactly before the one that comes `fleet.lag` after its successor is asked for, in the order
    of trials, however fast a board was: so the same seed gives the same search.

    Args:
        tell: Called with the fields of an event.
    """

    def __init__(
        self,
        run: RunDirectory,
        state: RunState,
        registry: Registry,
        archive: Archive,
        laboratory: Laboratory,
        fleet: Fleet,
        budget: Budget,
        *,
        tell: Callable[..., None],
    ) -> None:
        self._run, self._state, self._request, self._registry = run, state, state.request, registry
        self._archive, self._laboratory, self._fleet, self._budget = archive, laboratory, fleet, budget
        self._tell = tell
        space = Space(state.offers, registry.methods())
        generator = np.random.default_rng([self._request.seed, len(archive.known)])
        self._questions = Questions(self._study(space), space, archive, generator)
        self._under_way: deque[UnderWay] = deque()

    def run(self) -> str:
        """Until the budget or the space is used up; which.

        Raises:
            DeviceUnavailable: no device is there, after waiting; what was complete by then is kept.
        """
        ended: str | None = None
        try:
            while ended is None:
                if len(self._under_way) > self._fleet.lag:
                    ended = self._complete(self._under_way.popleft())
                    continue
                ended = self._budget.ended(self._archive.known, len(self._under_way))
                if ended is None:
                    interrupt.check()
                    self._fleet.gather()
                    ended = self._begin()
        except DeviceUnavailable:
            self._rest()
            raise
        self._rest()
        return ended

    def _begin(self) -> str | None:
        """Ask for one candidate, build it, and begin to measure it; why the search ends, where it does."""
        begin = time.monotonic() - self._fleet.waited_s
        trial: optuna.Trial | None = None
        revived = self._revived()
        if revived is not None:
            recipe, number = _recipe(revived), revived.trial
        else:
            asked = self._questions.ask({item.recipe.identifier: item for item in self._under_way})
            if asked is None:
                return "every recipe of the search space was tried"
            trial, recipe = asked
            number = trial.number
        self._tell(event="trial", number=number, id=recipe.identifier, recipe=str(recipe))
        timeout = self._request.candidate_timeout_s
        if (left := self._budget.left(self._archive.known.values(), len(self._under_way))) is not None:
            timeout = max(LEAST_FOR_A_TRIAL_S, min(timeout, left))
        item = UnderWay(recipe=recipe, trial=trial, timeout_s=timeout, revived=revived)
        reasons = self._registry.recipe_objections(recipe, self._request.target)
        if reasons:
            item.made = _rejected(recipe, number, "; ".join(reasons))
        else:
            stopping = self._archive.stopping
            item.made = self._laboratory.begin(recipe, trial=number, timeout_s=timeout, stopping=stopping)
        item.seconds = time.monotonic() - self._fleet.waited_s - begin
        self._under_way.append(item)
        return None

    def _revived(self) -> CandidateResult | None:
        """A candidate that was stopped in its training and is worth going on with after all; not one that is under way."""
        if self._under_way or not any(c.state == "stopped" and c.rungs for c in self._archive.known.values()):
            return None
        return self._archive.stopping.revived()

    def _complete(self, item: UnderWay) -> str | None:
        """Wait for one candidate, keep it and tell the study; why the search ends, where it does."""
        archive, begin = self._archive, time.monotonic()
        made = item.made
        if isinstance(made, Built):
            made = self._laboratory.finish(made, baseline=archive.baseline, hopeless=archive.stopping.hopeless)
        candidate = made
        if candidate is None:
            raise RuntimeError("a candidate is begun before it is completed")
        late = candidate.failure is not None and candidate.failure.kind == "timeout"
        if late and item.timeout_s < self._request.candidate_timeout_s:
            # Cut off by the end of the budget, which says nothing of the candidate: `resume` asks for it again.
            self._run.event(event="cut-off", id=candidate.id)
            return self._budget.used_up()
        if item.revived is not None:
            candidate = _continued(item.revived, candidate)
        candidate = archive.keep(candidate)
        self._questions.tell(item, candidate)
        self._run.write_elapsed(self._budget.elapsed())
        archive.drop_dominated()
        self._registry.trial_finished(candidate)
        best = archive.known.get(archive.standing.recommendation().id or "")
        tried = len(archive.known) - 1
        self._tell(event="candidate", candidate=candidate, tried=tried, baseline=archive.baseline, best=best)
        self._budget.took(min(item.seconds + time.monotonic() - begin, self._request.candidate_timeout_s / 2))
        return None

    def _rest(self) -> None:
        """Complete what is still on boards when the search ends."""
        while self._under_way:
            self._complete(self._under_way.popleft())

    def _study(self, space: Space) -> optuna.Study:
        archive = self._archive
        study = open_study(self._run, self._state, self._registry, archive)
        stopping = archive.stopping
        constraints = {c.id: stopping.constraints(c) for c in archive.known.values()}
        told = {c.id: stopping.told(c) for c in archive.known.values()}
        restored = restore(study, space, archive.candidates, told, constraints)
        again = studies.settle(study, archive.known, told, constraints)
        # Nothing is wrong with candidates whose device was lost. Asked for before they are forgotten: a kill between loses none.
        lost = [c for c in archive.candidates if c.failure is not None and c.failure.step == DEVICE]
        if lost:
            studies.ask_first(study, [space.parameters(_recipe(c)) for c in lost])
            for candidate in lost:
                archive.forget(candidate.id)
        if again or lost or restored:
            self._run.event(event="resumed", asked_again=again + len(lost), restored=restored)
        for recipe in space.starters(self._request.trials):
            study.enqueue_trial(space.parameters(recipe), skip_if_exists=True)  # killed while it did so, a run goes on with it
        return study


def open_study(run: RunDirectory, state: RunState, registry: Registry, archive: Archive) -> optuna.Study:
    """The study of a run.

    Raises:
        InputError: the storage cannot be opened.
    """
    request = state.request
    seed = int(np.random.default_rng([request.seed, len(archive.known)]).integers(1 << 31))
    sampler = registry.samplers()[request.sampler](seed)
    return studies.open_study(run.study, request.storage, sampler, state.task.direction, state.study)


def _rejected(recipe: Recipe, trial: int | None, reason: str) -> CandidateResult:
    return CandidateResult(
        id=recipe.identifier,
        state="rejected",
        trial=trial,
        recipe=[StepResult(method=s.method, version=s.version, parameters=dict(s.parameters)) for s in recipe.steps],
        failure=Failure(kind="limit", step="recipe", message=reason),
    )


def _continued(before: CandidateResult, candidate: CandidateResult) -> CandidateResult:
    """A candidate that went on where it had stopped: with the rungs and the time of the first part."""
    again = {rung.key for rung in candidate.rungs}
    seconds = {
        name: before.seconds.get(name, 0.0) + candidate.seconds.get(name, 0.0) for name in before.seconds | candidate.seconds
    }
    return replace(
        candidate,
        rungs=[*(rung for rung in before.rungs if rung.key not in again), *candidate.rungs],
        foreseen=candidate.foreseen or before.foreseen,
        seconds=seconds,
    )


def _recipe(candidate: CandidateResult) -> Recipe:
    return Recipe.from_json([{"method": s.method, "version": s.version, "parameters": s.parameters} for s in candidate.recipe])
