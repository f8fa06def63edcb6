"""Heartbeats of the processes of a shared study: counters in the study's attributes, which the others watch by their own clocks.

Optuna's own heartbeat serves databases only, and only `Study.optimize`; this one needs only the study's user attributes, so that
it serves a database, a journal and the gRPC proxy. Clocks of different machines are never compared: a process is considered dead
when its counter has not changed for the grace period *on the watcher's clock*.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import optuna

PREFIX = "beat:"
BEATS_A_GRACE = 6
LONGEST_BEAT_S = 10.0


class Heartbeat:
    """Counter of one process, increased in a thread until it is closed.

    Args:
        grace_s: Seconds without a heartbeat after which the others consider this process dead.
        on_beat: Called after each beat, in the thread.
    """

    def __init__(
        self, study: optuna.Study, token: str, grace_s: float, on_beat: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> None:
        self._study, self._key, self._on_beat = study, PREFIX + token, on_beat
        self._every_s = beat_s(grace_s)
        self._count = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Give the first heartbeat before anything else of this process is in the study."""
        self._beat()
        self._thread.start()

    def close(self) -> None:
        """Remove the counter: other processes may run this one's trials at once."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(self._every_s)
        self._study.set_user_attr(self._key, None)

    def _run(self) -> None:
        while not self._closed.wait(self._every_s):
            try:
                self._beat()
                self._on_beat(self._study.user_attrs)
            except Exception:  # noqa: S112 the storage may answer the next beat, or the grace period ends
                continue

    def _beat(self) -> None:
        self._count += 1
        self._study.set_user_attr(self._key, self._count)


def beat_s(grace_s: float) -> float:
    """Return the seconds between heartbeats."""
    return min(LONGEST_BEAT_S, grace_s / BEATS_A_GRACE)


def beat_of(attributes: Mapping[str, Any], token: str) -> int | None:
    """Return a process's counter; None if it has left, or never began."""
    return attributes.get(PREFIX + token)


class LivenessMonitor:
    """Liveness of the processes of a study, as seen from this one.

    Args:
        clock: Returns seconds that only increase.
    """

    def __init__(self, grace_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.grace_s, self._clock = grace_s, clock
        self._seen: dict[str, tuple[Any, float]] = {}

    def record(self, attributes: Mapping[str, Any]) -> None:
        """Record all counters as they are now."""
        now = self._clock()
        for key, count in attributes.items():
            if key.startswith(PREFIX):
                token = key.removeprefix(PREFIX)
                if token not in self._seen or self._seen[token][0] != count:
                    self._seen[token] = (count, now)

    def alive(self, token: str) -> bool:
        """Return True if a process gave a heartbeat within the grace period. One without any is watched from now on."""
        count, since = self._seen.setdefault(token, ("unseen", self._clock()))
        return count is not None and self._clock() - since <= self.grace_s
