"""The search loop: ask, build, score, time, tell; within the budget, through every failure, and resumable at any moment."""

import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.building.builder_client import BuilderClient
from orchestrator.building.paths import laid_out
from orchestrator.building.store import Store
from orchestrator.errors import InputError
from orchestrator.measuring.scoring import Evaluator
from orchestrator.measuring.simulated import Simulation
from orchestrator.plugin.device import Device, SimulatedDevice
from orchestrator.plugin.method import Need
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime import Runtime
from orchestrator.study import finalize
from orchestrator.study.archive import Archive
from orchestrator.study.budget import Budget
from orchestrator.study.candidates.build_request import workshop_of
from orchestrator.study.candidates.device_pool import DevicePool, PooledDevice
from orchestrator.study.candidates.evaluator import Built, CandidateEvaluator
from orchestrator.study.candidates.measurement_cache import MeasurementCache
from orchestrator.study.candidates.simulated_latency import SimulatedLatency
from orchestrator.study.candidates.untrained_proxy import UntrainedProxy
from orchestrator.study.distributed.device_class import timed_here
from orchestrator.study.distributed.join import leader, taking_part
from orchestrator.study.distributed.participant import Participant
from orchestrator.study.loop import Loop, open_study
from orchestrator.study.pareto.recommendation import Recommendation
from orchestrator.study.request import RunState, SearchRequest
from orchestrator.study.run.directory import RunDirectory
from orchestrator.study.search_space import SearchSpace
from orchestrator.study.warm_start import first_recipes
from orchestrator.values.recipe import BASELINE, Recipe
from orchestrator.values.results import CandidateResult

LEAST_ANSWER_S = 30.0
SCORING_S = 600.0
CHANGED = "the model or its data have changed since the run began; begin a new run"

