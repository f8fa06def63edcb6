"""The devices of a search: which are available, whose turn it is, which are lost, and how long the search waits for them."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from orchestrator.devices import interrupt
from orchestrator.errors import DeviceUnavailable, InputError, JobFailed
from orchestrator.measuring.scoring import Evaluator
from orchestrator.plugin.device import Device
from orchestrator.plugin.runtime import Runtime
from orchestrator.study.run.events import SearchEvents

T = TypeVar("T")
ATTEMPTS = 3
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
RECHECK_S = 60.0  # for a lost device, while others are available
MOST_LOSSES_IN_A_ROW = 3
POLL_S = 0.05
END_S = 10.0


class DeviceTask(Generic[T]):
    """A call that runs in a thread of its own, or at once if nothing else may happen meanwhile."""

    def __init__(self, call: Callable[[], T], *, concurrent: bool) -> None:
        self._call, self._done = call, threading.Event()
        self._value: list[T] = []
        self._error: BaseException | None = None
        if concurrent:
            threading.Thread(target=self._run, daemon=True).start()
        else:
            self._run()

    def _run(self) -> None:
        try:
            self._value.append(self._call())
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    def wait(self) -> None:
        """Wait until the call has ended, with or without an error.

        Raises:
            Interrupted: The user requested a stop.
        """
        while not self._done.wait(POLL_S):
            interrupt.check()

    def result(self) -> T:
        """Return what the call returned, or raise what it raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._value[0]

    def end(self) -> None:
        """Wait a limited time for a call whose result is not needed."""
        self._done.wait(END_S)


@dataclass(kw_only=True, slots=True)
class PooledDevice:
    """A device of a pool with its state.

    Attributes:
        lost: Why it is unavailable, or None.
        unfit: Why it cannot be used in the rest of this process (the original itself fails on it), or None.
        proven: True if the original ran on it.
        losses: Number of measurements in a row that were lost on it.
        checked: `time.monotonic()` of the last check.
    """

    device: Device
    reference: str
    evaluator: Evaluator | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    lost: str | None = None
    unfit: str | None = None
    proven: bool = False
    losses: int = 0
    checked: float = 0.0
    task: DeviceTask[Any] | None = None


