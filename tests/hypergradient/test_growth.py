import numpy as np
import pytest

from tf_l2t.hypergradient import adjoint_growth


def test_growth_and_the_truncation_that_avoids_it():
    norms = [4096.0, 512.0, 64.0, 8.0, 2.0, 1.0]  # t = 0 … 5; the sweep starts at the right
    assert adjoint_growth(norms, 10.0) == (4096.0, 0, 3)
    assert adjoint_growth(norms, 1e6) == (4096.0, 0, 6)
    assert adjoint_growth(norms, 1.5) == (4096.0, 0, 1)


def test_vanishing_adjoints_are_no_growth():
    assert adjoint_growth(np.logspace(-9, 0, 10), 10.0) == (1.0, 9, 10)
    assert adjoint_growth([0.0, 0.0], 10.0) == (1.0, 0, 2)


def test_a_norm_that_is_not_finite_is_beyond_any_limit():
    assert adjoint_growth([np.nan, np.inf, 5.0, 1.0]) == (np.inf, 1, 2)


@pytest.mark.parametrize("norms", [[], [[1.0]], 3.0])
def test_refused(norms):
    with pytest.raises(ValueError, match="one norm per step"):
        adjoint_growth(norms)
