"""Counts of the published networks in ncnn and in onnxruntime, on each simulated CPU; kept in bench/simulated/."""

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ncnn_param
import numpy as np
import onnx
from ncnn_detection import with_detection
from onnx import helper, numpy_helper

from orchestrator.errors import JobFailed
from orchestrator_qemu import counts, provision
from orchestrator_qemu.cpus import CPUS, Cpu
from orchestrator_qemu.emulator import Emulator
from orchestrator_qemu.toolchain import SETUP, Toolchain

SIMULATED = Path(__file__).parent / "simulated"
# ncnn as it was when the boards of each core were measured.
NCNN = {"cortex-a53": "1.0.20230517", "cortex-a72": "1.0.20230517", "cortex-a76": "1.0.20231027"}
NCNN_LIBRARIES = {"1.0.20231027": ("libx11-6", "libxcb1", "libxau6", "libxdmcp6", "libbsd0", "libmd0")}
# The int8 scheme that needs the fewest instructions in onnxruntime on each core (MobileNetV2): the only one that is counted.
INT8_SCHEME = {"cortex-a53": "u8s8", "cortex-a72": "u8s8", "cortex-a76": "s8s8"}
NCNN_INT8 = ("squeezenet", "mobilenet", "resnet18", "vgg16", "mobilenet_ssd")
LARGE = ("vgg16", "vision_transformer")  # an hour of emulation: asked for by name
TIMEOUT_S = 6 * 3600
Job = tuple[str, str, Path, dict[str, Path], dict[str, Any]]


def read(runtime: str) -> dict[str, Any]:
    """What was counted: for each CPU the versions and, for each network and variant, its counts."""
    path = SIMULATED / f"{runtime}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def write(runtime: str, kept: Mapping[str, Any]) -> None:
    """Keep it, a line for each network's variant."""
    SIMULATED.mkdir(exist_ok=True)
    cpus = []
    for cpu, found in sorted(kept.items()):
        lines = [
            f'   "{network}": {{\n'
            + ",\n".join(f'    "{v}": {json.dumps(c, separators=(",", ":"))}' for v, c in sorted(variants.items()))
            + "\n   }"
            for network, variants in sorted(found["networks"].items())
        ]
        head = f'  "versions": {json.dumps(found["versions"])}'
        cpus.append(f' "{cpu}": {{\n{head},\n  "networks": {{\n' + ",\n".join(lines) + "\n  }\n }")
    (SIMULATED / f"{runtime}.json").write_text("{\n" + ",\n".join(cpus) + "\n}\n")


def count(runtime: str, models: Path, *, cpus: tuple[str, ...], only: tuple[str, ...]) -> None:
    """Count what has not been counted by these versions, one model after the other."""
    toolchain = Toolchain.find()
    if toolchain is None:
        sys.exit(f"simulated execution is not set up here: {SETUP}")
    networks = only or tuple(p.stem for p in sorted(models.glob("*.onnx")) if p.stem not in LARGE)
    for cpu in cpus or tuple(CPUS):
        with tempfile.TemporaryDirectory() as folder:
            at = Path(folder)
            ncnn = runtime == "ncnn"
            jobs = _ncnn_jobs(models, networks, at) if ncnn else _onnxruntime_jobs(models, networks, at, INT8_SCHEME[cpu])
            _count_cpu(runtime, toolchain, CPUS[cpu], jobs)


def _count_cpu(runtime: str, toolchain: Toolchain, cpu: Cpu, jobs: Iterator[Job]) -> None:
    running, versions = emulator(runtime, toolchain, cpu)
    kept = read(runtime)
    mine = kept.setdefault(cpu.name, {"versions": versions, "networks": {}})
    if mine["versions"] != versions:
        mine.update(versions=versions, networks={})
    with running:
        for network, variant, model, inputs, options in jobs:
            if variant in mine["networks"].get(network, {}):
                continue
            began = time.monotonic()
            try:
                trace = running.count(model, inputs, options, timeout_s=TIMEOUT_S)
            except JobFailed as error:
                print(f"{cpu.name} {network} {variant}: {error}", flush=True)
                continue
            found = counts.count(trace, cpu)
            mine["networks"].setdefault(network, {})[variant] = found.plain()
            # Another process may have counted for another CPU meanwhile.
            write(runtime, {**read(runtime), cpu.name: mine})
            print(f"{cpu.name} {network} {variant}: {found.instructions:,} ({time.monotonic() - began:.0f} s)", flush=True)


