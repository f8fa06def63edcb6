"""What the orchestrator itself costs: milliseconds a trial beyond building, scoring and measuring, and memory, up to trial 2,000.

python bench/overhead.py [--trials 2000] [--sampler NAME] [--main-job]

A real search with the real build worker, of methods that do nothing, on a device that answers at once with a made-up time for
each candidate (and made-up outputs, so that the front has many members and near misses). Calls into Optuna are timed where they
are made: ask, suggest, tell and all else that goes to the sampler and to the journal file.

With `--main-job` also `orchestrate search --target raspberry-pi` as a person runs it, and its share of overhead.
"""

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil

ROWS = (100, 500, 1000, 2000)
WINDOW = 50
"""Trials before each row that its medians are of."""
PROFILE = "raspberry-pi-4"
PLUGIN = '''
import hashlib

import numpy as np

from orchestrator.plugin import Device, DeviceState, Number, OnnxMethod, Session, hookimpl


class Nothing(OnnxMethod):
    version = 1
    summary = "does nothing"
    parameters = tuple(
        Number(name=f"p{k}", help="of no effect", low=0, high=20, step=1, default=0, integer=True) for k in range(4)
    )

    def transform(self, model, parameters, context):
        return model


def drawn(job):
    """A generator of the candidate's own: its folder is named after its recipe."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(job.model.parent.name.encode()).digest()[:8], "big"))


class Answer(Session):
    def __init__(self, job):
        self._job, self._random = job, drawn(job)
        self._noise = self._random.uniform(0.002, 0.03)
        self._level = 1.0 if job.model.parent.name == "baseline" else self._random.uniform(0.3, 1.1)
        self._share = min(1.0, 0.6 + 0.4 * self._level + self._random.normal(0, 0.05))  # a slower one is better, by and large

    def time(self, *, seconds, runs, inner=1):
        wall = 1e-3 * self._level * np.exp(self._random.normal(0, self._noise, max(1, min(runs, 20))))
        return [(float(w), float(w), float(w)) for w in wall]

    def predict(self, folder, *, batch):
        folder.mkdir(parents=True, exist_ok=True)
        (inputs,) = self._job.inputs.values()
        rows = np.load(inputs).mean((1, 3))[:, (2, 5, 8)]
        wrong = self._random.random(len(rows)) > self._share
        rows[wrong] = np.roll(rows[wrong], 1, axis=1)
        path = folder / "output0.npy"
        np.save(path, rows.astype(np.float32))
        return [path]

    def peak_memory_bytes(self):
        return 1_000_000

    def close(self):
        pass


class AtOnce(Device):
    scheme = "at-once"

    def attach(self, reference):
        return self

    def open(self, job):
        return Answer(job)

    def environment(self):
        return {"cpu": "none"}

    def cores(self):
        return 1


@hookimpl
def orchestrator_methods():
    return [type("Made", (Nothing,), {"name": f"nothing-{k}", "family": f"nothing-{k}"})() for k in range(3)]


@hookimpl
def orchestrator_devices():
    return [AtOnce()]
'''


@dataclass
class Clock:
    """Seconds, and CPU seconds of this process, spent inside some calls; calls from within them are not counted twice."""

    seconds: float = 0.0
    cpu: float = 0.0
    _depth: int = 0

    def watch(self, owner: type, names: tuple[str, ...]) -> None:
        """Time these methods of a class."""
        for name in names:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def timed(*arguments: Any, **named: Any) -> Any:
            self._depth += 1
            begin, before = time.perf_counter(), time.process_time()
            try:
                return call(*arguments, **named)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.perf_counter() - begin
                    self.cpu += time.process_time() - before

        return timed


@dataclass
class Trials:
    """What each trial took, read from the search's events.

    Attributes:
        rows: (trial, ms in all, ms in Optuna, ms beyond Optuna, building, scoring and measuring, CPU ms of that) each.
    """

    clock: Clock
    working: Clock
    rows: list[tuple[int, float, float, float, float]] = field(default_factory=list)
    resident: dict[int, float] = field(default_factory=dict)
    _at: float = 0.0
    _in_optuna: float = 0.0
    _cpu: float = 0.0

    def observe(self, event: dict[str, Any]) -> None:
        """An event of the search."""
        if event["event"] in ("baseline", "candidate"):
            now, inside = time.perf_counter(), self.clock.seconds
            if event["event"] == "candidate":
                whole, optunas = now - self._at, inside - self._in_optuna
                working = sum(event["candidate"].seconds.get(phase, 0.0) for phase in ("building", "scoring", "measuring"))
                beyond, cpu = whole - working - optunas, self._beyond() - self._cpu
                self.rows.append((event["tried"], *(1e3 * s for s in (whole - working, optunas, beyond, cpu))))
                self.resident[event["tried"]] = psutil.Process().memory_info().rss / 1e6
                if event["tried"] % 100 == 0:
                    print(f"trial {event['tried']}: {self.words(event['tried'])}", file=sys.stderr, flush=True)
            self._at, self._in_optuna, self._cpu = time.perf_counter(), self.clock.seconds, self._beyond()

    def _beyond(self) -> float:
        return time.process_time() - self.clock.cpu - self.working.cpu

    def words(self, trial: int) -> str:
        """The medians of the trials before this one."""
        near = [row for row in self.rows if trial - WINDOW < row[0] <= trial]
        whole, optunas, rest, cpu = (statistics.median(row[k] for row in near) for k in (1, 2, 3, 4))
        worst = max(row[3] for row in near)
        return (
            f"{whole:6.1f} ms in all, {optunas:6.1f} sampler and storage, {rest:5.1f} beyond (at most {worst:5.1f}; "
            f"{cpu:.1f} of CPU), "
            f"{self.resident[trial]:4.0f} MB"
        )


