"""The training loop, on a network so small that it learns in a second."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.building.data import Split
from orchestrator.building.training import batch_size, train
from orchestrator.errors import MethodError


def split(count: int = 256) -> Split:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, 4)).astype(np.float32)
    return Split(name="train", count=count, inputs={"x": x}, labels=(x[:, 0] > 0).astype(np.int64))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))


def cross_entropy(outputs: Any, inputs: Any, labels: Tensor | None) -> Tensor:
    return functional.cross_entropy(outputs, labels)  # type: ignore[arg-type]


def test_network_learns_and_is_left_in_eval_mode_on_the_cpu() -> None:
    model, data = network(), split()
    done: list[float] = []
    train(model, data, epochs=8, loss=cross_entropy, learning_rate=0.02, seed=0, progress=done.append)
    inputs, labels = data.take(range(data.count))
    with torch.no_grad():
        right = (model(torch.from_numpy(inputs["x"])).argmax(1).numpy() == labels).mean()
    assert right > 0.9
    assert not model.training
    assert next(model.parameters()).device.type == "cpu"
    assert done == sorted(done)


def test_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    def weights(seed: int) -> Tensor:
        model = network()
        train(model, split(), epochs=1, loss=cross_entropy, learning_rate=0.01, seed=seed)
        return next(model.parameters()).detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_fraction_of_an_epoch_takes_that_share_of_steps() -> None:
    steps: list[int] = []

    def loss(outputs: Any, inputs: Any, labels: Tensor | None) -> Tensor:
        steps.append(len(inputs["x"]))
        return cross_entropy(outputs, inputs, labels)

    data = split(256)
    train(network(), data, epochs=0.5, loss=loss, learning_rate=0.01, seed=0)
    assert sum(steps) == 128
    assert steps[0] == batch_size(256) == 16


def test_loss_that_is_not_finite_ends_the_training_with_its_step() -> None:
    def loss(outputs: Any, inputs: Any, labels: Tensor | None) -> Tensor:
        return outputs.sum() * float("nan")

    with pytest.raises(MethodError, match="loss became nan at step 0"):
        train(network(), split(), epochs=1, loss=loss, learning_rate=0.01, seed=0)


def test_network_without_weights_that_can_be_trained_is_refused() -> None:
    model = network().requires_grad_(False)
    with pytest.raises(MethodError, match="no weights that can be trained"):
        train(model, split(), epochs=1, loss=cross_entropy, learning_rate=0.01, seed=0)
