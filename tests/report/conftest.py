"""Runs made in code: a realistic search for a Raspberry Pi 4, and the poor ones that a report must stand too."""

import dataclasses
from typing import Any

import pytest

from orchestrator.values.direction import Direction
from orchestrator.values.layers import Layer, LayerChange, LayerTable
from orchestrator.values.results import (
    ArtifactResult,
    CandidateResult,
    Difference,
    Failure,
    Importance,
    LatencyResult,
    ParameterImportance,
    QualityResult,
    RunResult,
    SplitQuality,
    StepResult,
    TargetResult,
    TaskResult,
)

HOSTILE = "</script><script>alert(1)</script>\x1b[31m"
OPTIONS: dict[str, Any] = {
    "trials": 12,
    "timeout_s": 600.0,
    "epochs": [0.5, 4.0],
    "methods": ["channel-pruning", "static-int8"],
    "offered": ["channel-pruning", "static-int8"],
    "without": [],
    "runtimes": ["onnxruntime"],
    "training": True,
    "early_stopping": True,
    "useful_drop": None,
    "candidate_timeout_s": 150.0,
    "loss": None,
    "student": None,
    "warm_start": [],
    "warm_share": 2 / 3,
    "input_shapes": {},
}
"""What newer runs tell of what was asked for."""
PRUNE, RECOVER, INT8 = "channel-pruning", "recovery-distillation", "static-int8"


def step(method: str, **parameters: Any) -> StepResult:
    return StepResult(method=method, version=1, parameters=parameters)


def prune(ratio: float) -> list[StepResult]:
    return [step(PRUNE, ratio=ratio, importance="taylor"), step(RECOVER, epochs=1, temperature=2.0)]


def int8(scheme: str) -> StepResult:
    return step(INT8, scheme=scheme, form="qdq", calibration="minmax", samples=128, per_channel=True)


def quality(value: float, base: float, examples: int = 360) -> QualityResult:
    half = 1.96 * (value * (1 - value) / examples) ** 0.5
    gap = Difference(value=value - base, low=value - base - 0.008, high=value - base + 0.006)
    return QualityResult(
        value=value,
        low=value - half,
        high=min(1.0, value + half * 0.8),
        examples=examples,
        difference=None if value == base else gap,
    )


def latencies(pi_ms: float, host_ms: float, base_ms: float = 0.412) -> list[LatencyResult]:
    ratio = host_ms / base_ms
    return [
        LatencyResult(
            evidence="estimated",
            device="raspberry-pi-4",
            runtime="onnxruntime",
            threads=1,
            median_ms=pi_ms,
            low_ms=pi_ms * 0.78,
            high_ms=pi_ms * 1.27,
            note="roofline over 14 operators",
        ),
        LatencyResult(
            evidence="measured-on-host",
            device="host",
            runtime="onnxruntime",
            threads=1,
            median_ms=host_ms,
            low_ms=host_ms * 0.985,
            high_ms=host_ms * 1.02,
            p90_ms=host_ms * 1.06,
            p99_ms=host_ms * 1.31,
            samples=400,
            ratio=None if ratio == 1 else Difference(value=ratio, low=ratio * 0.985, high=ratio * 1.012),
        ),
    ]


def candidate(
    name: str, recipe: list[StepResult], accuracy: float, pi_ms: float, host_ms: float, kilobytes: float, **more: Any
) -> CandidateResult:
    test = quality(accuracy - 0.004, 0.981) if more.pop("front", False) else None
    return CandidateResult(
        **{
            "id": name,
            "state": "complete",
            "recipe": recipe,
            "artifact": ArtifactResult(
                path=f"front/{name}/model.onnx" if test else None,
                digest=(name * 8)[:64],
                size_bytes=int(kilobytes * 1000),
                runtime="onnxruntime",
            ),
            "quality": SplitQuality(validation=quality(accuracy, 0.986), test=test),
            "latency": latencies(pi_ms, host_ms),
            "peak_memory_bytes": int(21e6 + kilobytes * 4000),
            "compressed_bytes": int(kilobytes * 910),
            "macs": int(4_100_000 * pi_ms / 3.4),
            "parameters": int(kilobytes * 240),
            "gains": True,
            "feasible": True,
            "seconds": {"building": 9.4, "scoring": 0.8, "measuring": 4.1},
            **more,
        }
    )


