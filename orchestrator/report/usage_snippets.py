"""Programs in Python and C++ that run an exported model in onnxruntime with its actual inputs."""

from collections.abc import Sequence
from math import prod

from orchestrator.report import formatting
from orchestrator.values.task import TensorSpec

PYTHON = """import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = {threads}
session = onnxruntime.InferenceSession({file!r}, options, providers=["CPUExecutionProvider"])

types = {{"float": "float32", "double": "float64"}}
inputs = {{}}
for entry in session.get_inputs():
    shape = [size if isinstance(size, int) else 1 for size in entry.shape]  # a dynamic axis: one example
    kind = entry.type.removeprefix("tensor(").removesuffix(")")
    inputs[entry.name] = np.zeros(shape, types.get(kind, kind))  # your data goes here

for entry, output in zip(session.get_outputs(), session.run(None, inputs)):
    print(entry.name, output.shape, output.dtype)
"""

CPP = """#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <iostream>
#include <vector>

int main() {{
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "model");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads({threads});
  Ort::Session session(env, {file}, options);
  Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);

  std::vector<Ort::Value> inputs;
{inputs}
  const std::array<const char*, {input_count}> input_names{{{input_names}}};
  const std::array<const char*, {output_count}> output_names{{{output_names}}};
  std::vector<Ort::Value> outputs = session.Run(Ort::RunOptions{{nullptr}}, input_names.data(), inputs.data(), inputs.size(),
                                                output_names.data(), output_names.size());
{outputs}
}}
"""

INPUT = """
  const std::array<int64_t, {rank}> shape_{k}{{{shape}}};  // one example
  std::vector<{kind}> data_{k}({count});  // your data goes here
  inputs.push_back(Ort::Value::CreateTensor<{kind}>(memory, data_{k}.data(), data_{k}.size(),
                                                    shape_{k}.data(), shape_{k}.size()));
"""

OUTPUT = """
  const {kind}* values_{k} = outputs[{k}].GetTensorData<{kind}>();
  std::cout << output_names[{k}] << ": " << outputs[{k}].GetTensorTypeAndShapeInfo().GetElementCount() << " values, the first "
            << {shown} << "\\n";
"""

KINDS = {
    "float32": "float", "float64": "double", "float16": "Ort::Float16_t",
    "int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "int64": "int64_t",
    "uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t", "uint64": "uint64_t",
}  # fmt: skip


def python_program(file: str, threads: int) -> str:
    """Return a program that loads the file, runs it on zeros and prints the outputs."""
    return PYTHON.format(file=formatting.line(file), threads=threads)


def cpp_program(file: str, threads: int, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str | None:
    """Return the same program in C++17, or None if the inputs are unknown or of a type without a C++ vector.

    Args:
        file: Name of the model file.
        inputs: Inputs of the task; the omitted axis of the examples becomes 1.
        outputs: Outputs of the task.
        threads: Threads of one inference.
    """
    if not inputs or not outputs or any(spec.dtype not in KINDS for spec in (*inputs, *outputs)):
        return None
    given = [
        INPUT.format(
            k=k,
            kind=KINDS[spec.dtype],
            rank=1 + len(spec.shape),
            shape=", ".join(map(str, (1, *spec.shape))),
            count=prod(spec.shape),
        )
        for k, spec in enumerate(inputs)
    ]
    got = [OUTPUT.format(k=k, kind=KINDS[spec.dtype], shown=_shown(k, spec)) for k, spec in enumerate(outputs)]
    return CPP.format(
        file=_literal(file),
        threads=threads,
        inputs="".join(given).strip("\n"),
        input_count=len(inputs),
        input_names=", ".join(_literal(spec.name) for spec in inputs),
        outputs="".join(got).strip("\n"),
        output_count=len(outputs),
        output_names=", ".join(_literal(spec.name) for spec in outputs),
    )


def _shown(k: int, spec: TensorSpec) -> str:
    """Return the expression that prints a value: a byte as a number, half precision as a float."""
    if spec.dtype in ("int8", "uint8"):
        return f"static_cast<int>(values_{k}[0])"
    return f"values_{k}[0].ToFloat()" if spec.dtype == "float16" else f"values_{k}[0]"


def _literal(text: str) -> str:
    """Return a C++ string literal."""
    # "??/" would be a trigraph.
    escaped = formatting.line(text).replace("\\", "\\\\").replace('"', '\\"').replace("?", "\\?")
    return f'"{escaped}"'