@contextmanager
def _installed(folder: Path) -> Iterator[None]:
    """The plugin as pip would lay it out, for this process and its workers."""
    (folder / "overhead_plugin.py").write_text(PLUGIN)
    info = folder / "overhead_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: overhead-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[orchestrator]\noverhead-plugin = overhead_plugin\n")
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    os.environ["ORCHESTRATE_STORE"] = "none"  # what was built before would not be built
    yield


def _task(folder: Path) -> tuple[str, str]:
    """A network of one layer and 200 images in three classes, as files."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    head = np.zeros((3, 12), np.float32)
    head[(0, 1, 2), (2, 5, 8)] = 1.0
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image"], ["rows"], axes=[1, 3], keepdims=0),
            helper.make_node("Gemm", ["rows", "head"], ["logits"], transB=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 12, 12])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(head, "head")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, folder / "model.onnx")
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    images = (random.normal(size=(200, 1, 12, 12)) * 0.1).astype(np.float32)
    images[np.arange(200), 0, 2 + 3 * labels] += 1.0
    arrays = {f"{split}_{name}": a for split in ("train", "validation") for name, a in (("x", images), ("y", labels))}
    np.savez(folder / "arrays.npz", **arrays)
    return str(folder / "model.onnx"), str(folder / "arrays.npz")


def no_op(trials: int, sampler: str | None, folder: Path) -> None:
    """The rows of the search that does nothing."""
    import orchestrator
    from orchestrator.building.builder_client import BuilderClient
    from orchestrator.measuring import scoring
    from orchestrator.measuring.timing import Plan
    from orchestrator.plugin.registry import Registry
    from orchestrator.study import publish

    scoring.OBJECTIVE = Plan(max_seconds=0.01)
    clock = Clock()
    names = ("ask", "tell", "enqueue_trial", "get_trials", "add_trial", "set_user_attr")
    clock.watch(optuna.Study, names)
    clock.watch(optuna.Trial, ("suggest_categorical", "suggest_float", "suggest_int", "set_user_attr", "set_constraint"))
    working = Clock()
    working.watch(scoring.Evaluator, ("run", "outputs"))
    working.watch(BuilderClient, ("build", "score"))
    seen = Trials(clock=clock, working=working)
    model, data = _task(folder)
    search = folder / "search.toml"
    quick = Path(orchestrator.__file__).parents[1] / "searches" / "quick.toml"
    default = next(line for line in quick.read_text().splitlines() if line.startswith("sampler"))
    chosen = default if sampler is None else f'sampler = "{sampler}"'
    budget = f'trials = {trials}\ntimeout = "20h"\n'
    search.write_text(f'schema = 1\nname = "no-op"\ntitle = "nothing, many times"\n{chosen}\n{budget}')
    ends: dict[str, float] = {}

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                ends[name] = ends.get(name, 0.0) + time.perf_counter() - begin

        return timed

    for owner, name in ((Registry, "render"), (publish, "write_results")):
        setattr(owner, name, watched(name, getattr(owner, name)))
    begin = time.perf_counter()
    run = orchestrator.search(
        target=PROFILE,
        device="at-once",
        model=model,
        data=data,
        search=str(search),
        methods=("nothing-0", "nothing-1", "nothing-2"),
        output=folder / "run",
        observer=seen.observe,
    )
    whole = time.perf_counter() - begin
    print(f"{chosen}, journal in the run directory; medians of the {WINDOW} trials before; {len(run.front)} on the front")
    for trial in ROWS:
        if trial <= len(seen.rows):
            print(f"trial {trial:5}: {seen.words(trial)}")
    seconds = run.seconds
    print(f"the whole run: {whole:.0f} s; " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
    print("at the end: " + ", ".join(f"{name} {value:.2f} s" for name, value in ends.items()))
    size = sum(path.stat().st_size for path in (folder / "run" / "work" / "candidates").glob("*.json"))
    print(f"a record is {size / max(1, len(run.candidates)):.0f} bytes on the disk; " + _sizes(folder / "run"))
    begin = time.perf_counter()
    orchestrator.resume(folder / "run", trials=trials + 5, observer=seen.observe)
    print(f"resumed for 5 trials more: {time.perf_counter() - begin:.1f} s")


def _sizes(run: Path) -> str:
    names = ("results.json", "report.html", "study.journal", "log.jsonl")
    return ", ".join(f"{name} {(run / name).stat().st_size / 1e6:.1f} MB" for name in names)


def main_job(folder: Path) -> None:
    """The share of overhead in the job that a newcomer runs."""
    import orchestrator

    output = folder / "main"
    environment = {**os.environ, "ORCHESTRATE_STORE": "none", "ORCHESTRATE_QEMU": "/nonexistent"}
    command = [sys.executable, "-m", "orchestrator", "search", "--target", "raspberry-pi", "--output", str(output)]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env=environment)
    seconds = orchestrator.load_run(output).seconds
    print("main job: " + ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()))
    print(f"main job: overhead {seconds['overhead'] / seconds['total']:.2%} of the wall time (asked: at most 3 %)")


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=max(ROWS))
    parser.add_argument("--sampler")
    parser.add_argument("--main-job", action="store_true")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, _installed(Path(name)):
        no_op(said.trials, said.sampler, Path(name))
        if said.main_job:
            main_job(Path(name))


if __name__ == "__main__":
    main()
