import ctypes
import time

import onnx

from orchestrator.plugin import MethodError, OnnxMethod, hookimpl


class Rogue(OnnxMethod):
    version = 1
    family = "rogue"
    summary = "misbehaves"

    def transform(self, model, parameters, context):
        getattr(self, self.name.partition("-")[2].replace("-", "_"))()
        return model

    def exception(self):
        raise RuntimeError("first line\nsecond line")

    def refusal(self):
        raise MethodError("not on this network")

    def segfault(self):
        ctypes.string_at(0)

    def exit(self):
        raise SystemExit(3)

    def hang(self):
        time.sleep(3600)

    def memory(self):
        held = []
        while True:
            held.append(bytearray(50_000_000))


class Ruins(Rogue):
    def transform(self, model, parameters, context):
        loaded = onnx.load(model)
        kind = self.name.partition("-")[2]
        if kind == "nan":
            for tensor in loaded.graph.initializer:
                if tensor.data_type == onnx.TensorProto.FLOAT:
                    array = onnx.numpy_helper.to_array(tensor) * float("nan")
                    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        else:
            loaded.graph.node[0].op_type = "NoSuchOperator"
        path = context.workspace / "ruined.onnx"
        onnx.save(loaded, path)
        return path


def make(base, kind):
    return type("Made", (base,), {"name": f"rogue-{kind}"})()


@hookimpl
def orchestrator_methods():
    kinds = ("exception", "refusal", "segfault", "exit", "hang", "memory")
    return [make(Rogue, kind) for kind in kinds] + [make(Ruins, kind) for kind in ("nan", "unloadable")]


@hookimpl
def orchestrator_check_recipe(recipe, target):
    forbidden = any(step.method == "rogue-refusal" for step in recipe.steps)
    return ["the law forbids it"] if forbidden else []


@hookimpl
def orchestrator_trial_finished(trial):
    raise ValueError("an observer that fails")
