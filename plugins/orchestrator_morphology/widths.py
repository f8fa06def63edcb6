"""How many channels a layer gets when a share of them is wanted."""

import math


def narrower(channels: int, share: float, multiple: int) -> int:
    """Of the multiples (at least one) and the whole layer, what is nearest to a share of its channels.

    Args:
        channels: Present width.
        share: Wanted share, 0 to 1.
        multiple: Of channels that the target's kernels really use.
    """
    wanted = channels * share
    if channels <= multiple:
        return channels
    lower = max(multiple, math.floor(wanted / multiple) * multiple)
    upper = min(channels, lower + multiple)
    return lower if wanted - lower < upper - wanted else upper


def wider(channels: int, factor: float, multiple: int) -> int:
    """The least multiple that reaches `factor` times the channels."""
    return math.ceil(channels * factor / multiple - 1e-9) * multiple
