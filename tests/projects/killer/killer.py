import ctypes

from orchestrator.plugin import OnnxMethod, hookimpl


class Killer(OnnxMethod):
    name, version, family, summary = "killer", 1, "killer", "kills the worker"

    def transform(self, model, parameters, context):
        ctypes.string_at(0)


@hookimpl
def orchestrator_methods():
    return [Killer()]
