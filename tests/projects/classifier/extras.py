import numpy as np
from torch.nn import functional


def top1(outputs, labels):
    return (outputs.argmax(-1) == labels).astype(float)


def macro_recall(outputs, labels):
    top = outputs.argmax(-1)
    return float(np.mean([(top[labels == k] == k).mean() if (labels == k).any() else 1.0 for k in range(3)]))


def one_argument(outputs):
    return outputs.mean(-1)


def fails(outputs, labels):
    raise ZeroDivisionError("nothing to divide")


def smooth(outputs, labels):
    return functional.cross_entropy(outputs, labels, label_smoothing=0.1)
