"""The verdict of a comparison: is B faster than A?"""

from typing import Literal

Verdict = Literal["faster", "slower", "same", "inconclusive"]


def verdict(low: float, high: float, margin: float) -> Verdict:
    """Return the verdict of an interval of the ratio of B's time to A's, given a margin that does not matter.

    `faster` and `slower` only if the whole interval is beyond the margin, `same` only if all of it is within: a
    test of difference and one of equivalence at once (Schuirmann 1987). Margins are ratios: 0.02 is from 1/1.02 to 1.02.
    """
    least, most = 1 / (1 + margin), 1 + margin
    if high < least:
        return "faster"
    if low > most:
        return "slower"
    return "same" if least <= low and high <= most else "inconclusive"
