"""Searches that several processes share, over each kind of storage, with processes that die."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from tests.conftest import Cli, Project, install
from tests.devices.sshd import free_port
from tests.study import postgres

optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True, kw_only=True)
class Shop(Cli):
    """The command line with a method that says what it builds; `BUILDS` holds a line "k, process" for each build."""

    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        process = super().start(*arguments)
        self.started.append(process)
        return process


@pytest.fixture
def shop(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """No process of it outlives the test."""
    install(cli.packages, "slow")
    monkeypatch.setenv("BUILDS", str(cli.folder / "builds"))
    monkeypatch.setenv("ORCHESTRATE_STORE", "none")
    scratch = cli.folder.parent / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))  # a worker that is killed leaves its folder there
    patches = {**cli.patches, "orchestrator.study.distributed.participant:MISSING_S": 2.0}
    shop = Shop(folder=cli.folder, packages=cli.packages, patches=patches)
    yield shop
    for process in shop.started:
        if process.poll() is None:
            process.kill()
        if not process.stdout.closed:
            process.communicate()


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The URL of a real PostgreSQL, on a socket of its own."""
    if postgres.programs() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("PostgreSQL is not installed here")
    with postgres.server("fsync=off") as url:
        yield url


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[str]:
    """The URL of Optuna's gRPC proxy before a journal."""
    port = free_port()
    serve = (
        "import optuna; from optuna.storages import JournalStorage, run_grpc_proxy_server; "
        "from optuna.storages.journal import JournalFileBackend; "
        f"run_grpc_proxy_server(JournalStorage(JournalFileBackend({str(tmp_path / 'served')!r})), host='127.0.0.1', port={port})"
    )
    server = subprocess.Popen([sys.executable, "-c", serve], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait(30)


def arguments(project: Project, storage: str, *more: str, silence: str = "10m") -> list[str]:
    """Of a search that only counts and estimates; who is silent for longer than `silence` is taken for dead."""
    return [
        "search", *project.onnx, "--target", "raspberry-pi", "--method", "slow", "--search", "no-training",
        "--output", "run", "--storage", storage, "--worker-timeout", silence, *more,
    ]  # fmt: skip


def joined(leader: "subprocess.Popen[str]", shop: Shop, storage: str, *more: str) -> "subprocess.Popen[str]":
    """A worker of a search that has begun."""
    until(lambda: (shop.folder / "run" / "work" / "run.json").is_file(), leader)
    return shop.start("worker", "--storage", storage, *more)


def builds(folder: Path) -> list[tuple[str, int]]:
    """(k, process) of each build that was begun, in order."""
    path = folder / "builds"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [(k, int(process)) for k, process in (line.split() for line in lines)]


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / "results.json").read_text())
    return found


def until(condition: Any, *processes: "subprocess.Popen[str]", seconds: float = 240) -> None:
    """Wait for something; fails when a process ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        ended = [process for process in processes if process.poll() is not None]
        if ended or time.monotonic() > deadline:
            pytest.fail(f"it did not come to that: {[process.communicate() for process in ended]}")
        time.sleep(0.1)


def kill(process: "subprocess.Popen[str]") -> None:
    """As when the machine loses its power; its children go with it."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(children, timeout=15)[1]


def finish(leader: "subprocess.Popen[str]") -> None:
    """Wait for a search to end as it should: 0 or 1, as its limits are kept or not."""
    _, err = leader.communicate(timeout=240)
    assert leader.returncode in (0, 1), err


def ks(found: dict[str, Any]) -> list[str]:
    return [str(c["recipe"][0]["parameters"]["k"]) for c in found["candidates"]]


def check_whole(found: dict[str, Any], trials: int) -> None:
    """All that the budget pays for, nothing twice, every one of them good, and the models of the front are there."""
    assert len(found["candidates"]) == trials
    assert len({c["id"] for c in found["candidates"]}) == trials
    assert len({c["trial"] for c in found["candidates"]}) == trials
    assert {c["state"] for c in found["candidates"]} == {"complete"}
    assert found["front"] != ["baseline"]
    run = Path(found["search"]["run"])
    for name in found["front"]:
        assert (run / "front" / name / "model.onnx").is_file()


