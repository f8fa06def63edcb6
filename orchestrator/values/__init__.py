"""The nouns of the house as frozen dataclasses. No torch, onnx, optuna or click in here."""
