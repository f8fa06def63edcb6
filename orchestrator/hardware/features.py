"""Features of an operator: its work in the units that the latency model prices.

The kinds of work are those that kernels of mobile runtimes distinguish (ncnn, XNNPACK, onnxruntime's MLAS): products on packed
channels, Winograd's convolution (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016), depthwise
filters, streamed weights, and memory traffic.
"""

from math import ceil, prod

from orchestrator.hardware.graph import Operator, Product
from orchestrator.hardware.operators import words
from orchestrator.values.profile import NumberFormat

UNITS = {
    "pointwise": "multiply-accumulate of a 1x1 convolution, channels rounded up to the vector's width",
    "winograd": "multiply-accumulate between the transforms of a 3x3 convolution of stride 1 (tiles of 6x6 pixels, or 4x4)",
    "winograd_transform": "element of a transformed tile, in or out",
    "winograd_weight": "transformed weight",
    "convolution": "multiply-accumulate of any other convolution with more than 4 channels in",
    "image": "multiply-accumulate of a convolution with at most 4 channels in (the first of a network)",
    "depthwise": "multiply-accumulate of a depthwise convolution of stride 1",
    "depthwise_strided": "multiply-accumulate of a depthwise convolution of another stride, or transposed",
    "group": "group of a grouped convolution",
    "dense": "weight of a product with at most 4 rows (a fully connected layer reads each once)",
    "matmul": "multiply-accumulate of a matrix product with more rows, or of a recurrent layer",
    "activation": "element that a convolution reads or writes",
    "weight": "weight of a convolution",
    "fused": "element of a second operand that is added or multiplied to a product's result on the way",
    "elementwise": "element that any other operator reads or writes",
    "move": "element that an operator copies to another place (Concat, Split, Transpose, Resize, ...)",
    "pool": "element that a pooling window covers",
    "exponential": "result of an exponential or an error function (Sigmoid, Softmax, Erf, ...)",
    "normalization": "result of a normalization over channels or neighbours",
    "unpacked": "element of a tensor whose channels do not fill whole vectors (half of one where they fill half vectors)",
    "spilled": "element beyond the first 250,000 that one operator reads and writes: they no longer fit the caches",
    "operator": "operator, whatever its size",
}
"""Every feature with its unit."""

LANES: dict[NumberFormat, int] = {"float32": 4, "float16": 8, "bfloat16": 8, "int8": 8}
"""Channels side by side in a packed tensor (128-bit vectors; int8 kernels pack eight)."""

_MOVES = words(
    "CenterCropPad Concat DepthToSpace Expand Gather GatherElements GatherND Pad QLinearConcat Resize",
    "ReverseSequence ScatterElements ScatterND Slice SpaceToDepth Split Tile Transpose Upsample",
)
_EXPONENTIALS = words(
    "Elu Erf Exp FastGelu Gelu LogSoftmax Mish QLinearSigmoid QLinearSoftmax QuickGelu Selu Sigmoid Softmax",
    "Softplus Swish BiasGelu BiasSoftmax Celu Tanh Sin Cos Log Pow",
)
_NORMALIZATIONS = words(
    "GroupNormalization InstanceNormalization LRN LayerNormalization LpNormalization MeanVarianceNormalization",
    "RMSNormalization SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization",
    "EmbedLayerNormalization",
)
WINOGRAD_RUNTIMES = frozenset({"ncnn"})
"""Runtimes that compute 3x3 convolutions of stride 1 by Winograd's method; for others they are plain convolutions."""

_FEW_ROWS = 4
_IMAGE_CHANNELS = 4
_WINOGRAD_LEAST, _WINOGRAD_LARGE_TILE = 8, 128
_CACHED_ELEMENTS = 250_000  # a megabyte of float32, about the L2 cache of these cores