def failed(name: str, recipe: list[StepResult], state: str, kind: str, where: str, message: str) -> CandidateResult:
    failure = Failure(kind=kind, step=where, message=message)  # type: ignore[arg-type]
    return CandidateResult(id=name, state=state, recipe=recipe, failure=failure, seconds={"building": 3.1})  # type: ignore[arg-type]


def make_digits_run() -> RunResult:
    """A search on the digits task for a Raspberry Pi 4 that is not here."""
    base = candidate("baseline", [], 0.986, 3.42, 0.412, 318, gains=None)
    base = dataclasses.replace(base, quality=SplitQuality(validation=quality(0.986, 0.986), test=quality(0.981, 0.981)))
    candidates = [
        candidate("3fa1c09b2e", [int8("u8s8")], 0.983, 1.61, 0.231, 88.1, front=True),
        candidate("a90d11e7c4", prune(0.3), 0.984, 2.25, 0.377, 196, front=True),
        candidate("5be27f6a10", [*prune(0.3), int8("u8s8")], 0.981, 1.12, 0.204, 57.4, front=True),
        candidate("c7714d0e93", [*prune(0.5), int8("s8s8")], 0.973, 0.71, 0.297, 34.9, front=True),
        candidate("0d8852b1fa", [*prune(0.7), int8("s8s8")], 0.939, 0.448, 0.188, 21.2, feasible=False),
        candidate("e12b90c55d", [int8("u8u8")], 0.969, 1.74, 0.244, 88.0),
        candidate("77aa03d2c8", [step("dynamic-int8", weights="s8")], 0.985, 3.9, 0.561, 91.3, gains=True),
        candidate("91c4e5f00b", prune(0.1), 0.982, 3.35, 0.409, 287, gains=False),
        failed("b41f6c2d77", [*prune(0.9)], "failed", "error", PRUNE, f"a layer would keep no channel {HOSTILE}"),
        failed("d05e93a8b6", [*prune(0.8), int8("s8s8")], "failed", "timeout", RECOVER, "took longer than 120 s"),
        failed("f6620be91c", [step("low-rank", rank=64)], "rejected", "limit", "", "316 kB: size over 200 kB"),
    ]
    return RunResult(
        schema=1,
        task=TaskResult(
            name="digits",
            model="small-cnn",
            data="scikit-learn digits",
            metric="accuracy",
            direction=Direction.MAXIMIZE,
            examples={"train": 1077, "validation": 360, "test": 360},
            digest="9c0f" * 16,
        ),
        target=TargetResult(
            profile="raspberry-pi-4",
            title="Raspberry Pi 4",
            device="host",
            runtime="onnxruntime",
            threads=1,
            limits={"max_latency_ms": 2.0, "max_size_bytes": 200_000, "max_drop": 0.02, "min_quality": None},
        ),
        baseline=base,
        candidates=candidates,
        front=["3fa1c09b2e", "a90d11e7c4", "5be27f6a10", "c7714d0e93"],
        recommended="5be27f6a10",
        reason="It is the fastest on the front whose drop in accuracy stays within 2 points with 95 % confidence.",
        seconds={"total": 214.0, "building": 128.4, "scoring": 11.9, "measuring": 58.2, "overhead": 15.5},
        environment={
            "host": {"cpu": "AMD EPYC 9R14", "cores": 2, "memory_bytes": 25769803776, "system": "Linux 6.1 x86_64"},
            "versions": {"model-orchestrator": "0.1.0", "python": "3.11.2", "onnxruntime": "1.31.1", "torch": "2.13.0"},
            "plugins": {"pruning": "orchestrator 0.1.0", "quantization": "orchestrator 0.1.0"},
        },
        search={
            "name": "quick",
            "sampler": "tpe",
            "seed": 0,
            "budget": {"trials": 12, "seconds": 600},
            "ended": "all 12 trials were done",
        },
        notes=["morphology is not offered: the task's network has no repeated blocks", "2 files were dropped"],
    )


