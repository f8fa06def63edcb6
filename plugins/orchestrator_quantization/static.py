"""Static INT8 of a float file: ranges of activations are measured on calibration data, then integers are written.

Shared by the methods that end in it. Nothing of onnx or onnxruntime is imported before a file is at hand.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.plugin import BuildContext, MethodError, ParameterValue, Target
from orchestrator_quantization.files import prepared, quantizing, read, tried, weights
from orchestrator_quantization.int8 import saturates

if TYPE_CHECKING:
    from orchestrator_quantization.graph import Graph

PRODUCTS = ["Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"]
"""What is quantized in every network: what holds the weights."""

BETWEEN = [
    *("Add", "Mul", "Concat", "Relu", "LeakyRelu", "Clip", "Sigmoid"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Pad"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Split", "Slice"),
]
"""What is quantized besides in convolutional networks, so that integers flow from one convolution to the next. Not in others:
attention adds masks of -3e38 and sums what a layer norm needs exactly (MiniLM falls from cosine 0.94 to 0.36)."""

BATCH = 16
"""Examples that calibration holds the activations of at a time: histograms are merged batch by batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizerSettings:
    """How the numbers of a network become integers.

    Attributes:
        scheme: Integer types of activations and weights ("u8s8").
        form: "qdq" or "qoperator".
        calibration: How the range of an activation is found.
        examples: Calibration examples.
        per_channel: Whether each output channel has a weight scale of its own.
        symmetric: Whether the zero point of signed activations is 0; unsigned ones have a free one always.
        seven_bits: Whether signed weights keep to -64..64.
        float_layers: How many of the most sensitive layers stay in float.
        first_float: Whether convolutions that read the network's input stay in float.
        equalisation: Whether channels are equalised across convolutions first.
        bias_correction: Whether biases make up for the mean error of the weights.
    """

    scheme: str
    form: str
    seven_bits: bool
    calibration: str = "minmax"
    examples: int = 512
    per_channel: bool = True
    symmetric: bool = True
    float_layers: int = 0
    first_float: bool = False
    equalisation: bool = False
    bias_correction: bool = False

    @classmethod
    def of(cls, parameters: Mapping[str, ParameterValue], target: Target) -> "QuantizerSettings":
        """The settings that a step's parameters and its target ask for; what is not among them stays at its default."""
        scheme = str(parameters["scheme"])
        chosen: dict[str, Any] = {
            "calibration": parameters.get("calibration"),
            "examples": parameters.get("examples"),
            "float_layers": parameters.get("float_layers"),
            "equalisation": parameters.get("equalisation"),
            "bias_correction": parameters.get("bias_correction"),
            "per_channel": parameters["granularity"] == "channel" if "granularity" in parameters else None,
            "symmetric": parameters["symmetry"] == "symmetric" if "symmetry" in parameters else None,
            "first_float": parameters["first_layer"] == "float32" if "first_layer" in parameters else None,
        }
        return cls(
            scheme=scheme,
            form=str(parameters["form"]),
            seven_bits=scheme.endswith("s8") and saturates(target),
            **{name: value for name, value in chosen.items() if value is not None},
        )

    @property
    def activations(self) -> str:
        """What fixes the integers of a layer, in words: the key of a table of sensitivities."""
        return (
            f"{self.scheme} {self.calibration} {self.examples} channel={self.per_channel} symmetric={self.symmetric} "
            f"seven={self.seven_bits} equalised={self.equalisation}"
        )


def quantized(model: Path, settings: QuantizerSettings, context: BuildContext, method: str) -> Path:
    """The quantized file, `context.workspace / "METHOD.onnx"`; the file at `model` is left as it is.

    Raises:
        MethodError: it cannot be done on this network, with the reason.
    """
    from orchestrator_quantization.graph import Graph

    ready = prepared(model, context, method)
    graph = Graph(read(ready, method))
    batches = CalibrationBatches(graph.model, settings.examples, context, method)
    output = context.workspace / f"{method}.onnx"
    with quantizing(method), tempfile.TemporaryDirectory(dir=context.workspace) as scratch:
        if settings.equalisation:
            _equalise(graph, ready)
        quantizer = Quantizer(ready, graph, settings, batches, Path(scratch))
        digest = hashlib.sha256(model.read_bytes()).hexdigest()[:16]
        floating = _floating(graph, quantizer, settings, context, method, digest)
        if settings.bias_correction:
            from orchestrator_quantization.bias import correct

            correct(graph, quantizer.write(form="qdq", floating=floating), batches)
        quantizer.write(form=settings.form, floating=floating, path=output)
    ready.unlink()
    return tried(output, context, method)


def _equalise(graph: "Graph", ready: Path) -> None:
    import onnx

    from orchestrator_quantization.equalisation import equalise

    if equalise(graph):
        onnx.save(graph.model, str(ready))


