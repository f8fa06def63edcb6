"""The terms of the architecture as frozen dataclasses, without torch, onnx, optuna or click."""
