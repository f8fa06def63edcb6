"""Findings on runtimes: each one runs a tiny model in a process of its own, as in a search."""

import tempfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from orchestrator.api.resolve import attach, profile_named, resolve_target
from orchestrator.errors import OrchestratorError, Refused
from orchestrator.plugin.device import Device
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime import Runtime
from orchestrator.values.device import HOST, Job
from orchestrator.values.finding import Finding, FindingState

TIMEOUT_S = 30.0
VALUES = ((-1.5, 0.0, 2.5),)
OPSET, IR_VERSION = 13, 8  # old enough for every runtime


def runtimes(target: str) -> Iterator[Finding]:
    """Examine every runtime; the target's own is needed."""
    registry = Registry.discover()
    needed = _of_target(target, registry)
    (host,) = attach(HOST, registry)
    with tempfile.TemporaryDirectory(prefix="orchestrate-doctor-") as scratch:
        for name, runtime in registry.runtimes().items():
            folder = Path(scratch) / name
            folder.mkdir()
            yield _tried(runtime, host, folder, needed=name == needed)


def _of_target(target: str, registry: Registry) -> str | None:
    try:
        return resolve_target(profile_named(target, registry), registry)[1].name
    except OrchestratorError:  # reported by the section on targets
        return None


def _tried(runtime: Runtime, host: Device, folder: Path, *, needed: bool) -> Finding:
    """Run the tiny model in a runtime, and compare its output."""

    def found(state: FindingState, text: str, fix: str = "") -> Finding:
        return Finding(section="runtimes", name=runtime.name, state=state, text=text, fix=fix, needed=needed)

    try:
        version = runtime.version()
    except Refused as reason:
        why, _, fix = str(reason).partition(": ")
        return found("missing", why, fix)
    except Exception as error:  # a third party's code
        return found("broken", f"{type(error).__name__}: {error}".splitlines()[0])
    fix = f"reinstall it, the version of constraints.txt if you can: pip install --force-reinstall {_distribution(runtime)}"
    model, inputs = folder / "model.onnx", folder / "x.npy"
    onnx.save(_relu(), model)
    np.save(inputs, np.array(VALUES, np.float32))
    try:
        job = Job(
            model=runtime.convert(model, folder),
            load=runtime.source(),
            imports=runtime.imports,
            inputs={"x": inputs},
            threads=1,
            options={},
            timeout_s=TIMEOUT_S,
        )
        with host.open(job) as session:
            (answer,) = session.predict(folder, batch=1)
            outputs = np.load(answer, allow_pickle=False)
    except Exception as error:  # a third party's code, and processes that crash
        return found("broken", f"{version} cannot run a model: {' '.join(str(error).split())[:300]}", fix)
    if not np.allclose(outputs, np.maximum(VALUES, 0), atol=1e-2):
        return found("broken", f"{version} computes {outputs.tolist()} where {np.maximum(VALUES, 0).tolist()} is right", fix)
    return found("ok", f"{version}, ran a model in a process of its own")


def _distribution(runtime: Runtime) -> str:
    """Return the distribution of the library that the runtime imports, which may have another name than the runtime."""
    known = packages_distributions()
    found = [known[name.partition(".")[0]][0] for name in runtime.imports if name.partition(".")[0] in known]
    return found[0] if found else (runtime.imports or (type(runtime).__module__.partition(".")[0],))[0]


def _relu() -> onnx.ModelProto:
    """Return a model of one operator, whose outputs are known."""
    shape = [1, len(VALUES[0])]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "doctor",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    return model
