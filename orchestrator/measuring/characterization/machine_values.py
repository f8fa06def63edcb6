"""Values derived from measured ratios and times: useful formats, channel multiples, threads, and their sources."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import nnls
from scipy.stats import t as student

from orchestrator.hardware.latency_fit import Core, least_error
from orchestrator.values.characterization import FitCheck
from orchestrator.values.profile import Cluster, HardwareProfile, Int8Scheme, LatencyModel, NumberFormat, RuntimeSupport
from orchestrator.values.results import Difference

MEASURED = "measured"
IN_ORDER = ("Cortex-A7", "Cortex-A35", "Cortex-A53", "Cortex-A55", "Cortex-A510", "Cortex-A520")
DOT_PRODUCTS = ("asimddp", "avx512_vnni", "avx_vnni", "amx_int8")
HALF = ("asimdhp", "avx2")  # for a wide recent core, in the units of the prior
MULTIPLES = (2, 4, 8, 16)
LEAST_SPREAD = 0.005  # least standard deviation of a ratio: code placement alone changes that much
NORMAL_95 = 1.96
LEAST_CHECKS = 3  # networks needed for a band
BAND_QUANTILE = 0.95  # for a two-sided band of 90 %
CLEARLY = 9.0  # in the sum of squared errors: three standard deviations
FASTER = 0.95  # threads that gain less are not worth their cores
STAIRCASE_FIRST = 33


def core_of(cluster: Cluster) -> Core:
    """Return the properties of a core that the latency model's prior depends on."""
    return Core(
        clock_hz=cluster.clock_hz,
        in_order=cluster.name.split(" ")[0] in IN_ORDER,
        half=any(word in cluster.isa for word in HALF),
        dot=any(word in cluster.isa for word in DOT_PRODUCTS),
    )


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of ratios."""
    return math.exp(sum(math.log(value) for value in values) / len(values))


def gains(ratios: Sequence[Difference]) -> bool:
    """Return True if a format is significantly faster than float32, by the geometric mean of the upper ends of its ratios."""
    return bool(ratios) and geometric_mean([ratio.high for ratio in ratios]) < 1


def channel_multiple(ratios: Mapping[int, Difference]) -> int | None:
    """Return the channel multiple of the kernels, or None if none is significant.

    Kernels that work on blocks of m channels take as long for 33 channels as for the block's end. For each m a fixed cost and a
    cost a block are fitted; the m that explains the times best must be clearly better than linear growth with channels.

    Args:
        ratios: By number of channels, the time over that with 33.
    """
    channels = np.array([STAIRCASE_FIRST, *ratios])
    times = np.array([1.0, *(ratio.value for ratio in ratios.values())])
    spread = [LEAST_SPREAD, *((ratio.high - ratio.low) / 2 / NORMAL_95 for ratio in ratios.values())]
    weights = 1 / np.maximum(spread, LEAST_SPREAD)

    def misfit(multiple: int) -> float:
        blocks = np.ceil(channels / multiple) * multiple
        columns = np.column_stack([np.ones(len(channels)), blocks])
        return float(nnls(columns * weights[:, None], times * weights)[1]) ** 2

    best = min((misfit(multiple), multiple) for multiple in MULTIPLES)
    return best[1] if misfit(1) - best[0] > CLEARLY else None


def best_threads(times: Mapping[int, Sequence[float]]) -> int:
    """Return the number of threads that is worth its cores.

    Args:
        times: The same networks' milliseconds by number of threads.
    """
    best = min(times)
    for threads in sorted(times):
        if geometric_mean([new / old for new, old in zip(times[threads], times[best], strict=True)]) < FASTER:
            best = threads
    return best


def checked(model: LatencyModel, checks: Sequence[FitCheck], *, least: float = 1.0) -> LatencyModel:
    """Return the model with the error of networks outside the fit.

    With a few such networks, the band is theirs: of the logarithms of their errors, by Student's distribution with as many
    degrees of freedom, and no narrower than the largest error. The fit itself leaves out single operators, whose errors are
    larger than those of networks; their band is used with fewer networks, widened to the largest error. The mean error is
    that of the networks.

    Args:
        model: The fitted model.
        checks: The networks outside the fit.
        least: The narrowest band that the model can have by errors known from elsewhere.
    """
    if not checks:
        return model
    logs = [math.log(1 + check.error) for check in checks]
    worst = math.exp(max(abs(value) for value in logs))
    spread = math.sqrt(sum(value**2 for value in logs) / len(logs))
    theirs = math.exp(float(student.ppf(BAND_QUANTILE, len(logs))) * spread)
    error = max(worst, theirs, least) if len(checks) >= LEAST_CHECKS else max(worst, model.error)
    mean = sum(abs(check.error) for check in checks) / len(checks)
    return replace(model, error=math.ceil(100 * error) / 100, mean_error=round(mean, 3))


@dataclass(frozen=True, kw_only=True, slots=True)
class Formats:
    """Measured number formats of a runtime: each with ratios of its times to float32's on the same networks.

    Attributes:
        int8: Ratios by scheme, without schemes that do not run.
    """

    float16: Sequence[Difference] = ()
    int8: Mapping[Int8Scheme, Sequence[Difference]]

    def schemes(self) -> tuple[Int8Scheme, ...]:
        """Return the int8 schemes, the fastest first, without those that are slower than float32 if another is faster."""
        ordered = sorted(self.int8, key=lambda scheme: geometric_mean([r.value for r in self.int8[scheme]]))
        useful = [scheme for scheme in ordered if gains(self.int8[scheme])]
        return tuple(useful or ordered)

    def useful(self) -> tuple[NumberFormat, ...]:
        """Return the useful formats, float32 included."""
        found: list[NumberFormat] = ["float32"]
        if gains(self.float16):
            found.append("float16")
        if any(gains(ratios) for ratios in self.int8.values()):
            found.append("int8")
        return tuple(found)

    def legal(self) -> tuple[NumberFormat, ...]:
        """Return all formats that ran."""
        found: list[NumberFormat] = ["float32"]
        if self.float16:
            found.append("float16")
        if self.int8:
            found.append("int8")
        return tuple(found)

    def words(self) -> str:
        """Return the ratios as text."""
        parts = []
        if self.float16:
            parts.append(f"float16 {geometric_mean([r.value for r in self.float16]):.2f}")
        ordered = sorted(self.int8.items(), key=lambda item: geometric_mean([r.value for r in item[1]]))
        parts += [f"int8 {scheme} {geometric_mean([r.value for r in ratios]):.2f}" for scheme, ratios in ordered]
        return ", ".join(parts)


def runtime_support(
    known: RuntimeSupport | None,
    *,
    name: str,
    threads: int,
    formats: Formats | None,
    multiples: Mapping[NumberFormat, int],
    source: str,
) -> RuntimeSupport:
    """Return the runtime's support as measured; what was not measured is taken from `known`.

    Args:
        name: The runtime.
        known: Values known without measuring, or None.
        threads: Threads of one inference.
        formats: Measured formats, or None if the budget was too short.
        multiples: Measured channel multiples by format.
        source: Name of the source in the profile.
    """
    base = known or RuntimeSupport(name=name, threads=threads, formats=("float32",), source=source)
    useful, legal = (base.formats, base.legal_formats) if formats is None else (formats.useful(), formats.legal())
    schemes = base.int8_schemes if formats is None else formats.schemes()
    merged = {**base.channel_multiple, **multiples}
    return replace(
        base,
        threads=threads,
        formats=useful,
        legal_formats=legal,
        int8_schemes=schemes if "int8" in useful else (),
        channel_multiple={k: v for k, v in merged.items() if k in {*useful, *legal}},
        source=source,
    )


def slug(title: str) -> str:
    """Return a profile's name from a machine's title: "AMD EPYC 9004" as "amd-epyc-9004"."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"\((?:r|tm|c)\)", "", title.lower()))
    return "-".join(words)[:60].strip("-") or "machine"


def with_error(profile: HardwareProfile, checks: Sequence[FitCheck]) -> HardwareProfile:
    """Return the profile with the errors of its models from the validation networks."""
    models = tuple(
        checked(
            model,
            [c for c in checks if (c.number_format, c.threads) == (model.number_format, model.threads)],
            least=least_error(),
        )
        for model in profile.latency_models
    )
    return replace(profile, latency_models=models)
