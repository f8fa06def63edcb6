"""Candidates a minute of a shared search with 1, 2 and 4 processes, on builds that only wait.

python bench/workers.py [--processes 1 2 4] [--sleep 2] [--each 15] [--storage URL]

A build sleeps instead of computing, and the device answers at once, so that two cores are enough for four processes: what is
seen is what sharing costs (asking, claiming, records, signs of life). One process is the leader alone, four are it and three
workers. Counted are the builds that began after all processes had begun one. The storage is a PostgreSQL of its own (Debian's
package, with fsync), where that is installed, else a journal.
"""

import argparse
import contextlib
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.overhead import PLUGIN
from tests.conftest import PROJECTS, install, tiny_onnx
from tests.study import postgres

SLEEPING = "import os\nimport time\n" + PLUGIN.replace(
    "        return model\n",
    """        with open(os.environ["BUILDS"], "a") as log:
            log.write(f"{os.getppid()} {time.time()}\\n")
        time.sleep(float(os.environ["SLEEP"]))
        return model
""",
    1,
)


def _task(folder: Path) -> list[str]:
    onnx.save(tiny_onnx(), folder / "model.onnx")
    data = runpy.run_path(str(PROJECTS / "classifier" / "data.py"))["splits"](count=200)
    np.savez(folder / "arrays.npz", **{f"{n}_{k}": a for n, (x, y) in data.items() for k, a in (("x", x), ("y", y))})
    return ["--model", str(folder / "model.onnx"), "--data", str(folder / "arrays.npz")]


@contextlib.contextmanager
def _storage(said: str | None, folder: Path) -> Iterator[str]:
    if said is not None:
        yield said
    elif postgres.programs() is None:
        yield f"journal:{folder / 'study'}"
    else:
        with postgres.server() as url:
            yield url


def rate(processes: int, *, sleep: float, each: int, storage: str | None) -> float:
    """Candidates a minute."""
    with tempfile.TemporaryDirectory() as name, _storage(storage, Path(name)) as url:
        folder = Path(name)
        install(folder / "packages", "workers-bench", SLEEPING)
        environment = {
            **os.environ,
            "PYTHONPATH": str(folder / "packages"),
            "BUILDS": str(folder / "builds"),
            "SLEEP": str(sleep),
            "ORCHESTRATE_STORE": "none",
            "OMP_NUM_THREADS": "1",
        }

        def start(*arguments: str) -> "subprocess.Popen[bytes]":
            command = [sys.executable, "-m", "orchestrator", *arguments]
            return subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)

        common = ["--target", "raspberry-pi-4", "--device", "at-once", "--method", "nothing-0", "--search", "no-training"]
        trials = str(each * processes + 10 * (processes - 1))  # the others join some ten candidates later
        running = [start("search", *_task(folder), *common, "--trials", trials, "--storage", url, "--output", "run")]
        running += [start("worker", "--storage", url, "--device", "at-once") for _ in range(processes - 1)]
        if any(process.wait() not in (0, 1) for process in running):
            raise RuntimeError("a process of the search failed; see above")
        lines = [line.split() for line in (folder / "builds").read_text().splitlines()]
        began = [(process, float(at)) for process, at in lines]
        first = {process: min(at for p, at in began if p == process) for process, _ in began}
        if len(first) < processes:
            raise RuntimeError(f"only {len(first)} of {processes} processes built anything: raise --each")
        counted = sorted(at for _, at in began if at >= max(first.values()))
        return 60 * (len(counted) - 1) / (counted[-1] - counted[0])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--sleep", type=float, default=2.0)
    parser.add_argument("--each", type=int, default=15)
    parser.add_argument("--storage")
    said = parser.parse_args()
    print("| processes | candidates a minute | times one process |")
    print("|---|---|---|")
    alone: float | None = None
    for processes in said.processes:
        found = rate(processes, sleep=said.sleep, each=said.each, storage=said.storage)
        alone = alone or found
        print(f"| {processes} | {found:.1f} | {found / alone:.2f} |", flush=True)


if __name__ == "__main__":
    main()
