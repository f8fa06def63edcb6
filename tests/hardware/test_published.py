"""The built-in latency models against the latencies that they were fitted to, and the figures of networks left out."""

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.hardware.estimate import estimate_count
from orchestrator.hardware.graph import count
from orchestrator.hardware.profile_file import load_profile

ROOT = Path(__file__).parents[2]
BOARDS = ROOT.parent / "shared" / "cases" / "boards"
PROFILES = {
    "Raspberry Pi 4B": "raspberry-pi-4",
    "Raspberry Pi Zero 2 W": "raspberry-pi-zero-2-w",
    "Raspberry Pi 5": "raspberry-pi-5",
}
FORMATS = {"fp32": "float32", "fp16": "float16", "int8": "int8"}

pytestmark = pytest.mark.skipif(not BOARDS.is_dir(), reason=f"the published board cases are not at {BOARDS}")


@pytest.fixture(scope="module")
def published() -> dict[tuple[str, int, str, str], float]:
    """Milliseconds by board, threads, precision and network."""
    rows = json.loads((BOARDS / "published.json").read_text())
    return {(r["board"], r["threads"], r["precision"], r["network"]): r["min_ms"] for r in rows}


def test_profiles_reproduce_the_published_latencies_inside_their_bands(published) -> None:
    graphs = {name: count(BOARDS / "models" / f"{name}.onnx") for name in {key[3] for key in published}}
    for board, name in PROFILES.items():
        profile = load_profile(str(ROOT / "hardware_profiles" / f"{name}.toml"), {})
        errors, inside = [], []
        for (where, threads, precision, network), milliseconds in published.items():
            if where == board:
                found = estimate_count(graphs[network], profile, "ncnn", threads, number_format=FORMATS[precision])
                errors.append(abs(found.median_ms / milliseconds - 1))
                inside.append(found.low_ms <= milliseconds <= found.high_ms)
                assert found.notes == () and found.unknown == ()
        assert np.mean(errors) < 0.1, name
        assert np.mean(inside) > 0.9, name


def test_kept_figures_of_networks_left_out_beat_the_reference(published) -> None:
    kept = json.loads((ROOT / "bench" / "latency_left_out.json").read_text())
    assert len(kept) == len(published)
    errors: dict[tuple[str, int, str], list[float]] = {}
    for row in kept:
        key = (row["board"], row["threads"], row["precision"])
        errors.setdefault(key, []).append(abs(row["predicted_ms"] / published[(*key, row["network"])] - 1))
    means = {key: float(np.mean(values)) for key, values in errors.items()}
    # What the reference predictor of the cases reaches on the same networks left out.
    assert np.mean([mean for key, mean in means.items() if key[2] != "int8"]) < 0.132
    assert np.mean([mean for key, mean in means.items() if key[2] == "int8"]) < 0.247
    reference = {
        ("Raspberry Pi 4B", 1, "fp32"): 0.083,
        ("Raspberry Pi 4B", 4, "fp32"): 0.121,
        ("Raspberry Pi Zero 2 W", 1, "fp32"): 0.097,
        ("Raspberry Pi Zero 2 W", 4, "fp32"): 0.093,
        ("Raspberry Pi 5", 1, "fp16"): 0.149,
        ("Raspberry Pi 5", 4, "fp16"): 0.195,
    }
    for key, limit in reference.items():
        assert means[key] < limit, key