def emulator(runtime: str, toolchain: Toolchain, cpu: Cpu) -> tuple[Emulator, dict[str, str]]:
    """A guest for this runtime, and the versions of all that its counts depend on."""
    versions = {
        "qemu": toolchain.qemu_version,
        "counter": toolchain.counter_version,
        "guest": toolchain.guest_version,
        "pipeline model": counts.VERSION,
        "numpy": toolchain.packages["numpy"],
    }
    if runtime == "onnxruntime":
        from orchestrator_runtimes.onnxruntime import OnnxRuntime

        guest = Emulator(toolchain, cpu, load=OnnxRuntime().source(), imports=OnnxRuntime.imports)
        said = {"onnxruntime": toolchain.packages["onnxruntime"], "int8": f"{INT8_SCHEME[cpu.name]}, static, QDQ, per channel"}
        return guest, {**said, **versions}
    version = NCNN[cpu.name]
    provision.add_package(toolchain, "ncnn", version, libraries=NCNN_LIBRARIES.get(version, ()), progress=print)
    source = (Path(__file__).parent / "ncnn_guest.py").read_text()
    packages = {"numpy": toolchain.packages["numpy"], "ncnn": version}
    return Emulator(toolchain, cpu, load=source, imports=(), packages=packages), {"ncnn": version, **versions}


def _ncnn_jobs(models: Path, networks: tuple[str, ...], folder: Path) -> Iterator[Job]:
    for network in networks:
        model = models / f"{network}.onnx"
        layers = with_detection(ncnn_param.convert(model), network)
        variants = {"float": layers}
        if network in NCNN_INT8:
            variants["int8"] = ncnn_param.in_int8(layers, network)
        side = _shape(onnx.load(model).graph.input[0])[-1]
        for variant, found in variants.items():
            path = folder / f"{network}-{variant}.param"
            path.write_text(ncnn_param.render(found))
            yield network, variant, path, {}, {"side": side}


def _onnxruntime_jobs(models: Path, networks: tuple[str, ...], folder: Path, scheme: str) -> Iterator[Job]:
    for variant in ("float32", "int8"):
        for network in networks:
            model = models / f"{network}.onnx"
            inputs = _inputs(onnx.load(model), folder)
            if variant == "float32":
                yield network, variant, model, inputs, {}
            elif network not in LARGE:
                path = folder / f"{network}-{variant}.onnx"
                quantize(model, path, scheme, inputs)
                yield network, variant, path, inputs, {}
                path.unlink()


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [d.dim_value for d in value.type.tensor_type.shape.dim]


def _inputs(model: onnx.ModelProto, folder: Path) -> dict[str, Path]:
    """A file with one example for each input."""
    chance, found = np.random.default_rng(0), {}
    for value in model.graph.input:
        path = folder / f"{value.name.replace('/', '_').replace(':', '_')}.npy"
        np.save(path, chance.normal(size=_shape(value)).astype(np.float32))
        found[value.name] = path
    return found


def quantize(model: Path, target: Path, scheme: str, inputs: Mapping[str, Path]) -> None:
    """Static QDQ int8 by onnxruntime's quantizer, per channel, calibrated on random images.

    The networks hold no weights (each is a ConstantOfShape): random ones take their place, for the quantizer wants initializers.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = [{name: np.load(path) for name, path in inputs.items()}]

        def get_next(self) -> dict[str, Any] | None:
            return self._left.pop() if self._left else None

    loaded = with_weights(onnx.load(model))
    activation = QuantType.QUInt8 if scheme == "u8s8" else QuantType.QInt8
    quantize_static(
        loaded,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=activation,
        weight_type=QuantType.QInt8,
    )


def with_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with random initializers where it made constants; biases and statistics keep their values."""
    chance, graph = np.random.default_rng(0), model.graph
    shapes = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    left = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            left.append(node)
            continue
        shape = [int(d) for d in shapes[node.input[0]]]
        value = float(numpy_helper.to_array(helper.get_attribute_value(node.attribute[0])).item())
        weights = chance.normal(0, 1 / np.sqrt(np.prod(shape[1:])), size=shape)
        data = weights if len(shape) > 1 else np.full(shape, value)
        graph.initializer.append(numpy_helper.from_array(data.astype(np.float32), node.output[0]))
    del graph.node[:]
    graph.node.extend(left)
    used = {name for node in left for name in node.input}
    kept = [i for i in graph.initializer if i.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]  # the quantizer's own inference must not contradict it
    return model
