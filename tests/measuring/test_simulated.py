"""Outputs of a simulated CPU beside this machine's."""

import numpy as np
import pytest

from orchestrator.measuring.simulated import equality


def test_difference_is_a_share_of_the_outputs_range() -> None:
    here = np.array([[0.0, 10.0], [5.0, 2.0]], dtype=np.float32)
    found = equality([here + 0.005], [here], "float32")
    assert found.difference == pytest.approx(5e-4, rel=0.01) and found.equal
    assert not equality([here + 0.05], [here], "float32").equal
    assert equality([here + 0.05], [here], "int8").equal


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_there_are_not_the_same(value: float) -> None:
    here, there = np.zeros((2, 3), dtype=np.float32), np.zeros((2, 3), dtype=np.float32)
    there[1, 2] = value
    assert not equality([there], [here], "float32").equal
    assert not equality([here], [there], "float32").equal
