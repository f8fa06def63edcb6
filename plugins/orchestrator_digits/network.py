"""A residual CNN (He et al. 2015) for 32x32 images, and its training on first use."""

import contextlib
import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator_digits.data import digits

WIDTHS = (24, 48, 96)
BLOCKS = 2
EPOCHS = 8
BATCH = 64
PEAK_RATE = 4e-3
SHIFT = 2
SEED = 0


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a residual connection; a 1x1 convolution projects it if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class DigitsNet(nn.Module):
    """A network from (N, 1, 32, 32) to logits (N, 10); 14.7 M MACs an image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, WIDTHS[0], 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTHS[0])
        blocks, inputs = [], WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for k in range(BLOCKS):
                blocks.append(ResidualBlock(inputs, width, 2 if stage and k == 0 else 1))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        x = self.blocks(functional.relu(self.norm(self.stem(images))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def network() -> DigitsNet:
    """Return the trained network; it is trained on first use and stored in the user's cache folder."""
    model, path = DigitsNet(), _cached()
    if path.exists():
        try:
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            return model.eval()
        except Exception:  # a damaged cache file is replaced
            path.unlink(missing_ok=True)
            model = DigitsNet()
    _train(model)
    with contextlib.suppress(OSError):  # without a cache it is trained again the next time
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        torch.save(model.state_dict(), partial)
        partial.replace(path)
    return model.eval()


def _cached() -> Path:
    """Return a file name of its own for each training procedure: changed code makes new weights."""
    from platformdirs import user_cache_path

    here = Path(__file__)
    recipe = here.read_bytes() + here.with_name("data.py").read_bytes()
    return user_cache_path("orchestrator") / f"digits-{hashlib.sha256(recipe).hexdigest()[:12]}.pt"


def _train(model: DigitsNet) -> None:
    """Train with AdamW under a one-cycle schedule on randomly shifted images; about 20 seconds on two cores."""
    images, labels = (torch.from_numpy(array) for array in digits()["train"])
    torch.manual_seed(SEED)
    model.apply(_initialise)
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps + 1)
    random = np.random.default_rng(SEED)
    model.train()
    for step in range(steps):
        if step % (steps // EPOCHS) == 0:
            order = torch.from_numpy(random.permutation(len(images)))
        start = step % (steps // EPOCHS) * BATCH
        chosen = order[start : start + BATCH]
        down, right = random.integers(-SHIFT, SHIFT + 1, 2).tolist()
        loss = functional.cross_entropy(model(images[chosen].roll((down, right), (2, 3))), labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    model.eval()


def _initialise(module: nn.Module) -> None:
    """Initialise with a seed: the constructor's weights depend on what ran before."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        module.reset_parameters()
