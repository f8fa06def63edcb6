"""The phases of a run on one target: connect, prepare, baseline, search, finalize."""

import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.building.builder_client import BuilderClient
from orchestrator.errors import InputError
from orchestrator.plugin.device import Device, SimulatedDevice
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime import Runtime
from orchestrator.study import finalize
from orchestrator.study.budget import Budget
from orchestrator.study.candidates.archive import Archive
from orchestrator.study.candidates.builder import builder_for
from orchestrator.study.candidates.context import RunContext
from orchestrator.study.candidates.device_pool import DevicePool
from orchestrator.study.candidates.evaluator import BuiltCandidate, CandidateEvaluator
from orchestrator.study.candidates.evaluator_factory import create_evaluator
from orchestrator.study.candidates.measurement_cache import MeasurementCache
from orchestrator.study.candidates.simulated_latency import SimulatedLatency
from orchestrator.study.distributed.device_class import timed_here
from orchestrator.study.distributed.leader import leader
from orchestrator.study.distributed.participant import Participant, participation
from orchestrator.study.loop import Loop, open_study
from orchestrator.study.result import StudyResult, refusals
from orchestrator.study.run.directory import RunDirectory
from orchestrator.study.run.events import SearchEvents
from orchestrator.study.run.request import RunState, SearchRequest
from orchestrator.study.search_space import SearchSpace
from orchestrator.study.warm_start import first_recipes
from orchestrator.values.recipe import BASELINE, Recipe
from orchestrator.values.results import CandidateResult

SCORING_S = 600.0
CHANGED = "the model or its data have changed since the run began; begin a new run"

Observer = Callable[[dict[str, Any]], None]


