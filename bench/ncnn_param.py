"""ncnn's text form of the networks whose latencies are published, from their ONNX files: floating point and int8.

pnnx converts; what differs from the files that the published times were taken with is fixed here:

- pnnx leaves average pooling with an uneven border as it is: ncnn's own Pooling pads it.
- The vision transformer's linear layers were InnerProduct with the bias added apart until May 2026, now they are Gemm: the
  published times are older.
- int8: the flags of ncnn's benchmark files (benchmark/*_int8.param, Tencent/ncnn). Key 8: 2 weights and input quantized (1 for
  depthwise), 102 (101) where the output is handed on in int8, for all that read it are int8 convolutions.

No weights are kept: ncnn's benchmark runs with zeros (DataReaderFromEmpty), and so do we.
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

MAGIC = "7767517"
CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
# Layers that the published int8 files leave in floating point.
FLOAT_IN_INT8 = {"resnet18": ("InnerProduct",)}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One line of the file."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: tuple[str, ...] = ()

    def param(self, key: str) -> str | None:
        """The value of a parameter, None: not set."""
        return next((p.split("=", 1)[1] for p in self.params if p.split("=", 1)[0] == key), None)

    def __str__(self) -> str:
        blobs = " ".join((*self.inputs, *self.outputs))
        return f"{self.kind} {self.name} {len(self.inputs)} {len(self.outputs)} {blobs} {' '.join(self.params)}".strip()


def parse(text: str) -> list[Layer]:
    """The layers of a file's text."""
    layers = []
    for line in text.splitlines()[2:]:
        kind, name, inputs, outputs, *rest = line.split()
        i, o = int(inputs), int(outputs)
        blobs, params = rest[: i + o], rest[i + o :]
        layers.append(Layer(kind=kind, name=name, inputs=tuple(blobs[:i]), outputs=tuple(blobs[i:]), params=tuple(params)))
    return layers


def render(layers: Sequence[Layer]) -> str:
    """The file's text."""
    blobs = sum(len(layer.outputs) for layer in layers)
    return "\n".join([MAGIC, f"{len(layers)} {blobs}", *map(str, layers)]) + "\n"


def convert(model: Path) -> list[Layer]:
    """What pnnx makes of an ONNX file, fixed."""
    # The package's import would load torch: its program is asked for by its place.
    found = importlib.util.find_spec("pnnx")
    if found is None or not found.submodule_search_locations:
        sys.exit("pnnx is not installed: pip install pnnx")
    program = Path(found.submodule_search_locations[0]) / "pnnx"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.onnx"
        shutil.copyfile(model, copy)
        subprocess.run([program, copy.name], cwd=folder, check=True, capture_output=True, timeout=600)
        layers = parse((Path(folder) / "model.ncnn.param").read_text())
    return [new for layer in layers for new in _as_published(layer)]


def _as_published(layer: Layer) -> list[Layer]:
    """The layers that stood in the published file for this one."""
    if layer.kind == "AveragePool":
        return [replace(layer, kind="Pooling", params=("0=1", "1=3", "2=2"))]
    if layer.kind != "Gemm":
        return [layer]
    wide, deep = int(layer.param("8") or 0), int(layer.param("9") or 0)
    name = layer.name
    stages = [f"{name}_{i}" for i in range(5)]
    (source,), (target,) = layer.inputs, layer.outputs
    chain = (
        ("InnerProduct", (source,), stages[0], (f"0={wide}", "1=0", f"2={wide * deep}")),
        ("Permute", (stages[0],), stages[1], ("0=1",)),
        ("Reshape", (stages[1],), stages[2], ("0=1", "1=-1", f"2={wide}")),
        ("MemoryData", (), f"{name}_bias", ("0=1", "1=1", f"2={wide}")),
        ("BinaryOp", (stages[2], f"{name}_bias"), stages[3], ("0=0",)),
        ("Reshape", (stages[3],), stages[4], ("0=-1", f"1={wide}")),
        ("Permute", (stages[4],), target, ("0=1",)),
    )
    return [Layer(kind=k, name=f"{name}_{o}", inputs=i, outputs=(o,), params=p) for k, i, o, p in chain]


def in_int8(layers: Sequence[Layer], network: str) -> list[Layer]:
    """The int8 variant, flagged as ncnn's benchmark files are."""
    kept = FLOAT_IN_INT8.get(network, ())
    readers = _readers(layers)
    result = []
    for layer in layers:
        if layer.kind not in (*CONVOLUTIONS, "InnerProduct") or layer.kind in kept:
            result.append(layer)
            continue
        flag = 1 if layer.kind == "ConvolutionDepthWise" and layer.param("7") == layer.param("0") else 2
        kinds = set(readers[layer.outputs[0]])
        if layer.kind in CONVOLUTIONS and kinds and kinds <= set(CONVOLUTIONS):
            flag += 100
        result.append(replace(layer, params=(*layer.params, f"8={flag}")))
    return result


def _readers(layers: Sequence[Layer]) -> dict[str, set[str]]:
    """The kinds of layer that read each blob, looking through Split."""
    found: dict[str, set[str]] = {blob: set() for layer in layers for blob in layer.outputs}
    for layer in reversed(layers):
        for blob in layer.inputs:
            if layer.kind == "Split":
                for branch in layer.outputs:
                    found[blob] |= found[branch]
            else:
                found[blob].add(layer.kind)
    return found
