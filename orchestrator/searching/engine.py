"""The search loop: ask, build, score, time, tell; within the budget, through every failure, and resumable at any moment."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
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
from orchestrator.searching.archive import Archive
from orchestrator.searching.budget import LEAST_FOR_A_TRIAL_S, Budget
from orchestrator.searching.recommendation import Recommendation
from orchestrator.searching.request import RunState, SearchRequest
from orchestrator.searching.run_directory import RunDirectory
from orchestrator.searching.space import Space
from orchestrator.searching.trial import Laboratory
from orchestrator.values.recipe import BASELINE, Recipe
from orchestrator.values.results import CandidateResult, Failure, StepResult

DUPLICATES_BEFORE_RANDOM = 3
RANDOM_TRIES = 500
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
    recommendation: Recommendation
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
        devices: Sequence[Device],
        *,
        started: float,
        observer: Observer,
    ) -> None:
        self._run, self._request, self._registry = run, request, registry
        self._runtime, self._devices = runtime, tuple(devices)
        self._observer = observer
        self._budget = Budget(trials=request.trials, timeout_s=request.timeout_s, started=started, spent_before=run.elapsed())
        self._archive: Archive | None = None
        self._at_the_end = 0.0

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
        archive = self._archive = Archive(self._run, self._request, state.task)
        self._open_study(state, archive)  # a storage that cannot be opened is better known now
        if BASELINE in archive.known:
            return archive.baseline
        self._tell(event="phase", what="measuring the original")
        timeout_s = max(SCORING_S, self._request.candidate_timeout_s)
        found = self._laboratory(state, workshop).make(Recipe(), baseline=None, trial=None, timeout_s=timeout_s)
        if found.failure is not None:
            raise InputError(f"the original itself fails ({found.failure.step}): {found.failure.message}")
        found = archive.keep(found)
        self._tell(event="baseline", candidate=found)
        return found

    def make(self, recipe: Recipe, state: RunState, workshop: Workshop) -> CandidateResult:
        """One recipe that nobody searched for; `baseline` came before."""
        self._tell(event="phase", what=str(recipe))
        laboratory = self._laboratory(state, workshop)
        timeout_s = self._request.candidate_timeout_s
        return laboratory.make(recipe, baseline=self._known().baseline, trial=None, timeout_s=timeout_s)

    def search(self, state: RunState, workshop: Workshop) -> Found:
        """All trials that the budget pays for; `baseline` came before."""
        archive = self._known()
        laboratory = self._laboratory(state, workshop)
        space = Space(state.offers, self._registry.methods())
        study = self._study(state, space, archive)
        generator = np.random.default_rng([self._request.seed, len(archive.known)])
        while (ended := self._budget.ended(archive.known.values(), len(archive.known) - 1)) is None:
            interrupt.check()
            begin = time.monotonic()
            if (stop := self._one(study, space, laboratory, archive, generator)) is not None:
                ended = stop
                break
            self._budget.took(min(time.monotonic() - begin, self._request.candidate_timeout_s / 2))
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
                tested[candidate.id] = self._known().keep(
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
        known = self._archive is not None and BASELINE in self._archive.known
        return self.found(state, "it was interrupted") if known else None

    def found(self, state: RunState, ended: str) -> Found:
        """What was found."""
        archive = self._known()
        return Found(
            state=state,
            baseline=archive.baseline,
            candidates=archive.candidates,
            front=archive.front(),
            recommendation=archive.recommendation(),
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
            student=request.student,
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
            if name not in request.methods:
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
            self._devices[0],
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
        if (known := self._known().known.get(BASELINE)) and known.artifact and known.artifact.path:
            laboratory.adopt_baseline(self._run.path / known.artifact.path)
        return laboratory

    def _known(self) -> Archive:
        if self._archive is None:
            raise RuntimeError("`baseline` comes before anything that looks at candidates")
        return self._archive

    def _open_study(self, state: RunState, archive: Archive) -> optuna.Study:
        factory = self._registry.samplers()[self._request.sampler]
        sampler = factory(int(np.random.default_rng([self._request.seed, len(archive.known)]).integers(1 << 31)))
        return studies.open_study(self._run.study, self._request.storage, sampler, state.task.direction, state.study)

    def _study(self, state: RunState, space: Space, archive: Archive) -> optuna.Study:
        study = self._open_study(state, archive)
        constraints = {c.id: archive.constraints(c) for c in archive.known.values()}
        again = studies.settle(study, archive.known, constraints)
        if again:
            self._run.event(event="resumed", asked_again=again)
        for recipe in space.starters(self._request.trials):
            study.enqueue_trial(space.parameters(recipe), skip_if_exists=True)  # killed while it did so, a run goes on with it
        return study

    def _one(
        self,
        study: optuna.Study,
        space: Space,
        laboratory: Laboratory,
        archive: Archive,
        generator: np.random.Generator,
    ) -> str | None:
        """One candidate from ask to tell; why the search ends, where it does."""
        trial, recipe = _ask(study, space, archive, generator)
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
            if (left := self._budget.left(archive.known.values())) is not None:
                timeout = max(LEAST_FOR_A_TRIAL_S, min(timeout, left))
            candidate = laboratory.make(recipe, baseline=archive.baseline, trial=trial.number, timeout_s=timeout)
            late = candidate.failure is not None and candidate.failure.kind == "timeout"
            if late and timeout < self._request.candidate_timeout_s:
                # Cut off by the end of the budget, which says nothing of the candidate: `resume` asks for it again.
                self._run.event(event="cut-off", id=recipe.identifier)
                return self._budget.used_up()
        candidate = archive.keep(candidate)
        studies.tell(study, trial, candidate, archive.constraints(candidate))
        self._run.write_elapsed(self.elapsed())
        archive.drop_dominated()
        self._registry.trial_finished(candidate)
        best = archive.known.get(archive.recommendation().id or "")
        tried = len(archive.known) - 1
        self._tell(event="candidate", candidate=candidate, tried=tried, baseline=archive.baseline, best=best)
        return None

    def elapsed(self) -> float:
        """Seconds that the run has taken so far, over all its resumptions."""
        return self._budget.elapsed()

    def _totals(self, state: RunState) -> dict[str, float]:
        """Where the time went; `overhead` is what went neither into preparing, building, scoring nor measuring."""
        known = self._known().seconds()
        known["scoring"] += self._at_the_end
        known["preparing"] = state.seconds_preparing
        total = self.elapsed()
        seconds = {"total": total, **known, "overhead": max(0.0, total - sum(known.values()))}
        return {name: round(value, 2) for name, value in seconds.items()}

    def note(self, text: str) -> None:
        """Tell the user something that is no error."""
        self._tell(event="notes", notes=[text])

    def _tell(self, **event: Any) -> None:
        if event["event"] != "progress":
            logged = {k: (v.id if isinstance(v, CandidateResult) else v) for k, v in event.items()}
            if isinstance(event.get("candidate"), CandidateResult):
                logged |= {"state": event["candidate"].state}
            self._run.event(**logged)
        self._observer(
            {**event, "elapsed_s": self.elapsed(), "timeout_s": self._request.timeout_s, "trials": self._request.trials}
        )


def _ask(
    study: optuna.Study, space: Space, archive: Archive, generator: np.random.Generator
) -> tuple[optuna.Trial | None, Recipe | None]:
    """A trial whose recipe is new. What is already known is told again as it was, so that the sampler learns from it."""
    duplicates = 0
    while True:
        trial = study.ask()
        recipe = space.suggest(trial)
        known = archive.known.get(recipe.identifier)
        if known is None:
            return trial, recipe
        trial.set_user_attr("same_as", known.id)
        studies.tell(study, trial, known, archive.constraints(known))
        duplicates += 1
        if duplicates >= DUPLICATES_BEFORE_RANDOM:
            drawn = (space.random(generator) for _ in range(RANDOM_TRIES))
            fresh = next((r for r in drawn if r.identifier not in archive.known), None)
            if fresh is None:
                return None, None
            study.enqueue_trial(space.parameters(fresh))


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
