"""The store: whole or not at all, bounded, safe among processes, never the end of a run; and what its keys hold."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orchestrator.api.resolve import profile_named
from orchestrator.building import cache_keys, step_cache
from orchestrator.building.builder import Builder
from orchestrator.building.rungs import Judge, RungSchedule, Stopped
from orchestrator.building.step_cache import Identity
from orchestrator.building.store import BYTES, Store, store_bytes, store_folder
from orchestrator.building.task import load_task
from orchestrator.errors import InputError
from orchestrator.plugin import (
    BuildContext,
    Method,
    Number,
    Recipe,
    Step,
    TaskDescription,
    TorchMethod,
    TorchToOnnxMethod,
)
from orchestrator.plugin.registry import Registry
from orchestrator.values.direction import Direction
from orchestrator.values.results import Floor, Rung
from orchestrator.values.target import Target
from orchestrator.values.task import TaskSpec

Project = Any
KEY, OTHER = "ab" * 32, "cd" * 32


def opened(folder: Path | None, bound: int = BYTES) -> tuple[Store, list[str]]:
    notes: list[str] = []
    return Store(folder, bound=bound, note=notes.append), notes


def entry(folder: Path, kind: str = "table", key: str = KEY) -> Path:
    return folder / kind / key[:2] / key


# -- entries --------------------------------------------------------------------------------------------------------------


def test_what_was_put_is_there_for_another_process_of_the_same_user(tmp_path: Path) -> None:
    store, notes = opened(tmp_path / "store")
    store.put("table", KEY, b"content")
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    store.put_file("model", KEY, tmp_path / "file")
    again, _ = opened(tmp_path / "store")
    assert again.get("table", KEY) == b"content"
    assert again.get("table", OTHER) is None
    assert again.fetch("model", KEY, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "file").read_bytes()
    assert not again.fetch("model", OTHER, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700
    assert notes == []


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:30], lambda b: b"", lambda b: b[:70] + b"?" + b[71:], lambda b: b + b"!"]
)
def test_damaged_entry_is_deleted_and_none_is_there(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    store, _ = opened(tmp_path)
    store.put("table", KEY, b"some content")
    path = entry(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert not store.fetch("table", KEY, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not path.exists()
    store.put("table", KEY, b"some content")
    assert store.get("table", KEY) == b"some content"


def test_least_recently_used_goes_first_and_the_bound_is_kept(tmp_path: Path) -> None:
    store, _ = opened(tmp_path, bound=100_000)
    names = [f"{k:064x}" for k in range(60)]
    for k, name in enumerate(names):
        store.put("table", name, bytes(5_000))
        os.utime(entry(tmp_path, key=name), (k, k))
        assert store.get("table", names[0]) is not None, "what is used stays"
        assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) <= 100_000
    there = [name for name in names[1:] if entry(tmp_path, key=name).exists()]
    assert there == names[-len(there) :]
    store.put("table", KEY, bytes(90_000))
    assert store.get("table", KEY) is None, "one that would push out nearly all others is not kept"


def test_half_written_files_of_killed_processes_are_cleared_away(tmp_path: Path) -> None:
    store, _ = opened(tmp_path, bound=1_000)
    store.put("table", KEY, b"1")
    young, old = (entry(tmp_path).with_name(f"{name}.tmp") for name in ("young", "old"))
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    store.put("table", OTHER, bytes(100))
    assert young.exists()
    assert not old.exists()


BUSY = Path(__file__).with_name("busy_store.py")


def test_processes_that_write_read_and_evict_at_once_see_whole_entries_only(tmp_path: Path) -> None:
    several = [subprocess.Popen([sys.executable, str(BUSY), str(tmp_path), str(seed)]) for seed in range(3)]
    assert [process.wait() for process in several] == [0, 0, 0]
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) <= 200_000


# -- surroundings ---------------------------------------------------------------------------------------------------------


def test_store_that_is_deleted_in_the_middle_is_made_again(tmp_path: Path) -> None:
    store, notes = opened(tmp_path / "store")
    store.put("table", KEY, b"1")
    shutil.rmtree(tmp_path / "store")
    assert store.get("table", KEY) is None
    store.put("table", KEY, b"2")
    assert store.get("table", KEY) == b"2"
    assert notes == []


def test_full_disk_is_one_note_and_what_is_there_stays_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, notes = opened(tmp_path)
    store.put("table", KEY, b"1")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    store.put("table", OTHER, b"2")
    store.put("table", OTHER, b"2")
    assert notes == [f"results are not kept for later runs any more: No space left on device ({tmp_path})"]
    assert store.get("table", KEY) == b"1"
    assert not list(tmp_path.rglob("*.tmp"))


def test_folder_that_others_may_write_to_is_not_read(tmp_path: Path) -> None:
    store, _ = opened(tmp_path / "store")
    store.put("table", KEY, b"1")
    (tmp_path / "store").chmod(0o770)
    unsafe, notes = opened(tmp_path / "store")
    assert unsafe.get("table", KEY) is None
    assert not unsafe.keeps
    unsafe.put("table", KEY, b"2")
    assert len(notes) == 1
    assert "chmod go-w" in notes[0]
    store.put("table", OTHER, b"3")
    assert not entry(tmp_path / "store", key=OTHER).exists()


def test_file_in_the_place_of_the_folder_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("mine")
    store, notes = opened(tmp_path / "store")
    store.put("table", KEY, b"1")
    assert store.get("table", KEY) is None
    assert len(notes) == 1


def test_folder_that_cannot_be_reached_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store, notes = opened(tmp_path / "file" / "store")
    assert store.get("table", KEY) is None
    assert not store.fetch("table", KEY, tmp_path / "copy")
    store.put("table", KEY, b"1")
    assert len(notes) == 1


def test_option_wins_over_the_variable_and_none_is_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORCHESTRATE_STORE", str(tmp_path))
    assert store_folder(None) == tmp_path
    assert store_folder("none") is None
    assert store_folder("here") == Path.cwd() / "here"
    monkeypatch.setenv("ORCHESTRATE_STORE", "none")
    assert store_folder(None) is None
    monkeypatch.delenv("ORCHESTRATE_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store_folder(None) == tmp_path / "orchestrator" / "store"
    monkeypatch.setenv("ORCHESTRATE_STORE_BYTES", "2GB")
    assert store_bytes() == 2_000_000_000
    monkeypatch.setenv("ORCHESTRATE_STORE_BYTES", "much")
    with pytest.raises(InputError, match="ORCHESTRATE_STORE_BYTES"):
        store_bytes()


# -- the builder's results ------------------------------------------------------------------------------------------------

BUILT: list[str] = []
"""The steps that were really done."""


def head(model: Any) -> torch.Tensor:
    weight: torch.Tensor = model.head.weight
    return weight


class Scale(TorchMethod):
    """Reads the multiple of channels in int8, in a table."""

    name, version, family, summary = "scale", 1, "a", "Scales the head."
    reads, offer_reads = frozenset({"target.channel_multiple.int8"}), frozenset[str]()
    parameters = (Number(name="by", help="factor", low=0.5, high=1, step=0.5, default=0.5),)

    def offer(self, model: nn.Module, parameters: Any, context: BuildContext) -> Any:
        BUILT.append("offer scale")
        return parameters

    def transform(self, model: nn.Module, parameters: Mapping[str, Any], context: BuildContext) -> nn.Module:
        BUILT.append(self.name)
        table = context.remember("table", lambda: [context.target.channel_multiple("int8")] if parameters["by"] == 1 else [1])
        with torch.no_grad():
            head(model).mul_(parameters["by"] * table[0])
        return model


class Align(TorchMethod):
    """Reads the multiple of channels in float32."""

    name, version, family, summary = "align", 1, "b", "Scales by the target's multiple."
    reads, offer_reads = frozenset({"target.channel_multiple.float32"}), frozenset[str]()

    def offer(self, model: nn.Module, parameters: Any, context: BuildContext) -> Any:
        BUILT.append(f"offer align {context.target.channel_multiple('float32')}")
        return parameters

    def transform(self, model: nn.Module, parameters: Mapping[str, Any], context: BuildContext) -> nn.Module:
        BUILT.append(self.name)
        with torch.no_grad():
            head(model).mul_(context.target.channel_multiple("float32"))
        return model


class Learn(TorchMethod):
    """Trains, and reads the loss."""

    name, version, family, summary = "learn", 1, "c", "Trains."
    reads = frozenset({"task_loss", "train"})

    def transform(self, model: nn.Module, parameters: Mapping[str, Any], context: BuildContext) -> nn.Module:
        BUILT.append(self.name)
        task_loss = context.task_loss if "task_loss" in self.reads else None

        def loss(outputs: Any, inputs: Any, labels: Any) -> Any:
            return outputs.square().mean() if task_loss is None else task_loss(outputs, labels)

        context.train(model, epochs=4, loss=loss, learning_rate=0.01)
        return model


class Imitate(Learn):
    """Trains without the loss."""

    name, summary = "imitate", "Trains without labels."
    reads = frozenset({"train"})


class Leave(TorchToOnnxMethod):
    """Reads the epochs. What it writes is no model, and says all that there is to know of one."""

    name, version, family, summary = "leave", 1, "d", "Writes a file."
    reads = frozenset({"epochs"})

    def transform(self, model: nn.Module, parameters: Mapping[str, Any], context: BuildContext) -> Path:
        BUILT.append(f"{self.name} {context.epochs[1]:g}")
        return written(model, context)


class Write(TorchToOnnxMethod):
    """As `Leave`, but reads nothing and records nothing."""

    name, version, family, summary = "write", 1, "d", "Writes a file."
    reads = frozenset[str]()

    def transform(self, model: nn.Module, parameters: Mapping[str, Any], context: BuildContext) -> Path:
        return written(model, context)


def written(model: nn.Module, context: BuildContext) -> Path:
    path = context.workspace / "written.onnx"
    path.write_bytes(b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values()))
    return path


def board(**multiples: int) -> Target:
    """A Raspberry Pi 4 with other multiples of channels."""
    profile = profile_named("raspberry-pi-4", Registry.discover())
    first = profile.runtimes[0]
    every: Any = {**first.channel_multiple, **multiples}
    support = dataclasses.replace(first, channel_multiple=every)
    profile = dataclasses.replace(profile, runtimes=(support, *profile.runtimes[1:]))
    return Target(profile=profile, device="host", is_device=False, runtime=first.name, threads=1)


@pytest.fixture
def make(project: Project, tmp_path: Path) -> Callable[..., Builder]:
    """`make(target)`: a builder as a new run would have one, over one store."""
    BUILT.clear()
    runs = iter(range(1000))

    def builder(
        target: Target | None = None,
        *,
        task: str = "tiny",
        seed: int = 0,
        epochs: tuple[float, float] = (1.0, 2.0),
        loss: str = "plain",
        store: Path | None = tmp_path / "store",
        trains: bool = True,
        ladder: bool = False,
    ) -> Builder:
        loaded = load_task(
            TaskSpec(name="tiny", model=project.ref("model:net"), data=project.ref("data:splits")), Registry.discover()
        )
        methods: list[Method] = [Scale(), Align(), Learn(), Imitate(), Leave(), Write()]
        description = TaskDescription(
            spec=loaded.spec,
            kind="torch",
            inputs=loaded.inputs,
            outputs=loaded.outputs,
            classes=loaded.classes,
            metric="accuracy",
            direction=Direction.MAXIMIZE,
            examples={name: split.count for name, split in loaded.splits.items()},
            labelled=("train", "validation"),
            digest=loaded.digest,
            weights_digest=loaded.weights_digest,
            data_digest=loaded.data_digest,
        )
        looked = (
            RungSchedule(Judge(loaded, Registry.discover().metrics()["accuracy"], examples=4), Direction.MAXIMIZE)
            if ladder
            else None
        )
        return Builder(
            loaded,
            description,
            target or board(),
            {method.name: method for method in methods},
            loss=nn.functional.cross_entropy,
            epochs=epochs,
            seed=seed,
            workspace=tmp_path / f"run{next(runs)}",
            report=lambda what, done: None,
            trains=trains,
            ladder=looked,
            identity=Identity(task=task),
            answers={"task_loss": loss},
            store=None if store is None else Store(store, bound=BYTES, note=print),
        )

    return builder


def recipe(*steps: str, **parameters: Any) -> Recipe:
    own = {"scale": ("by",)}
    if not {"leave", "write"} & set(steps):
        steps = (*steps, "write")
    given = [{k: v for k, v in parameters.items() if k in own.get(name, ())} for name in steps]
    return Recipe(steps=tuple(Step(method=n, version=1, parameters=p) for n, p in zip(steps, given, strict=True)))


def done(builder: Builder, wanted: Recipe, folder: Path) -> list[str]:
    """The steps that building took; a folder for each build."""
    BUILT.clear()
    builder.build(wanted, folder / f"built-{len(list(folder.iterdir()))}")
    return list(BUILT)


def test_next_run_takes_the_same_bytes_from_the_store(make: Callable[..., Builder], tmp_path: Path) -> None:
    first, second = make(), make()
    wanted = recipe("scale", "learn", "leave")
    made = first.build(wanted, tmp_path / "first").read_bytes()
    assert not first.reused
    BUILT.clear()
    assert second.build(wanted, tmp_path / "second").read_bytes() == made
    assert second.reused
    assert second.took_s == pytest.approx(first.took_s, abs=0.01), "what it took when it was built"
    assert BUILT == []
    off = make(store=None)
    assert off.build(wanted, tmp_path / "third").read_bytes() == made
    assert not off.reused
    assert BUILT == ["scale", "learn", "leave 2"]


@pytest.mark.parametrize("other", [{"task": "another"}, {"seed": 1}, {"epochs": (1.0, 3.0)}, {"loss": "another"}], ids=str)
def test_each_part_of_a_key_tells_results_apart(other: dict[str, Any], make: Callable[..., Builder], tmp_path: Path) -> None:
    wanted = recipe("learn", "leave")
    done(make(), wanted, tmp_path)
    assert done(make(**other), wanted, tmp_path)
    if "loss" in other or "epochs" in other:
        plain = recipe("scale", "imitate")
        done(make(), plain, tmp_path)
        assert done(make(**other), plain, tmp_path) == [], "a step that does not read it does not depend on it"


def test_other_parameters_versions_or_code_are_other_results(
    make: Callable[..., Builder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe("scale")
    assert done(make(), wanted, tmp_path) == ["scale"]
    assert done(make(), wanted, tmp_path) == []
    assert done(make(), recipe("scale", by=1.0), tmp_path) == ["scale"]
    now = cache_keys.versions()
    with monkeypatch.context() as patch:
        patch.setattr(step_cache, "versions", lambda: {**now, "torch": "99.0"})
        assert done(make(), wanted, tmp_path) == ["scale"], "another torch"
    with monkeypatch.context() as patch:
        patch.setattr(step_cache, "code_digest", lambda module: "changed")
        assert done(make(), wanted, tmp_path) == ["scale"], "the method's code changed, its version did not"
    with monkeypatch.context() as patch:
        patch.setattr(Scale, "version", 2)
        newer = Recipe(steps=(Step(method="scale", version=2), *recipe().steps))
        assert done(make(), newer, tmp_path) == ["scale"]
    assert done(make(), wanted, tmp_path) == []


def test_prefixes_are_shared_between_runs(make: Callable[..., Builder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.building.builder.WORTH_KEEPING_S", 0.0)
    plain = make(store=None).build(recipe("scale", "learn", "leave"), tmp_path / "alone").read_bytes()
    done(make(), recipe("scale", "learn"), tmp_path)
    builder = make()
    BUILT.clear()
    assert builder.build(recipe("scale", "learn", "leave"), tmp_path / "shared").read_bytes() == plain
    assert BUILT == ["leave 2"]
    for kept in (tmp_path / "store" / "network").rglob("*"):
        if kept.is_file():
            kept.write_bytes(kept.read_bytes()[:-10])
    assert done(make(), recipe("scale", "learn", "align"), tmp_path) == ["scale", "learn", "align"], "damaged ones are made anew"
    assert done(make(), recipe("scale", "learn", "align", "leave"), tmp_path) == ["leave 2"], "and kept again"


def test_networks_that_cannot_be_pickled_are_not_kept(make: Callable[..., Builder], tmp_path: Path) -> None:
    kept, builder = tmp_path / "store" / "network", make()
    odd = nn.Linear(2, 2)
    odd.made_on_the_spot = lambda: 1  # type: ignore[assignment]
    builder._results.keep_network(KEY, odd)
    assert not kept.exists()
    builder._results.keep_network(KEY, nn.Linear(2, 2))
    loaded = builder._results.network(KEY)
    assert isinstance(loaded, nn.Linear)


def test_step_that_does_not_read_the_target_is_shared_between_targets(make: Callable[..., Builder], tmp_path: Path) -> None:
    here, there = board(float32=8), board(float32=16)
    assert done(make(here), recipe("scale", "learn"), tmp_path) == ["scale", "learn"]
    assert done(make(there), recipe("scale", "learn"), tmp_path) == []
    assert done(make(here), recipe("align"), tmp_path) == ["align"]
    assert done(make(there), recipe("align"), tmp_path) == ["align"], "another multiple of channels"
    assert done(make(board(float32=8, int8=64)), recipe("align"), tmp_path) == [], "the same answer to what was asked"
    assert done(make(here), recipe("align", "learn"), tmp_path) == ["align", "learn"]
    assert "learn" in done(make(there), recipe("align", "learn"), tmp_path), "what follows is given another network"


def test_step_that_reads_the_target_is_built_again_for_another(make: Callable[..., Builder], tmp_path: Path) -> None:
    wanted = recipe("scale", by=1.0)
    here = make(board(int8=16))
    first = here.build(wanted, tmp_path / "a").read_bytes()
    again = make(board(int8=16, float32=2))
    BUILT.clear()
    assert again.build(wanted, tmp_path / "b").read_bytes() == first
    assert BUILT == []
    other = make(board(int8=32))
    assert other.build(wanted, tmp_path / "c").read_bytes() != first
    assert BUILT == ["scale"]


def test_offers_are_computed_once_while_what_they_read_is_the_same(make: Callable[..., Builder]) -> None:
    first = make(board(float32=8)).offers()
    assert BUILT == ["offer align 8", "offer scale"]
    assert make(dataclasses.replace(board(float32=8), threads=3)).offers() == first
    assert len(BUILT) == 2
    make(board(float32=4)).offers()
    assert BUILT[2:] == ["offer align 4"]


def test_sketches_share_what_does_not_train_and_nothing_else(make: Callable[..., Builder], tmp_path: Path) -> None:
    sketch = make(trains=False).build(recipe("scale", "learn"), tmp_path / "sketch").read_bytes()
    assert done(make(), recipe("scale"), tmp_path) == ["scale"]
    assert done(make(trains=False), recipe("scale"), tmp_path) == [], "without a training it is the model itself"
    BUILT.clear()
    assert make().build(recipe("scale", "learn"), tmp_path / "whole").read_bytes() != sketch
    assert BUILT == ["scale", "learn"]
    assert done(make(trains=False), recipe("scale", "learn"), tmp_path) == []
    assert done(make(trains=False, store=None), recipe("scale", "learn"), tmp_path) == ["scale", "learn"]


def test_trainings_are_remembered_with_their_rungs_and_stopped_where_they_were(
    make: Callable[..., Builder], tmp_path: Path
) -> None:
    def built(floors: dict[str, Floor], *steps: str) -> Any:
        builder = make(ladder=True)
        ladder: Any = builder._ladder
        ladder.begin(floors)
        try:
            builder.build(recipe(*steps), tmp_path / f"built-{len(list(tmp_path.iterdir()))}")
        except Stopped as reason:
            return reason.rung.key, len(ladder.rungs), ladder.training_s
        return None, len(ladder.rungs), ladder.training_s

    rung = Rung(step="learn", call=0, epochs=4, share=0.25, quality=0.0, examples=1).key
    stop = {rung: Floor(needed=2.0, lowest=0.0)}  # no accuracy is so high
    where, rungs, _ = built(stop, "learn")
    assert (where, rungs) == (rung, 2)
    BUILT.clear()
    assert built(stop, "learn") == (rung, 2, 0.0)
    assert BUILT == [], "it is known where it stops"
    where, rungs, took = built({}, "learn")
    assert (where, rungs, BUILT) == (None, 3, ["learn"])
    assert built(stop, "learn") == (None, 3, pytest.approx(took, rel=0.01)), (
        "what is at hand is not stopped, and is counted as it went"
    )


def test_keys_of_the_users_own_code_follow_its_content(tmp_path: Path) -> None:
    file = tmp_path / "loss.py"
    file.write_text("a = 1")
    helper = tmp_path / "helper.py"
    helper.write_text("b = 1")
    first = cache_keys.sources_digest(f"{file}:f", [helper])
    helper.write_text("b = 2")
    second = cache_keys.sources_digest(f"{file}:f", [helper])
    file.write_text("a = 2")
    third = cache_keys.sources_digest(f"{file}:f", [helper])
    assert len({json.dumps(key) for key in (first, second, third, cache_keys.sources_digest(f"{file}:g", [helper]))}) == 4
    assert cache_keys.sources_digest("accuracy") == "accuracy"
    assert cache_keys.sources_digest(None) is None


def test_machine_without_a_full_description_is_none() -> None:
    whole = {"cpu": "a", "system": "Linux 6", "cores": 4, "memory_bytes": 1, "load": [0.1], "clock_mhz": 3}
    assert cache_keys.machine_of(whole) == {"cpu": "a", "system": "Linux 6", "cores": 4, "memory_bytes": 1}
    assert cache_keys.machine_of({"board": "one"}) is None
