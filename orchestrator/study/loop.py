"""The loop of a search: propose, build, measure, score, tell; within the budget and reproducible by the seed."""

import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import optuna

from orchestrator.devices import interrupt
from orchestrator.errors import DeviceUnavailable, Interrupted
from orchestrator.plugin.registry import Registry
from orchestrator.study import recovery
from orchestrator.study.budget import LEAST_FOR_A_TRIAL_S, Budget
from orchestrator.study.candidates.archive import PHASES, Archive
from orchestrator.study.candidates.context import RunContext
from orchestrator.study.candidates.evaluator import BuiltCandidate, CandidateEvaluator
from orchestrator.study.distributed.participant import Participant
from orchestrator.study.proposer import BudgetClaimed, PendingCandidate, Proposer
from orchestrator.study.run import optuna_study
from orchestrator.study.run.directory import RunDirectory
from orchestrator.study.run.request import RunState
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import CandidateResult, Failure, step_results


class Loop:
    """All trials of one process of a run.

    The study receives a candidate's result exactly before the candidate is proposed that comes `pool.lag` after its successor, in
    the order of trials, however fast a device was: the same seed gives the same search.

    Args:
        context: The run.
        state: The state of the run; in a worker with this machine's paths.
        archive: The candidates of the run.
        evaluator: Evaluator of candidates.
        budget: The budget of the run.
        participant: This process's part in a shared study; None if this is the only process.
    """

    def __init__(
        self,
        context: RunContext,
        state: RunState,
        archive: Archive,
        evaluator: CandidateEvaluator,
        budget: Budget,
        participant: Participant | None = None,
    ) -> None:
        self._run, self._registry, self._pool, self._events = context.run, context.registry, context.pool, context.events
        self._state, self._request, self._archive, self._evaluator = state, state.request, archive, evaluator
        self._budget, self._participant = budget, participant
        space = SearchSpace(state.offers, self._registry.methods())
        self._salt = [] if participant is None else participant.salt
        generator = np.random.default_rng([self._request.options.seed, len(archive.known), *self._salt])
        study = self._study(space)
        self._proposer = Proposer(study, space, archive, generator, participant.claims if participant else None)
        self._pending: deque[PendingCandidate] = deque()
        self._resumed: set[str] = set()  # each once: a candidate that is stopped a second time is not continued again

    def run(self) -> str:
        """Run trials until the budget or the space is used up, and return the reason of the end.

        Raises:
            DeviceUnavailable: No device answers within the wait; complete candidates are kept.
        """
        ended: str | None = None
        try:
            while ended is None:
                if len(self._pending) > self._pool.lag:
                    ended = self._complete(self._pending.popleft())
                    continue
                ended = self._budget.ended(self._archive.tally, len(self._pending))
                if ended is not None and self._can_resume_candidate():
                    ended = None  # its trial was counted when it was stopped
                if self._participant is not None:
                    ended = self._shared_turn(self._participant, ended)
                elif ended is None:
                    interrupt.check()
                    self._pool.gather()
                    ended = self._begin()
        except DeviceUnavailable:
            self._complete_pending()
            raise
        self._complete_pending()
        if self._participant is not None:
            self._participant.end(ended)
        return ended

    def _shared_turn(self, participant: Participant, ended: str | None) -> str | None:
        """Take one step beside other processes; return the reason if the search ends."""
        interrupt.check()
        left = self._left_s()
        step = participant.next_step(ended, left_s=left, late=ended == self._budget.time_is_up())
        if step.handover is not None:
            handover, timeout = step.handover, self._timeout_s(left)
            item = PendingCandidate(recipe=handover.record.as_recipe(), trial=handover.trial, timeout_s=timeout)
            item.result = self._evaluator.measure(handover.record, handover.model, timeout_s=timeout)
            self._pending.append(item)
        elif step.wait:
            self._complete_pending()
        elif step.ended is None:
            self._pool.gather()
            with suppress(BudgetClaimed):
                participant.exhausted = self._begin()
        return step.ended

    def _begin(self) -> str | None:
        """Propose a candidate, build it and start its measurement; return the reason if the search ends."""
        began = time.monotonic() - self._pool.waited_s
        resumed = self._resumable()
        trial: optuna.Trial | None = None
        if resumed is not None:
            self._resumed.add(resumed.id)
            recipe, number = resumed.as_recipe(), resumed.trial
        else:
            proposal = self._proposer.ask({item.recipe.identifier: item for item in self._pending})
            if proposal is None:
                return "every recipe of the search space was tried"
            trial, recipe = proposal
            number = trial.number
        self._events.trial(number, recipe)
        item = PendingCandidate(recipe=recipe, trial=trial, timeout_s=self._timeout_s(self._left_s()), resumed=resumed)
        objections = self._registry.recipe_objections(recipe, self._request.target)
        if objections:
            failure = Failure(kind="limit", step="recipe", message="; ".join(objections))
            item.result = CandidateResult(
                id=recipe.identifier, state="rejected", trial=number, recipe=step_results(recipe), failure=failure
            )
        else:
            start = time.monotonic()
            try:
                item.result = self._build(recipe, trial, number, item.timeout_s)
            except Interrupted:
                self._run.spend("building", time.monotonic() - start)
                raise
            if item.result is None:
                return None
        item.seconds = time.monotonic() - self._pool.waited_s - began
        self._pending.append(item)
        return None

    def _build(
        self, recipe: Recipe, trial: optuna.Trial | None, number: int | None, timeout_s: float
    ) -> CandidateResult | BuiltCandidate | None:
        """Build a candidate and start its measurement; None if it was handed over to a process that may measure it."""
        stopping = self._archive.stopping if self._request.preset.early_stopping else None
        if self._participant is None or not self._participant.builds_only or trial is None:
            return self._evaluator.begin(recipe, trial=number, timeout_s=timeout_s, stopping=stopping)
        record, model = self._evaluator.build(recipe, trial=number, timeout_s=timeout_s, stopping=stopping)
        if model is None:
            return record
        self._participant.hand_over(record, model, trial)
        return None

    def _left_s(self) -> float | None:
        return self._budget.left_for_trials(self._archive.tally, len(self._pending))

    def _timeout_s(self, left_s: float | None) -> float:
        """Return the time of one candidate, given the seconds that are left for trials."""
        timeout_s = self._request.candidate_timeout_s
        return timeout_s if left_s is None else max(LEAST_FOR_A_TRIAL_S, min(timeout_s, left_s))

    def _can_resume_candidate(self) -> bool:
        """Return True if the trials are used up, but there is time to continue a candidate that was stopped too early."""
        return self._participant is None and self._budget.has_time(self._archive.tally) and self._resumable() is not None

    def _resumable(self) -> CandidateResult | None:
        """Return a candidate that was stopped in its training and would not be stopped now, or None."""
        if self._participant is not None and not self._participant.leads:
            return None
        if not any(c.state == "stopped" and c.rungs for c in self._archive.known.values()):
            return None
        return self._archive.stopping.resumable(exclude=self._resumed | {item.recipe.identifier for item in self._pending})

    def _complete(self, item: PendingCandidate) -> str | None:
        """Wait for a candidate, keep it and tell the study; return the reason if the search ends."""
        archive, began, result = self._archive, time.monotonic(), item.result
        if isinstance(result, BuiltCandidate):
            hopeless = archive.stopping.hopeless if self._request.preset.early_stopping else _never
            result = self._evaluator.finish(result, baseline=archive.baseline, hopeless=hopeless)
        if result is None:
            raise RuntimeError("a candidate is begun before it is completed")
        candidate, left = result, self._left_s()
        late = candidate.failure is not None and candidate.failure.kind == "timeout"
        if late and (item.timeout_s < self._request.candidate_timeout_s or (left is not None and left <= 0)):
            # The end of the budget cut it off, which is no failure of the candidate: `resume` proposes it again.
            self._run.event(event="cut-off", id=candidate.id)
            for phase in PHASES:
                self._run.spend(phase, candidate.seconds.get(phase, 0.0))
            return self._budget.time_is_up()
        if item.resumed is not None:
            candidate = _continued(item.resumed, candidate)
        if self._participant is not None and item.trial is not None:
            kept = self._participant.keep(candidate, item.trial)
            if kept is None:
                return None
            candidate = kept
        else:
            candidate = archive.keep(candidate)
        self._proposer.tell(item, candidate)
        self._run.write_elapsed(self._budget.elapsed())
        if self._participant is None or self._participant.leads:  # the leader reports the candidates of workers
            self._registry.trial_finished(candidate)
        self._events.candidate(candidate, tried=len(archive.known) - 1, baseline=archive.baseline, best=archive.recommended)
        self._budget.record_trial(min(item.seconds + time.monotonic() - began, self._request.candidate_timeout_s / 2))
        return None

    def _complete_pending(self) -> None:
        """Complete all candidates that are being measured."""
        while self._pending:
            self._complete(self._pending.popleft())

    def _study(self, space: SearchSpace) -> optuna.Study:
        """Return the study of the run, recovered from an earlier process and with its first recipes enqueued."""
        archive, view = self._archive, self._archive.stopping
        study = open_study(self._run, self._state, self._registry, archive, self._salt)
        restored = recovery.restore(study, space, archive.candidates, view)
        first = [recipe for steps in self._state.first if space.holds(recipe := Recipe.from_json(steps))]
        starters = (*first, *space.starters(self._request.budget.trials))
        if self._participant is not None:
            self._participant.join(study, archive)
            self._participant.suggest({recipe.identifier: space.parameters(recipe) for recipe in starters})
            return study
        enqueued, late = recovery.settle(study, archive.known, view)
        for identifier in late:  # killed between keeping it and this
            self._registry.trial_finished(archive.known[identifier])
        enqueued += recovery.repeat_lost(study, space, archive)
        if enqueued or restored:
            self._run.event(event="resumed", asked_again=enqueued, restored=restored)
        for recipe in starters:
            study.enqueue_trial(space.parameters(recipe), skip_if_exists=True)  # a resumed run may have enqueued some
        return study


