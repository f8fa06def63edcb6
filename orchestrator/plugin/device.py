"""The contract of a device: where code really runs."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.devices.session import Session
from orchestrator.errors import InputError
from orchestrator.plugin.runtime import Runtime
from orchestrator.values.device import DeviceListing, Job, Simulated
from orchestrator.values.evidence import Estimate
from orchestrator.values.finding import Finding
from orchestrator.values.profile import HardwareProfile, NumberFormat, SimulationModel
from orchestrator.values.results import Difference

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class SetupOptions:
    """Options of `orchestrate devices setup`.

    Attributes:
        runtime: The runtime that must run on the device.
        version: Of the runtime; None: the version that is installed here.
        offline: True if the device must not fetch anything itself.
    """

    runtime: Runtime
    version: str | None = None
    offline: bool = False


class Device(ABC):
    """A machine, real or simulated, on which candidates are timed and scored.

    The instance that a plugin contributes stands for all devices of its scheme; `attach` returns the one that a reference names.

    Class attributes:
        scheme: The beginning of its references ("host", "ssh", "qemu").
        remote: True if it is another machine, whose times are not disturbed by what this one does meanwhile.
    """

    scheme: ClassVar[str]
    remote: ClassVar[bool] = False

    def attach(self, reference: str) -> "Device":
        """Return the one device that a reference names ("ssh://pi@board:22"), without connecting to it.

        Raises:
            InputError: The reference cannot be parsed.
        """
        if reference != self.scheme:
            raise InputError(f"device '{self.scheme}' takes no address, but got '{reference}'")
        return self

    def check(self, runtime: Runtime) -> None:  # noqa: B027 a device may have nothing to check
        """Check at the start everything that would stop a search later, so that nothing has to be asked in the middle.

        Raises:
            InputError: The device cannot be used as it is; one line says how to fix it.
            DeviceUnavailable: It is out of reach, or in use.
        """

    def release(self) -> None:  # noqa: B027 a device may hold nothing
        """Release what is held between sessions (connections, locks). May be called twice."""

    @abstractmethod
    def open(self, job: Job) -> Session:
        """Load a model in a fresh process.

        Raises:
            JobFailed: The process could not load it.
            DeviceUnavailable: The device is out of reach, after retrying for a while.
        """

    @abstractmethod
    def environment(self) -> dict[str, Any]:
        """Return facts about the machine: CPU, clock, governor, memory, operating system."""

    @abstractmethod
    def cores(self) -> int:
        """Return the number of cores that an inference may use."""

    # Answers for the command line, of the instance that stands for the scheme. None of them may connect to a device or take long.

    def reference_form(self) -> str:
        """Return the form of references, for messages ("ssh://[user@]host[:port]")."""
        return self.scheme

    def references(self) -> list[str]:
        """Return the references that the shell completes after `--device`."""
        return [f"{self.scheme}:"]

    def setup_references(self) -> list[str]:
        """Return the references that the shell completes for `devices setup` and `devices remove`.

        They need not begin with the scheme: `setup` and `remove` are called for each of them.
        """
        return []

    def describe(self) -> str:
        """Return a description in one line; by default the summary of the class's docstring."""
        return (type(self).__doc__ or "").strip().partition("\n")[0]

    def listing(self) -> list[DeviceListing]:
        """Return the lines of `devices list`: the devices that are known, or the form of a reference."""
        return [DeviceListing(reference=self.reference_form(), text=self.describe())]

    def diagnose(self) -> list[Finding]:
        """Return findings for `orchestrate doctor`: what is missing or broken, with the fix."""
        return [Finding(section="devices", name=self.scheme, state="ok", text=self.describe() or "brought by a plugin")]

    # Commands for one device.

    def status(self) -> dict[str, Any]:
        """Return the facts that `devices check` prints before it checks an attached device; at least those of `environment`."""
        return self.environment()

    def setup(self, reference: str, options: SetupOptions, progress: Progress) -> str:
        """Prepare a device: install what it needs, or repair it. Quick if nothing is missing.

        Args:
            reference: The argument of `devices setup`.
            options: The options of `devices setup`.
            progress: Called with one line for each step.

        Returns:
            What is set up now, for the user.

        Raises:
            InputError: Nothing can be set up there, or something is missing that the user must provide.
            EnvironmentFailure: The device is out of reach or in use, or its disk is full.
        """
        raise InputError(f"'{reference}' needs no setup: only boards and simulated CPUs do, see `orchestrate devices list`")

    def remove(self, reference: str) -> str | None:
        """Delete everything that `setup` and searches have put on a device.

        Returns:
            What was deleted; None if there was nothing.

        Raises:
            InputError: There is nothing to set up for such a device, or it cannot be used as it is.
            EnvironmentFailure: The device is out of reach or in use.
        """
        raise InputError(f"'{reference}' has no setup: only boards and simulated CPUs do, see `orchestrate devices list`")


class SimulatedDevice(Device):
    """A simulated CPU: models run on a model of it, and their time is computed from what was executed.

    A session that it opens runs the model too, for its outputs; the time that this takes means nothing.
    """

    remote = True

    @abstractmethod
    def cpu(self) -> str:
        """Return the CPU's name, as in the `simulations` of profiles."""

    @abstractmethod
    def board(self) -> str:
        """Return the profile that represents the CPU if the user names none."""

    @abstractmethod
    def simulate(self, job: Job, runtime: Runtime) -> Simulated:
        """Count one inference on the first example, in the steady state, with one thread.

        Raises:
            JobFailed: The model cannot be run within the limits.
            EnvironmentFailure: The emulator itself fails.
        """

    @abstractmethod
    def latency(
        self, found: Simulated, constants: SimulationModel, profile: HardwareProfile, *, threads: int, number_format: NumberFormat
    ) -> Estimate:
        """Return the latency of one inference on the profile's machine in ms, with the band that contains 90 % of true values."""

    @abstractmethod
    def ratio(self, a: Simulated, b: Simulated, constants: SimulationModel, *, threads: int) -> Difference:
        """Return A's time over B's, with the band of the errors that they do not share; exactly 1 for the same counts."""
