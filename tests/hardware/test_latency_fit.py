"""Fitting one machine's latency model: constants that were there are found again, and the band knows what was not seen."""

import random

import numpy as np
import pytest
from onnx import helper

from orchestrator.errors import InputError
from orchestrator.hardware.features import UNITS
from orchestrator.hardware.graph import GraphCount, count
from orchestrator.hardware.latency_fit import Core, Observation, amounts_of, fit_latency_model, prior

CORE = Core(clock_hz=1.8e9)


@pytest.fixture
def graphs(save_graph) -> list[GraphCount]:
    """Twelve small networks of 1x1, depthwise and 3x3 convolutions in different shares, with a fully connected layer."""
    found = []
    random.seed(0)
    for index in range(12):
        c, k, size = random.choice((16, 32, 64)), random.choice((32, 64, 128)), random.choice((14, 28, 56))
        nodes = [
            helper.make_node("Conv", ["x", "a"], ["h1"]),
            helper.make_node("Conv", ["h1", "d"], ["h2"], group=k, pads=[1, 1, 1, 1]),
            *([helper.make_node("Conv", ["h2", "t"], ["h3"], pads=[1, 1, 1, 1])] if index % 2 else []),
            helper.make_node("GlobalAveragePool", ["h3" if index % 2 else "h2"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "g"], ["y"], transB=1),
        ]
        weights = {"a": (k, c, 1, 1), "d": (k, 1, 3, 3), "t": (k, k, 3, 3), "g": (10, k)}
        found.append(count(save_graph(nodes, {"x": [1, c, size, size]}, ["y"], weights, name=f"{index}.onnx")))
    return found


def observations(graphs: list[GraphCount], costs: np.ndarray, spread: float = 0.0) -> list[Observation]:
    noise = np.random.default_rng(0).normal(scale=spread, size=len(graphs))
    times = [
        float(np.dot(amounts_of(g, "float32", "onnxruntime"), costs)) / 1e6 * np.exp(e)
        for g, e in zip(graphs, noise, strict=True)
    ]
    return [Observation(name=str(i), graph=g, milliseconds=t) for i, (g, t) in enumerate(zip(graphs, times, strict=True))]


def fitted(rows: list[Observation], core: Core = CORE):
    return fit_latency_model(
        rows, runtime="onnxruntime", number_format="float32", threads=1, core=core, fitted_on="a test", source="test"
    )


def test_speed_is_found_when_the_machine_is_far_from_the_expected_one(graphs) -> None:
    mean, _ = prior("onnxruntime", "float32", 1, CORE)
    model = fitted(observations(graphs, 5 * np.exp(mean)))
    assert model.nanoseconds.keys() == UNITS.keys()
    found = np.log(list(model.nanoseconds.values())) - mean
    assert found == pytest.approx(np.log(5) * np.ones(len(UNITS)), abs=0.15)
    assert model.mean_error < 0.01


def test_own_constant_is_found_when_it_differs_from_the_expected_one(graphs) -> None:
    mean, _ = prior("onnxruntime", "float32", 1, CORE)
    costs = np.exp(mean)
    slow = list(UNITS).index("depthwise")
    costs[slow] *= 4
    model = fitted(observations(graphs, costs))
    pointwise = list(UNITS).index("pointwise")
    ratio = model.nanoseconds["depthwise"] / model.nanoseconds["pointwise"]
    assert ratio == pytest.approx(costs[slow] / costs[pointwise], rel=0.3)


def test_one_spoilt_time_moves_little_when_the_others_agree(graphs) -> None:
    mean, _ = prior("onnxruntime", "float32", 1, CORE)
    rows = observations(graphs, np.exp(mean))
    spoilt = [Observation(name=r.name, graph=r.graph, milliseconds=r.milliseconds * (5 if r.name == "3" else 1)) for r in rows]
    clean, dirty = fitted(rows), fitted(spoilt)
    amounts = np.array(amounts_of(graphs[0], "float32", "onnxruntime"))
    clean_ms, dirty_ms = (amounts @ np.array(list(m.nanoseconds.values())) for m in (clean, dirty))
    assert dirty_ms == pytest.approx(clean_ms, rel=0.1)


def test_band_is_wider_when_the_times_scatter(graphs) -> None:
    mean, _ = prior("onnxruntime", "float32", 1, CORE)
    quiet, loud = (fitted(observations(graphs, np.exp(mean), spread)) for spread in (0.0, 0.6))
    assert 1.1 < quiet.error < loud.error  # even perfect times of small networks do not make the model perfect
    assert quiet.mean_error < loud.mean_error


def test_every_constant_is_positive_when_few_networks_are_timed(graphs) -> None:
    mean, _ = prior("onnxruntime", "float32", 1, CORE)
    model = fitted(observations(graphs[:5], np.exp(mean), 0.3))
    assert min(model.nanoseconds.values()) > 0


def test_prior_expects_more_of_faster_cores_and_shorter_numbers() -> None:
    pointwise = list(UNITS).index("pointwise")

    def expected(core: Core, number_format="float32", threads=1) -> float:
        return float(prior("ncnn", number_format, threads, core)[0][pointwise])

    old, new = Core(clock_hz=1.5e9), Core(clock_hz=1.5e9, half=True, dot=True)
    assert expected(Core(clock_hz=3e9)) < expected(old) < expected(Core(clock_hz=1.5e9, in_order=True))
    assert expected(new, "float16") < expected(new) < expected(old)
    assert expected(new, "int8") < expected(new)
    assert expected(old, threads=4) < expected(old)


def test_too_little_to_fit_to_is_told_in_one_line(graphs) -> None:
    rows = observations(graphs, np.ones(len(UNITS)))
    with pytest.raises(InputError, match="at least 5 timed networks, but got 4"):
        fitted(rows[:4])
    bad = Observation(name="empty", graph=graphs[0], milliseconds=0.0)
    with pytest.raises(InputError, match="the time of 'empty' must be positive, but got 0.0 ms"):
        fitted([*rows, bad])
