"""Tables of ONNX operators for the latency model. Standard: https://onnx.ai/onnx/operators/.

The names of onnxruntime's own operators (domain com.microsoft) are unique among them.
"""


def words(*lines: str) -> frozenset[str]:
    """Return the words of some lines: operators by name."""
    return frozenset(word for line in lines for word in line.split())


MAC_OPERATORS = words(
    "Conv ConvTranspose Gemm MatMul RNN GRU LSTM",
    "ConvInteger MatMulInteger QLinearConv QLinearMatMul",
    "FusedConv FusedGemm FusedMatMul QGemm DynamicQuantizeMatMul MatMulIntegerToFloat MatMulNBits",
)
"""Operators whose time is arithmetic: multiply-accumulates are counted for these."""

WEIGHT_INPUT = dict.fromkeys(MAC_OPERATORS, 1) | {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}
"""Index of the input that holds the weights (or the second matrix)."""

INT8_OPERATORS = words(
    "ConvInteger MatMulInteger QLinearConv QLinearMatMul QGemm DynamicQuantizeMatMul MatMulIntegerToFloat",
    "QLinearAdd QLinearMul QLinearConcat QLinearGlobalAveragePool QLinearAveragePool QLinearLeakyRelu QLinearSigmoid",
    "QLinearSoftmax QLinearWhere QLinearReduceMean",
)
"""Operators that compute on 8-bit integers by their name (the QOperator form)."""

QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})

# Views, and operators that a runtime evaluates when it loads the file: no time of their own.
FREE_OPERATORS = words("Constant ConstantOfShape Dropout Flatten Identity Reshape Shape Size Squeeze Unsqueeze")

# Operators that runtimes fuse into a convolution or matrix product.
ACTIVATIONS = words("Clip HardSigmoid HardSwish LeakyRelu PRelu Relu Sigmoid Tanh")
GATES = frozenset({"Sigmoid", "HardSigmoid"})

# Operators that read only as much as they write, regardless of the size of their table.
SELECTIONS = words("Gather GatherElements GatherND Slice")

WEIGHT_POSITIONS = {
    "QuantizeLinear": (0,),
    "DequantizeLinear": (0,),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (0, 3),
    "QLinearAdd": (0, 3),
    "QLinearMul": (0, 3),
    "QGemm": (0, 3, 6),
    "ConvInteger": (1,),
    "MatMulInteger": (0, 1),
    "DynamicQuantizeMatMul": (1, 4),
    "MatMulIntegerToFloat": (1, 6),
    "MatMulNBits": (1, 5),
    "Clip": (),
    "Pad": (0,),
    "Resize": (0,),
    "Upsample": (0,),
    "Dropout": (0,),
}
"""Inputs that can hold parameters of the network; others are settings (scales, zero points, limits)."""

MEMORY_OPERATORS = words(
    "Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitShift BitwiseAnd",
    "BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu CenterCropPad Clip Compress Concat ConcatFromSequence Cos",
    "Cosh CumSum DepthToSpace DequantizeLinear Div DynamicQuantizeLinear Elu Equal Erf Exp Expand EyeLike Floor Gather",
    "GatherElements GatherND Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual",
    "GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization IsInf IsNaN LRN LayerNormalization",
    "LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool Max MaxPool MaxUnpool Mean",
    "MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow QuantizeLinear RMSNormalization",
    "RandomNormalLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin",
    "ReduceProd ReduceSum ReduceSumSquare Relu Resize ReverseSequence RotaryEmbedding Round ScatterElements ScatterND",
    "Selu Shrink Sigmoid Sign Sin Sinh Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Sub Sum Swish Tan Tanh",
    "ThresholdedRelu Tile TopK Transpose Trilu Upsample Where Xor",
    "BiasGelu BiasSoftmax EmbedLayerNormalization FastGelu QLinearAdd QLinearAveragePool QLinearConcat",
    "QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere",
    "QuickGelu SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization",
)
"""Operators without matrix products: their time is memory traffic, and for some a function of each element."""

KNOWN_OPERATORS = MAC_OPERATORS | MEMORY_OPERATORS | FREE_OPERATORS