def features(operator: Operator, number_format: NumberFormat, runtime: str) -> dict[str, float]:
    """Return the amount of each feature of one operator that is not zero.

    Args:
        operator: The operator.
        number_format: Number format of its arithmetic.
        runtime: The runtime, which determines the kernels.
    """
    if operator.free:
        return {}
    if operator.fused_into is not None:
        return _fused(operator)
    found = dict.fromkeys(UNITS, 0.0)
    found["operator"] = 1.0
    if operator.product is not None:
        _count_product(found, operator, operator.product, number_format, runtime in WINOGRAD_RUNTIMES)
    elif operator.macs:
        found["matmul"], found["dense"] = float(operator.macs), float(operator.weights)
    else:
        _count_traffic(found, operator)
    # The transformed tiles are written and read once.
    traffic = operator.elements_read + operator.elements_written + 2 * found["winograd_transform"]
    found["spilled"] = float(max(0, traffic - _CACHED_ELEMENTS))
    found["unpacked"] = sum(elements * _unpacked(channels, LANES[number_format]) for channels, elements in operator.channels)
    return {name: amount for name, amount in found.items() if amount}


def _fused(operator: Operator) -> dict[str, float]:
    """Return the features of a fused operator: free, except for exponentials and a second operand."""
    if operator.op_type in _EXPONENTIALS:
        return {"exponential": float(operator.elements_written)}
    second = operator.elements_read - operator.elements_written
    return {"fused": float(second)} if second > 0 else {}


def _count_product(
    found: dict[str, float], operator: Operator, product: Product, number_format: NumberFormat, winograd: bool
) -> None:
    lanes = LANES[number_format]
    rows = prod(product.out_size) * product.batch
    one_pixel = prod(product.out_size) == 1 and product.in_size == product.out_size
    if (not product.kernel or one_pixel) and product.groups == 1 and rows <= _FEW_ROWS and product.stored:
        found["dense"] = float(product.in_channels * product.out_channels)
        return
    if not product.kernel:
        found["matmul"] = float(operator.macs)
        found["activation"] = float(operator.elements_read + operator.elements_written)
        found["weight"] = float(operator.weights)
        return
    found["activation"] = float(operator.elements_read + operator.elements_written)
    strided = max(product.strides) > 1
    if product.groups > 1 and product.groups == product.in_channels:
        found["depthwise_strided" if strided or product.transposed else "depthwise"] = float(operator.macs)
        return
    if product.groups > 1:
        found["group"] = float(product.groups)
    inside, outside = product.in_channels // product.groups, product.out_channels // product.groups
    window = prod(product.kernel)
    found["weight"] = float(operator.weights)
    if window == 1 and not product.transposed:
        found["pointwise"] = float(rows * product.groups * _up(inside, lanes) * _up(outside, lanes))
    elif winograd and _takes_winograd(product, inside, outside):
        # The larger tile's transforms exceed the range of 16-bit integers.
        large = number_format != "int8" and max(inside, outside) <= _WINOGRAD_LARGE_TILE
        tile = 6 if large else 4
        places = product.batch * prod(ceil(size / tile) for size in product.out_size) * (tile + 2) ** 2
        found["winograd"] = float(product.groups * places * inside * outside)
        found["winograd_transform"] = float(product.groups * places * (inside + outside))
        found["winograd_weight"] = float(product.groups * (tile + 2) ** 2 * inside * outside)
        found["weight"] = 0.0
    elif inside <= _IMAGE_CHANNELS:
        found["image"] = float(operator.macs)
    else:
        found["convolution"] = float(operator.macs)


def _takes_winograd(product: Product, inside: int, outside: int) -> bool:
    plain = product.kernel == (3, 3) and max(product.strides) == max(product.dilations) == 1 and not product.transposed
    return plain and inside >= _WINOGRAD_LEAST and outside >= _WINOGRAD_LEAST


def _count_traffic(found: dict[str, float], operator: Operator) -> None:
    kind = operator.op_type
    traffic = float(operator.elements_read + operator.elements_written)
    if kind in _MOVES:
        found["move"] = traffic
        return
    found["elementwise"] = traffic
    if kind in _EXPONENTIALS:
        found["exponential"] = float(operator.elements_written)
    elif kind in _NORMALIZATIONS:
        found["normalization"] = float(operator.elements_written)
    elif operator.window > 1:
        found["pool"] = float(operator.elements_written * operator.window)


def _unpacked(channels: int, lanes: int) -> float:
    if channels % lanes == 0:
        return 0.0
    return 0.5 if channels % 4 == 0 else 1.0


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
