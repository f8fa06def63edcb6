"""The devices of a search: who is there, whose turn it is, who is lost, and how long the search waits for them."""

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

T = TypeVar("T")
ATTEMPTS = 3
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
LOOK_AGAIN_S = 60.0  # for a lost board, while others are there
MOST_LOSSES_IN_A_ROW = 3
POLL_S = 0.05
END_S = 10.0


class DeviceTask(Generic[T]):
    """A call that runs in a thread of its own, or at once where nothing else may happen meanwhile."""

    def __init__(self, call: Callable[[], T], *, beside: bool) -> None:
        self._call, self._done = call, threading.Event()
        self._value: list[T] = []
        self._error: BaseException | None = None
        if beside:
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
        """Until it has ended, however it did.

        Raises:
            Interrupted: the user asked to stop.
        """
        while not self._done.wait(POLL_S):
            interrupt.check()

    def result(self) -> T:
        """What the call returned, or what it raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._value[0]

    def end(self) -> None:
        """Wait a while for a call that nobody wants any more."""
        self._done.wait(END_S)


@dataclass(kw_only=True, slots=True)
class PooledDevice:
    """One device of a fleet, and what is known of it.

    Attributes:
        lost: Why it is not there; None: it is, as far as anybody knows.
        unfit: Why it is of no use for the rest of this process: the original itself fails there.
        proven: Whether the original ran on it.
        losses: How often in a row a measurement was lost there.
    """

    device: Device
    reference: str
    evaluator: Evaluator | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    lost: str | None = None
    unfit: str | None = None
    proven: bool = False
    losses: int = 0
    looked: float = 0.0
    task: DeviceTask[Any] | None = None


class DevicePool:
    """One device, or several of one kind that share the work.

    Args:
        references: How each device is named, in the order of `devices`.
        wait_s: How long to wait for a device that is lost, seconds; 0: not at all.
        left_s: Seconds that are left of the whole budget; infinite where time is not limited.
        tell: Called with the fields of an event.

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
        tell: Callable[..., None],
    ) -> None:
        self.boards = [PooledDevice(device=d, reference=r) for d, r in zip(devices, references, strict=True)]
        self._runtime, self._wait_s, self._left_s, self._tell = runtime, wait_s, left_s, tell
        self._beside = all(board.device.remote for board in self.boards)
        self._turns = 0
        self._proof: Callable[[Evaluator], Any] | None = None
        self.notes: list[str] = []
        self.waited_s = 0.0

    @property
    def lag(self) -> int:
        """How many candidates may be on boards while the next is made; 0 where nothing else may happen meanwhile."""
        return len(self.boards) if self._beside else 0

    @property
    def present(self) -> list[PooledDevice]:
        """The boards that can be used, as far as anybody knows."""
        return [board for board in self.boards if board.lost is None and board.unfit is None]

    def connect(self) -> None:
        """Check every device, before anything takes long. One that is out of reach is left out while there are others.

        Raises:
            InputError: a device cannot do this as it is.
            DeviceUnavailable: none is there, after waiting.
        """
        for board in self.boards:
            try:
                self._check(board)
            except DeviceUnavailable as error:
                board.lost = str(error)
        self.gather()
        for board in self.boards:
            if board.lost is not None:
                self._note(f"{board.reference} was left out, for it was not there when the search began: {board.lost}")

    def equip(self, make: Callable[[PooledDevice], Evaluator]) -> None:
        """Give every board what it measures with."""
        for board in self.boards:
            board.evaluator = make(board)

    def prove(self, call: Callable[[Evaluator], T]) -> T:
        """Run the original on every board that is there; what the first of them found. A board where it fails is left out.

        Boards that come later have to do it too.

        Raises:
            JobFailed: it runs on none; what the last board said.
            DeviceUnavailable: no board is left.
        """
        found: list[T] = []
        failed: JobFailed | None = None
        self._proof = call
        while not found:
            self.gather()
            tasks = [(board, self.start(board, call)) for board in self.present]
            for board, task in tasks:
                try:
                    found.append(task.result())
                    board.proven = True
                except JobFailed as error:
                    failed = error
                    self._unfit(board, error)
                except DeviceUnavailable:
                    self._note(f"{board.reference} was lost while the original was measured: {board.lost}")
            if not found and failed is not None and not [board for board in self.boards if board.unfit is None]:
                raise failed
        return found[0]

    def trust(self) -> None:
        """The original ran on these boards before: the run is resumed."""
        for board in self.boards:
            board.proven = True

    def turn(self) -> PooledDevice:
        """The board whose turn it is, as soon as it is idle.

        Raises:
            DeviceUnavailable: none is there, after waiting.
        """
        while True:
            self.gather()
            present = self.present
            board = present[self._turns % len(present)]
            if board.task is not None:
                board.task.wait()
            if board.lost is None:
                self._turns += 1
                return board

    def start(self, board: PooledDevice, call: Callable[[Evaluator], T]) -> DeviceTask[T]:
        """Begin a measurement on a board; broken off, it is begun again from its start, up to twice."""
        board.task = task = DeviceTask(lambda: self._insist(board, call), beside=self._beside)
        return task

    def somewhere(self, call: Callable[[Evaluator], T]) -> T:
        """Do something on the first board that is there, waiting for one where all are lost.

        Raises:
            JobFailed: the model fails.
            DeviceUnavailable: none is there, after waiting.
        """
        while True:
            self.gather()
            board = self.present[0]
            try:
                return self.start(board, call).result()
            except DeviceUnavailable:
                continue  # `gather` looks whether it is back, or another is there

    def gather(self) -> None:
        """Look for lost boards; where none is left, wait for one with growing pauses.

        Raises:
            DeviceUnavailable: none came back in time.
            Interrupted: the user asked to stop.
        """
        begin, pause, told = time.monotonic(), FIRST_PAUSE_S, ""
        while True:
            for board in self.boards:
                if board.lost is not None and self._due(board):
                    self._look(board)
            if self.present:
                return
            reasons = self._reasons()
            left = min(self._wait_s - (time.monotonic() - begin), self._left_s())
            if left <= 0 or all(board.unfit or board.losses >= MOST_LOSSES_IN_A_ROW for board in self.boards):
                raise DeviceUnavailable(reasons)
            if reasons != told:
                self._tell(event="phase", what=f"waiting for {reasons}")
                told = reasons
            rest(min(pause, left))
            self.waited_s += min(pause, left)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def environments(self) -> dict[str, dict[str, Any]]:
        """What is known of each board, by its reference."""
        return {board.reference: board.environment for board in self.boards if board.environment}

    def close(self) -> None:
        """End what still runs, and give every device back."""
        for board in self.boards:
            if board.task is not None:
                board.task.end()
            board.device.release()

    def _insist(self, board: PooledDevice, call: Callable[[Evaluator], T]) -> T:
        if board.evaluator is None:
            raise RuntimeError("`equip` comes before anything that measures")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                found = call(board.evaluator)
            except DeviceUnavailable as error:
                if attempt == ATTEMPTS:
                    board.losses += 1
                    board.looked = 0.0  # look at once
                    board.lost = str(error)
                    raise
                rest(attempt * FIRST_PAUSE_S)
            else:
                board.losses = 0
                return found
        raise AssertionError("unreachable")

    def _check(self, board: PooledDevice) -> None:
        board.looked = time.monotonic()
        board.device.check(self._runtime)
        if not board.environment:
            board.environment = board.device.environment()

    def _due(self, board: PooledDevice) -> bool:
        if board.unfit is not None or board.losses >= MOST_LOSSES_IN_A_ROW:
            return False  # it answers when it is asked, and fails when it is used
        return time.monotonic() - board.looked > (LOOK_AGAIN_S if self.present else FIRST_PAUSE_S / 2)

    def _look(self, board: PooledDevice) -> None:
        """Whether a lost board is back."""
        try:
            self._check(board)
            if self._proof is not None and not board.proven and board.evaluator is not None:
                self._proof(board.evaluator)
                board.proven = True
        except (DeviceUnavailable, InputError) as error:
            board.lost = str(error)
        except JobFailed as error:
            self._unfit(board, error)
        else:
            board.lost = None

    def _unfit(self, board: PooledDevice, error: JobFailed) -> None:
        board.unfit = str(error)
        if len(self.boards) > 1:
            self._note(f"{board.reference} was left out, for the original fails on it: {error}")

    def _reasons(self) -> str:
        said = [(board.reference, board.unfit or board.lost or "") for board in self.boards]
        return "; ".join(reason if reference in reason else f"{reference}: {reason}" for reference, reason in said)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self._tell(event="notes", notes=[text])


def rest(seconds: float) -> None:
    """Sleep, but wake up for Ctrl-C.

    Raises:
        Interrupted: the user asked to stop.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        interrupt.check()
        time.sleep(min(POLL_S, left))
