import ctypes

from orchestrator.plugin import OnnxMethod, hookimpl


class Missing(OnnxMethod):
    name, version, family, summary = "awkward-missing", 1, "awkward", "names a file that it never wrote"

    def transform(self, model, parameters, context):
        return context.workspace / "never-written.onnx"


class Deadly(OnnxMethod):
    name, version, family, summary = "awkward-deadly", 1, "awkward", "dies when it is asked"

    def offer(self, model, parameters, context):
        ctypes.string_at(0)

    def transform(self, model, parameters, context):
        return model


class Undeclared(OnnxMethod):
    def transform(self, model, parameters, context):
        return model


@hookimpl
def orchestrator_methods():
    return [Missing(), Deadly()]


@hookimpl
def orchestrator_check_recipe(recipe, target):
    raise RuntimeError("I cannot judge")
