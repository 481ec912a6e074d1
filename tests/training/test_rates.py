"""The rates of a run, step by step, against their definition."""

import numpy as np
import pytest

from tf_l2t.training.rates import check_decay, learning_rate


def values(decay, num_steps, rate=0.4):
    schedule = learning_rate(rate, decay, num_steps)
    return [float(schedule(step)) if callable(schedule) else schedule for step in range(num_steps)]


def test_linear_cosine_and_constant():
    t = np.arange(8) / 8
    np.testing.assert_allclose(values("linear", 8), 0.4 * (1 - t), rtol=1e-6)
    np.testing.assert_allclose(values("cosine", 8), 0.2 * (1 + np.cos(np.pi * t)), rtol=1e-5)  # of a small difference
    assert values("constant", 3) == [0.4] * 3


def test_a_cosine_that_first_rises():
    t = np.arange(8) / 8
    np.testing.assert_allclose(values("cosine:0.2", 10), [0, 0.2, *(0.2 * (1 + np.cos(np.pi * t)))], rtol=1e-5)


def test_drops_come_after_their_part_of_the_run():
    """The L2T-DLF paper's: by 10 after 40 and 60 epochs, here of 80 epochs of 2 steps."""
    np.testing.assert_allclose(values("drops:0.5,0.75", 160), [0.4] * 80 + [0.04] * 40 + [0.004] * 40, rtol=1e-6)
    np.testing.assert_allclose(values("drops:0.3", 10), [0.4] * 3 + [0.04] * 7, rtol=1e-6)


@pytest.mark.parametrize("decay", ["step", "drops", "drops:", "drops:x", "drops:0.7,0.5", "drops:0.5,0.5", "drops:1",
                                   "linear:0.5", "cosine:", "cosine:0.1,0.2", "cosine:1"])
def test_other_names_are_refused(decay):
    with pytest.raises(ValueError, match="decay must be one of"):
        check_decay(decay)


def test_runs_that_are_too_short():
    with pytest.raises(ValueError, match="too short for"):
        learning_rate(0.1, "drops:0.5,0.75", 1)
    for steps in (1, 4):
        with pytest.raises(ValueError, match="too short for"):
            learning_rate(0.1, "cosine:0.1", steps)
    with pytest.raises(ValueError, match="at least 1"):
        learning_rate(0.1, "constant", 0)
