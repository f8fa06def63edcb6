"""Which numbers of channels pay, from counts: one convolution with 8 to 40 channels in steps of one, in onnxruntime.

A kernel that works on m channels at once takes as long for m - 1: the counts climb in stairs. The multiple that is stated is
the largest m for which filling up to the next multiple of m costs at most a quarter of what the additional channels would cost
if time were proportional to channels, on average over all numbers that are no multiple. 1: none is.
"""

import itertools
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import simulation_count as counting
from onnx import TensorProto, helper, numpy_helper

from orchestrator_qemu import counts
from orchestrator_qemu.cpus import CPUS, Cpu
from orchestrator_qemu.emulator import Emulator
from orchestrator_qemu.toolchain import SETUP, Toolchain

KERNELS = {"3x3": 3, "1x1": 1}
SIDES = ("outputs", "inputs")
CHANNELS = range(8, 41)
OTHER = 32  # channels on the side that does not change
PIXELS = 28
MULTIPLES = (16, 8, 4, 2)
FREE = 0.25
OUTPUT = counting.SIMULATED / "channels.json"


def convolution(kernel: int, inputs: int, outputs: int, number_format: str) -> onnx.ModelProto:
    """One convolution with a bias; the int8 ones take and give 8 bits, so that nothing but the convolution is counted."""
    chance = np.random.default_rng(0)
    weight = chance.normal(size=(outputs, inputs, kernel, kernel)).astype(np.float32)
    shapes = ([1, inputs, PIXELS, PIXELS], [1, outputs, PIXELS, PIXELS])
    pads = [kernel // 2] * 4
    if number_format == "float32":
        nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=pads)]
        constants = {"w": weight, "b": np.zeros(outputs, np.float32)}
        element = TensorProto.FLOAT
    else:
        signed = number_format == "s8s8"
        zero = np.array(0 if signed else 128, np.int8 if signed else np.uint8)
        element = TensorProto.INT8 if signed else TensorProto.UINT8
        scale = np.float32(0.05)
        scales = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
        nodes = [
            helper.make_node("DequantizeLinear", ["x", "s", "z"], ["xf"]),
            helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=0),
            helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bf"], axis=0),
            helper.make_node("Conv", ["xf", "wf", "bf"], ["yf"], pads=pads),
            helper.make_node("QuantizeLinear", ["yf", "s", "z"], ["y"]),
        ]
        constants = {
            "s": scale,
            "z": zero,
            "w": np.round(weight / scales[:, None, None, None]).astype(np.int8),
            "ws": scales,
            "wz": np.zeros(outputs, np.int8),
            "b": np.zeros(outputs, np.int32),
            "bs": scales * scale,
            "bz": np.zeros(outputs, np.int32),
        }
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", element, shapes[0])],
        [helper.make_tensor_value_info("y", element, shapes[1])],
        [numpy_helper.from_array(np.asarray(data), name) for name, data in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def count(cpus: Sequence[str]) -> None:
    """Count all of them that these versions have not counted, and write what follows."""
    toolchain = Toolchain.find()
    if toolchain is None:
        sys.exit(f"simulated execution is not set up here: {SETUP}")
    kept: dict[str, Any] = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    for cpu in (CPUS[name] for name in cpus or CPUS):
        emulator, versions = counting.emulator("onnxruntime", toolchain, cpu)
        if kept.get(cpu.name, {}).get("versions") != versions:
            kept[cpu.name] = {"versions": versions, "channels": [CHANNELS[0], CHANNELS[-1]], "convolutions": {}}
        found = kept[cpu.name]["convolutions"]
        with emulator:
            for number_format, (name, kernel), side in itertools.product(
                ("float32", counting.INT8_SCHEME[cpu.name]), KERNELS.items(), SIDES
            ):
                key = f"{number_format} {name} {side}"
                if key in found:
                    continue
                cycles = stairs(emulator, cpu, kernel, side, number_format)
                multiple, cost = useful(cycles)
                found[key] = {"multiple": multiple, "cost_of_filling_up": cost, "pipeline_cycles": list(cycles.values())}
                print(cpu.name, key, multiple, cost, flush=True)
                write(kept)


def stairs(emulator: Emulator, cpu: Cpu, kernel: int, side: str, number_format: str) -> dict[int, int]:
    """Pipeline cycles for each number of channels on one side."""
    cycles = {}
    with tempfile.TemporaryDirectory() as folder:
        path, example = Path(folder) / "convolution.onnx", Path(folder) / "x.npy"
        for channels in CHANNELS:
            inputs, outputs = (channels, OTHER) if side == "inputs" else (OTHER, channels)
            model = convolution(kernel, inputs, outputs, number_format)
            onnx.save(model, path)
            element = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
            np.save(example, np.ones((1, inputs, PIXELS, PIXELS), element))
            trace = emulator.count(path, {"x": example}, {}, timeout_s=600)
            cycles[channels] = counts.count(trace, cpu).pipeline_cycles
    return cycles


def filling_up(cycles: Mapping[int, int], multiple: int) -> float:
    """What filling up to the next multiple costs, as a share of the cost in proportion, on average."""
    shares = []
    for channels, spent in cycles.items():
        full = math.ceil(channels / multiple) * multiple
        if full != channels and full in cycles:
            shares.append((cycles[full] / spent - 1) / (full / channels - 1))
    return float(np.mean(shares))


def useful(cycles: Mapping[int, int]) -> tuple[int, dict[str, float]]:
    """The multiple that pays, and the cost of filling up to each."""
    costs = {m: filling_up(cycles, m) for m in MULTIPLES}
    return next((m for m in MULTIPLES if costs[m] <= FREE), 1), {str(m): round(c, 3) for m, c in sorted(costs.items())}


def write(kept: Mapping[str, Any]) -> None:
    """A line for each convolution."""
    cpus = []
    for cpu, found in sorted(kept.items()):
        lines = ",\n".join(f'   "{k}": {json.dumps(v)}' for k, v in found["convolutions"].items())
        head = f'  "versions": {json.dumps(found["versions"])},\n  "channels": {json.dumps(found["channels"])}'
        cpus.append(f' "{cpu}": {{\n{head},\n  "convolutions": {{\n{lines}\n  }}\n }}')
    OUTPUT.write_text("{\n" + ",\n".join(cpus) + "\n}\n")
