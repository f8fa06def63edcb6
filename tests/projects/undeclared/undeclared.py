from orchestrator.plugin import OnnxMethod, hookimpl


class Undeclared(OnnxMethod):
    def transform(self, model, parameters, context):
        return model


@hookimpl
def orchestrator_methods():
    return [Undeclared()]
