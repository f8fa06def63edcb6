"""Results of searches that never were, for what reads results."""

from dataclasses import replace

from orchestrator.plugin.testing.cases import target
from orchestrator.values.direction import Direction
from orchestrator.values.events import SearchStarted
from orchestrator.values.evidence import Evidence
from orchestrator.values.results import (
    ArtifactResult,
    CandidateResult,
    Difference,
    Failure,
    LatencyResult,
    QualityResult,
    RunResult,
    SplitQuality,
    StepResult,
    TargetResult,
    TaskResult,
)
from orchestrator.values.task import TaskDescription, TaskSpec


def sample_candidate(name: str, quality: float, latency_ms: float, size_bytes: int) -> CandidateResult:
    """Return a candidate that was built, scored and timed."""
    return CandidateResult(
        id=name,
        state="complete",
        recipe=[] if name == "baseline" else [StepResult(method="static-int8", version=1, parameters={"scheme": "u8s8"})],
        artifact=ArtifactResult(path=f"front/{name}/model.onnx", digest="0" * 64, size_bytes=size_bytes, runtime="onnxruntime"),
        quality=SplitQuality(validation=QualityResult(value=quality, low=quality - 0.01, high=quality + 0.01, examples=360)),
        latency=[
            LatencyResult(
                evidence=Evidence.MEASURED_ON_TARGET,
                device="host",
                runtime="onnxruntime",
                threads=1,
                median_ms=latency_ms,
                low_ms=latency_ms * 0.98,
                high_ms=latency_ms * 1.02,
                ratio=Difference(value=latency_ms / 3.0, low=latency_ms / 3.1, high=latency_ms / 2.9),
            )
        ],
        trial=None if name == "baseline" else 0,
        feasible=True,
        gains=name != "baseline",
    )


def sample_run() -> RunResult:
    """Return a run: a baseline, one candidate on the front, a failed and a rejected one, with names that need quoting."""
    failed = CandidateResult(
        id="fa11ed",
        state="failed",
        recipe=[StepResult(method="channel-pruning", version=1, parameters={"ratio": 0.9})],
        failure=Failure(kind="error", step="channel-pruning", message='a layer would keep <no> "channel", & that is it'),
    )
    rejected = replace(failed, id="4e1ec7", state="rejected", failure=Failure(kind="limit", step="", message="too large"))
    return RunResult(
        schema=1,
        task=TaskResult(
            name="digits",
            model="package:net",
            data="package:data",
            metric="accuracy",
            direction=Direction.MAXIMIZE,
            examples={"train": 1000, "validation": 360},
            digest="0" * 64,
        ),
        target=TargetResult(
            profile="host", title="A <machine>", device="host", runtime="onnxruntime", threads=1, limits={"max_latency_ms": None}
        ),
        baseline=sample_candidate("baseline", 0.98, 3.0, 400_000),
        candidates=[sample_candidate("c0ffee", 0.975, 1.5, 110_000), failed, rejected],
        front=["c0ffee"],
        recommended="c0ffee",
        reason="It is the fastest on the front.",
        seconds={"total": 10.0, "building": 4.0, "scoring": 1.0, "measuring": 4.0, "overhead": 1.0},
        environment={"host": {"cpu": "a CPU"}, "versions": {"model-orchestrator": "0.1.0"}, "plugins": {}},
        search={"name": "quick", "sampler": "tpe", "seed": 0, "ended": "all 3 trials were done", "run": "/runs/one"},
        notes=["one note"],
    )


def sample_empty_run() -> RunResult:
    """Broken off before the first candidate."""
    return replace(sample_run(), candidates=[], front=[], recommended=None, reason="Nothing was tried.", notes=[])


def sample_start() -> SearchStarted:
    """Return the beginning of that search."""
    run = sample_run()
    return SearchStarted(
        run="/runs/one",
        resumed=False,
        known=0,
        task=TaskDescription(
            spec=TaskSpec(name="digits", model="package:net", data="package:data"),
            kind="torch",
            inputs=(),
            outputs=(),
            classes=10,
            metric="accuracy",
            direction=Direction.MAXIMIZE,
            examples={"train": 1000, "validation": 360},
            labelled=("train", "validation"),
            digest="0" * 64,
            weights_digest="0" * 64,
            data_digest="0" * 64,
        ),
        target=target(),
        trials=3,
        timeout_s=None,
        baseline=run.baseline,
        methods=("static-int8",),
        parameters={"search": "quick", "sampler": "tpe", "seed": "0"},
    )
