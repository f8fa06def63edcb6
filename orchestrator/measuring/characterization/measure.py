"""Measuring a machine within a budget: networks, formats and numbers of threads, the most informative first."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from orchestrator.hardware.graph import count
from orchestrator.measuring.characterization.graph import INPUT, Sample
from orchestrator.measuring.characterization.int8 import quantize
from orchestrator.measuring.characterization.machine_values import Formats, channel_multiple
from orchestrator.measuring.characterization.network_timer import GROUP, NetworkTimer, PlacedNetwork
from orchestrator.measuring.characterization.networks import STAIRCASE, micro_networks, real_networks, staircase_networks
from orchestrator.plugin.device import Device
from orchestrator.plugin.runtime import Runtime
from orchestrator.values.profile import Int8Scheme, NumberFormat
from orchestrator.values.results import Difference

SCHEMES: tuple[Int8Scheme, ...] = ("u8s8", "s8s8", "u8u8")
EXAMPLES = 2
GROUPS = 40  # settings that share the budget: two formats with two numbers of threads
LEAST_GROUP_S, MOST_GROUP_S = 0.2, 6.0
FIRST_SESSION_S = 0.7  # seconds of one network, until measured
TRIED = 2  # of the real networks that formats are compared on: single operators would hide what lies between them


@dataclass(frozen=True, slots=True)
class Setting:
    """A number format and a number of threads."""

    number_format: NumberFormat
    threads: int

    def __str__(self) -> str:
        return f"{self.number_format}, {self.threads} thread{'s' * (self.threads > 1)}"


class MachineMeasurement:
    """The measurements of one machine, and the files of the networks.

    Args:
        device: The device.
        runtime: The runtime.
        threads: The numbers of threads to measure, in this order.
        seconds: The budget; urgent networks are measured in any case.
        folder: A folder for the networks' files.
        progress: Called with a description of each next step.
    """

    def __init__(
        self,
        device: Device,
        runtime: Runtime,
        *,
        threads: Sequence[int],
        options: Mapping[str, Any],
        memory_bytes: int,
        seconds: float,
        seed: int,
        folder: Path,
        progress: Callable[[str], None],
    ) -> None:
        self._device, self._runtime, self._options = device, runtime, options
        self._threads, self._memory_bytes, self._seed = tuple(threads), memory_bytes, seed
        self._folder, self._progress = folder, progress
        self._end = time.monotonic() + seconds
        self._group_s = min(MOST_GROUP_S, max(LEAST_GROUP_S, seconds / GROUPS))
        self._laid: dict[tuple[str, str], PlacedNetwork] = {}
        self._models: dict[tuple[str, str], Path] = {}
        self.watches: dict[Setting, NetworkTimer] = {}
        self.formats: Formats | None = None
        self.multiples: dict[NumberFormat, int] = {}
        self.tried_multiples: set[NumberFormat] = set()
        self.left_out = 0
        self._scheme: Int8Scheme = SCHEMES[0]

    @property
    def threads(self) -> tuple[int, ...]:
        """Return the numbers of threads to measure."""
        return self._threads

    def run(self) -> None:
        """Measure everything that determines a model first, then what improves it, as far as the budget allows.

        Raises:
            InputError: The runtime cannot run the simplest network, or the device's timer is too coarse.
            DeviceUnavailable: The device is lost.
            Interrupted: The user interrupted it.
        """
        micro, real = micro_networks(), real_networks()
        urgent = [s for s in (*micro, *real) if s.urgent]
        first = Setting("float32", self._threads[0])
        self._time(first, urgent, needed=True)
        self._try_formats(first.threads)
        settings = [first]
        for threads in self._threads:
            for number_format in self.formats.useful() if self.formats else ("float32",):
                setting = Setting(number_format, threads)
                if setting not in settings and self._time(setting, urgent):
                    settings.append(setting)
        for number_format in {setting.number_format: None for setting in settings}:
            self._climb(number_format, first.threads)
        later = [s for s in (*real, *micro) if not s.urgent]
        for start in range(0, len(later), GROUP):
            for setting in settings:
                self._time(setting, later[start : start + GROUP])

    def times(self, setting: Setting, samples: Iterable[Sample]) -> dict[str, tuple[Path, Difference]]:
        """Return the ONNX file and the milliseconds of each of these networks that was timed in a setting."""
        watch = self.watches.get(setting)
        found = {} if watch is None else watch.milliseconds()
        form = self._form(setting.number_format)
        return {s.name: (self._models[form, s.name], found[s.name]) for s in samples if s.name in found}

    def _time(self, setting: Setting, samples: Sequence[Sample], *, needed: bool = False) -> bool:
        """Time networks, and return True unless the budget is too short."""
        samples = [s for s in samples if s.name != micro_networks()[0].name]  # the reference, in every group
        wanted = len(samples)
        if not needed:  # urgent networks are only useful together
            whole = any(s.urgent for s in samples)
            samples = samples[: self._affordable(wanted)] if not whole or self._affordable(wanted) == wanted else []
        self.left_out += wanted - len(samples)
        if not samples:
            return False
        self._progress(f"{setting}: {len(samples)} networks")
        form = self._form(setting.number_format)
        laid = [self._lay(s, form) for s in samples]
        if setting.number_format == "int8":  # an unchanged network shows nothing about int8
            laid = [one for one in laid if self._is_int8(form, one.name)]
        watch = self._watch(setting)
        watch.time(laid)
        return watch.sessions > 0

    def _try_formats(self, threads: int) -> None:
        """Measure float16 and the int8 schemes on whole networks."""
        samples = real_networks()[:TRIED]
        forms: list[tuple[str, Int8Scheme | None]] = [("float16", None), *((f"int8-{scheme}", scheme) for scheme in SCHEMES)]
        wanted = len(samples) * (len(forms) + 1)
        if self._affordable(wanted) < wanted:
            self._progress("number formats: no time to try them")
            return
        self._progress("number formats: float16 and the int8 schemes against float32")
        ratios: dict[str, list[Difference]] = {form: [] for form, _ in forms}
        for sample in samples:
            watch = self._new_watch(threads, self._lay(sample, "float32"))
            watch.time([self._lay(sample, form, unique=True) for form, _ in forms])
            for form, _ in forms:
                found = watch.relative.get(f"{sample.name} {form}")
                if found is not None:
                    ratios[form].append(found.ratio)
        whole = {form: found for form, found in ratios.items() if len(found) == len(samples)}
        self.formats = Formats(
            float16=whole.get("float16", ()),
            int8={scheme: whole[form] for form, scheme in forms if scheme is not None and form in whole},
        )
        if schemes := self.formats.schemes():
            self._scheme = schemes[0]

    def _climb(self, number_format: NumberFormat, threads: int) -> None:
        """Measure the channel multiple of a format."""
        samples = staircase_networks()
        if self._affordable(len(samples)) < len(samples):
            return
        self._progress(f"{number_format}: which multiple of channels pays")
        form = self._form(number_format)
        watch = self._new_watch(threads, self._lay(samples[-1], form))
        watch.time([self._lay(s, form) for s in samples[:-1]])
        ratios = {c: watch.relative[s.name].ratio for c, s in zip(STAIRCASE, samples, strict=False) if s.name in watch.relative}
        self.tried_multiples.add(number_format)
        if len(ratios) == len(STAIRCASE) and (multiple := channel_multiple(ratios)):
            self.multiples[number_format] = multiple

    def _affordable(self, networks: int) -> int:
        """Return how many of so many networks the rest of the budget allows, by the time of those so far."""
        watches = list(self.watches.values())
        sessions = sum(watch.sessions for watch in watches)
        each = sum(watch.spent_s for watch in watches) / sessions if sessions else FIRST_SESSION_S
        left = (self._end - time.monotonic()) / (each * (1 + 1 / GROUP))  # the reference runs in every group
        return max(0, min(networks, int(left)))

    def _watch(self, setting: Setting) -> NetworkTimer:
        if setting not in self.watches:
            reference = self._lay(micro_networks()[0], self._form(setting.number_format))
            watch = self._new_watch(setting.threads, reference)
            for first in list(self.watches.values())[:1]:
                watch.tie(first)
            self.watches[setting] = watch
        return self.watches[setting]

    def _new_watch(self, threads: int, reference: PlacedNetwork) -> NetworkTimer:
        return NetworkTimer(
            self._device,
            self._runtime,
            reference=reference,
            threads=threads,
            options=self._options,
            memory_bytes=self._memory_bytes,
            seconds=self._group_s,
            seed=self._seed,
        )

    def _form(self, number_format: NumberFormat) -> str:
        return f"int8-{self._scheme}" if number_format == "int8" else number_format

    def _is_int8(self, form: str, name: str) -> bool:
        operators = count(self._models[form, name]).operators
        return any(o.number_format == "int8" for o in operators if not o.free)

    def _lay(self, sample: Sample, form: str, *, unique: bool = False) -> PlacedNetwork:
        """Write the network's files in a format; with `unique` under a name that contains the format."""
        key = (form, sample.name)
        if key not in self._laid:
            folder = self._folder / form / sample.name
            folder.mkdir(parents=True)
            model = folder / "model.onnx"
            half = form == "float16"
            onnx.save(sample.build("float16" if half else "float32"), model)
            if form.startswith("int8-"):
                plain = model.rename(folder / "float.onnx")
                scheme = next(scheme for scheme in SCHEMES if form == f"int8-{scheme}")
                quantize(plain, model, sample.shape, scheme)
            examples = np.random.default_rng(self._seed).standard_normal((EXAMPLES, *sample.shape[1:]))
            np.save(folder / "input.npy", examples.astype(np.float16 if half else np.float32))
            own = folder / "runtime"
            own.mkdir()
            file = self._runtime.convert(model, own)
            self._models[key] = model
            self._laid[key] = PlacedNetwork(name=sample.name, file=file, inputs={INPUT: folder / "input.npy"})
        laid = self._laid[key]
        return PlacedNetwork(name=f"{sample.name} {form}", file=laid.file, inputs=laid.inputs) if unique else laid