@pytest.mark.slow
def test_a_worker_joins_over_a_shared_folder_and_every_candidate_is_made_once(
    shop: Shop, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOGETHER", "2")
    monkeypatch.setenv("SLEEP", "0.5")
    storage = f"journal:{shop.folder / 'study'}"
    leader = shop.start(*arguments(project, storage, "--trials", "5"))
    worker = joined(leader, shop, storage, "--json")
    out, err = worker.communicate(timeout=280)
    assert worker.returncode == 0, err
    done = json.loads(out)
    assert done["ended"] == "the budget of 5 trials is used up"
    finish(leader)
    found = results(shop.folder)
    check_whole(found, 5)
    assert sorted(k for k, _ in builds(shop.folder)) == sorted(ks(found)), "each was built once"
    by_worker = [k for k, process in builds(shop.folder) if process == worker.pid]
    assert len(by_worker) == done["candidates"] > 0
    assert all(set(c["machines"]) == {"built", "measured"} for c in found["candidates"])


@pytest.mark.slow
def test_several_processes_may_open_a_new_database_at_once(postgresql: str) -> None:
    code = f"from orchestrator.study.run.optuna_storage import open_storage; open_storage({postgresql!r}).get_all_studies()"
    running = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(5)]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_made_twice_when_one_of_three_workers_is_killed(
    shop: Shop, project: Project, postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOGETHER", "4")
    monkeypatch.setenv("SLEEP", "2")
    leader = shop.start(*arguments(project, postgresql, "--trials", "14", silence="20s"))
    workers = [joined(leader, shop, postgresql, "--json") for _ in range(3)]
    victim = workers[0]
    until(lambda: any(process == victim.pid for _, process in builds(shop.folder)), leader, *workers)
    kill(victim)
    lost = [k for k, process in builds(shop.folder) if process == victim.pid][-1]
    made = 0
    for worker in workers[1:]:
        out, err = worker.communicate(timeout=280)
        assert worker.returncode == 0, err
        made += json.loads(out)["candidates"]
    finish(leader)
    found = results(shop.folder)
    check_whole(found, 14)
    counted = Counter(k for k, _ in builds(shop.folder))
    assert {k for k, times in counted.items() if times > 1} <= {lost}
    assert sorted(counted) == sorted(ks(found))
    assert [process for k, process in builds(shop.folder) if k == lost][-1] != victim.pid, "another has done it"
    assert made > 0


@pytest.mark.slow
def test_a_search_whose_leader_is_killed_goes_on_with_the_worker_that_waits(
    shop: Shop, project: Project, postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOGETHER", "2")
    monkeypatch.setenv("SLEEP", "1")
    leader = shop.start(*arguments(project, postgresql, "--trials", "10", silence="6s"))
    worker = joined(leader, shop, postgresql, "--wait", "3m", "--json")
    until(lambda: len(builds(shop.folder)) >= 4 and worker.pid in dict(map(reversed, builds(shop.folder))), leader, worker)
    kill(leader)
    before = {p.name: p.read_bytes() for p in (shop.folder / "run" / "work" / "candidates").glob("*.json")}
    until(lambda: _quiet(shop.folder), worker)
    begun = len(builds(shop.folder))
    time.sleep(3)
    assert len(builds(shop.folder)) == begun, "a worker begins nothing while nobody leads"
    again = shop("resume", "run")
    assert again.returncode in (0, 1), again.stderr
    out, err = worker.communicate(timeout=120)
    assert worker.returncode == 0, err
    found = results(shop.folder)
    check_whole(found, 10)
    for name, content in before.items():
        now, then = (json.loads(text) for text in ((shop.folder / "run/work/candidates" / name).read_text(), content))
        assert (now["latency"], now["trial"]) == (then["latency"], then["trial"]), "what was complete was not made again"
    assert max(Counter(k for k, _ in builds(shop.folder)).values()) <= 2


def _quiet(folder: Path, seconds: float = 30.0) -> bool:
    """Whether nothing was begun for that long."""
    return time.time() - (folder / "builds").stat().st_mtime > seconds


@pytest.mark.slow
def test_a_machine_of_another_class_builds_and_the_leader_takes_the_times(
    shop: Shop, project: Project, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the gRPC proxy, on the target `host`, where times are measured."""
    monkeypatch.setenv("TOGETHER", "3")
    asked = arguments(project, proxy, "--trials", "6")
    asked[asked.index("raspberry-pi")] = "host"
    leader = shop.start(*asked)
    alike = joined(leader, shop, proxy)
    monkeypatch.setenv("ORCHESTRATE_DEVICE_CLASS", "a board from another drawer")
    worker = joined(leader, shop, proxy)
    for process, why in (
        (worker, "its times are of another class (a board from another drawer"),
        (alike, "another process on this machine takes times for this search"),
    ):
        out, err = process.communicate(timeout=280)
        assert process.returncode == 0, err
        assert f"this worker only builds: {why}" in out
    finish(leader)
    found = results(shop.folder)
    check_whole(found, 6)
    by_worker = {k for k, process in builds(shop.folder) if process == worker.pid}
    assert by_worker, "the worker has built some"
    assert sorted(k for k, _ in builds(shop.folder)) == sorted(ks(found))
    for candidate in found["candidates"]:
        first = candidate["latency"][0]
        assert (first["evidence"], first["ratio"] is not None) == ("measured-on-target", True)
        assert "a board from another drawer" not in first["conditions"]["device_class"]
    assert not list((shop.folder / "run" / "shared").rglob("files/*")), "what was fetched is gone from the exchange"


@pytest.mark.slow
def test_an_interrupted_worker_gives_its_trial_back(shop: Shop, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOGETHER", "2")
    monkeypatch.setenv("SLEEP", "2")
    storage = f"sqlite:///{shop.folder / 'study.db'}"
    leader = shop.start(*arguments(project, storage, "--trials", "4"))
    worker = joined(leader, shop, storage)
    until(lambda: any(process == worker.pid for _, process in builds(shop.folder)), leader, worker)
    worker.send_signal(signal.SIGINT)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 130
    assert err.strip().splitlines()[-1] == "orchestrate: interrupted; what was under way here is free for others"
    finish(leader)
    check_whole(results(shop.folder), 4)


@pytest.mark.slow
def test_workers_go_when_the_time_is_up_and_what_they_had_under_way_is_left_for_resume(
    shop: Shop, project: Project, monkeypatch: pytest.MonkeyPatch, budget_s: int
) -> None:
    storage = f"journal:{shop.folder / 'study'}"
    monkeypatch.setenv("SLEEP", "1")
    leader = shop.start(*arguments(project, storage, "--timeout", f"{budget_s}s"))
    monkeypatch.setenv("SLEEP", "600")
    worker = joined(leader, shop, storage, "--json")
    out, err = worker.communicate(timeout=budget_s + 300)
    assert worker.returncode == 0, err
    assert f"{budget_s} s is used up" in json.loads(out)["ended"]
    finish(leader)
    found = results(shop.folder)
    assert found["candidates"]
    stuck = [k for k, process in builds(shop.folder) if process == worker.pid][-1]  # others were ended by a candidate's own limit
    assert stuck not in ks(found)
    monkeypatch.setenv("SLEEP", "0")
    assert shop("resume", "run", "--trials", str(len(found["candidates"]) + 1)).returncode in (0, 1)
    assert stuck in ks(results(shop.folder))


@pytest.mark.slow
def test_a_candidate_is_made_again_when_its_record_vanished_before_the_leader_had_it(
    shop: Shop, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOGETHER", "2")
    monkeypatch.setenv("SLEEP", "15")
    storage = f"journal:{shop.folder / 'study'}"
    more = ["--trials", "3", "--artifacts", str(shop.folder / "exchange")]
    leader = shop.start(*arguments(project, storage, *more))
    monkeypatch.setenv("SLEEP", "0")
    worker = joined(leader, shop, storage)
    until(lambda: list((shop.folder / "exchange").glob("*/candidates/*/[0-9]*.json")), leader, worker)
    (record, *_) = (shop.folder / "exchange").glob("*/candidates/*/[0-9]*.json")
    number = int(record.stem)
    record.unlink()
    _, err = worker.communicate(timeout=280)
    assert worker.returncode == 0, err
    finish(leader)
    found = results(shop.folder)
    check_whole(found, 3)
    again = next(c for c in found["candidates"] if c["id"] == record.parent.name)
    assert again["trial"] != number
    assert Counter(k for k, _ in builds(shop.folder))[str(again["recipe"][0]["parameters"]["k"])] == 2


@pytest.mark.slow
def test_leader_and_worker_end_with_one_line_when_the_database_is_lost(
    shop: Shop, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    if postgres.programs() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("PostgreSQL is not installed here")
    monkeypatch.setenv("TOGETHER", "2")
    with postgres.server("fsync=off") as url:
        leader = shop.start(*arguments(project, url, "--trials", "500"))
        worker = joined(leader, shop, url)
        until(lambda: len({process for _, process in builds(shop.folder)}) == 2, leader, worker)
    for process in (leader, worker):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 4, err
        assert len(err.strip().splitlines()) == 1
        assert "orchestrate: the storage 'postgresql://postgres@/postgres?host=" in err
    assert (shop.folder / "run" / "results.json").is_file(), "what the leader has is published"


@pytest.mark.slow
def test_a_worker_ends_when_nobody_leads_for_too_long(shop: Shop, project: Project) -> None:
    storage = f"journal:{shop.folder / 'study'}"
    leader = shop.start(*arguments(project, storage, "--trials", "100"))
    worker = joined(leader, shop, storage, "--wait", "3s")
    until(lambda: any(process == worker.pid for _, process in builds(shop.folder)), leader, worker)
    leader.send_signal(signal.SIGINT)
    leader.communicate(timeout=60)
    _, err = worker.communicate(timeout=120)
    assert worker.returncode == 4
    assert "has given no heartbeat for 3 s" in err.strip().splitlines()[-1]


# -- what a worker refuses, each in one line ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_says_what_is_wrong_when_it_cannot_join(shop: Shop, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = f"journal:{shop.folder / 'study'}"
    none = shop("worker", "--storage", storage, "--wait", "0")
    assert (none.returncode, "holds no search that runs" in none.stderr) == (2, True)
    monkeypatch.setenv("SLEEP", "2")
    leader = shop.start(*arguments(project, storage, "--trials", "50"))
    until(lambda: builds(shop.folder), leader)
    try:
        named = shop("worker", "--storage", storage, "--wait", "0", "--study", "another")
        assert "holds no search 'another'; it holds run-" in named.stderr
        elsewhere = shop("worker", "--storage", storage, "--artifacts", str(shop.folder / "empty"))
        assert "it must be a place that all machines see; give this machine's path to it with --artifacts" in elsewhere.stderr
        other = project.folder / "other.npz"
        _other_data(project.folder / "arrays.npz", other)
        wrong = shop("worker", "--storage", storage, "--data", str(other))
        assert "the model or its data are not those of the search" in wrong.stderr
        (shop.packages / "slow-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 2.0\n")
        newer = shop("worker", "--storage", storage)
        assert "slow: slow 1.0 there, slow 2.0 here" in newer.stderr
        for refused in (named, elsewhere, wrong, newer):
            assert refused.returncode == 2, refused.stderr
            assert len(refused.stderr.strip().splitlines()) == 1
    finally:
        leader.send_signal(signal.SIGINT)
        leader.communicate(timeout=60)


def _other_data(path: Path, other: Path) -> None:
    import numpy as np

    with np.load(path) as arrays:
        np.savez(other, **{name: array[::-1] for name, array in arrays.items()})
