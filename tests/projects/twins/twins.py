from orchestrator.plugin import Runtime, hookimpl


class Twin(Runtime):
    """onnxruntime without its graph optimizations: another runtime as far as anybody can tell."""

    name = "twin"
    imports = ("onnxruntime",)

    def version(self):
        return "1.0"

    @staticmethod
    def load(path, threads, options):
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, inputs)


class Foreign(Twin):
    name, suffix = "foreign", ".bin"


class Converting(Twin):
    """Files of its own that are called .onnx too: what the others run is not what it would be given."""

    name = "converting"

    def convert(self, model, folder):
        return folder / "own.onnx"


@hookimpl
def orchestrator_runtimes():
    return [Twin(), Foreign(), Converting()]
