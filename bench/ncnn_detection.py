"""The post-processing that ncnn's benchmark files end with, and that the ONNX files of the networks leave out.

The published times include it. With the benchmark's weights, which are all zero, nothing is ever detected: anchors and sizes of
boxes change no count, so they are plain ones here; their numbers are those of the networks.
"""

from collections.abc import Sequence
from dataclasses import replace

from ncnn_param import Layer

_ONES = ",".join(["1.0"] * 12)
# Classes, boxes a cell, threshold, anchors (v3: masks and strides too), as Yolo(v3)DetectionOutput numbers its parameters.
YOLO_V3 = ("1=3", f"-23304=12,{_ONES}", "-23305=6,3.0,4.0,5.0,0.0,1.0,2.0", "-23306=2,32.0,16.0")
YOLO = {
    "mobilenet_yolo": ("YoloDetectionOutput", ("2=0.4", f"-23304=10,{','.join(['1.0'] * 10)}")),
    "mobilenetv2_yolov3": ("Yolov3DetectionOutput", (*YOLO_V3, "0=20", "2=0.3")),
    "yolo-fastest-1.1": ("Yolov3DetectionOutput", (*YOLO_V3, "0=80", "2=0.55")),
}
SSD = "mobilenet_ssd"
SSD_OUTPUT = ("0=21", "1=0.45", "2=100", "4=0.25")
# Boxes a cell of a feature map by the channels of its position layer (four a box): aspect ratios and sizes that make so many.
SSD_PRIORS = {
    12: ("-23300=1,60.0", "-23302=1,2.0", "9=-233", "10=-233", "13=0.5"),
    24: ("-23300=1,105.0", "-23301=1,150.0", "-23302=2,2.0,3.0", "9=-233", "10=-233", "13=0.5"),
}


def with_detection(layers: Sequence[Layer], network: str) -> list[Layer]:
    """The network as it was published; the same where it has no post-processing."""
    if network in YOLO:
        kind, params = YOLO[network]
        outputs = ("out0", "out1")
        return [*layers, Layer(kind=kind, name="detection_out", inputs=outputs, outputs=("output",), params=params)]
    return _with_priors(layers) if network == SSD else list(layers)


def _with_priors(layers: Sequence[Layer]) -> list[Layer]:
    """Single-shot detection: prior boxes of each feature map, and the choice among them."""
    made_by = {blob: layer for layer in layers for blob in layer.outputs}
    positions = [_convolution(made_by, blob) for blob in made_by["out0"].inputs]
    features = [layer.inputs[0] for layer in positions]
    priors = [
        Layer(
            kind="PriorBox",
            name=f"prior_{k}",
            inputs=(f"{feature}_prior", f"image_{k}"),
            outputs=(f"prior_{k}",),
            params=SSD_PRIORS[int(position.param("0") or 0)],
        )
        for k, (feature, position) in enumerate(zip(features, positions, strict=True))
    ]
    result = []
    for layer in layers:
        read = tuple(f"{blob}_prior" for blob in layer.outputs if blob in features)
        if layer.kind == "Input":
            images = ("image", *(f"image_{k}" for k in range(len(priors))))
            result += [layer, Layer(kind="Split", name="images", inputs=layer.outputs, outputs=images)]
        elif layer.kind == "Split" and read:
            result.append(replace(layer, outputs=(*layer.outputs, *read)))
        else:
            result.append(replace(layer, inputs=tuple("image" if blob == "in0" else blob for blob in layer.inputs)))
    joined = Layer(kind="Concat", name="priors", inputs=tuple(p.outputs[0] for p in priors), outputs=("priors",), params=("0=1",))
    chosen = Layer(
        kind="DetectionOutput",
        name="detection_out",
        inputs=("out0", "out1", "priors"),
        outputs=("output",),
        params=SSD_OUTPUT,
    )
    return [*result, *priors, joined, chosen]


def _convolution(made_by: dict[str, Layer], blob: str) -> Layer:
    """The layer whose output was permuted and flattened into this blob."""
    layer = made_by[blob]
    while layer.kind in ("Flatten", "Permute"):
        layer = made_by[layer.inputs[0]]
    return layer
