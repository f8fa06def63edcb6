"""The state of the machine during a measurement, and whether it disturbed the times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.values.device import DeviceState

WAITED_SHARE = 0.05
BUSY_SHARE = 0.25
STOLEN_SHARE = 0.02

States = Sequence[tuple[DeviceState | None, DeviceState | None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """The machine's counters over a measurement.

    Attributes:
        facts: The counters that the machine has.
        others: Mean number of cores that other processes kept busy, or None if unknown.
        cores: Number of cores of the machine.
    """

    facts: dict[str, Any]
    others: float | None
    stolen: float | None
    throttled: bool
    cores: int

    def disturbed(self, waited: float | None) -> str | None:
        """Return the reason why the times are unreliable, or None.

        Args:
            waited: Share of the time that the only computing thread did not run, because its core was used by others.
        """
        reasons = []
        if waited is not None and waited > WAITED_SHARE:
            reasons.append(f"the core was taken away for {waited:.0%} of the time")
        if self.others is not None and self.others > BUSY_SHARE * self.cores:
            reasons.append(f"other work kept {self.others:.1f} of {self.cores} cores busy")
        if self.stolen is not None and self.stolen > STOLEN_SHARE:
            reasons.append(f"the hypervisor took {self.stolen:.0%} of the cores away")
        if self.throttled:
            reasons.append("the machine slowed itself down (temperature or voltage)")
        return "; ".join(reasons) or None


def observed(states: States, own: float, cores: tuple[int, ...]) -> Conditions:
    """Return the changes of the counters between the states before and after each round.

    Args:
        states: States before and after each round.
        own: CPU seconds of the timed processes over all rounds.
        cores: Cores that they were pinned to.
    """
    pairs = [(before, after) for before, after in states if before is not None and after is not None]
    seconds = sum(after.at_s - before.at_s for before, after in pairs)
    machine = pairs[0][0].cores if pairs else 1
    busy = _grown(pairs, lambda state: state.busy_s)
    stolen = _grown(pairs, lambda state: state.stolen_s)
    throttled = _grown(pairs, lambda state: state.throttled)
    others = None if busy is None or not seconds else max(0.0, (busy - own) / seconds)
    share = None if stolen is None or not seconds else stolen / seconds / machine
    clocks = [state.clock_mhz for pair in pairs for state in pair if state.clock_mhz is not None]
    heats = [state.temperature_c for pair in pairs for state in pair if state.temperature_c is not None]
    facts: dict[str, Any] = {"on_cores": list(cores)}
    if others is not None:
        facts["other_work_cores"] = round(others, 3)
    if share is not None:
        facts["stolen_share"] = round(share, 4)
    if clocks:
        facts["clock_mhz"] = [round(min(clocks), 1), round(max(clocks), 1)]
    if heats:
        facts["temperature_c"] = round(max(heats), 1)
    now = [state.throttling for pair in pairs for state in pair if state.throttling is not None]
    slowed = bool(throttled) or any(now)
    if throttled is not None or now:
        facts["throttled"] = slowed
    return Conditions(facts=facts, others=others, stolen=share, throttled=slowed, cores=machine)


def _grown(pairs: Sequence[tuple[DeviceState, DeviceState]], read: Callable[[DeviceState], float | None]) -> float | None:
    """Return the growth of a counter over all rounds, or None without it."""
    grown = 0.0
    for before, after in pairs:
        first, last = read(before), read(after)
        if first is None or last is None:
            return None
        grown += max(0.0, last - first)
    return grown if pairs else None
