"""How often a comparison is wrong: ours, and "mean of 20 runs after 10 warm-ups, one model after the other", side by side.

python bench/timing.py [ROW ...] [--count N]

Rows (all by default), and the same for them with `theirs-` before the name:

    copy        a model against its own copy, on a quiet machine: `faster` and `slower` are wrong
    copy-busy   the same beside a neighbour process that keeps a core busy all the time
    slower      against the same network with a twentieth more layers: `slower` is right

Ours is `orchestrator.compare` with one thread, at most 5 s a comparison of copies and 10 s otherwise, margin 2 %. Theirs is the
latency metric of Olive (warmup_num 10, repeat_test_num 20, mean), in one process as there, one thread too; it states no
interval, so its verdict is that of the ratio of means: counted beyond 2 %, and for any difference.

Needs an idle machine for about 45 minutes. Every comparison is printed as a line of JSON on standard error.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import orchestrator

LAYERS, MORE = 40, 2
CHANNELS, SIDE = 16, 32
MARGIN = 0.02
COPIES, SLOWER = 200, 100
COPY_S, SLOWER_S = 4.6, 9.5  # starting and counting come on top, to 5 and 10 s

NEIGHBOUR = """
import numpy
a = numpy.random.default_rng(0).random((300, 300))
while True:
    a = a @ a
    a /= a.max()
"""

THEIRS = """
import json, statistics, sys, time
import numpy, onnxruntime
means = []
for path in sys.argv[1:]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: numpy.random.default_rng(0).random((1, 16, 32, 32), numpy.float32)}
    for _ in range(10):
        session.run(None, inputs)
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - begin)
    means.append(statistics.mean(times))
print(json.dumps(means))
"""


def network(layers: int) -> onnx.ModelProto:
    """Equal 3x3 convolutions one after the other: the time is that of one, times their number."""
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for k in range(layers):
        weight = (random.normal(size=(CHANNELS, CHANNELS, 3, 3)) / 12).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{k}"))
        nodes.append(helper.make_node("Conv", [f"x{k}", f"w{k}"], [f"y{k}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"y{k}"], [f"x{k + 1}"]))
    shape = [1, CHANNELS, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


@contextlib.contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """A process that computes all the time, where one is wanted."""
    if not busy:
        yield
        return
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOUR], env=environment)
    time.sleep(1)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def ours(a: Path, b: Path, seconds: float, seed: int) -> dict[str, object]:
    """One comparison by the product."""
    begin = time.monotonic()
    found = orchestrator.compare(a, b, threads=1, max_seconds=seconds, margin=MARGIN, seed=seed)
    return {
        "verdict": found.verdict,
        "ratio": round(found.ratio.value, 4),
        "low": round(found.ratio.low, 4),
        "high": round(found.ratio.high, 4),
        "basis": found.basis,
        "disturbed": found.b.latency.disturbed,
        "seconds": round(time.monotonic() - begin, 2),
    }


def theirs(a: Path, b: Path) -> dict[str, object]:
    """One comparison of two means, as people make it."""
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", THEIRS, str(a), str(b)], capture_output=True, text=True, check=True)
    first, second = json.loads(done.stdout)
    ratio = second / first
    beyond = "slower" if ratio > 1 + MARGIN else "faster" if ratio < 1 / (1 + MARGIN) else "same"
    any_difference = "slower" if ratio > 1 else "faster"
    return {"verdict": beyond, "any": any_difference, "ratio": round(ratio, 4), "seconds": round(time.monotonic() - begin, 2)}


def row(name: str, count: int | None, folder: Path) -> None:
    """All comparisons of a row, and what came of them."""
    a, copy, more = folder / "a.onnx", folder / "copy.onnx", folder / "more.onnx"
    slower, busy = name.endswith("slower"), name.endswith("busy")
    b, wanted = (more, "slower") if slower else (copy, "same")
    found = []
    with neighbour(busy):
        for k in range(count or (SLOWER if slower else COPIES)):
            seconds = SLOWER_S if slower else COPY_S
            found.append(theirs(a, b) if name.startswith("theirs") else ours(a, b, seconds, k))
            print(json.dumps({"row": name, "k": k, **found[-1]}), file=sys.stderr, flush=True)
    verdicts = Counter(str(each["verdict"]) for each in found)
    total = len(found)
    right = verdicts[wanted] / total
    wrong = (verdicts["faster"] + (0 if slower else verdicts["slower"])) / total
    longest = max(float(str(each["seconds"])) for each in found)
    ratios = np.array([float(str(each["ratio"])) for each in found])
    middle, spread = float(np.median(ratios)), float(np.percentile(np.abs(ratios - np.median(ratios)), 95))
    open_ = verdicts["inconclusive"] / total
    line = (
        f"{name:17} {total} comparisons: right {right:6.1%}, wrong {wrong:6.1%}, inconclusive {open_:6.1%}; "
        f"ratio {middle:.4f}, 95 % within +-{spread:.4f}; longest {longest:.1f} s"
    )
    if name.startswith("theirs"):
        called = sum(each["any"] == ("slower" if slower else each["any"]) for each in found) / total
        line += f"; any difference counted: {'right' if slower else 'wrong'} {called:.1%}"
    bases = Counter(str(each.get("basis")) for each in found)
    print(line + (f"; by CPU time {bases['cpu']}" if bases["cpu"] else ""), flush=True)


def main() -> None:
    """The rows that were asked for."""
    rows = ("copy", "copy-busy", "slower", "theirs-copy", "theirs-copy-busy", "theirs-slower")
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(rows))
    parser.add_argument("--count", type=int)
    said = parser.parse_args()
    if unknown := set(said.rows) - set(rows):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(rows)}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, layers in (("a", LAYERS), ("copy", LAYERS), ("more", LAYERS + MORE)):
            onnx.save(network(layers), folder / f"{name}.onnx")
        for name in said.rows or rows:
            row(name, said.count, folder)


if __name__ == "__main__":
    main()
