"""Do the adjoints explode on their way back?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class AdjointGrowth(NamedTuple):
    """How the adjoints of one sweep grew.

    Attributes:
      factor: the largest ‖dω_t‖ over ‖dω_{T−1}‖, the first one of the sweep.
      step: the t of the largest; where one is not finite, the last such t.
      truncate: the number of last steps whose adjoints stay within the limit, at least 1: what to give `truncate`.
    """

    factor: float
    step: int
    truncate: int


def adjoint_growth(norms: Sequence[float], limit: float = np.inf) -> AdjointGrowth:
    """Looks at a trace's `adjoint_norm`, [T], for growth beyond `limit` times.

    A student whose steps are on the whole expansive (at a learning rate near or above 2 over the curvature) has
    adjoints that grow exponentially backwards: the gradient of the whole run is then exact, and useless, as it holds
    for changes of θ only that are smaller by the same factor.

    Raises:
      ValueError: for norms that are no vector.
    """
    values = np.asarray(norms, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"norms must be one norm per step, [T]; received shape {values.shape}.")
    finite = np.isfinite(values)
    if not finite.all():
        step = int(np.flatnonzero(~finite)[-1])
        factor = np.inf
    else:
        step = int(np.argmax(values))
        # All zeros is a sweep of nothing: a measure that does not depend on the student.
        factor = float(values[step] / values[-1]) if values[-1] > 0 else (1.0 if values[step] == 0 else np.inf)
    beyond = np.flatnonzero(~finite | (values > limit * values[-1]))
    return AdjointGrowth(factor, step, max(1, len(values) - 1 - int(beyond[-1])) if len(beyond) else len(values))
