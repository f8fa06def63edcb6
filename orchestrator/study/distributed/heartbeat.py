"""Signs of life: every process of a shared search counts upwards in the study, and the others watch by their own clocks.

Optuna's own heartbeat serves databases only, and only `Study.optimize`; this one needs nothing but the study's user attributes,
so it is the same for a database, a journal and the gRPC proxy. No clock is compared with another machine's: a process is taken
for dead when its counter has stood still for the grace period *on the watcher's clock*.
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
    """Counts upwards in a thread until it is closed.

    Args:
        grace_s: After so many seconds of silence the others take this process for dead.
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
        """Give the first sign of life at once, so that nothing of ours is ever without one."""
        self._beat()
        self._thread.start()

    def close(self) -> None:
        """Say that this process has gone: what it had under way is free at once."""
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
            except Exception:  # noqa: S112 the storage is away for a moment: the next beat may get through, or the grace ends
                continue

    def _beat(self) -> None:
        self._count += 1
        self._study.set_user_attr(self._key, self._count)


def beat_s(grace_s: float) -> float:
    """Seconds from one sign of life to the next."""
    return min(LONGEST_BEAT_S, grace_s / BEATS_A_GRACE)


def beat_of(attributes: Mapping[str, Any], token: str) -> int | None:
    """A process's counter as it stands; None where it has left, or never began."""
    return attributes.get(PREFIX + token)


class LivenessMonitor:
    """Who is alive, seen from here.

    Args:
        clock: Seconds that only go forward.
    """

    def __init__(self, grace_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.grace_s, self._clock = grace_s, clock
        self._seen: dict[str, tuple[Any, float]] = {}

    def look(self, attributes: Mapping[str, Any]) -> None:
        """Take note of all counters as they are now."""
        now = self._clock()
        for key, count in attributes.items():
            if key.startswith(PREFIX):
                token = key.removeprefix(PREFIX)
                if token not in self._seen or self._seen[token][0] != count:
                    self._seen[token] = (count, now)

    def alive(self, token: str) -> bool:
        """Whether a process has given a sign of life within the grace period. One that never did is watched from now on."""
        count, since = self._seen.setdefault(token, ("unseen", self._clock()))
        return count is not None and self._clock() - since <= self.grace_s

    def living(self) -> list[str]:
        """All that are alive."""
        return [token for token in self._seen if self.alive(token)]