Observer = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyResult:
    """What a search has so far.

    Attributes:
        devices: What is known of the devices, by their references.
    """

    state: RunState
    baseline: CandidateResult
    candidates: list[CandidateResult]
    front: list[CandidateResult]
    recommendation: Recommendation
    ended: str
    seconds: dict[str, float]
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Engine:
    """One run on one target.

    Args:
        simulated: The CPU that stands in for a target that is not here.
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
        simulated: SimulatedDevice | None,
        started: float,
        observer: Observer,
    ) -> None:
        self._run, self._request, self._registry = run, request, registry
        self._runtime, self._simulated, self._observer = runtime, simulated, observer
        self._budget = Budget(
            trials=request.budget.trials, timeout_s=request.budget.timeout_s, started=started, spent_before=run.elapsed()
        )
        self._fleet = DevicePool(
            devices,
            [name.strip() for name in request.target.device.split(",")],
            runtime,
            wait_s=request.options.wait_for_device_s,
            left_s=self._budget.whole_left,
            tell=self._tell,
        )
        self._shared: Participant | None = None
        self._archive: Archive | None = None
        self._laboratory_made: CandidateEvaluator | None = None
        self._simulator = SimulatedLatency(None)
        self._figures = MeasurementCache(None, None)

    # -- the phases -------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Check the devices; the first thing to do.

        Raises:
            InputError: one cannot do this as it is.
            DeviceUnavailable: none is there, after waiting.
        """
        self._fleet.connect()
        if self._simulated is not None:
            self._simulated.check(self._runtime)

    def close(self) -> None:
        """End what still runs on devices and give them back."""
        self._fleet.close()
        if self._simulated is not None:
            self._simulated.release()

    def prepare(self, state: RunState | None, workshop: BuilderClient, *, changed: str = CHANGED) -> RunState:
        """Load and check the task; on the first time ask the methods what they offer.

        Args:
            changed: What is wrong where the task is not that of the state.
        """
        self._tell(event="phase", what="loading the model and the data")
        reply = workshop.prepare()
        if state is not None:
            if reply.task.digest != state.task.digest:
                raise InputError(changed)
            self._run.spend("preparing", self._budget.here())
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
        if SearchSpace(state.offers, self._registry.methods()).size() == 0:
            names = ", ".join(offer.method for offer in reply.offers if offer.refused is None)
            raise InputError(f"no recipe can be made of {names} alone: they need another method before them")
        state = self._with_earlier(state)
        self._tell(event="notes", notes=[*state.notes, *refusals(state), *self._hints()])
        return state

    def _with_earlier(self, state: RunState) -> RunState:
        """With the recipes of earlier runs that this search begins with."""
        request = self._request
        space = SearchSpace(state.offers, self._registry.methods())
        recipes, notes = first_recipes(
            request.options.warm_start, state.task, space, trials=request.budget.trials, share=request.options.warm_share
        )
        return replace(state, first=[recipe.as_json() for recipe in recipes], notes=(*state.notes, *notes))

    def _hints(self) -> list[str]:
        target = self._request.target
        if target.is_device or target.simulator is not None or target.profile.simulation(target.runtime) is None:
            return []
        cpu = target.profile.simulations[0].cpu
        return [
            f"latencies on {target.profile.name} are estimated from the graph; after `orchestrate devices setup qemu-aarch64` "
            f"(once, a few minutes) the target's own runtime runs every model on a simulated {cpu}, which is more exact"
        ]

    def baseline(self, state: RunState, workshop: BuilderClient, *, begins: bool = False) -> CandidateResult:
        """The original, exported and measured like every candidate.

        Args:
            begins: Whether the run begins with it: from now on there is something to resume. Not before, so that an original
                that fails leaves no run behind.

        Raises:
            InputError: it cannot be exported, scored or run.
        """
        archive = self._archive = Archive(self._run, self._request, state.task)
        self._run.drop_unreferenced(archive.known)
        if BASELINE in archive.known:
            return archive.baseline
        open_study(self._run, state, self._registry, archive)  # a storage that cannot be opened is better known now
        self._tell(event="phase", what="measuring the original")
        timeout_s = max(SCORING_S, self._request.candidate_timeout_s)
        found = self._laboratory(state, workshop).baseline(timeout_s=timeout_s)
        if found.failure is not None:
            raise InputError(f"the original itself fails ({found.failure.step}): {found.failure.message}")
        if begins:
            self._run.write_state(state)  # first: a process killed after the other one would have lost what is complete
        found = archive.keep(found)
        self._tell(event="baseline", candidate=found)
        return found

    def make(self, recipe: Recipe, state: RunState, workshop: BuilderClient) -> CandidateResult:
        """One recipe that nobody searched for; `baseline` came before."""
        self._tell(event="phase", what=str(recipe))
        laboratory = self._laboratory(state, workshop)
        made = laboratory.begin(recipe, trial=None, timeout_s=self._request.candidate_timeout_s)
        return laboratory.finish(made, baseline=self._known().baseline) if isinstance(made, Built) else made

    def search(self, state: RunState, workshop: BuilderClient, sharing: Participant | None = None) -> StudyResult:
        """All trials that the budget pays for; `baseline` came before.

        Args:
            sharing: This process's part in a shared search; None: a run with a storage leads one.

        Raises:
            DeviceUnavailable: no device is there, after waiting; what was complete by then is kept.
            EnvironmentFailure: the storage or the exchange of a shared search is lost.
        """
        storage = self._request.options.storage
        if storage is not None and sharing is None:
            finished = self._registry.trial_finished
            sharing = leader(self._run, state, self._fleet, self._runtime, tell=self._tell, finished=finished)
        self._shared = sharing
        with taking_part(sharing, storage):
            loop = Loop(
                self._run,
                state,
                self._registry,
                self._known(),
                self._laboratory(state, workshop),
                self._fleet,
                self._budget,
                tell=self._tell,
                sharing=sharing,
            )
            return self.found(state, loop.run())

    def finish(self, found: StudyResult, workshop: BuilderClient) -> StudyResult:
        """The front measured again, and the test split, once.

        Raises:
            DeviceUnavailable: no device is there, after waiting.
        """
        archive, run, timeout_s = self._known(), self._run, self._request.budget.timeout_s

        def tell(what: str) -> None:
            self._tell(event="phase", what=what)

        outcome = finalize.measured_again(archive, run, self._fleet, timeout_s=timeout_s, tell=tell)
        laboratory = self._laboratory(found.state, workshop)
        most_s = max(SCORING_S, self._request.candidate_timeout_s)
        outcome = finalize.scored_on_simulated(
            outcome, archive, laboratory, seconds=self._budget.for_target_kernels(), timeout_s=most_s, tell=tell
        )
        if "test" in found.state.task.examples:
            outcome = finalize.scored_on_test(
                outcome, archive, laboratory, timeout_s=most_s, tell=tell, over=lambda: self._budget.overdrawn
            )
        return self._found(found.state, found.ended, outcome)

    def so_far(self, state: RunState, ended: str) -> StudyResult | None:
        """What a search has that was broken off; None before the baseline is measured."""
        known = self._archive is not None and BASELINE in self._archive.known
        return self.found(state, ended) if known else None

    def found(self, state: RunState, ended: str) -> StudyResult:
        """What was found, by the figures of the search alone."""
        return self._found(state, ended, finalize.as_searched(self._known()))

    def _found(self, state: RunState, ended: str, outcome: finalize.Outcome) -> StudyResult:
        return StudyResult(
            state=state,
            baseline=self._named(outcome.known[BASELINE]),
            candidates=[self._named(c) for c in outcome.known.values() if c.id != BASELINE],
            front=[self._named(c) for c in outcome.front],
            recommendation=outcome.recommendation,
            ended=ended,
            seconds=self._totals(state, outcome.seconds),
            devices=self._environments(),
            notes=[*self._fleet.notes, *self._simulator.notes, *dict.fromkeys(self._figures.notes), *outcome.notes],
        )

    def _named(self, candidate: CandidateResult) -> CandidateResult:
        """The candidate whose times say on which machine they were taken, where several share a search."""
        return candidate if self._shared is None else timed_here(candidate, self._shared.device_class)

    def _environments(self) -> dict[str, dict[str, Any]]:
        found = self._fleet.environments()
        if self._simulated is not None and self._request.target.simulator is not None:
            found[self._request.target.simulator] = self._simulated.environment()
        return found

    def workshop(self, state: RunState | None) -> BuilderClient:
        """The build worker of this run."""
        return workshop_of(
            self._request,
            self._registry,
            self._run,
            state,
            progress=lambda what, done: self._tell(event="progress", what=what, done=done),
            left_s=self._for_an_answer,
        )

    # -- their parts ------------------------------------------------------------------------------------------------

    def _laboratory(self, state: RunState, workshop: BuilderClient) -> CandidateEvaluator:
        if self._laboratory_made is not None:
            return self._laboratory_made
        names = [spec.name for spec in state.task.inputs]
        inputs: dict[str, Mapping[str, Path]] = {
            split: {name: laid_out(self._run.data, split, k) for k, name in enumerate(names)}
            for split in ("validation", "test")
            if split in state.task.examples
        }

        def evaluator(board: PooledDevice) -> Evaluator:
            return Evaluator(
                replace(self._request.target, device=board.reference),
                self._runtime,
                board.device,
                inputs=inputs["validation"],
                most_s=max(LEAST_ANSWER_S, self._request.candidate_timeout_s),
                memory_bytes=self._request.memory_bytes,
                seed=self._request.options.seed,
                left_s=self._for_an_answer,
                alternatives=[self._registry.runtimes()[name] for name in self._request.target.alternatives],
            )

        self._fleet.equip(evaluator)
        shapes = {spec.name: (1, *spec.shape) for spec in state.task.inputs}
        self._simulator = SimulatedLatency(self._simulation(inputs["validation"], shapes))
        folder = self._request.store
        store = Store(Path(folder), bound=self._request.store_bytes, note=self._figures.notes.append) if folder else None
        self._figures.use(store, state.task.data_digest)
        self._laboratory_made = laboratory = CandidateEvaluator(
            workshop,
            self._fleet,
            self._run,
            runtime=self._request.target.runtime,
            inputs=inputs,
            progress=lambda what, done: self._tell(event="progress", what=what, done=done),
            simulator=self._simulator,
            sketcher=UntrainedProxy(workshop, self._fleet, self._request.target, self._trains, self._figures),
            figures=self._figures,
        )
        if (known := self._known().known.get(BASELINE)) and known.artifact and known.artifact.path:
            laboratory.adopt_baseline(self._run.path / known.artifact.path, known.latency[0])
        return laboratory

    def _trains(self, recipe: Recipe) -> bool:
        """Whether a recipe trains, and the untrained network is as large and as fast as the trained one."""
        used = [self._registry.methods()[step.method] for step in recipe.steps]
        return any(Need.TRAIN in method.needs for method in used) and not any(method.learns_structure for method in used)

    def _simulation(self, inputs: Mapping[str, Path], shapes: Mapping[str, Sequence[int]]) -> Simulation | None:
        if self._simulated is None:
            return None
        target = self._request.target
        constants = target.profile.simulation(self._runtime.name, self._simulated.cpu())
        if constants is None:
            raise InputError(f"profile '{target.profile.name}' has no constants for {self._runtime.name} on {target.simulator}")
        return Simulation(
            target,
            self._runtime,
            self._simulated,
            constants,
            inputs=inputs,
            shapes=shapes,
            most_s=max(LEAST_ANSWER_S, self._request.candidate_timeout_s),
            memory_bytes=self._request.memory_bytes,
            left_s=self._for_an_answer,
        )

    def _for_an_answer(self) -> float:
        """Seconds that an answer may take. The original is waited for: without it there is nothing to report."""
        known = self._archive is not None and BASELINE in self._archive.known
        return self._budget.for_an_answer() if known else math.inf

    @property
    def tried(self) -> int:
        """How many candidates the run has; `baseline` came before."""
        return len(self._known().known) - 1

    def _known(self) -> Archive:
        if self._archive is None:
            raise RuntimeError("`baseline` comes before anything that looks at candidates")
        return self._archive

    def elapsed(self) -> float:
        """Seconds that the run has taken so far, over all its resumptions."""
        return self._budget.elapsed()

    def _totals(self, state: RunState, at_the_end: Mapping[str, float]) -> dict[str, float]:
        """Where the time went; `overhead` is what went neither into preparing, building, scoring nor measuring."""
        known = self._known().seconds()
        for phase, spent in at_the_end.items():
            known[phase] += spent
        known["preparing"] = state.seconds_preparing
        for phase, spent in self._run.unkept.items():
            known[phase] = known.get(phase, 0.0) + spent
        total = self.elapsed()
        seconds = {"total": total, **known, "overhead": max(0.0, total - sum(known.values()))}
        if elsewhere := self._known().seconds_elsewhere():
            seconds["elsewhere"] = elsewhere
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
            {
                **event,
                "elapsed_s": self.elapsed(),
                "timeout_s": self._request.budget.timeout_s,
                "trials": self._request.budget.trials,
            }
        )


def refusals(state: RunState) -> list[str]:
    """Which methods take no part, and why."""
    return [f"{offer.method} is not offered: {offer.refused}" for offer in state.offers if offer.refused]
