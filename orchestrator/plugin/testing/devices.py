"""Conformance tests of devices."""

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from orchestrator.plugin import Device, DeviceListing, Finding, InputError, Job, JobFailed, OrchestratorError, Runtime
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.testing.cases import make_case
from orchestrator.plugin.testing.problems import must, wrong

TIMEOUT_S = 120.0


class DeviceTests:
    """Subclass it with your device: `class TestMine(DeviceTests): device, reference = Mine(), "mine:rack3"`.

    Class attributes:
        device: What is tested; it must be there.
        reference: What a user gives to `--device`; None: the scheme.
        runtime: The runtime that it runs models with.
        network: The kit's network that is run.
    """

    device: ClassVar[Any]
    reference: ClassVar[str | None] = None
    runtime: ClassVar[str] = "onnxruntime"
    network: ClassVar[str] = "plain-cnn"

    def attached(self) -> Device:
        """Return the device behind the reference."""
        reference = self.reference or self.device.scheme
        try:
            found: Device = self.device.attach(reference)
        except InputError as error:
            wrong(f"`attach('{reference}')` refuses it: {error}", "take what begins with the scheme; set `reference` in the test")
        must(isinstance(found, Device), f"`attach` returned {type(found).__name__}", "return the device")
        return found

    def job(self, folder: Path, **changes: Any) -> tuple[Job, Any]:
        """Return a job on this device, and the outputs that it must give."""
        case, runtime = make_case(self.network), self._runtime()
        inputs = {}
        for name, array in case.inputs.items():
            np.save(folder / f"{name}.npy", array)
            inputs[name] = folder / f"{name}.npy"
        fields: dict[str, Any] = {
            "model": runtime.convert(case.export(folder, case.copy()), folder),
            "load": runtime.source(),
            "imports": runtime.imports,
            "inputs": inputs,
            "threads": 1,
            "options": {},
            "timeout_s": TIMEOUT_S,
        }
        return Job(**{**fields, **changes}), case.outputs(case.model, len(array)).numpy()

    def _runtime(self) -> Runtime:
        return Registry.discover().runtimes()[self.runtime]

    def test_declaration_is_whole(self) -> None:
        """A scheme without a colon, and a device that can be attached."""
        must(isinstance(self.device, Device), f"`device` is {self.device!r:.60}, which is no Device", "give an instance")
        scheme = getattr(self.device, "scheme", "")
        must(scheme and ":" not in scheme, f"`scheme` is {scheme!r}", "declare a word without a colon")
        self.attached()

    def test_reference_of_another_device_is_refused(self) -> None:
        """`attach` raises InputError for what it cannot read."""
        try:
            self.device.attach(f"{self.device.scheme}-no-such:///?!")
        except InputError:
            return
        except Exception as error:  # what a plugin raises by mistake
            wrong(f"a reference that it cannot read raises {type(error).__name__}", "raise InputError with one line")
        wrong("a reference that it cannot read is taken", "raise InputError")

    def test_facts_are_plain_data(self) -> None:
        """`check` passes, `environment` can be written as JSON, there are cores, and `release` may be called twice."""
        device = self.attached()
        try:
            device.check(self._runtime())
            facts = device.environment()
            must(device.cores() >= 1, f"`cores()` gives {device.cores()}", "return at least 1")
        except OrchestratorError as error:
            wrong(f"the device is not ready: {error}", "attach it, or set `reference` to one that is")
        finally:
            device.release()
            device.release()
        must(isinstance(facts, dict) and facts, f"`environment()` gives {facts!r:.60}", "return the CPU, the memory, the system")
        try:
            json.dumps(facts)
        except TypeError as error:
            wrong(f"`environment()` cannot be written as JSON: {error}", "use plain numbers and strings")

    def test_answers_for_the_command_line_are_plain(self) -> None:
        """`references`, `setup_references`, `listing` and `diagnose` answer without connecting to anything."""
        references = [self.device.reference_form(), *self.device.references(), *self.device.setup_references()]
        must(all(isinstance(name, str) and name for name in references), f"references are {references!r:.80}", "return strings")
        lines, findings = self.device.listing(), self.device.diagnose()
        must(all(isinstance(line, DeviceListing) for line in lines), f"`listing()` gives {lines!r:.80}", "return DeviceListings")
        must(
            all(isinstance(finding, Finding) and finding.section == "devices" for finding in findings),
            f"`diagnose()` gives {findings!r:.80}",
            "return Findings of the section 'devices'",
        )

    def test_session_times_runs_and_tells_its_memory(self, tmp_path: Path) -> None:
        """The three things that a session does."""
        device = self.attached()
        job, expected = self.job(tmp_path)
        outputs = tmp_path / "outputs"
        outputs.mkdir()
        try:
            with device.open(job) as session:
                few = session.time(seconds=60.0, runs=5)
                must(len(few) == 5, f"`time(runs=5)` gave {len(few)} samples", "stop at `runs` or `seconds`, whichever is first")
                once = session.time(seconds=0.0, runs=100)
                must(
                    1 <= len(once) < 100,
                    f"`time(seconds=0)` gave {len(once)} samples",
                    "stop at `seconds`, after one sample at least",
                )
                must(
                    all(len(sample) == 3 and sample[0] > 0 for sample in few),
                    f"samples are {few[0]!r:.80}",
                    "return (wall seconds, CPU seconds of the thread, of the process) for each",
                )
                inner = session.time(seconds=60.0, runs=3, inner=10)
                long = float(np.median([s[0] for s in few])) * 8
                must(
                    float(np.median([s[0] for s in inner])) < max(long, 1e-4),
                    "`inner` makes samples longer",
                    "give one inference's share",
                )
                got = [np.load(path) for path in session.predict(outputs, batch=16)]
                worst = (
                    float(np.abs(got[0] - expected).max() / np.abs(expected).max()) if got[0].shape == expected.shape else np.inf
                )
                must(
                    worst < 1e-2,
                    f"the outputs of all examples are others (shape {got[0].shape}, off by {worst:.2g})",
                    "keep their order",
                )
                must(session.peak_memory_bytes() >= 0, "the peak memory is negative", "subtract what the process held before")
                must(
                    session.timer_resolution() > 0,
                    "`timer_resolution` is not positive",
                    "return the timer's smallest step, seconds",
                )
            session.close()
        finally:
            device.release()

    def test_model_that_cannot_be_loaded_is_the_models_fault(self, tmp_path: Path) -> None:
        """`JobFailed`, and the device serves the next job."""
        device = self.attached()
        job, _ = self.job(tmp_path)
        broken = tmp_path / f"broken{job.model.suffix}"
        broken.write_bytes(b"no model at all")
        try:
            try:
                device.open(self.job(tmp_path, model=broken)[0]).close()
            except JobFailed:
                pass
            except Exception as error:  # what a plugin raises by mistake
                wrong(
                    f"a damaged model raises {type(error).__name__}: {error}",
                    "raise JobFailed: the candidate fails, not the device",
                )
            else:
                wrong("a damaged model is loaded without an error", "raise JobFailed in `open`")
            with device.open(job) as session:
                must(session.time(seconds=1.0, runs=1), "no sample after a failed job", "clean up when `open` fails")
        finally:
            device.release()
