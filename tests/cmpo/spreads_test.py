"""Running spreads by hand."""

import jax
import numpy as np
import pytest

from cmpo import spreads


def test_running_variances_by_hand():
    """The first batch counts in full; then the newest has a tenth, of the weights there are."""
    state = spreads.init(1)
    assert spreads.read_spreads(state).tolist() == [1.0, 1.0]
    state = jax.jit(spreads.update)(state, np.float32([4.0, 0.0]))
    assert spreads.read_spreads(state).tolist() == pytest.approx([2.0, 1.0])
    state = spreads.update(state, np.float32([9.0, 1.0]))
    expected = [(0.09 * 4 + 0.1 * 9) / 0.19, 0.1 / 0.19]
    assert spreads.read_spreads(state).tolist() == pytest.approx(np.sqrt(expected).tolist())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_batch_without_sound_variances_moves_nothing(bad):
    state = spreads.update(spreads.init(1), np.float32([4.0, 1.0]))
    after = spreads.update(state, np.float32([4.0, bad]))
    assert all(np.array_equal(old, new) for old, new in zip(state, after, strict=True))