class Engine:
    """One run on one target.

    Args:
        simulated: The CPU that replaces a target that is not at hand.
        started: `time.monotonic()` at which the budget began.
        observer: Receives every event.
    """

    def __init__(
        self,
        run: RunDirectory,
        request: SearchRequest,
        registry: Registry,
        runtime: Runtime,
        devices: Sequence[Device],
        *,
        simulated: SimulatedDevice | None,
        started: float,
        observer: Observer,
    ) -> None:
        self._run, self._request, self._registry = run, request, registry
        self._runtime, self._simulated, self._observer = runtime, simulated, observer
        self._budget = Budget(request.budget, started=started, spent_before=run.elapsed())
        self._events = SearchEvents(self._emit)
        self._pool = DevicePool(
            devices,
            [name.strip() for name in request.target.device.split(",")],
            runtime,
            wait_s=request.options.wait_for_device_s,
            left_s=self._budget.left,
            events=self._events,
        )
        self._context = RunContext(
            run=run,
            request=request,
            registry=registry,
            runtime=runtime,
            pool=self._pool,
            events=self._events,
            simulated=simulated,
        )
        self._participant: Participant | None = None
        self._optional_archive: Archive | None = None
        self._evaluator: CandidateEvaluator | None = None
        self._simulator = SimulatedLatency(None)
        self._cache = MeasurementCache(None, None)

    # -- the phases -------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Check the devices; the first phase.

        Raises:
            InputError: A device cannot be used as it is.
            DeviceUnavailable: No device answers within the wait.
        """
        self._pool.connect()
        if self._simulated is not None:
            self._simulated.check(self._runtime)

    def close(self) -> None:
        """Stop what still runs on devices and release them."""
        self._pool.close()
        if self._simulated is not None:
            self._simulated.release()

    def prepare(self, state: RunState | None, builder: BuilderClient, *, changed: str = CHANGED) -> RunState:
        """Load and check the task; in a new run also compute the offers of the methods.

        Args:
            state: The state of a resumed run, or None.
            builder: The run's builder process.
            changed: The error message if the task differs from that of the state.
        """
        self._events.phase("loading the model and the data")
        reply = builder.prepare()
        if state is not None:
            if reply.task.digest != state.task.digest:
                raise InputError(changed)
            self._run.spend("preparing", self._budget.elapsed_here())
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
        offered = [offer.method for offer in reply.offers if offer.refused is None]
        if not offered:
            reasons = "; ".join(f"{offer.method}: {offer.refused}" for offer in reply.offers)
            raise InputError(f"no method can be used on this model, these data and this target ({reasons or 'none installed'})")
        space = SearchSpace(state.offers, self._registry.methods())
        if space.size() == 0:
            raise InputError(f"no recipe can be built from {', '.join(offered)} alone: they need another method before them")
        options, trials = self._request.options, self._request.budget.trials
        recipes, notes = first_recipes(options.warm_start, state.task, space, trials=trials, share=options.warm_share)
        state = replace(state, first=[recipe.as_json() for recipe in recipes], notes=(*state.notes, *notes))
        self._events.notes(*state.notes, *refusals(state), *self._hints())
        return state

    def _hints(self) -> list[str]:
        target = self._request.target
        if target.is_device or target.simulator is not None or target.profile.simulation(target.runtime) is None:
            return []
        cpu = target.profile.simulations[0].cpu
        return [
            f"latencies on {target.profile.name} are estimated from the graph; after `orchestrate devices setup qemu-aarch64` "
            f"(once, a few minutes) the target's own runtime runs every model on a simulated {cpu}, which is more exact"
        ]

    def baseline(self, state: RunState, builder: BuilderClient, *, begins: bool = False) -> CandidateResult:
        """Return the original, exported and measured like every candidate.

        Args:
            state: The state of the run.
            builder: The run's builder process.
            begins: True if the run begins with it and can be resumed from now on. An original that fails leaves no run behind.

        Raises:
            InputError: It cannot be exported, scored or run.
        """
        archive = self._optional_archive = Archive(self._run, self._request, state.task)
        self._run.drop_unreferenced(archive.known)
        if BASELINE in archive.known:
            return archive.baseline
        open_study(self._run, state, self._registry, archive)  # report a storage that cannot be opened now, not later
        self._events.phase("measuring the original")
        candidate = self._evaluator_for(state, builder).baseline(timeout_s=self._scoring_s)
        if candidate.failure is not None:
            raise InputError(f"the original itself fails ({candidate.failure.step}): {candidate.failure.message}")
        if begins:
            self._run.write_state(state)  # before the record: a process killed in between loses nothing that is complete
        candidate = archive.keep(candidate)
        self._events.baseline(candidate)
        return candidate

    def evaluate(self, recipe: Recipe, state: RunState, builder: BuilderClient) -> CandidateResult:
        """Return a candidate with a given recipe; after `baseline`."""
        self._events.phase(str(recipe))
        evaluator = self._evaluator_for(state, builder)
        candidate = evaluator.begin(recipe, trial=None, timeout_s=self._request.candidate_timeout_s)
        if isinstance(candidate, BuiltCandidate):
            return evaluator.finish(candidate, baseline=self._archive.baseline)
        return candidate

    def search(self, state: RunState, builder: BuilderClient, participant: Participant | None = None) -> StudyResult:
        """Run all trials that the budget allows; after `baseline`.

        Args:
            state: The state of the run.
            builder: The run's builder process.
            participant: This process's part in a shared study; None to lead one if the run has a storage.

        Raises:
            DeviceUnavailable: No device answers within the wait; complete candidates are kept.
            EnvironmentFailure: The storage or the exchange of a shared study is lost.
        """
        storage = self._request.options.storage
        if storage is not None and participant is None:
            participant = leader(self._context, state)
        self._participant = participant
        with participation(participant, storage):
            evaluator = self._evaluator_for(state, builder)
            loop = Loop(self._context, state, self._archive, evaluator, self._budget, participant)
            return self._result(state, loop.run(), finalize.as_searched(self._archive))

    def finish(self, result: StudyResult, builder: BuilderClient) -> StudyResult:
        """Measure the front again and score it on the test split, once.

        Raises:
            DeviceUnavailable: No device answers within the wait.
        """
        archive, report = self._archive, self._events.phase
        outcome = finalize.remeasure(archive, self._run, self._pool, timeout_s=self._budget.timeout_s, report=report)
        evaluator, timeout_s = self._evaluator_for(result.state, builder), self._scoring_s
        outcome = finalize.score_on_simulated_cpu(
            outcome, archive, evaluator, seconds=self._budget.for_target_kernels(), timeout_s=timeout_s, report=report
        )
        if "test" in result.state.task.examples:
            outcome = finalize.score_on_test(
                outcome, archive, evaluator, timeout_s=timeout_s, report=report, over=lambda: self._budget.overdrawn
            )
        return self._result(result.state, result.ended, outcome)

    def partial_result(self, state: RunState, ended: str) -> StudyResult | None:
        """Return the result of an aborted search by the values of the search alone; None before the baseline is measured."""
        return self._result(state, ended, finalize.as_searched(self._archive)) if self._has_baseline else None

    def _result(self, state: RunState, ended: str, outcome: finalize.Outcome) -> StudyResult:
        return StudyResult(
            state=state,
            baseline=self._with_machine(outcome.known[BASELINE]),
            candidates=[self._with_machine(c) for c in outcome.known.values() if c.id != BASELINE],
            front=[self._with_machine(c) for c in outcome.front],
            recommendation=outcome.recommendation,
            ended=ended,
            seconds=self._totals(state, outcome.seconds),
            devices=self._environments(),
            notes=[*self._pool.notes, *self._simulator.notes, *dict.fromkeys(self._cache.notes), *outcome.notes],
        )

    def _with_machine(self, candidate: CandidateResult) -> CandidateResult:
        """Return the candidate with the machine of its times, if several share a study."""
        return candidate if self._participant is None else timed_here(candidate, self._participant.device_class)

    def _environments(self) -> dict[str, dict[str, Any]]:
        environments = self._pool.environments()
        if self._simulated is not None and self._request.target.simulator is not None:
            environments[self._request.target.simulator] = self._simulated.environment()
        return environments

    def builder(self, state: RunState | None) -> BuilderClient:
        """Return the client of this run's builder process."""
        return builder_for(self._context, state, self._for_an_answer)

    # -- internal ---------------------------------------------------------------------------------------------------

    def _evaluator_for(self, state: RunState, builder: BuilderClient) -> CandidateEvaluator:
        if self._evaluator is None:
            self._evaluator, self._simulator = create_evaluator(self._context, state, builder, self._cache, self._for_an_answer)
            known = self._archive.known.get(BASELINE)
            if known and known.artifact and known.artifact.path:
                self._evaluator.adopt_baseline(self._run.path / known.artifact.path, known.latency[0])
        return self._evaluator

    @property
    def _scoring_s(self) -> float:
        return max(SCORING_S, self._request.candidate_timeout_s)

    def _for_an_answer(self) -> float:
        """Return the seconds that an answer may take: any for the original, without which there is nothing to report."""
        return self._budget.for_an_answer() if self._has_baseline else math.inf

    @property
    def _has_baseline(self) -> bool:
        return self._optional_archive is not None and BASELINE in self._optional_archive.known

    @property
    def tried(self) -> int:
        """Return the number of candidates; after `baseline`."""
        return len(self._archive.candidates)

    @property
    def _archive(self) -> Archive:
        if self._optional_archive is None:
            raise RuntimeError("call `baseline` before anything that needs candidates")
        return self._optional_archive

    def elapsed(self) -> float:
        """Return the seconds that the run has taken so far, over all its resumptions."""
        return self._budget.elapsed()

    def _totals(self, state: RunState, at_the_end: Mapping[str, float]) -> dict[str, float]:
        """Return the durations by phase; `overhead` is neither preparing, building, scoring nor measuring."""
        totals = self._archive.seconds()
        for phase, spent in at_the_end.items():
            totals[phase] += spent
        totals["preparing"] = state.seconds_preparing
        for phase, spent in self._run.unrecorded.items():
            totals[phase] = totals.get(phase, 0.0) + spent
        total = self.elapsed()
        seconds = {"total": total, **totals, "overhead": max(0.0, total - sum(totals.values()))}
        if elsewhere := self._archive.seconds_elsewhere():
            seconds["elsewhere"] = elsewhere
        return {name: round(value, 2) for name, value in seconds.items()}

    def note(self, text: str) -> None:
        """Report a fact that is no error to the user."""
        self._events.notes(text)

    def _emit(self, event: dict[str, Any]) -> None:
        candidate = event.get("candidate")
        if event["event"] != "progress":
            logged = {key: value.id if isinstance(value, CandidateResult) else value for key, value in event.items()}
            self._run.event(**logged, **({"state": candidate.state} if isinstance(candidate, CandidateResult) else {}))
        budget = self._request.budget
        self._observer({**event, "elapsed_s": self.elapsed(), "timeout_s": budget.timeout_s, "trials": budget.trials})
