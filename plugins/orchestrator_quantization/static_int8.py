"""Static INT8: ranges of activations are fixed beforehand on calibration data.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Need,
    OnnxMethod,
    Parameter,
    ParameterValue,
    Refused,
    Target,
    narrowed,
)
from orchestrator_quantization.int8 import prepared, quantizing, read, saturates, supported, tried, weights

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


class StaticInt8(OnnxMethod):
    """INT8 activations and weights, weights with one scale per channel."""

    name = "static-int8"
    version = 1
    family = "quantization"
    summary = "INT8 activations and weights with ranges from calibration data (Jacob et al. 2018)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Choice(
            name="scheme",
            help="integer types of activations and weights, u: unsigned with a zero point, s: signed",
            choices=("u8s8", "s8s8", "u8u8"),
        ),
        Choice(
            name="form",
            help="qdq: float operators between (de)quantizers, for the runtime to fuse; qoperator: integer operators",
            choices=("qdq", "qoperator"),
        ),
        Choice(
            name="calibration",
            help="range of an activation: minmax, all but the outermost 0.001 % of values (percentile), "
            "or least loss of information (entropy)",
            choices=("minmax", "percentile", "entropy"),
        ),
        Choice(name="examples", help="calibration examples", choices=(128, 512)),
    )
    needs = frozenset({Need.CALIBRATION})
    after = frozenset({"pruning", "morphology", "distillation"})

    def legal(self, target: Target) -> tuple[Parameter, ...]:
        supported(target, self.name)
        schemes = tuple(s for s in ("u8s8", "s8s8", "u8u8") if s in target.support.int8_schemes)
        if not schemes:
            raise Refused(f"{self.name}: the profile {target.profile.name} lists no int8 scheme for {target.runtime}")
        best_first = tuple(s for s in target.support.int8_schemes if s in schemes)
        # Integer operators are onnxruntime's own; other runtimes read the standard's QDQ only.
        forms = ("qdq", "qoperator") if target.runtime == "onnxruntime" else ("qdq",)
        return narrowed(self.parameters, scheme={"choices": best_first}, form={"choices": forms})

    def offer(self, model: Path, parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        held = weights(read(model, self.name))
        quantized, whole = sum(held.get(kind, 0) for kind in PRODUCTS), sum(held.values())
        if not quantized or 2 * quantized < whole:
            raise Refused(
                f"{self.name}: convolutions and matrix products hold {quantized} of the {whole} weights; the others would stay "
                f"in float"
            )
        return parameters

    def transform(self, model: Path, parameters: Mapping[str, ParameterValue], context: BuildContext) -> Path:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        ready = prepared(model, context, self.name)
        held = weights(read(ready, self.name))
        convolutional = 2 * (held.get("Conv", 0) + held.get("ConvTranspose", 0)) >= sum(held.values())
        output = context.workspace / f"{self.name}.onnx"
        activation, weight = str(parameters["scheme"])[:2], str(parameters["scheme"])[2:]
        types = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
        calibration = {
            "minmax": CalibrationMethod.MinMax,
            "percentile": CalibrationMethod.Percentile,
            "entropy": CalibrationMethod.Entropy,
        }
        with quantizing(self.name):
            quantize_static(
                str(ready),
                str(output),
                _Reader(ready, int(parameters["examples"]), context),
                quant_format=QuantFormat.QDQ if parameters["form"] == "qdq" else QuantFormat.QOperator,
                op_types_to_quantize=[*PRODUCTS, *BETWEEN] if convolutional else PRODUCTS,
                per_channel=True,
                reduce_range=weight == "s8" and saturates(context.target),
                activation_type=types[activation],
                weight_type=types[weight],
                calibrate_method=calibration[str(parameters["calibration"])],
                extra_options={
                    # A signed zero point other than 0 keeps the fast signed kernels away and buys nothing.
                    "ActivationSymmetric": activation == "s8",
                    "CalibStridedMinMax": 1,
                },
            )
        ready.unlink()
        return tried(output, context, self.name)


class _Reader:
    """Calibration batches as onnxruntime asks for them: by position, so that one batch is held at a time."""

    def __init__(self, model: Path, examples: int, context: BuildContext) -> None:
        import onnx

        graph = onnx.load(str(model), load_external_data=False).graph
        constants = {tensor.name for tensor in graph.initializer}
        inputs = [i for i in graph.input if i.name not in constants]
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
            raise MethodError(f"static-int8: calibration has no whole batch of {batch} examples; add some")
        self._next, self._end = 0, len(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next, self._end = start_index, end_index

    def get_next(self) -> dict[str, Any] | None:
        if self._next >= self._end:
            return None
        self._next += 1
        return self._batches[self._next - 1]
