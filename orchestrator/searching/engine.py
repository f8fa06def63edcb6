"""The search loop: ask, build, score, time, tell; within the budget, through every failure, and resumable at any moment."""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from orchestrator.building.layout import laid_out
from orchestrator.building.protocol import PrepareRequest
from orchestrator.building.workshop import Workshop
from orchestrator.devices import interrupt
from orchestrator.errors import InputError
from orchestrator.measuring.evaluation import Evaluator
from orchestrator.plugin.device import Device, JobFailed
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime import Runtime
from orchestrator.searching import study as studies
from orchestrator.searching.front import latency_of, pareto_front, size_of
from orchestrator.searching.limits import excesses, kept, useless
from orchestrator.searching.recommendation import recommend
from orchestrator.searching.request import RunState, SearchRequest
from orchestrator.searching.run_directory import RunDirectory
from orchestrator.searching.space import Space
from orchestrator.searching.trial import Laboratory
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import CandidateResult, Failure, StepResult

BASELINE = "baseline"
DUPLICATES_BEFORE_RANDOM = 3
RANDOM_TRIES = 500
RESERVE_S = 6.0
LEAST_FOR_A_TRIAL_S = 5.0
LEAST_ANSWER_S = 30.0
SCORING_S = 600.0

Observer = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a search has so far."""

    state: RunState
    baseline: CandidateResult
    candidates: list[CandidateResult]
    front: list[CandidateResult]
    ended: str
    seconds: dict[str, float]
    notes: list[str] = field(default_factory=list)


class Engine:
    """One run on one target.

    Args:
        started: `time.monotonic()` at which the budget began.
        observer: Told what happens, as it happens.
    """

    def __init__(
        self,
        run: RunDirectory,
        request: SearchRequest,
        registry: Registry,
        runtime: Runtime,
        device: Device,
        *,
        started: float,
        observer: Observer,
    ) -> None:
        self._run, self._request, self._registry = run, request, registry
        self._runtime, self._device = runtime, device
        self._observer = observer
        self._spent_before = run.elapsed()
        self._started = started
        self._at_the_end = 0.0
        self._known: dict[str, CandidateResult] = {}
        self._direction, self._metric = "maximize", ""

    # -- the phases -------------------------------------------------------------------------------------------------

    def prepare(self, state: RunState | None, workshop: Workshop) -> RunState:
        """Load and check the task; on the first time ask the methods what they offer."""
        self._tell(event="phase", what="loading the model and the data")
        reply = workshop.prepare()
        if state is not None:
            if reply.task.digest != state.task.digest:
                raise InputError("the model or its data have changed since the run began; begin a new run")
            return state
        state = RunState(
            request=self._request,
            task=reply.task,
            study=f"{self._run.path.name}-{secrets.token_hex(4)}",
            offers=reply.offers,
            epochs=reply.epochs,
            notes=reply.notes,
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            seconds_preparing=round(self.elapsed(), 1),
        )
        if not any(offer.refused is None for offer in reply.offers):
            reasons = "; ".join(f"{offer.method}: {offer.refused}" for offer in reply.offers)
            raise InputError(f"no method can be used on this model, these data and this target ({reasons or 'none installed'})")
        if Space(state.offers, self._registry.methods()).size() == 0:
            names = ", ".join(offer.method for offer in reply.offers if offer.refused is None)
            raise InputError(f"no recipe can be made of {names} alone: they need another method before them")
        self._tell(event="notes", notes=[*state.notes, *refusals(state)])
        return state

    def baseline(self, state: RunState, workshop: Workshop) -> CandidateResult:
        """The original, exported and measured like every candidate.

        Raises:
            InputError: it cannot be exported, scored or run.
        """
        self._known = self._run.read_candidates()
        self._direction, self._metric = state.task.direction, state.task.metric
        self._open_study(state)  # a storage that cannot be opened is better known now
        return self._baseline(self._laboratory(state, workshop))

    def search(self, state: RunState, workshop: Workshop) -> Found:
        """All trials that the budget pays for; `baseline` came before."""
        laboratory = self._laboratory(state, workshop)
        baseline = self._known[BASELINE]
        space = Space(state.offers, self._registry.methods())
        study = self._study(state, space, baseline)
        generator = np.random.default_rng([self._request.seed, len(self._known)])
        longest = 0.0
        while (ended := self._ended(longest)) is None:
            interrupt.check()
            begin = time.monotonic()
            if (stop := self._one(study, space, laboratory, baseline, generator)) is not None:
                ended = stop
                break
            longest = max(longest, min(time.monotonic() - begin, self._request.candidate_timeout_s / 2))
        return self.found(state, ended)

    def finish(self, found: Found, workshop: Workshop) -> Found:
        """The test split, once, for the baseline and the front."""
        laboratory = self._laboratory(found.state, workshop)
        if "test" not in found.state.task.examples:
            return found
        tested, notes = {}, []
        chosen = [found.baseline, *(c for c in found.front if c.id != BASELINE)]
        for k, candidate in enumerate(chosen):
            interrupt.check()
            self._tell(event="phase", what=f"scoring the front on the test split ({k + 1} of {len(chosen)})")
            begin = time.monotonic()
            try:
                tested[candidate.id] = self._keep(
                    laboratory.score_test(candidate, timeout_s=max(SCORING_S, self._request.candidate_timeout_s))
                )
            except (JobFailed, InputError) as error:  # what was found is not thrown away for that
                notes.append(f"{candidate.id} could not be scored on the test split: {error}")
                if candidate.id == BASELINE:
                    break  # the others are compared with it
            self._at_the_end += time.monotonic() - begin
        return replace(
            found,
            baseline=tested.get(BASELINE, found.baseline),
            candidates=[tested.get(c.id, c) for c in found.candidates],
            front=[tested.get(c.id, c) for c in found.front],
            seconds=self._totals(found.state),
            notes=notes,
        )

    def so_far(self, state: RunState) -> Found | None:
        """What an interrupted search has; None before the baseline is measured."""
        return self.found(state, "it was interrupted") if BASELINE in self._known else None

    def found(self, state: RunState, ended: str) -> Found:
        """What was found."""
        baseline = self._known[BASELINE]
        candidates = [c for c in self._known.values() if c.id != BASELINE]
        return Found(
            state=state,
            baseline=baseline,
            candidates=candidates,
            front=self._front(),
            ended=ended,
            seconds=self._totals(state),
        )

    def workshop(self, state: RunState | None) -> Workshop:
        """The build worker of this run."""
        request = self._request
        prepare = PrepareRequest(
            name=request.task_name,
            model=request.model,
            data=request.data,
            metric=request.metric,
            loss=request.loss,
            target=request.target,
            methods=self._method_names(),
            without=request.without_plugins,
            input_shapes=request.input_shapes,
            seed=request.seed,
            runtime=request.target.runtime,
            workspace=str(self._run.work),
            seconds=request.timeout_s,
            trials=request.trials,
            offers=state is None,
            epochs=state.epochs if state else None,
        )
        return Workshop(
            prepare,
            memory_bytes=request.memory_bytes,
            folder=Path(request.folder) if Path(request.folder).is_dir() else self._run.work,
            progress=lambda what, done: self._tell(event="progress", what=what, done=done),
        )

    # -- their parts ------------------------------------------------------------------------------------------------

    def _method_names(self) -> tuple[str, ...]:
        request = self._request
        chosen = []
        for name, method in self._registry.methods().items():
            if request.methods is not None and name not in request.methods:
                continue
            if name in request.without_methods or ("train" in method.needs and not request.training):
                continue
            chosen.append(name)
        return tuple(chosen)

    def _laboratory(self, state: RunState, workshop: Workshop) -> Laboratory:
        names = [spec.name for spec in state.task.inputs]
        inputs: dict[str, Mapping[str, Path]] = {
            split: {name: laid_out(self._run.data, split, k) for k, name in enumerate(names)}
            for split in ("validation", "test")
            if split in state.task.examples
        }
        evaluator = Evaluator(
            self._request.target,
            self._runtime,
            self._device,
            inputs=inputs["validation"],
            most_s=max(LEAST_ANSWER_S, self._request.candidate_timeout_s),
            memory_bytes=self._request.memory_bytes,
            seed=self._request.seed,
        )
        laboratory = Laboratory(
            workshop,
            evaluator,
            self._run,
            inputs=inputs,
            progress=lambda what, done: self._tell(event="progress", what=what, done=done),
        )
        if (known := self._known.get(BASELINE)) and known.artifact and known.artifact.path:
            laboratory.adopt_baseline(self._run.path / known.artifact.path)
        return laboratory

    def _baseline(self, laboratory: Laboratory) -> CandidateResult:
        if BASELINE in self._known:
            return self._known[BASELINE]
        self._tell(event="phase", what="measuring the original")
        baseline = laboratory.make(Recipe(), baseline=None, trial=None, timeout_s=max(600.0, self._request.candidate_timeout_s))
        if baseline.failure is not None:
            raise InputError(f"the original itself fails ({baseline.failure.step}): {baseline.failure.message}")
        baseline = replace(baseline, feasible=kept(baseline, baseline, self._request.limits, self._direction))
        self._keep(baseline)
        self._tell(event="baseline", candidate=baseline)
        return baseline

    def _open_study(self, state: RunState) -> optuna.Study:
        factory = self._registry.samplers()[self._request.sampler]
        sampler = factory(int(np.random.default_rng([self._request.seed, len(self._known)]).integers(1 << 31)))
        return studies.open_study(self._run.study, self._request.storage, sampler, self._direction, state.study)

    def _study(self, state: RunState, space: Space, baseline: CandidateResult) -> optuna.Study:
        study = self._open_study(state)
        constraints = {c.id: self._excesses(c, baseline) for c in self._known.values()}
        again = studies.settle(study, self._known, constraints)
        if again:
            self._run.event(event="resumed", asked_again=again)
        for recipe in space.starters():
            study.enqueue_trial(space.parameters(recipe), skip_if_exists=True)  # killed while it did so, a run goes on with it
        return study

    def _one(
        self,
        study: optuna.Study,
        space: Space,
        laboratory: Laboratory,
        baseline: CandidateResult,
        generator: np.random.Generator,
    ) -> str | None:
        """One candidate from ask to tell; why the search ends, where it does."""
        trial, recipe = self._ask(study, space, generator)
        if trial is None or recipe is None:
            return "every recipe of the search space was tried"
        trial.set_user_attr(studies.CANDIDATE_ATTRIBUTE, recipe.identifier)
        trial.set_user_attr("recipe", str(recipe))
        self._tell(event="trial", number=trial.number, id=recipe.identifier, recipe=str(recipe))
        reasons = self._registry.recipe_objections(recipe, self._request.target)
        if reasons:
            candidate = _rejected(recipe, trial.number, "; ".join(reasons))
        else:
            timeout = self._request.candidate_timeout_s
            if (left := self._left()) is not None:
                timeout = max(LEAST_FOR_A_TRIAL_S, min(timeout, left))
            candidate = laboratory.make(recipe, baseline=baseline, trial=trial.number, timeout_s=timeout)
            late = candidate.failure is not None and candidate.failure.kind == "timeout"
            if late and timeout < self._request.candidate_timeout_s:
                # Cut off by the end of the budget, which says nothing of the candidate: `resume` asks for it again.
                self._run.event(event="cut-off", id=recipe.identifier)
                return self._used_up()
        if candidate.state == "complete":
            candidate = replace(candidate, feasible=kept(candidate, baseline, self._request.limits, self._direction))
        self._keep(candidate)
        studies.tell(study, trial, candidate, self._excesses(candidate, baseline))
        self._run.write_elapsed(self.elapsed())
        self._drop_dominated()
        self._registry.trial_finished(candidate)
        best = self._best(baseline)
        self._tell(event="candidate", candidate=candidate, tried=len(self._known) - 1, baseline=baseline, best=best)
        return None

    def _ask(
        self, study: optuna.Study, space: Space, generator: np.random.Generator
    ) -> tuple[optuna.Trial | None, Recipe | None]:
        """A trial whose recipe is new. What is already known is told again as it was, so that the sampler learns from it."""
        duplicates = 0
        while True:
            trial = study.ask()
            recipe = space.suggest(trial)
            known = self._known.get(recipe.identifier)
            if known is None:
                return trial, recipe
            trial.set_user_attr("same_as", known.id)
            studies.tell(study, trial, known, self._excesses(known, self._known[BASELINE]))
            duplicates += 1
            if duplicates >= DUPLICATES_BEFORE_RANDOM:
                fresh = next(
                    (r for r in (space.random(generator) for _ in range(RANDOM_TRIES)) if r.identifier not in self._known),
                    None,
                )
                if fresh is None:
                    return None, None
                study.enqueue_trial(space.parameters(fresh))

    def _best(self, baseline: CandidateResult) -> CandidateResult | None:
        """What would be recommended now."""
        front = self._front()
        request = self._request
        chosen = recommend(
            front,
            baseline,
            request.limits,
            asked=request.asked,
            useful_drop=request.useful_drop,
            metric=self._metric,
            direction=self._direction,
        ).id
        return None if chosen is None else self._known[chosen]

    def _excesses(self, candidate: CandidateResult, baseline: CandidateResult) -> dict[str, float]:
        if candidate.state != "complete":
            return {}
        found = excesses(candidate, baseline, self._request.limits, self._direction)
        if self._request.useful_drop is not None:
            found["useful_drop"] = useless(candidate, baseline, self._direction, self._request.useful_drop)
        return found

    def _keep(self, candidate: CandidateResult) -> CandidateResult:
        self._run.write_candidate(candidate)
        self._known[candidate.id] = candidate
        return candidate

    def _front(self) -> list[CandidateResult]:
        """What nothing dominates, and what nothing dominates that keeps the limits: memory is a limit and no objective."""
        everything = pareto_front(list(self._known.values()), self._direction)
        feasible = pareto_front([c for c in self._known.values() if c.feasible], self._direction)
        found = {c.id: c for c in (*everything, *feasible)}
        return sorted(found.values(), key=lambda c: (latency_of(c), size_of(c)))

    def _drop_dominated(self) -> None:
        """Delete the files of candidates that have left the front: `orchestrate build` makes them again from their recipe."""
        on_front = {c.id for c in self._front()} | {BASELINE}
        for candidate in list(self._known.values()):
            if candidate.id not in on_front and candidate.artifact and candidate.artifact.path:
                self._keep(replace(candidate, artifact=replace(candidate.artifact, path=None)))
                self._run.drop(candidate.id)

    def _ended(self, longest: float) -> str | None:
        tried = len(self._known) - 1
        if self._request.trials is not None and tried >= self._request.trials:
            return f"the budget of {self._request.trials} trials is used up"
        left = self._left()
        if left is not None and left < max(LEAST_FOR_A_TRIAL_S, 0.5 * longest):
            return self._used_up()
        return None

    def _used_up(self) -> str:
        return f"the budget of {self._request.timeout_s or 0.0:.0f} s is used up"

    def _left(self) -> float | None:
        """Seconds that are left for trials, the end's share set aside; None where time is not limited."""
        if self._request.timeout_s is None:
            return None
        complete = [c for c in self._known.values() if c.state == "complete"]
        scoring = [c.seconds.get("scoring", 0.0) for c in complete]
        at_the_end = min(10, len(complete)) * (float(np.mean(scoring)) if scoring else 0.0)
        return self._request.timeout_s - self.elapsed() - RESERVE_S - at_the_end

    def elapsed(self) -> float:
        """Seconds that the run has taken so far, over all its resumptions."""
        return self._spent_before + time.monotonic() - self._started

    def _totals(self, state: RunState) -> dict[str, float]:
        """Where the time went; `overhead` is what went neither into preparing, building, scoring nor measuring."""
        known = {p: sum(c.seconds.get(p, 0.0) for c in self._known.values()) for p in ("building", "scoring", "measuring")}
        known["scoring"] += self._at_the_end
        known["preparing"] = state.seconds_preparing
        total = self.elapsed()
        seconds = {"total": total, **known, "overhead": max(0.0, total - sum(known.values()))}
        return {name: round(value, 2) for name, value in seconds.items()}

    def _tell(self, **event: Any) -> None:
        if event["event"] != "progress":
            logged = {k: (v.id if isinstance(v, CandidateResult) else v) for k, v in event.items()}
            if isinstance(event.get("candidate"), CandidateResult):
                logged |= {"state": event["candidate"].state}
            self._run.event(**logged)
        self._observer({**event, "elapsed_s": self.elapsed(), "timeout_s": self._request.timeout_s})


def refusals(state: RunState) -> list[str]:
    """Which methods take no part, and why."""
    return [f"{offer.method} is not offered: {offer.refused}" for offer in state.offers if offer.refused]


def _rejected(recipe: Recipe, trial: int, reason: str) -> CandidateResult:
    return CandidateResult(
        id=recipe.identifier,
        state="rejected",
        trial=trial,
        recipe=[StepResult(method=s.method, version=s.version, parameters=dict(s.parameters)) for s in recipe.steps],
        failure=Failure(kind="limit", step="recipe", message=reason),
    )
