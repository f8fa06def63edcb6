"""The loop of a search: ask, build, measure, score, tell; within the budget, whatever fails, and the same for the same seed."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import optuna

from orchestrator.devices import interrupt
from orchestrator.errors import DeviceUnavailable, Interrupted
from orchestrator.plugin.registry import Registry
from orchestrator.study.archive import PHASES, Archive
from orchestrator.study.budget import LEAST_FOR_A_TRIAL_S, Budget
from orchestrator.study.candidates.device_pool import DevicePool
from orchestrator.study.candidates.evaluator import DEVICE, Built, CandidateEvaluator
from orchestrator.study.distributed.participant import Participant
from orchestrator.study.proposer import Beyond, PendingCandidates, Proposer
from orchestrator.study.request import RunState
from orchestrator.study.run import optuna_study as studies
from orchestrator.study.run.directory import RunDirectory
from orchestrator.study.run.optuna_restore import restore
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import CandidateResult, Failure, StepResult


class Loop:
    """All trials of one process of a run.

    A candidate is told to the study exactly before the one that comes `fleet.lag` after its successor is asked for, in the order
    of trials, however fast a board was: so the same seed gives the same search.

    Args:
        tell: Called with the fields of an event.
        sharing: This process's part, where several processes share the search.
    """

    def __init__(
        self,
        run: RunDirectory,
        state: RunState,
        registry: Registry,
        archive: Archive,
        laboratory: CandidateEvaluator,
        fleet: DevicePool,
        budget: Budget,
        *,
        tell: Callable[..., None],
        sharing: Participant | None = None,
    ) -> None:
        self._sharing = sharing
        self._run, self._state, self._request, self._registry = run, state, state.request, registry
        self._archive, self._laboratory, self._fleet, self._budget = archive, laboratory, fleet, budget
        self._tell = tell
        space = SearchSpace(state.offers, registry.methods())
        self._salt = [] if sharing is None else sharing.salt
        generator = np.random.default_rng([self._request.options.seed, len(archive.known), *self._salt])
        study = self._study(space)
        self._questions = Proposer(study, space, archive, generator, sharing.claims if sharing else None)
        self._under_way: deque[PendingCandidates] = deque()
        self._taken_up: set[str] = set()  # once each: what is stopped a second time stays so

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
                ended = self._budget.ended(self._archive.tally, len(self._under_way))
                if ended is not None and self._may_revive():
                    ended = None  # it was counted when it was stopped
                if self._sharing is not None:
                    ended = self._shared_turn(self._sharing, ended)
                elif ended is None:
                    interrupt.check()
                    self._fleet.gather()
                    ended = self._begin()
        except DeviceUnavailable:
            self._rest()
            raise
        self._rest()
        if self._sharing is not None:
            self._sharing.over(ended)
        return ended

    def _shared_turn(self, sharing: Participant, ended: str | None) -> str | None:
        """One turn beside other processes; why the search ends, where it does."""
        interrupt.check()
        left = self._budget.left(self._archive.tally, len(self._under_way))
        turn = sharing.turn(ended, left_s=left, late=ended == self._budget.used_up())
        if turn.handed is not None:
            handed, timeout = turn.handed, self._request.candidate_timeout_s
            if left is not None:
                timeout = max(LEAST_FOR_A_TRIAL_S, min(timeout, left))
            item = PendingCandidates(recipe=_recipe(handed.record), trial=handed.trial, timeout_s=timeout)
            item.made = self._laboratory.take_up(handed.record, handed.model, timeout_s=timeout)
            self._under_way.append(item)
        elif turn.wait:
            self._rest()
        elif turn.ended is None:
            self._fleet.gather()
            with suppress(Beyond):
                sharing.exhausted = self._begin()
        return turn.ended

    def _begin(self) -> str | None:
        """Ask for one candidate, build it, and begin to measure it; why the search ends, where it does."""
        begin = time.monotonic() - self._fleet.waited_s
        trial: optuna.Trial | None = None
        revived = self._revived()
        if revived is not None:
            self._taken_up.add(revived.id)
            recipe, number = _recipe(revived), revived.trial
        else:
            asked = self._questions.ask({item.recipe.identifier: item for item in self._under_way})
            if asked is None:
                return "every recipe of the search space was tried"
            trial, recipe = asked
            number = trial.number
        self._tell(event="trial", number=number, id=recipe.identifier, recipe=str(recipe))
        timeout = self._request.candidate_timeout_s
        if (left := self._budget.left(self._archive.tally, len(self._under_way))) is not None:
            timeout = max(LEAST_FOR_A_TRIAL_S, min(timeout, left))
        item = PendingCandidates(recipe=recipe, trial=trial, timeout_s=timeout, revived=revived)
        reasons = self._registry.recipe_objections(recipe, self._request.target)
        if reasons:
            item.made = _rejected(recipe, number, "; ".join(reasons))
        else:
            start = time.monotonic()
            try:
                item.made = self._make(recipe, trial, number, timeout)
            except Interrupted:
                self._run.spend("building", time.monotonic() - start)
                raise
            if item.made is None:
                return None
        item.seconds = time.monotonic() - self._fleet.waited_s - begin
        self._under_way.append(item)
        return None

    def _make(
        self, recipe: Recipe, trial: optuna.Trial | None, number: int | None, timeout_s: float
    ) -> CandidateResult | Built | None:
        """Build a candidate and begin to measure it; None where it was left to a process that may time it."""
        stopping = self._archive.stopping if self._request.preset.early_stopping else None
        if self._sharing is None or not self._sharing.builds_only or trial is None:
            return self._laboratory.begin(recipe, trial=number, timeout_s=timeout_s, stopping=stopping)
        record, model = self._laboratory.build(recipe, trial=number, timeout_s=timeout_s, stopping=stopping)
        if model is None:
            return record
        self._sharing.hand_over(record, model, trial)
        return None

    def _may_revive(self) -> bool:
        """Whether the trials are used up, but there is time for one that was stopped and is worth going on with after all."""
        return self._sharing is None and self._budget.has_time(self._archive.tally) and self._revived() is not None

    def _revived(self) -> CandidateResult | None:
        """A candidate that was stopped in its training and is worth going on with after all; not one that is under way."""
        if self._sharing is not None and not self._sharing.leads:
            return None
        if not any(c.state == "stopped" and c.rungs for c in self._archive.known.values()):
            return None
        return self._archive.stopping.revived(but=self._taken_up | {item.recipe.identifier for item in self._under_way})

    def _complete(self, item: PendingCandidates) -> str | None:
        """Wait for one candidate, keep it and tell the study; why the search ends, where it does."""
        archive, begin = self._archive, time.monotonic()
        made = item.made
        if isinstance(made, Built):
            hopeless = archive.stopping.hopeless if self._request.preset.early_stopping else _never
            made = self._laboratory.finish(made, baseline=archive.baseline, hopeless=hopeless)
        candidate = made
        if candidate is None:
            raise RuntimeError("a candidate is begun before it is completed")
        late = candidate.failure is not None and candidate.failure.kind == "timeout"
        left = self._budget.left(archive.tally, len(self._under_way))
        if late and (item.timeout_s < self._request.candidate_timeout_s or (left is not None and left <= 0)):
            # Cut off by the end of the budget, which says nothing of the candidate: `resume` asks for it again.
            self._run.event(event="cut-off", id=candidate.id)
            for phase in PHASES:
                self._run.spend(phase, candidate.seconds.get(phase, 0.0))
            return self._budget.used_up()
        if item.revived is not None:
            candidate = _continued(item.revived, candidate)
        if self._sharing is not None and item.trial is not None:
            kept = self._sharing.keep(candidate, item.trial)
            if kept is None:
                return None
            candidate = kept
        else:
            candidate = archive.keep(candidate)
        self._questions.tell(item, candidate)
        self._run.write_elapsed(self._budget.elapsed())
        archive.drop_dominated()
        if self._sharing is None or self._sharing.leads:  # the leader tells of what workers have found
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

    def _study(self, space: SearchSpace) -> optuna.Study:
        archive = self._archive
        study = open_study(self._run, self._state, self._registry, archive, self._salt)
        stopping = archive.stopping
        constraints = {c.id: stopping.constraints(c) for c in archive.known.values()}
        told = {c.id: stopping.told(c) for c in archive.known.values()}
        restored = restore(study, space, archive.candidates, told, constraints)
        first = [recipe for steps in self._state.first if space.holds(recipe := Recipe.from_json(steps))]
        starters = (*first, *space.starters(self._request.budget.trials))
        if self._sharing is not None:
            self._sharing.join(study, archive)
            self._sharing.suggest({recipe.identifier: space.parameters(recipe) for recipe in starters})
            return study
        again, late = studies.settle(study, archive.known, told, constraints)
        for identifier in late:  # killed between keeping it and this
            self._registry.trial_finished(archive.known[identifier])
        # Nothing is wrong with candidates whose device was lost. Asked for before they are forgotten: a kill between loses none.
        lost = [c for c in archive.candidates if c.failure is not None and c.failure.step == DEVICE]
        if lost:
            studies.ask_first(study, [space.parameters(_recipe(c)) for c in lost])
            for candidate in lost:
                archive.forget(candidate.id)
        if again or lost or restored:
            self._run.event(event="resumed", asked_again=again + len(lost), restored=restored)
        for recipe in starters:
            study.enqueue_trial(space.parameters(recipe), skip_if_exists=True)  # killed while it did so, a run goes on with it
        return study


def open_study(
    run: RunDirectory, state: RunState, registry: Registry, archive: Archive, salt: Sequence[int] = ()
) -> optuna.Study:
    """The study of a run.

    Args:
        salt: What makes this process's sampler another than those of others that share the study.

    Raises:
        InputError: the storage cannot be opened.
    """
    request = state.request
    seed = int(np.random.default_rng([request.options.seed, len(archive.known), *salt]).integers(1 << 31))
    sampler = registry.samplers()[request.preset.sampler](seed)
    return studies.open_study(run.study, request.options.storage, sampler, state.task.direction, state.study)


def _never(candidate: CandidateResult) -> str | None:
    """No candidate is hopeless where early stopping is off."""
    return None


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
        rungs=sorted(
            [*(rung for rung in before.rungs if rung.key not in again), *candidate.rungs], key=lambda r: (r.step, r.call, r.share)
        ),
        foreseen=candidate.foreseen or before.foreseen,
        seconds=seconds,
    )


def _recipe(candidate: CandidateResult) -> Recipe:
    return Recipe.from_json([{"method": s.method, "version": s.version, "parameters": s.parameters} for s in candidate.recipe])
