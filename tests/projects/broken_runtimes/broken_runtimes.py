from orchestrator.plugin import Refused, Runtime, hookimpl


class Absent(Runtime):
    name = "absent"
    imports = ("onnxruntime",)

    def version(self):
        raise Refused("absent is not installed: pip install absent")

    @staticmethod
    def load(path, threads, options):
        raise RuntimeError


class Wrong(Absent):
    name = "wrong"

    def version(self):
        return "9"

    @staticmethod
    def load(path, threads, options):
        return lambda inputs: [inputs["x"] + 1]


class Crashing(Wrong):
    name = "crashing"

    @staticmethod
    def load(path, threads, options):
        import ctypes

        ctypes.string_at(0)


@hookimpl
def orchestrator_runtimes():
    return [Absent(), Wrong(), Crashing()]