def open_study(
    run: RunDirectory, state: RunState, registry: Registry, archive: Archive, salt: Sequence[int] = ()
) -> optuna.Study:
    """Return the study of a run with its sampler.

    Args:
        run: The run directory.
        state: The state of the run.
        registry: The plugins.
        archive: The candidates of the run.
        salt: Distinguishes this process's sampler from those of others that share the study.

    Raises:
        InputError: The storage cannot be opened.
    """
    request = state.request
    seed = int(np.random.default_rng([request.options.seed, len(archive.known), *salt]).integers(1 << 31))
    sampler = registry.samplers()[request.preset.sampler](seed)
    return optuna_study.open_study(run.study, request.options.storage, sampler, state.task.direction, state.study)


def _never(candidate: CandidateResult) -> str | None:
    """Return None: no candidate is hopeless without early stopping."""
    return None


def _continued(before: CandidateResult, candidate: CandidateResult) -> CandidateResult:
    """Return a candidate that continued where it had stopped, with the rungs and the time of its first part."""
    repeated = {rung.key for rung in candidate.rungs}
    rungs = [*(rung for rung in before.rungs if rung.key not in repeated), *candidate.rungs]
    seconds = {
        name: before.seconds.get(name, 0.0) + candidate.seconds.get(name, 0.0) for name in before.seconds | candidate.seconds
    }
    return replace(
        candidate,
        rungs=sorted(rungs, key=lambda rung: (rung.step, rung.call, rung.share)),
        foreseen=candidate.foreseen or before.foreseen,
        seconds=seconds,
    )
