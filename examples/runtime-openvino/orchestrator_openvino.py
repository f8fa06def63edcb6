"""OpenVINO as a runtime: it reads the ONNX files that the orchestrator makes, quantized ones too."""

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from orchestrator.plugin import Recipe, Refused, Runtime, Target, hookimpl

USAGE = """With `{file}` in the working directory (`pip install openvino`):

```python
import numpy as np
import openvino

properties = {{"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": "{threads}", "INFERENCE_PRECISION_HINT": "f32"}}
model = openvino.Core().compile_model("{file}", "CPU", properties)
inputs = {{}}
for port in model.inputs:
    shape = [size.get_length() if size.is_static else 1 for size in port.partial_shape]  # a dynamic axis: one example
    inputs[port.any_name] = np.zeros(shape, port.element_type.to_dtype())  # your data goes here
for port, output in zip(model.outputs, model(inputs).values()):
    print(port.any_name, output.shape, output.dtype)
```

The same in C++17 (`-lopenvino`):

```cpp
#include <cstring>
#include <iostream>
#include <openvino/openvino.hpp>

int main() {{
  ov::Core core;
  ov::CompiledModel model = core.compile_model(
      "{file}", "CPU", ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY), ov::inference_num_threads({threads}),
      ov::hint::inference_precision(ov::element::f32));
  ov::InferRequest request = model.create_infer_request();
  for (const auto& port : model.inputs()) {{
    ov::Shape shape;
    for (const auto& size : port.get_partial_shape()) shape.push_back(size.is_static() ? size.get_length() : 1);  // one example
    ov::Tensor tensor(port.get_element_type(), shape);
    std::memset(tensor.data(), 0, tensor.get_byte_size());  // your data goes here
    request.set_tensor(port, tensor);
  }}
  request.infer();
  for (const auto& port : model.outputs()) {{
    std::cout << port.get_any_name() << ": " << request.get_tensor(port).get_size() << " values\\n";
  }}
}}
```"""


class OpenVino(Runtime):
    """Its CPU plugin, in the latency mode. Options are OpenVINO's own properties, by their names."""

    name = "openvino"
    suffix = ".onnx"
    imports = ("openvino",)

    def version(self) -> str:
        try:
            return version("openvino")
        except PackageNotFoundError:
            raise Refused("openvino is not installed: pip install openvino") from None

    def usage(self, file: str, threads: int) -> str:
        return USAGE.format(file=file, threads=threads)

    @staticmethod
    def load(path: str, threads: int, options: Mapping[str, Any]) -> Callable[[dict[str, Any]], list[Any]]:
        import openvino

        core = openvino.Core()
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the CPU has it: another model than was asked for
            "ENABLE_CPU_PINNING": "NO",  # the process is kept on its cores from outside
        }
        properties.update({name: str(value) for name, value in options.items()})
        network = core.read_model(path)
        # A model that cannot be compiled fails here, not while it is timed.
        first = core.compile_model(network, "CPU", properties)
        requests = {}

        def request_for(inputs):
            # Compiled for each shape: with a dynamic axis kernels are chosen anew at every inference.
            shapes = tuple((name, tuple(array.shape)) for name, array in inputs.items())
            if shapes not in requests:
                if network.is_dynamic():
                    if len(requests) > 8:
                        requests.clear()
                    fixed = network.clone()
                    fixed.reshape({name: list(shape) for name, shape in shapes})
                    requests[shapes] = core.compile_model(fixed, "CPU", properties).create_infer_request()
                else:
                    requests[shapes] = first.create_infer_request()
            return requests[shapes]

        def run(inputs):
            request = request_for(inputs)
            request.infer(inputs, share_inputs=True)
            return [request.get_output_tensor(k).data.copy() for k in range(len(network.outputs))]

        return run


@hookimpl
def orchestrator_runtimes() -> list[Runtime]:
    """openvino."""
    return [OpenVino()]


@hookimpl
def orchestrator_check_recipe(recipe: Recipe, target: Target) -> list[str]:
    """OpenVINO reads quantized models in the QDQ form only."""
    here = "openvino" in (target.runtime, *(step.method.removeprefix("on-") for step in recipe.steps))
    operators = any(step.parameters.get("form") == "qoperator" for step in recipe.steps)
    return ["openvino reads quantized models in the form 'qdq' only"] if here and operators else []
