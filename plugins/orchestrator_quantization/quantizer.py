"""Quantizer of one float graph to static INT8, with the calibration of its activation ranges.

onnx and onnxruntime are imported on use.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.plugin import BuildContext, MethodError, ParameterValues, Target
from orchestrator_quantization.int8 import saturates
from orchestrator_quantization.model_files import weight_elements

if TYPE_CHECKING:
    from orchestrator.plugin.onnx_graph import Array, OnnxGraph

WEIGHTED = ["Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"]
"""Operators with weights, quantized in every network."""

BETWEEN = [
    *("Add", "Mul", "Concat", "Relu", "LeakyRelu", "Clip", "Sigmoid"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Pad"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Split", "Slice"),
]
"""Operators quantized besides in convolutional networks, so that integers flow from one convolution to the next. Not in others:
attention adds masks of -3e38 and sums what a layer norm needs exactly (MiniLM falls from cosine 0.94 to 0.36)."""

BATCH = 16
"""Calibration examples whose activations are in memory at a time: histograms are merged batch by batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizerSettings:
    """Parameters of static INT8 quantization.

    Attributes:
        scheme: Integer types of activations and weights ("u8s8").
        form: "qdq" or "qoperator".
        seven_bits: True to limit signed weights to -64..64.
        calibration: Range of an activation: "minmax", "percentile" or "entropy".
        examples: Number of calibration examples.
        per_channel: True for one weight scale per output channel, False for one per tensor.
        symmetric: True for a zero point of 0 of signed activations; unsigned ones always have a free one.
        float_layers: Number of the most sensitive layers that stay in float.
        first_float: True if convolutions that read the network's input stay in float.
        equalisation: True to equalise the ranges of channels between convolutions first.
        bias_correction: True to correct biases by the mean error of the weights.
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
    def of(cls, parameters: ParameterValues, target: Target) -> "QuantizerSettings":
        """Return the settings of a step's parameters on a target; absent parameters have the default."""
        names = ("calibration", "examples", "float_layers", "equalisation", "bias_correction")
        chosen: dict[str, Any] = {name: parameters[name] for name in names if name in parameters}
        for name, parameter, value in (
            ("per_channel", "granularity", "channel"),
            ("symmetric", "symmetry", "symmetric"),
            ("first_float", "first_layer", "float32"),
        ):
            if parameter in parameters:
                chosen[name] = parameters[parameter] == value
        scheme = str(parameters["scheme"])
        seven_bits = scheme.endswith("s8") and saturates(target)
        return cls(scheme=scheme, form=str(parameters["form"]), seven_bits=seven_bits, **chosen)

    @property
    def key(self) -> str:
        """All settings that the integers of a layer depend on: the key of a table of sensitivities."""
        return (
            f"{self.scheme} {self.calibration} {self.examples} channel={self.per_channel} symmetric={self.symmetric} "
            f"seven={self.seven_bits} equalised={self.equalisation}"
        )


class Quantizer:
    """Writer of quantized files of one float graph, whose ranges are calibrated once, on first use.

    Args:
        ready: The prepared file of `graph` before any correction.
        graph: The graph to write; later changes of its biases are included.
        settings: Settings.
        batches: Calibration batches.
        scratch: An existing folder.
    """

    def __init__(
        self, ready: Path, graph: "OnnxGraph", settings: QuantizerSettings, batches: "CalibrationBatches", scratch: Path
    ) -> None:
        self.ready, self.graph, self.batches = ready, graph, batches
        self._settings, self._scratch = settings, scratch
        elements = weight_elements(graph.model)
        convolutional = 2 * (elements.get("Conv", 0) + elements.get("ConvTranspose", 0)) >= sum(elements.values())
        self._operators = [*WEIGHTED, *BETWEEN] if convolutional else WEIGHTED
        self._ranges: Any = None

    def write(self, *, form: str, floating: Iterable[str] = (), only: Iterable[str] = (), path: Path | None = None) -> Path:
        """Write a quantized file and return its path.

        Args:
            form: "qdq" or "qoperator".
            floating: Names of nodes that stay in float.
            only: Names of the only nodes to quantize; empty: all.
            path: Path of the file; None: a scratch file, overwritten by the next call.
        """
        from onnxruntime.quantization import QDQQuantizer, QuantizationMode, QuantType
        from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer

        types = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
        activation, weight = types[self._settings.scheme[:2]], types[self._settings.scheme[2:]]
        options = (weight, activation, self._calibrated_ranges(), list(only), sorted(floating), self._operators)
        # A free zero point costs signed kernels time on some cores; see the parameter `symmetry`.
        extra = {"ActivationSymmetric": self._settings.scheme.startswith("s8") and self._settings.symmetric}
        model = copy.deepcopy(self.graph.model)
        weights = (self._settings.per_channel, self._settings.seven_bits)
        quantizer = (
            QDQQuantizer(model, *weights, *options, extra)
            if form == "qdq"
            else ONNXQuantizer(model, *weights, QuantizationMode.QLinearOps, True, *options, extra)
        )
        quantizer.quantize_model()
        written = path or self._scratch / "quantized.onnx"
        quantizer.model.save_model_to_file(str(written), False)
        return written

    def _calibrated_ranges(self) -> Any:
        """Return the ranges of all activations, as onnxruntime's quantizers take them."""
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
                calibrator.collect_data(_BatchReader(batch))
            self._ranges = calibrator.compute_data()
        return self._ranges


class CalibrationBatches:
    """Calibration batches for the inputs of a model, in memory for several passes.

    Raises:
        MethodError: There is no complete batch.
    """

    def __init__(self, model: Any, examples: int, context: BuildContext, method: str) -> None:
        constants = {tensor.name for tensor in model.graph.initializer}
        inputs = [i for i in model.graph.input if i.name not in constants]
        sizes = [i.type.tensor_type.shape.dim[0].dim_value for i in inputs if i.type.tensor_type.shape.dim]
        fixed = next((size for size in sizes if size > 0), None)
        batch = fixed or BATCH
        names = {i.name for i in inputs}
        self._batches: list[dict[str, Array]] = [
            {name: array for name, array in arrays.items() if name in names}
            for arrays in context.calibration(examples, batch)
            if fixed is None or len(next(iter(arrays.values()))) == fixed
        ]
        if not self._batches:
            raise MethodError(f"{method}: calibration has no complete batch of {batch} examples; add some")

    def __iter__(self) -> "Iterator[dict[str, Array]]":
        return iter(self._batches)


class _BatchReader:
    """Data reader of one batch for onnxruntime's calibrators, which accumulate after each."""

    def __init__(self, batch: "Mapping[str, Array]") -> None:
        self._batches = [batch]

    def get_next(self) -> "Mapping[str, Array] | None":
        """Return the batch, then None."""
        return self._batches.pop() if self._batches else None