class DevicePool:
    """One device, or several of one kind that share the work.

    Args:
        references: Names of the devices, in the order of `devices`.
        wait_s: Seconds to wait for a device that is lost; 0 for none.
        left_s: Returns the seconds that are left of the whole budget; infinite if time is not limited.

    Attributes:
        notes: What the user should know of the devices.
        waited_s: Seconds spent waiting for lost devices.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        references: Sequence[str],
        runtime: Runtime,
        *,
        wait_s: float,
        left_s: Callable[[], float],
        events: SearchEvents,
    ) -> None:
        self.devices = [PooledDevice(device=d, reference=r) for d, r in zip(devices, references, strict=True)]
        self._runtime, self._wait_s, self._left_s, self._events = runtime, wait_s, left_s, events
        self._concurrent = all(member.device.remote for member in self.devices)
        self._turns = 0
        self._proof: Callable[[Evaluator], Any] | None = None
        self.notes: list[str] = []
        self.waited_s = 0.0

    @property
    def lag(self) -> int:
        """Return how many candidates may be measured while the next is built; 0 if nothing else may happen meanwhile."""
        return len(self.devices) if self._concurrent else 0

    @property
    def available(self) -> list[PooledDevice]:
        """Return the devices that can be used, as far as is known."""
        return [member for member in self.devices if member.lost is None and member.unfit is None]

    def connect(self) -> None:
        """Check every device, and leave out those that are out of reach while there are others.

        Raises:
            InputError: A device cannot be used as it is.
            DeviceUnavailable: No device answers within the wait.
        """
        for member in self.devices:
            try:
                self._check(member)
            except DeviceUnavailable as error:
                member.lost = str(error)
        self.gather()
        for member in self.devices:
            if member.lost is not None:
                self._note(f"{member.reference} was left out, for it was unavailable when the search began: {member.lost}")

    def equip(self, create: Callable[[PooledDevice], Evaluator]) -> None:
        """Give every device its evaluator."""
        for member in self.devices:
            member.evaluator = create(member)

    def prove(self, call: Callable[[Evaluator], T]) -> T:
        """Run the original on every available device, and return the result of the first. Devices that fail are left out.

        Devices that become available later run it too.

        Raises:
            JobFailed: It runs on no device; the error of the last one.
            DeviceUnavailable: No device is left.
        """
        results: list[T] = []
        failed: JobFailed | None = None
        self._proof = call
        while not results:
            self.gather()
            tasks = [(member, self.start(member, call)) for member in self.available]
            for member, task in tasks:
                try:
                    results.append(task.result())
                    member.proven = True
                except JobFailed as error:
                    failed = error
                    self._mark_unfit(member, error)
                except DeviceUnavailable:
                    self._note(f"{member.reference} was lost while the original was measured: {member.lost}")
            if not results and failed is not None and all(member.unfit is not None for member in self.devices):
                raise failed
        return results[0]

    def trust(self) -> None:
        """Skip the proof: the original ran on these devices before the run was resumed."""
        for member in self.devices:
            member.proven = True

    def next_device(self) -> PooledDevice:
        """Return the device whose turn it is, as soon as it is idle.

        Raises:
            DeviceUnavailable: No device answers within the wait.
        """
        while True:
            self.gather()
            available = self.available
            member = available[self._turns % len(available)]
            if member.task is not None:
                member.task.wait()
            if member.lost is None:
                self._turns += 1
                return member

    def start(self, member: PooledDevice, call: Callable[[Evaluator], T]) -> DeviceTask[T]:
        """Start a measurement on a device; an aborted one is repeated up to twice."""
        member.task = task = DeviceTask(lambda: self._run_with_retries(member, call), concurrent=self._concurrent)
        return task

    def run_anywhere(self, call: Callable[[Evaluator], T]) -> T:
        """Run a call on the first available device, and wait for one if all are lost.

        Raises:
            JobFailed: The model fails.
            DeviceUnavailable: No device answers within the wait.
        """
        while True:
            self.gather()
            try:
                return self.start(self.available[0], call).result()
            except DeviceUnavailable:
                continue  # `gather` checks whether it is back, or another is available

    def gather(self) -> None:
        """Check lost devices; if none is available, wait for one with growing pauses.

        Raises:
            DeviceUnavailable: None came back in time.
            Interrupted: The user requested a stop.
        """
        began, pause, reported = time.monotonic(), FIRST_PAUSE_S, ""
        while True:
            for member in self.devices:
                if member.lost is not None and self._due(member):
                    self._recheck(member)
            if self.available:
                return
            reasons = self._reasons()
            left = min(self._wait_s - (time.monotonic() - began), self._left_s())
            if left <= 0 or all(member.unfit or member.losses >= MOST_LOSSES_IN_A_ROW for member in self.devices):
                raise DeviceUnavailable(reasons)
            if reasons != reported:
                self._events.phase(f"waiting for {reasons}")
                reported = reasons
            sleep(min(pause, left))
            self.waited_s += min(pause, left)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def environments(self) -> dict[str, dict[str, Any]]:
        """Return the environment of each device by its reference."""
        return {member.reference: member.environment for member in self.devices if member.environment}

    def close(self) -> None:
        """Wait for what still runs, and release every device."""
        for member in self.devices:
            if member.task is not None:
                member.task.end()
            member.device.release()

    def _run_with_retries(self, member: PooledDevice, call: Callable[[Evaluator], T]) -> T:
        if member.evaluator is None:
            raise RuntimeError("call `equip` before anything is measured")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                result = call(member.evaluator)
            except DeviceUnavailable as error:
                if attempt == ATTEMPTS:
                    member.losses += 1
                    member.checked = 0.0  # check again at once
                    member.lost = str(error)
                    raise
                sleep(attempt * FIRST_PAUSE_S)
            else:
                member.losses = 0
                return result
        raise AssertionError("unreachable")

    def _check(self, member: PooledDevice) -> None:
        member.checked = time.monotonic()
        member.device.check(self._runtime)
        if not member.environment:
            member.environment = member.device.environment()

    def _due(self, member: PooledDevice) -> bool:
        if member.unfit is not None or member.losses >= MOST_LOSSES_IN_A_ROW:
            return False  # it answers checks, and fails when it is used
        return time.monotonic() - member.checked > (RECHECK_S if self.available else FIRST_PAUSE_S / 2)

    def _recheck(self, member: PooledDevice) -> None:
        """Check whether a lost device is back."""
        try:
            self._check(member)
            if self._proof is not None and not member.proven and member.evaluator is not None:
                self._proof(member.evaluator)
                member.proven = True
        except (DeviceUnavailable, InputError) as error:
            member.lost = str(error)
        except JobFailed as error:
            self._mark_unfit(member, error)
        else:
            member.lost = None

    def _mark_unfit(self, member: PooledDevice, error: JobFailed) -> None:
        member.unfit = str(error)
        if len(self.devices) > 1:
            self._note(f"{member.reference} was left out, for the original fails on it: {error}")

    def _reasons(self) -> str:
        reasons = [(member.reference, member.unfit or member.lost or "") for member in self.devices]
        return "; ".join(reason if reference in reason else f"{reference}: {reason}" for reference, reason in reasons)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self._events.notes(text)


def sleep(seconds: float) -> None:
    """Sleep, but wake up for Ctrl-C.

    Raises:
        Interrupted: The user requested a stop.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        interrupt.check()
        time.sleep(min(POLL_S, left))
