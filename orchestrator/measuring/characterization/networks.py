"""The networks of characterization: tiny ones of one kind of operator each, and small real ones to validate the fit.

Every network has one float32 input `x` of batch 1 and random weights. The tiny ones repeat their operator a few times
with few other operators between, so that its cost dominates; together they exercise every feature of `hardware.features`, at
sizes that fit the caches and at sizes that do not. None of the real ones is in the fit.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from orchestrator.measuring.characterization.graph import INPUT, Form, Network, Sample
from orchestrator.measuring.characterization.machine_values import STAIRCASE_FIRST


def _sample(name: str, shape: Sequence[int], layers: Callable[[Network], str], *, urgent: bool = False) -> Sample:
    def build(form: Form) -> Any:
        network = Network(shape, form)
        return network.model(layers(network))

    return Sample(name=name, shape=tuple(shape), build=build, urgent=urgent)


def _chain(kernel: int, channels: Sequence[int], size: int, *, stride: int = 1, groups: int = 1, urgent: bool = False) -> Sample:
    """Return a chain of convolutions with these numbers of channels; `groups` 0 means depthwise."""

    def layers(network: Network) -> str:
        x = INPUT
        for inside, outside in pairwise(channels):
            x = network.conv(x, inside, outside, kernel, stride=stride, groups=groups or inside)
        return x

    kind = {0: "depthwise", 1: "convolution"}.get(groups, f"grouped{groups}")
    name = f"{kind}-{kernel}x{kernel}-s{stride}-{'-'.join(map(str, channels))}-at-{size}"
    return _sample(name, (1, channels[0], size, size), layers, urgent=urgent)


def _repeat(kind: str, channels: int, size: int, times: int, *, urgent: bool = False, **attributes: Any) -> Sample:
    """Return one operator without weights, applied repeatedly."""

    def layers(network: Network) -> str:
        x = INPUT
        for _ in range(times):
            x = network.node(kind, x, **attributes)
        return x

    return _sample(f"{kind.lower()}-{channels}-at-{size}", (1, channels, size, size), layers, urgent=urgent)


def _many_tiny(count: int, *, urgent: bool = False) -> Sample:
    """Return a network of operators with so little work that their fixed cost dominates."""

    def layers(network: Network) -> str:
        x = INPUT
        for i in range(count):
            x = network.node("Sub" if i % 2 else "Abs", x, *([network.weight((1, 8, 1, 1))] if i % 2 else []))
        return x

    return _sample(f"tiny-operators-{count}", (1, 8, 2, 2), layers, urgent=urgent)


def _tiny_convolutions(network: Network) -> str:
    x = INPUT
    for _ in range(24):
        x = network.node("Relu", network.conv(x, 8, 8))
    return x


def _residual(network: Network) -> str:
    x = INPUT
    for _ in range(3):
        x = network.node("Relu", network.node("Add", network.conv(x, 64, 64), x))
    return x


def _arithmetic(network: Network) -> str:
    x = INPUT
    for kind in ("Add", "Mul", "Sub", "Max"):
        x = network.node(kind, network.node("Abs", x), x)
    return x


def _shuffle(network: Network) -> str:
    x = INPUT
    for _ in range(3):
        x = network.node("Reshape", x, network.integers(1, 2, 32, 28, 28))
        x = network.node("Reshape", network.node("Transpose", x, perm=[0, 2, 1, 3, 4]), network.integers(1, 64, 28, 28))
    return x


def _concatenation(network: Network) -> str:
    x = INPUT
    for _ in range(3):
        ends, axis = [(0, 16), (16, 64)], network.integers(1)
        parts = [network.node("Slice", x, network.integers(a), network.integers(b), axis) for a, b in ends]
        x = network.node("Concat", *reversed(parts), axis=1)
    return x


def _swish(network: Network) -> str:
    x = INPUT
    for _ in range(3):
        x = network.conv(x, 32, 32)
        x = network.node("Mul", x, network.node("Sigmoid", x))
    return x


def _attention(network: Network) -> str:
    x = INPUT
    for _ in range(2):
        scores = network.node("MatMul", x, network.node("Transpose", x, perm=[0, 1, 3, 2]))
        x = network.node("MatMul", network.node("Softmax", scores, axis=-1), x)
    return x


def _projections(width: int, times: int) -> Callable[[Network], str]:
    def layers(network: Network) -> str:
        x = INPUT
        for _ in range(times):
            x = network.node("MatMul", x, network.weight((width, width), width**-0.5))
        return x

    return layers


def _dense(*widths: int) -> Callable[[Network], str]:
    def layers(network: Network) -> str:
        x = INPUT
        for inside, outside in pairwise(widths):
            x = network.dense(x, inside, outside)
        return x

    return layers


def _normalized(network: Network) -> str:
    x = INPUT
    for _ in range(3):
        x = network.node("LayerNormalization", x, network.weight((256,)), network.weight((256,)), axis=-1)
    return x


def micro_networks() -> tuple[Sample, ...]:
    """Return the tiny networks, the most informative first: the last ones are left out if the budget ends."""
    return (
        _chain(1, (64, 64, 64, 64), 28, urgent=True),
        _chain(3, (64, 64, 64), 28, urgent=True),
        _chain(3, (32, 64), 56, stride=2, urgent=True),
        _chain(3, (3, 32), 112, stride=2, urgent=True),
        _chain(3, (144, 144, 144), 28, groups=0, urgent=True),
        _chain(3, (96, 96), 56, stride=2, groups=0, urgent=True),
        _sample("dense-1024-1000", (1, 1024), _dense(1024, 1000), urgent=True),
        _many_tiny(64, urgent=True),
        _sample("arithmetic-64-at-56", (1, 64, 56, 56), _arithmetic, urgent=True),
        _repeat("Sigmoid", 64, 28, 3, urgent=True),
        _repeat("MaxPool", 32, 56, 3, urgent=True, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        _sample("projections-256", (1, 64, 256), _projections(256, 2), urgent=True),
        _sample("shuffle-64-at-28", (1, 64, 28, 28), _shuffle, urgent=True),
        _chain(1, (32, 192, 32), 56),
        _chain(1, (256, 256, 256), 14),
        _chain(1, (512, 512), 7),
        _chain(3, (16, 16, 16), 56),
        _chain(3, (128, 128), 14),
        _chain(3, (256, 256), 7),
        _sample("swish-32-at-56", (1, 32, 56, 56), _swish),
        _sample("residual-64-at-28", (1, 64, 28, 28), _residual),
        _sample("concatenation-64-at-28", (1, 64, 28, 28), _concatenation),
        _chain(3, (32, 32, 32), 56, groups=0),
        _chain(3, (384, 384, 384), 14, groups=0),
        _chain(5, (120, 120, 120), 28, groups=0),
        _chain(3, (128, 256), 14, stride=2),
        _chain(5, (32, 32), 28),
        _chain(1, (24, 144, 24, 144, 24), 28),
        _chain(3, (3, 16), 64),
        _chain(3, (64, 64, 64), 28, groups=4),
        _chain(1, (240, 240, 240), 28, groups=3),
        _sample("dense-2048-1000", (1, 2048), _dense(2048, 1000)),
        _sample("dense-256-four", (1, 256), _dense(256, 256, 256, 256, 256)),
        _sample("attention-4-heads", (1, 4, 64, 32), _attention),
        _sample("normalization-256", (1, 64, 256), _normalized),
        _sample("tiny-convolutions-24", (1, 8, 4, 4), _tiny_convolutions),
        _many_tiny(160),
        _repeat("Erf", 64, 28, 3),
        _repeat("Softmax", 64, 28, 3, axis=-1),
        _repeat("AveragePool", 64, 28, 3, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        _chain(3, (192, 192), 28, stride=2, groups=0),
        _chain(7, (3, 64), 64, stride=2),
        _chain(5, (64, 64), 14),
        _chain(1, (960, 160, 960), 7),
        _sample("projections-512", (1, 32, 512), _projections(512, 1)),
    )


def _resnet(network: Network) -> str:
    """Return eight layers in the style of He et al., CVPR 2016, for images of 32 pixels."""
    x, width = network.node("Relu", network.conv(INPUT, 3, 16, 3)), 16
    for outside, stride in ((16, 1), (32, 2), (64, 2)):
        y = network.node("Relu", network.conv(x, width, outside, 3, stride=stride))
        y = network.conv(y, outside, outside, 3)
        shortcut = x if stride == 1 else network.conv(x, width, outside, 1, stride=stride)
        x, width = network.node("Relu", network.node("Add", y, shortcut)), outside
    return network.dense(network.flat(x), 64, 10)


def _inverted(
    network: Network, x: str, inside: int, outside: int, stride: int, kernel: int, activation: Callable[[str], str]
) -> str:
    wide = 4 * inside
    y = activation(network.conv(x, inside, wide))
    y = activation(network.conv(y, wide, wide, kernel, stride=stride, groups=wide))
    y = network.conv(y, wide, outside)
    return network.node("Add", x, y) if stride == 1 and inside == outside else y


def _mobilenet(network: Network) -> str:
    """Return inverted residuals in the style of Sandler et al., CVPR 2018, for images of 96 pixels."""

    def relu(x: str) -> str:
        return network.node("Relu", x)

    x, inside = relu(network.conv(INPUT, 3, 16, 3, stride=2)), 16
    for outside, stride in ((16, 1), (24, 2), (24, 1), (40, 2), (40, 1), (80, 2), (80, 1)):
        x, inside = _inverted(network, x, inside, outside, stride, 3, relu), outside
    return network.dense(network.flat(relu(network.conv(x, 80, 320))), 320, 100)


def _efficientnet(network: Network) -> str:
    """Return inverted residuals with swish, 5x5 kernels and squeeze-and-excitation, in the style of Tan and Le, ICML 2019."""

    def swish(x: str) -> str:
        return network.node("Mul", x, network.node("Sigmoid", x))

    x, inside = swish(network.conv(INPUT, 3, 24, 3, stride=2)), 24
    for outside, stride, kernel in ((24, 1, 3), (32, 2, 5), (32, 1, 5), (64, 2, 3), (64, 1, 5)):
        x, inside = _inverted(network, x, inside, outside, stride, kernel, swish), outside
        squeezed = swish(network.conv(network.node("GlobalAveragePool", x), outside, outside // 4))
        x = network.node("Mul", x, network.node("Sigmoid", network.conv(squeezed, outside // 4, outside)))
    return network.dense(network.flat(x), 64, 100)


def _squeezenet(network: Network) -> str:
    """Return fire modules in the style of Iandola et al., arXiv:1602.07360, for images of 96 pixels."""
    x = network.node("Relu", network.conv(INPUT, 3, 32, 3, stride=2))
    inside = 32
    for squeezed, expanded in ((16, 48), (24, 64), (32, 96)):
        x = network.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
        x = network.node("Relu", network.conv(x, inside, squeezed))
        sides = [network.node("Relu", network.conv(x, squeezed, expanded, kernel)) for kernel in (1, 3)]
        x, inside = network.node("Concat", *sides, axis=1), 2 * expanded
    return network.flat(network.conv(x, inside, 100))


def _perceptron(network: Network) -> str:
    x = network.node("Relu", network.dense(INPUT, 784, 512))
    return network.dense(network.node("Relu", network.dense(x, 512, 512)), 512, 10)


def real_networks() -> tuple[Sample, ...]:
    """Return small realistic networks, on which the fitted model is validated."""
    return (
        _sample("resnet-8", (1, 3, 32, 32), _resnet, urgent=True),
        _sample("mobilenet-v2-like", (1, 3, 96, 96), _mobilenet, urgent=True),
        _sample("efficientnet-like", (1, 3, 96, 96), _efficientnet),
        _sample("squeezenet-like", (1, 3, 96, 96), _squeezenet, urgent=True),
        _sample("perceptron", (1, 784), _perceptron),
    )


STAIRCASE = (32, 36, 40, 48)


def staircase_networks() -> tuple[Sample, ...]:
    """Return the same convolutions with the numbers of channels of STAIRCASE, and last with 33 for comparison.

    Kernels that work on blocks of channels take as long for 33 as for the block's end.
    """
    return tuple(_chain(1, (64, c, 64, c, 64), 28) for c in (*STAIRCASE, STAIRCASE_FIRST))
