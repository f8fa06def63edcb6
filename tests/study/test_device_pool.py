"""The devices of a search: retries, turns, boards that are lost, waited for, or of no use."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.plugin import Device, DeviceUnavailable, JobFailed
from orchestrator.study.candidates import device_pool
from orchestrator.study.candidates.device_pool import DevicePool
from orchestrator.study.run.events import SearchEvents


class Fake(Device):
    """A board whose checks and measurements fail as often as it is told."""

    scheme = "fake"
    remote = True

    def __init__(self, name: str, *, away: int = 0) -> None:
        self.name, self.away, self.breaks, self.checks, self.released = name, away, 0, 0, 0

    def check(self, runtime: Any) -> None:
        self.checks += 1
        if self.away > 0:
            self.away -= 1
            raise DeviceUnavailable("no answer")

    def release(self) -> None:
        self.released += 1

    def open(self, job: Any) -> Any:
        raise NotImplementedError

    def environment(self) -> dict[str, Any]:
        return {"name": self.name}

    def cores(self) -> int:
        return 1

    def measure(self) -> str:
        """What a test lets a pool do on this board."""
        if self.breaks > 0:
            self.breaks -= 1
            raise DeviceUnavailable("the line broke")
        return self.name


Events = list[dict[str, Any]]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    monkeypatch.setattr(device_pool, "FIRST_PAUSE_S", 0.02)
    return []


@pytest.fixture
def make(events: Events) -> Callable[..., DevicePool]:
    def made(*boards: Fake, wait_s: float = 0.0, left_s: float = math.inf) -> DevicePool:
        found = DevicePool(
            boards,
            [f"fake://{board.name}" for board in boards],
            None,  # type: ignore[arg-type]
            wait_s=wait_s,
            left_s=lambda: left_s,
            events=SearchEvents(events.append),
        )
        found.equip(lambda board: board.device)  # type: ignore[arg-type, return-value]
        return found

    return made


def measure(evaluator: Any) -> str:
    return str(evaluator.measure())


def test_measurement_that_is_broken_off_is_begun_again_twice(make: Callable[..., DevicePool]) -> None:
    board = Fake("a")
    pool = make(board)
    board.breaks = 2
    assert pool.start(pool.next_device(), measure).result() == "a"
    board.breaks = 3
    task = pool.start(pool.next_device(), measure)
    with pytest.raises(DeviceUnavailable, match="the line broke"):
        task.result()
    assert pool.devices[0].lost == "the line broke"
    assert pool.next_device() is pool.devices[0], "it answers: it was only the line"


def test_boards_take_turns_and_a_lost_one_is_passed_over(make: Callable[..., DevicePool]) -> None:
    one, two = Fake("a"), Fake("b")
    pool = make(one, two)
    assert pool.lag == 2
    assert [pool.start(pool.next_device(), measure).result() for _ in range(4)] == ["a", "b", "a", "b"]
    one.breaks, one.away = 3, 1
    with pytest.raises(DeviceUnavailable):
        pool.start(pool.devices[0], measure).result()
    assert [pool.next_device().device for _ in range(2)] == [two, two]
    assert one.checks == 1, "not asked again at every turn while another is there"


def test_local_device_lets_nothing_else_happen_meanwhile(
    make: Callable[..., DevicePool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "remote", False)
    assert make(Fake("a")).lag == 0


def test_pool_waits_until_a_board_is_back_and_says_so_once(make: Callable[..., DevicePool], events: Events) -> None:
    board = Fake("a", away=3)
    pool = make(board, wait_s=20)
    pool.connect()
    assert [event["what"] for event in events] == ["waiting for fake://a: no answer"]
    assert pool.available
    assert pool.waited_s > 0
    assert pool.notes == []


@pytest.mark.parametrize("limits", [{"wait_s": 0.0}, {"wait_s": 0.1}, {"wait_s": 20.0, "left_s": 0.0}])
def test_pool_gives_up_when_no_board_comes_back_in_time(make: Callable[..., DevicePool], limits: dict[str, float]) -> None:
    pool = make(Fake("a", away=1000), Fake("b", away=1000), **limits)
    with pytest.raises(DeviceUnavailable, match="fake://a: no answer; fake://b: no answer"):
        pool.connect()


def test_pool_gives_up_on_a_board_that_answers_but_is_lost_each_time_it_is_used(make: Callable[..., DevicePool]) -> None:
    board = Fake("a")
    board.breaks = 1000
    with pytest.raises(DeviceUnavailable):
        make(board, wait_s=60).run_anywhere(measure)
    assert board.breaks == 1000 - device_pool.ATTEMPTS * device_pool.MOST_LOSSES_IN_A_ROW


def test_board_is_left_out_where_the_original_fails(make: Callable[..., DevicePool]) -> None:
    pool = make(Fake("a"), Fake("b"))

    def original(evaluator: Any) -> str:
        if evaluator.name == "a":
            raise JobFailed("error", "no such operator")
        return measure(evaluator)

    assert pool.prove(original) == "b"
    assert [board.reference for board in pool.available] == ["fake://b"]
    assert pool.notes == ["fake://a was left out, for the original fails on it: no such operator"]


def test_original_fails_where_it_fails_on_every_board(make: Callable[..., DevicePool]) -> None:
    def original(evaluator: Any) -> str:
        raise JobFailed("crash", f"not on {evaluator.name}")

    with pytest.raises(JobFailed, match="not on b"):
        make(Fake("a"), Fake("b")).prove(original)


def test_board_that_comes_later_runs_the_original_first(make: Callable[..., DevicePool], monkeypatch: pytest.MonkeyPatch) -> None:
    late = Fake("b", away=1)
    pool = make(Fake("a"), late)
    pool.connect()
    assert pool.notes == ["fake://b was left out, for it was unavailable when the search began: no answer"]
    ran: list[str] = []
    pool.prove(lambda evaluator: ran.append(measure(evaluator)))
    assert ran == ["a"]
    monkeypatch.setattr(device_pool, "RECHECK_S", 0.0)
    pool.gather()
    assert ran == ["a", "b"]
    assert len(pool.available) == 2


def test_everything_is_given_back(make: Callable[..., DevicePool]) -> None:
    boards = Fake("a"), Fake("b")
    make(*boards).close()
    assert [board.released for board in boards] == [1, 1]
