import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, 2, 1)
        self.body = nn.Sequential(*(nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()) for _ in range(3)))
        self.head = nn.Linear(8, 3)

    def forward(self, image):
        x = torch.relu(self.stem(image))
        for block in self.body:
            x = x + block(x)
        return self.head(x.mean((2, 3)))


def net():
    torch.manual_seed(0)
    return Net()


def raises():
    raise RuntimeError("no weights today")


def leaves():
    raise SystemExit("the weights are not installed")


def no_module():
    return 42


def wrong_channels():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def nan_weights():
    model = net()
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
    return model


def small():
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def four_classes():
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))


def crashes():
    import ctypes

    ctypes.string_at(0)
