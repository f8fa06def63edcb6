from orchestrator.plugin import OnnxMethod, hookimpl


class Mine(OnnxMethod):
    name, version, family, summary = "mine", 1, "mine", "copies the file"

    def transform(self, model, parameters, context):
        context.workspace.mkdir(parents=True, exist_ok=True)
        path = context.workspace / "copied.onnx"
        path.write_bytes(model.read_bytes())
        return path


@hookimpl
def orchestrator_methods():
    return [Mine()]
