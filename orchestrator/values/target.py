"""Target: where a candidate must run. Limits: constraints on a model."""

from dataclasses import dataclass

from orchestrator.values.profile import HardwareProfile, RuntimeSupport


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Profile, device, runtime and options.

    Attributes:
        device: Where candidates are timed: "host", or a device's reference.
        is_device: True if `device` is the profile's own machine, so that its times are measured-on-target.
        threads: Threads of one inference on the target.
        alternatives: Further runtimes that the search tries beside `runtime`, which times the original.
        simulator: Reference of the simulated CPU that stands in for a machine that is not here, or None.
    """

    profile: HardwareProfile
    device: str
    is_device: bool
    runtime: str
    threads: int
    batch_size: int = 1
    simulator: str | None = None
    alternatives: tuple[str, ...] = ()

    @property
    def support(self) -> RuntimeSupport:
        """Return the profile's support of this target's runtime."""
        support = self.profile.runtime(self.runtime)
        if support is None:
            raise KeyError(f"profile {self.profile.name} does not list the runtime {self.runtime}")
        return support

    def channel_multiple(self, number_format: str) -> int:
        """Return the channel multiple of the target's kernels in a number format (1 if unknown)."""
        multiples: dict[str, int] = {str(k): v for k, v in self.support.channel_multiple.items()}
        return multiples.get(number_format, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of a model; None means no limit.

    Attributes:
        max_drop: Largest loss of the metric against the baseline, in the metric's own unit (0.01: one point of accuracy).
    """

    max_latency_ms: float | None = None
    max_size_bytes: int | None = None
    max_memory_bytes: int | None = None
    max_drop: float | None = None
    min_quality: float | None = None
