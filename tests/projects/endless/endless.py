import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from orchestrator.plugin import OnnxMethod, hookimpl


class Endless(OnnxMethod):
    name = "endless"
    version = 1
    family = "endless"
    summary = "makes a model that never answers"

    def transform(self, model, parameters, context):
        loaded = onnx.load(model)
        (last,) = [node for node in loaded.graph.node if "logits" in node.output]
        last.output[0] = "before"
        value = helper.make_tensor_value_info
        body = helper.make_graph(
            [helper.make_node("Identity", ["going"], ["go"]), helper.make_node("Identity", ["in"], ["out"])],
            "body",
            [value("k", TensorProto.INT64, []), value("going", TensorProto.BOOL, []), value("in", TensorProto.FLOAT, None)],
            [value("go", TensorProto.BOOL, []), value("out", TensorProto.FLOAT, None)],
        )
        loaded.graph.initializer.append(numpy_helper.from_array(np.array(10**15, np.int64), "often"))
        loaded.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        loaded.graph.node.append(helper.make_node("Loop", ["often", "yes", "before"], ["logits"], body=body))
        path = context.workspace / "endless.onnx"
        onnx.save(loaded, path)
        return path


@hookimpl
def orchestrator_methods():
    return [Endless()]
