import os
from pathlib import Path

import onnx

from orchestrator.plugin import InputError, JobFailed, Simulated, SimulatedDevice, hookimpl
from orchestrator.values.evidence import Estimate
from orchestrator.values.results import Difference
from orchestrator_devices.host import HostDevice

FOLDER = Path(os.environ["TOY"])


class Toy(SimulatedDevice):
    scheme = "toy"

    def attach(self, reference):
        return self

    def cpu(self):
        return "toy-1"

    def board(self):
        return str(FOLDER / "board.toml")

    def check(self, runtime):
        if not (FOLDER / "ready").exists():
            raise InputError("the toy is not set up")

    def environment(self):
        return {"cpu": "toy-1 (simulated)"}

    def cores(self):
        return 1

    def open(self, job):
        return HostDevice().open(job)

    def simulate(self, job, runtime):
        with (FOLDER / "log").open("a") as log:
            log.write(job.model.parent.name + "\n")
        broken = FOLDER / "fails"
        if broken.exists() and (broken.read_text() in ("all", job.model.parent.name)):
            raise JobFailed("crash", "the guest died")
        graph = onnx.load(job.model).graph
        bytes_ = sum(len(tensor.raw_data) for tensor in graph.initializer)
        return Simulated(counts={"instructions": 1000 * len(graph.node) + bytes_}, versions={"toy": "1"})

    def latency(self, found, constants, profile, *, threads, number_format):
        ms = found.counts["instructions"] * constants.cycles["pipeline"] * 1e-6
        error = constants.error["float32"]
        return Estimate(unit="ms", value=ms, low=ms / error, high=ms * error, model="toy")

    def ratio(self, a, b, constants, *, threads):
        value = a.counts["instructions"] / b.counts["instructions"]
        error = 1.0 if value == 1 else constants.ratio_error
        return Difference(value=value, low=value / error, high=value * error)


@hookimpl
def orchestrator_devices():
    return [Toy()]
