"""What a shared search stands on: claims, signs of life, the exchange, storages by URL, device classes."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from orchestrator.errors import EnvironmentFailure, InputError
from orchestrator.study.distributed.claims import KEPT, OWNER, REPLACES, SAME_AS, Claims, ClaimTable, Verdict, release
from orchestrator.study.distributed.compatibility import find_study
from orchestrator.study.distributed.device_class import class_of
from orchestrator.study.distributed.exchange import Exchange, Missing
from orchestrator.study.distributed.heartbeat import Heartbeat, LivenessMonitor
from orchestrator.study.distributed.manifest import Manifest, write_manifest
from orchestrator.study.distributed.scratch import YOUNG_S, scratch
from orchestrator.study.run import optuna_storage
from orchestrator.study.run.optuna_study import CANDIDATE, fail

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study()


def claims(study: optuna.Study, token: str = "here", most: int | None = None, dead: bool = False) -> Claims:  # noqa: S107
    return Claims(study, token, most=lambda: most, dead=lambda _: dead)


def asked(study: optuna.Study, value: int = 0) -> optuna.Trial:
    """A trial, with a parameter so that it can be asked again."""
    trial = study.ask()
    trial.set_user_attr(OWNER, "somebody")
    trial.suggest_int("value", 0, 100)
    return trial


# -- who makes which candidate --------------------------------------------------------------------------------------


def test_the_older_trial_has_the_candidate_when_two_ask_for_it(study: optuna.Study) -> None:
    older, younger = asked(study), asked(study)
    younger.set_user_attr(CANDIDATE, "a")
    assert claims(study).claim(older, "a") is Verdict.GRANTED
    assert claims(study).claim(younger, "a") is Verdict.DUPLICATE


def test_a_finished_candidate_is_taken_whoever_is_older(study: optuna.Study) -> None:
    older, younger = asked(study), asked(study)
    younger.set_user_attr(CANDIDATE, "a")
    study.tell(younger, 1.0)
    assert claims(study).claim(older, "a") is Verdict.DUPLICATE


def test_no_more_candidates_than_the_budget_allows(study: optuna.Study) -> None:
    trials = [asked(study) for _ in range(4)]
    verdicts = [claims(study, most=3).claim(trial, f"candidate{k}") for k, trial in enumerate(trials)]
    assert verdicts == [*[Verdict.GRANTED] * 3, Verdict.OVER_BUDGET]


def test_a_failed_candidate_counts_and_one_that_was_given_back_does_not(study: optuna.Study) -> None:
    kept, back, third = (asked(study) for _ in range(3))
    for name, trial in (("a", kept), ("b", back)):
        trial.set_user_attr(CANDIDATE, name)
    kept.set_user_attr(KEPT, "digest")
    assert fail(study, kept.number)
    assert fail(study, back.number)
    assert not fail(study, back.number), "it has ended already"
    assert claims(study, most=2).claim(third, "c") is Verdict.GRANTED
    assert claims(study, most=1).claim(asked(study), "d") is Verdict.OVER_BUDGET


def test_what_was_given_back_keeps_its_age_so_that_it_stays_within_the_budget(study: optuna.Study) -> None:
    trials = [asked(study) for _ in range(3)]
    for k, trial in enumerate(trials):
        claims(study, most=3).claim(trial, f"candidate{k}")
    assert release(study, study.trials[0])
    again = study.ask()
    assert (again.user_attrs[REPLACES], again.user_attrs[CANDIDATE]) == (0, "candidate0")
    assert again.suggest_int("value", 0, 100) == study.trials[0].params["value"]
    assert claims(study, most=3).claim(again, "candidate0") is Verdict.GRANTED
    assert ClaimTable.of(study).candidates() == {"candidate0", "candidate1", "candidate2"}


def test_one_of_two_stands_in_when_a_trial_is_given_back_twice(study: optuna.Study) -> None:
    trial = asked(study)
    trial.set_user_attr(CANDIDATE, "a")
    seen = study.trials[0]  # both processes saw it running
    assert release(study, seen)
    assert not release(study, seen)
    first, second = study.ask(), study.ask()
    assert claims(study).claim(first, "a") is Verdict.GRANTED
    assert claims(study).claim(second, "a") is Verdict.DUPLICATE


def test_a_trial_that_nobody_can_know_yet_is_waited_for_unless_its_process_is_dead(study: optuna.Study) -> None:
    older, younger = asked(study), asked(study)
    assert claims(study, dead=True).claim(younger, "a") is Verdict.GRANTED

    def declare() -> None:
        older.set_user_attr(SAME_AS, "b")

    timer = threading.Timer(0.2, declare)
    timer.start()
    assert claims(study).claim(younger, "a") is Verdict.GRANTED
    assert SAME_AS in study.trials[0].user_attrs, "the answer came after the older one was known"
    timer.join()


def test_nothing_is_made_twice_when_many_ask_at_once(tmp_path: Path) -> None:
    made: list[str] = []
    most = 20

    def work(number: int) -> None:
        storage = JournalStorage(optuna_storage.SharedJournal(tmp_path / "journal"))
        mine = optuna.load_study(study_name="s", storage=storage, sampler=optuna.samplers.RandomSampler(seed=number))
        own = claims(mine, f"process{number}", most)
        while ClaimTable.of(mine).startable(most):
            trial = mine.ask()
            own.sign(trial)
            name = f"candidate{trial.suggest_int('value', 0, 39)}"
            verdict = own.claim(trial, name)
            if verdict is Verdict.GRANTED:
                made.append(name)
                trial.set_user_attr(KEPT, "digest")
                mine.tell(trial, 1.0)
                continue
            if verdict is Verdict.DUPLICATE:
                trial.set_user_attr(SAME_AS, name)
            fail(mine, trial.number)

    storage = JournalStorage(optuna_storage.SharedJournal(tmp_path / "journal"))
    optuna.create_study(study_name="s", storage=storage)
    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(made) == len(set(made)) == most


# -- signs of life --------------------------------------------------------------------------------------------------


def test_a_process_is_dead_when_its_counter_stood_still_for_the_grace_period() -> None:
    now = 0.0
    watch = LivenessMonitor(10.0, clock=lambda: now)
    watch.record({"beat:a": 1, "beat:b": 1, "else": 5})
    for now in (6.0, 12.0):
        watch.record({"beat:a": now, "beat:b": 1})
    assert watch.alive("a")
    assert not watch.alive("b")


def test_a_process_that_gave_no_sign_yet_is_watched_from_the_first_question_on() -> None:
    now = 100.0
    watch = LivenessMonitor(10.0, clock=lambda: now)
    assert watch.alive("silent")
    now = 111.0
    assert not watch.alive("silent")


def test_a_process_that_left_is_gone_at_once(study: optuna.Study) -> None:
    heart, watch = Heartbeat(study, "a", grace_s=60.0), LivenessMonitor(60.0)
    heart.start()
    watch.record(study.user_attrs)
    assert watch.alive("a")
    heart.close()
    watch.record(study.user_attrs)
    assert not watch.alive("a")


def test_a_heartbeat_goes_on_when_the_storage_was_away_for_a_moment(study: optuna.Study, monkeypatch: Any) -> None:
    beats = threading.Event()
    heart = Heartbeat(study, "a", grace_s=0.3, on_beat=lambda _: beats.set())
    heart.start()
    with monkeypatch.context() as patch:
        patch.setattr(study, "set_user_attr", lambda *_: 1 / 0)
        before = study.user_attrs["beat:a"]
    assert beats.wait(20)
    assert study.user_attrs["beat:a"] > before
    heart.close()


# -- the exchange ---------------------------------------------------------------------------------------------------


def led(grace_s: float = 3.0) -> Manifest:
    return Manifest(
        version="0", artifacts="", state="", baseline="", device_class="", leader="them", host="", trials=None, grace_s=grace_s
    )


def test_a_search_whose_leader_is_gone_does_not_stand_in_the_way_of_one_that_goes_on() -> None:
    storage = optuna.storages.InMemoryStorage()
    waited: list[str] = []

    def found() -> str:
        return find_study(storage, None, where="it", wait_s=0, waiting=waited.append)[0]

    killed, living, left = (optuna.create_study(study_name=name, storage=storage) for name in ("killed", "living", "left"))
    for study in (killed, living, left):
        write_manifest(study, led())
    killed.set_user_attr("beat:them", 7)
    left.set_user_attr("beat:them", None)
    with pytest.raises(InputError, match="holds 3 searches; name one with --study: killed, left, living"):
        found()
    heart = Heartbeat(living, "them", 3.0)
    heart.start()
    assert found() == "living"
    other = Heartbeat(killed, "them", 3.0)
    other.start()
    with pytest.raises(InputError, match="holds 3 searches"):
        found()
    for beating in (heart, other):
        beating.close()
    killed.set_user_attr("beat:them", 7)
    assert waited == ["a heartbeat, for several searches have not ended"] * 3
    write_manifest(living, replace(led(), over="the budget is used up"))
    write_manifest(left, replace(led(), over="the budget is used up"))
    assert found() == "killed", "the only one that can go on"


@pytest.fixture(params=["folder", "memory"])
def exchange(request: pytest.FixtureRequest, tmp_path: Path) -> Exchange:
    url = str(tmp_path / "shared") if request.param == "folder" else f"memory://{tmp_path.name}"
    return Exchange(url, "study-1")


def test_files_and_documents_come_back_as_they_were(exchange: Exchange, tmp_path: Path) -> None:
    exchange.check()
    source = tmp_path / "model.onnx"
    source.write_bytes(b"weights" * 1000)
    stored = exchange.put(source, "candidates/a/files")
    digest = exchange.write("candidates/a/1.json", b"{}")
    assert exchange.read("candidates/a/1.json", digest) == b"{}"
    assert exchange.fetch(stored, tmp_path / "here").read_bytes() == source.read_bytes()
    assert [key.split("/")[-2:] for key in exchange.glob("candidates/*/files")] == [["a", "files"]]
    exchange.delete("candidates/a/files")
    assert exchange.glob("candidates/*/files") == []
    with pytest.raises(Missing):
        exchange.fetch(stored, tmp_path / "here")
    exchange.delete("candidates/a/files")  # twice is no harm


def test_another_document_than_the_announced_one_is_not_read(exchange: Exchange) -> None:
    exchange.write("1.json", b"new")
    with pytest.raises(Missing):
        exchange.read("1.json", "0" * 64)
    with pytest.raises(Missing):
        exchange.read("2.json")


def test_a_damaged_file_is_not_taken(tmp_path: Path) -> None:
    exchange = Exchange(str(tmp_path / "shared"), "s")
    source = tmp_path / "model.onnx"
    source.write_bytes(b"weights")
    stored = exchange.put(source, "files")
    (tmp_path / "shared" / "s" / stored.key).write_bytes(b"weight")
    with pytest.raises(Missing):
        exchange.fetch(stored, tmp_path / "here")
    assert not list((tmp_path / "here").iterdir()), "nothing half is left behind"


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "..", ""])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    from dataclasses import replace

    exchange = Exchange(str(tmp_path / "shared"), "s")
    source = tmp_path / "model.onnx"
    source.write_bytes(b"weights")
    with pytest.raises(Missing):
        exchange.fetch(replace(exchange.put(source, "files"), name=name), tmp_path / "here")


def test_an_exchange_that_cannot_be_used_says_so_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--artifacts 'nothing://x' cannot be used: Protocol not known"):
        Exchange("nothing://x", "s")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Exchange(str(tmp_path / "file"), "s").check()


# -- storages by URL ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("study.db", "is no URL"),
        ("nothing://x", "cannot be opened"),
        ("sqlite:////no/such/folder/x.db", "unable to open database file"),
        ("journal:/no/such/folder/x", "there is no folder '/no/such/folder'"),
        ("grpc://host:port", "cannot be read"),
    ],
)
def test_a_storage_that_cannot_be_opened_says_so_in_one_line(url: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        optuna_storage.open_storage(url)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreachable_database_is_the_surroundings_fault_and_its_password_is_not_shown() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(EnvironmentFailure) as caught:
        optuna_storage.open_storage("postgresql://me:secret@127.0.0.1:1/studies")
    assert "secret" not in str(caught.value)
    assert "me:***@127.0.0.1" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:sec@ret@host/studies",
        "postgresql://me:a:b/sec@ret@host/studies",
        "postgresql://host/studies?user=me&password=secret",
        "mysql://host/studies?passwd=secret&ssl=1",
    ],
)
def test_no_form_of_a_password_is_shown(url: str) -> None:
    shown = optuna_storage.masked(url)
    assert "sec" not in shown
    assert "***" in shown
    assert "host/studies" in shown


def test_half_a_line_at_a_journals_end_is_mended_before_the_next_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    study = optuna.create_study(storage=optuna_storage.open_storage(f"journal:{path}"), study_name="s")
    study.set_user_attr("a", 1)
    with path.open("ab") as file:
        file.write(b'{"op_code": 2, "half')
    study.set_user_attr("b", 2)
    again = optuna.load_study(storage=optuna_storage.open_storage(f"journal:{path}"), study_name="s")
    assert again.user_attrs == {"a": 1, "b": 2}
    for line in path.read_text().splitlines():
        json.loads(line)


def test_files_of_storages_are_found_from_another_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert optuna_storage.absolute("journal:x") == f"journal:{tmp_path}/x"
    assert optuna_storage.absolute("sqlite:///x.db") == f"sqlite:///{tmp_path}/x.db"
    for url in ("sqlite:////x.db", "sqlite:///:memory:", "postgresql://host/x", "grpc://host:1"):
        assert optuna_storage.absolute(url) == url


# -- device classes -------------------------------------------------------------------------------------------------


def test_machines_of_one_kind_are_of_one_class_and_others_are_not() -> None:
    facts = {"cpu": "AMD EPYC 9004", "machine": "x86_64", "memory_bytes": 33_500_000_000}
    common: dict[str, Any] = {"cores": 4, "runtime": "onnxruntime 1.31.1", "threads": 2}
    own = class_of(facts, **common)
    assert class_of({**facts, "memory_bytes": 33_400_000_000, "load": [3.0]}, **common) == own
    assert class_of({**facts, "cpu": "AMD EPYC 7003"}, **common) != own
    assert class_of({**facts, "memory_bytes": 66_000_000_000}, **common) != own
    for other in ({"cores": 8}, {"runtime": "onnxruntime 1.30.0"}, {"threads": 1}):
        assert class_of(facts, **{**common, **other}) != own
    assert class_of(facts, **common, named="c7a.xlarge") == class_of({}, **common, named="c7a.xlarge")


def test_what_was_finished_just_before_it_was_given_back_is_not_made_again(study: optuna.Study) -> None:
    trial = asked(study)
    trial.set_user_attr(CANDIDATE, "a")
    seen = study.trials[0]  # still running
    study.tell(trial, float(np.pi))
    assert not release(study, seen)
    assert study.trials[0].state == TrialState.COMPLETE
    assert claims(study).claim(study.ask(), "a") is Verdict.DUPLICATE


def test_what_the_leader_lost_is_made_anew_by_those_who_know_it(study: optuna.Study) -> None:
    trial = asked(study)
    trial.set_user_attr(CANDIDATE, "a")
    study.tell(trial, 1.0)
    release(study, study.trials[0], lost=True)
    again = study.ask()
    guest = Claims(study, "guest", most=lambda: None, dead=lambda _: False, leads=False)
    assert guest.lost_by_leader(again)
    assert not claims(study).lost_by_leader(again), "what the leader knows is not lost"
    assert not guest.lost_by_leader(study.ask())


def test_what_is_lost_is_made_again_although_it_was_finished(study: optuna.Study) -> None:
    trial = asked(study)
    trial.set_user_attr(CANDIDATE, "a")
    study.tell(trial, 1.0)
    release(study, study.trials[0], lost=True)
    assert claims(study, most=1).claim(study.ask(), "a") is Verdict.GRANTED


def test_the_folder_of_a_killed_worker_goes_with_the_next_one_and_that_of_a_living_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    code = "from orchestrator.study.distributed.scratch import scratch\nwith scratch() as f: print(f, flush=True); input()"
    worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    other = Path(worker.stdout.readline().strip())
    long_ago = time.time() - 2 * YOUNG_S
    os.utime(other, (long_ago, long_ago))
    with scratch() as own:
        assert other.is_dir()
        assert own.is_dir()
    assert not own.exists()
    worker.kill()
    worker.communicate()
    os.utime(other, (long_ago, long_ago))
    with scratch():
        assert not other.exists()