def make_full_run() -> RunResult:
    """The same with all that newer runs keep: times of the candidates, layers of the front, importance of the parameters."""
    run = make_digits_run()
    kept = [
        LayerChange(name="stem", before=layer(1, 24, 0.02), after=layer(1, 24, 0.03, "int8")),
        LayerChange(name="block.conv1", before=layer(24, 24, 0.15), after=layer(24, 8, 0.04, "int8")),
        LayerChange(name="block.conv2", before=layer(24, 24, 0.15)),
        LayerChange(name="head", before=layer(96, 10, 0.01), after=layer(96, 10, 0.01)),
    ]
    table = LayerTable(
        device="raspberry-pi-4", runtime="onnxruntime", threads=1, others_before_ms=0.01, others_after_ms=0.02, layers=tuple(kept)
    )
    rows = [
        ParameterImportance(parameter="channel-pruning.ratio", value=0.7, chance=0.4),
        ParameterImportance(parameter="pruning", value=0.1, chance=0.3),
    ]
    return dataclasses.replace(
        run,
        search={**run.search, **OPTIONS},
        baseline=dataclasses.replace(run.baseline, finished_s=5.0),
        candidates=[dataclasses.replace(c, finished_s=20.0 * (k + 1)) for k, c in enumerate(run.candidates)],
        layers=dict.fromkeys(run.front, table),
        importance=Importance(trials=40, needed=20, best=5, quality=rows, latency=rows[:1]),
    )


def layer(inputs: int, outputs: int, ms: float, number_format: str = "float32") -> Layer:
    return Layer(
        operator="Conv", number_format=number_format, in_channels=inputs, out_channels=outputs, kernel=(3, 3),
        macs=inputs * outputs * 576, weights=inputs * outputs * 9, ms=ms,
    )  # fmt: skip


def make_empty_run() -> RunResult:
    """Stopped before the first trial; not even the baseline was timed."""
    run = make_digits_run()
    bare = CandidateResult(id="baseline", state="complete", recipe=[])
    return dataclasses.replace(
        run, baseline=bare, candidates=[], front=[], recommended=None, reason="No trial was complete.", notes=[],
        seconds={}, environment={}, search={},
    )  # fmt: skip


def make_failed_run() -> RunResult:
    """Every candidate failed."""
    run = make_digits_run()
    broken = [entry for entry in run.candidates if entry.state != "complete"]
    return dataclasses.replace(run, candidates=broken, front=[], recommended=None, reason="Every candidate failed.")


def make_host_run() -> RunResult:
    """The host is the target, and the metric is no rate."""
    run = make_digits_run()

    def moved(entry: CandidateResult) -> CandidateResult:
        here = [dataclasses.replace(x, evidence="measured-on-target") for x in entry.latency[1:]]
        return dataclasses.replace(entry, latency=here)

    return dataclasses.replace(
        run,
        task=dataclasses.replace(run.task, metric="fidelity"),
        target=dataclasses.replace(run.target, profile="host", title="this host (AMD EPYC 9R14)"),
        baseline=moved(run.baseline),
        candidates=[moved(entry) for entry in run.candidates],
    )


def scaled(run: RunResult, factor: float, *, only: tuple[str, ...] | None = None) -> RunResult:
    """The same run where the machine was that much slower; with `only`, while these candidates and no others were timed."""

    def slower(entry: CandidateResult) -> CandidateResult:
        if only is not None and entry.id not in only:
            return entry
        times = [
            dataclasses.replace(x, median_ms=x.median_ms * factor, low_ms=x.low_ms * factor, high_ms=x.high_ms * factor)
            for x in entry.latency
        ]
        return dataclasses.replace(entry, latency=times)

    return dataclasses.replace(run, baseline=slower(run.baseline), candidates=[slower(c) for c in run.candidates])


@pytest.fixture
def digits_run() -> RunResult:
    """`make_digits_run`."""
    return make_digits_run()


@pytest.fixture
def full_run() -> RunResult:
    """`make_full_run`."""
    return make_full_run()


@pytest.fixture
def empty_run() -> RunResult:
    """`make_empty_run`."""
    return make_empty_run()


@pytest.fixture
def failed_run() -> RunResult:
    """`make_failed_run`."""
    return make_failed_run()


@pytest.fixture
def host_run() -> RunResult:
    """`make_host_run`."""
    return make_host_run()
