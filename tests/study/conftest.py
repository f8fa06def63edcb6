"""Candidates made by hand, and a budget of time that fits the machine."""

from collections.abc import Callable

import pytest

from orchestrator.values.results import (
    ArtifactResult,
    CandidateResult,
    Difference,
    LatencyResult,
    QualityResult,
    SplitQuality,
)

Make = Callable[..., CandidateResult]


@pytest.fixture
def make() -> Make:
    """`make("a", quality=0.9, latency=10, size=100)`; `noise` is the half-width of the difference to the baseline."""

    def candidate(
        identifier: str,
        *,
        quality: float = 0.9,
        latency: float = 10.0,
        size: int = 1000,
        noise: float = 0.01,
        baseline: float = 0.9,
        evidence: str = "estimated",
        ratio: tuple[float, float, float] | None = None,
        trial: int | None = 0,
        memory: int = 1_000_000,
    ) -> CandidateResult:
        gain = quality - baseline
        difference = None if identifier == "baseline" else Difference(value=gain, low=gain - noise, high=gain + noise)
        return CandidateResult(
            id=identifier,
            state="complete",
            recipe=[],
            trial=None if identifier == "baseline" else trial,
            artifact=ArtifactResult(path=None, digest=identifier, size_bytes=size, runtime="onnxruntime"),
            quality=SplitQuality(
                validation=QualityResult(
                    value=quality, low=quality - 0.02, high=quality + 0.02, examples=1000, difference=difference
                )
            ),
            latency=[
                LatencyResult(
                    evidence=evidence,  # type: ignore[arg-type]
                    device="board",
                    runtime="onnxruntime",
                    threads=1,
                    median_ms=latency,
                    low_ms=latency * 0.5,
                    high_ms=latency * 2,
                    ratio=None if ratio is None else Difference(value=ratio[0], low=ratio[1], high=ratio[2]),
                )
            ],
            peak_memory_bytes=memory,
        )

    return candidate


@pytest.fixture
def budget_s() -> int:
    """Seconds that are enough to begin candidates, and fewer than one that never ends may take."""
    return 45
