"""The training loop, on a network so small that it learns in a second."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.building.data import Split
from orchestrator.building.rungs import untouched_random
from orchestrator.building.training import Checkpoint, batch_size, reestimate_batch_norms, train
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


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
def test_every_optimizer_and_schedule_learns(optimizer: Any, schedule: Any) -> None:
    model, data = network(), split()
    rate = {"adamw": 0.02, "sgd": 0.1}[optimizer]
    train(model, data, epochs=8, loss=cross_entropy, learning_rate=rate, seed=0, optimizer=optimizer, schedule=schedule)
    inputs, labels = data.take(range(data.count))
    with torch.no_grad():
        assert (model(torch.from_numpy(inputs["x"])).argmax(1).numpy() == labels).mean() > 0.9


def test_after_step_may_hold_weights_where_they_are() -> None:
    model = network()
    first = model[0].weight

    def hold() -> None:
        first[:, 0] = 0

    train(model, split(), epochs=1, loss=cross_entropy, learning_rate=0.01, seed=0, after_step=hold)
    assert not first[:, 0].any() and first[:, 1].any()


class Stopped(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_that_was_stopped_goes_on_to_the_same_weights(optimizer: Any, tmp_path: Path) -> None:
    def run(model: nn.Module, stop_at: int | None, checkpoint: Checkpoint | None) -> int:
        steps = 0

        def loss(outputs: Any, inputs: Any, labels: Tensor | None) -> Tensor:
            nonlocal steps
            steps += 1
            if steps == stop_at:
                raise Stopped
            return cross_entropy(outputs, inputs, labels)

        train(model, split(), epochs=4, loss=loss, learning_rate=0.02, seed=3, optimizer=optimizer, checkpoint=checkpoint)
        return steps

    whole, again = network(), network()
    all_steps = run(whole, None, None)
    checkpoint = Checkpoint(path=tmp_path / "kept" / "state.pt")
    with pytest.raises(Stopped):
        run(network(), all_steps // 2 + 3, checkpoint)
    assert checkpoint.path.exists()
    assert run(again, None, checkpoint) == all_steps - all_steps // 2
    for first, second in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)
    assert not checkpoint.path.exists(), "a training that is done leaves nothing behind"


def test_damaged_checkpoint_is_begun_anew(tmp_path: Path) -> None:
    plain, fixed = network(), network()
    train(plain, split(), epochs=2, loss=cross_entropy, learning_rate=0.02, seed=0)
    checkpoint = Checkpoint(path=tmp_path / "state.pt")
    checkpoint.path.write_bytes(b"half of a file")
    train(fixed, split(), epochs=2, loss=cross_entropy, learning_rate=0.02, seed=0, checkpoint=checkpoint)
    assert torch.equal(next(plain.parameters()), next(fixed.parameters()))


def test_batch_norms_are_left_with_the_plain_mean_of_the_data() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    data = split()
    norm: Any = model[0]
    norm.running_mean.fill_(100.0)
    batches = ({"x": torch.from_numpy(data.take(range(k, k + 64))[0]["x"])} for k in range(0, 256, 64))
    model.train()
    reestimate_batch_norms(model, batches, count=4)
    assert torch.allclose(norm.running_mean, torch.from_numpy(data.take(range(256))[0]["x"]).mean(0), atol=1e-5)
    assert norm.momentum == 0.1 and model.training


def test_frozen_batch_norms_stay_frozen() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reestimate_batch_norms(model, iter(()), count=4)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_lone_last_example_is_no_batch() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    train(model, split(129), epochs=3, loss=cross_entropy, learning_rate=0.01, seed=0)
    train(model, split(1 + 8 * 16), epochs=3, loss=cross_entropy, learning_rate=0.01, seed=0)


class Halted(BaseException):
    """Stops a training from outside."""


def test_a_training_that_is_looked_at_gives_the_same_weights() -> None:
    seen: list[float] = []

    def watch(share: float, model: nn.Module) -> None:
        with untouched_random():
            torch.rand(3), np.random.rand(3)  # what a network in eval mode or a metric may draw
        seen.append(share)

    plain, watched = network(), network()
    train(plain, split(), epochs=2, loss=cross_entropy, learning_rate=0.01, seed=0)
    train(watched, split(), epochs=2, loss=cross_entropy, learning_rate=0.01, seed=0, watch=watch)
    assert seen == [0.0, 0.25, 0.5]
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))


def test_a_training_that_was_stopped_on_a_rung_goes_on_where_it_stopped(tmp_path: Path) -> None:
    checkpoint, steps = Checkpoint(path=tmp_path / "state.pt"), 0

    def counting(outputs: Any, inputs: Any, labels: Tensor | None) -> Tensor:
        nonlocal steps
        steps += 1
        return cross_entropy(outputs, inputs, labels)

    def stop(share: float, model: nn.Module) -> None:
        if share == 0.5:
            raise Halted

    whole, parts = network(), network()
    train(whole, split(), epochs=1, loss=cross_entropy, learning_rate=0.01, seed=0)
    with pytest.raises(Halted):
        train(network(), split(), epochs=1, loss=counting, learning_rate=0.01, seed=0, watch=stop, checkpoint=checkpoint)
    assert steps == 8
    seen: list[float] = []
    train(
        parts,
        split(),
        epochs=1,
        loss=counting,
        learning_rate=0.01,
        seed=0,
        watch=lambda share, model: seen.append(share),
        checkpoint=checkpoint,
    )
    assert (steps, seen) == (16, [])
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
