"""The block of a profile's file that bench/fit_profiles.py writes: its tables as TOML."""

import re
from pathlib import Path

from orchestrator.hardware.profile_file import load_profile
from orchestrator.values.profile import LatencyModel

BEGIN, END = "# --- latency models: written by bench/fit_profiles.py ---", "# --- end of latency models ---"
ROWS = "Tencent/ncnn benchmark/README.md @a4d2ea1d4422"
SOURCE = (
    f"bench/fit_profiles.py (docs/estimates.md): ncnn's published latencies of 26 boards ({ROWS}); for onnxruntime our counts of "
    "what its aarch64 build executes in qemu. Bands: networks left out of the fit."
)


def replace_block(path: Path, models: list[LatencyModel]) -> None:
    """Put these tables between the two marks of a profile's file, or before its limits; what others wrote stays."""
    text = path.read_text()
    block = "\n\n".join(_toml(model) for model in models)
    block = f"{BEGIN}\n{block}\n{END}"
    if BEGIN in text:
        text = text[: text.index(BEGIN)] + block + text[text.index(END) + len(END) :]
    elif "\n[limits]" in text:
        text = text.replace("\n[limits]", f"\n{block}\n\n[limits]", 1)
    else:
        text = f"{text.rstrip()}\n\n{block}\n"
    if any(model.source == "estimates" for model in models):
        text = re.sub(r'^estimates = ".*"\n', "", text, flags=re.MULTILINE)
        text = text.replace("[sources]\n", f'[sources]\nestimates = "{SOURCE}"\n', 1)
    path.write_text(text)
    load_profile(str(path), {})


def _toml(model: LatencyModel) -> str:
    costs = ", ".join(f"{name} = {value:.4g}" for name, value in model.nanoseconds.items())
    lines = [
        "[[latency_models]]",
        f'runtime = "{model.runtime}"',
        f'number_format = "{model.number_format}"',
        f"threads = {model.threads}",
        f"nanoseconds = {{ {costs} }}",
        f"error = {model.error}",
        *([] if model.mean_error is None else [f"mean_error = {model.mean_error}"]),
        *([] if model.least_macs is None else [f"least_macs = {model.least_macs:_}"]),
        f'fitted_on = "{model.fitted_on}"',
        f'source = "{model.source}"',
    ]
    return "\n".join(lines)
