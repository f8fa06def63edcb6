"""What the guest of `Emulator` runs for ncnn: a network as ncnn's own benchmark runs it, on one thread, all weights zero.

The options are benchncnn's (Tencent/ncnn benchmark/benchncnn.cpp). Of the request's options
`side` is that of the square input.
"""

import ctypes
import sys
from pathlib import Path

# The wheel of October 2023 asks for a library of the window system that it never calls; what it needs lies beside the wheel,
# and each can be loaded once those that it needs itself are.
_waiting = [str(library) for folder in sys.path for library in sorted(Path(folder).glob("lib/*.so*"))]
for _ in range(len(_waiting)):
    for _library in list(_waiting):
        try:
            ctypes.CDLL(_library, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        _waiting.remove(_library)

import ncnn.ncnn as ncnn  # noqa: E402 after its libraries; the package itself would import more than the runtime

SWITCHES = (
    "lightmode",
    "use_winograd_convolution",
    "use_sgemm_convolution",
    "use_int8_inference",
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_int8_storage",
    "use_int8_arithmetic",
    "use_packing_layout",
)


class Zeros(ncnn.DataReader):
    """Weights of a file that is not there."""

    def scan(self, pattern, target):
        return 0

    def read(self, target, size):
        address = ctypes.pythonapi.PyCapsule_GetPointer
        address.restype, address.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        ctypes.memset(address(target, None), 0, size)
        return size


def load(path, threads, options):
    """The network, and a function that runs it once."""
    network = ncnn.Net()
    network.opt.num_threads = threads
    network.opt.use_vulkan_compute = False
    for name in SWITCHES:
        if hasattr(network.opt, name):
            setattr(network.opt, name, True)
    reader = Zeros()
    if network.load_param(path) or network.load_model(reader):
        raise RuntimeError("ncnn does not take the file")
    side = options["side"]
    image = ncnn.Mat(side, side, 3)
    image.fill(0.01)
    names = network.input_names(), network.output_names()

    def run(inputs):
        extractor = network.create_extractor()
        for name in names[0]:
            extractor.input(name, image)
        outputs = []
        for name in names[1]:
            failed, output = extractor.extract(name)
            if failed:
                raise RuntimeError(f"ncnn cannot compute {name}")
            outputs.append(output)
        return outputs

    return run