def _floating(
    graph: "Graph", quantizer: "Quantizer", settings: QuantizerSettings, context: BuildContext, method: str, digest: str
) -> set[str]:
    """Names of the nodes that stay in float."""
    chosen = {node.name for node in graph.first_convolutions()} if settings.first_float else set()
    layers = [node.name for node in graph.layers()]
    others = [name for name in layers if name not in chosen]
    if not others:
        raise MethodError(f"{method}: all {len(layers)} layers with weights would stay in float")
    if settings.float_layers >= len(others):
        raise MethodError(
            f"{method}: float_layers < {len(others)} must hold, the layers with weights that would be INT8, "
            f"but got float_layers={settings.float_layers}"
        )
    if settings.float_layers:
        from orchestrator_quantization.sensitivity import sensitivities

        table = context.remember(
            f"sensitivity {settings.activations} {digest}", partial(sensitivities, quantizer, layers, quantizer.batches)
        )
        # The stable sort keeps the order of computation among equals.
        chosen |= set(sorted(others, key=lambda name: -float(table[name]))[: settings.float_layers])
    return graph.with_activations(chosen)


class Quantizer:
    """Writes quantized files of one float graph, whose ranges are measured once, when they are first needed.

    Args:
        ready: The file of `graph` as it is before any correction.
        graph: What is written; a change of its biases is seen by the next `write`.
        scratch: An existing folder.
    """

    def __init__(
        self, ready: Path, graph: "Graph", settings: QuantizerSettings, batches: "CalibrationBatches", scratch: Path
    ) -> None:
        self.ready, self.graph, self.batches = ready, graph, batches
        self._settings, self._scratch = settings, scratch
        held = weights(graph.model)
        convolutional = 2 * (held.get("Conv", 0) + held.get("ConvTranspose", 0)) >= sum(held.values())
        self._operators = [*PRODUCTS, *BETWEEN] if convolutional else PRODUCTS
        self._ranges: Any = None

    def write(self, *, form: str, floating: Iterable[str] = (), only: Iterable[str] = (), path: Path | None = None) -> Path:
        """A quantized file.

        Args:
            form: "qdq" or "qoperator".
            floating: Names of nodes that stay in float.
            only: Where not empty, the only nodes that are quantized.
            path: Of the file; None: a scratch file, overwritten by the next call.
        """
        import copy

        from onnxruntime.quantization import QDQQuantizer, QuantizationMode, QuantType
        from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer

        types = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
        activation, weight = types[self._settings.scheme[:2]], types[self._settings.scheme[2:]]
        options = (weight, activation, self._measured(), list(only), sorted(floating), self._operators)
        # A free zero point costs signed kernels time on some cores; see the parameter `symmetry`.
        extra = {"ActivationSymmetric": self._settings.scheme.startswith("s8") and self._settings.symmetric}
        model = copy.deepcopy(self.graph.model)
        how = (self._settings.per_channel, self._settings.seven_bits)
        quantizer = (
            QDQQuantizer(model, *how, *options, extra)
            if form == "qdq"
            else ONNXQuantizer(model, *how, QuantizationMode.QLinearOps, True, *options, extra)
        )
        quantizer.quantize_model()
        written = path or self._scratch / "quantized.onnx"
        quantizer.model.save_model_to_file(str(written), False)
        return written

    def _measured(self) -> Any:
        """Ranges of all activations, as onnxruntime's quantizers take them."""
        if self._ranges is None:
            from onnxruntime.quantization import CalibrationMethod, create_calibrator

            calibrations = {
                "minmax": CalibrationMethod.MinMax,
                "percentile": CalibrationMethod.Percentile,
                "entropy": CalibrationMethod.Entropy,
            }
            calibrator = create_calibrator(
                self.ready,
                self._operators,
                augmented_model_path=str(self._scratch / "augmented.onnx"),
                calibrate_method=calibrations[self._settings.calibration],
            )
            for batch in self.batches:
                calibrator.collect_data(_Single(batch))
            self._ranges = calibrator.compute_data()
        return self._ranges


class CalibrationBatches:
    """Calibration batches that a file takes, held for several passes.

    Raises:
        MethodError: there is no whole batch.
    """

    def __init__(self, model: Any, examples: int, context: BuildContext, method: str) -> None:
        constants = {tensor.name for tensor in model.graph.initializer}
        inputs = [i for i in model.graph.input if i.name not in constants]
        sizes = [i.type.tensor_type.shape.dim[0].dim_value for i in inputs if i.type.tensor_type.shape.dim]
        fixed = next((size for size in sizes if size > 0), None)
        batch = fixed or BATCH
        names = {i.name for i in inputs}
        self._batches = [
            {name: array for name, array in arrays.items() if name in names}
            for arrays in context.calibration(examples, batch)
            if fixed is None or len(next(iter(arrays.values()))) == fixed
        ]
        if not self._batches:
            raise MethodError(f"{method}: calibration has no whole batch of {batch} examples; add some")

    def __iter__(self) -> Any:
        return iter(self._batches)


class _Single:
    """One batch as onnxruntime's calibrators ask for it: they sum up after each."""

    def __init__(self, batch: Any) -> None:
        self._left = [batch]

    def get_next(self) -> Any:
        return self._left.pop() if self._left else None
