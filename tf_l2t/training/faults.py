"""Where the numbers of a student's run stopped being numbers."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_l2t.hypergradient import Hypergradient


def fault_of(result: Hypergradient) -> str:
    """What of a rollout is not finite, and from which student step on; "" if all is.

    In the order in which it comes about: the loss, M, the adjoints on their way back, dθ. The trace must have `loss`
    and `adjoint_norm`.
    """
    losses, norms = (np.asarray(result.rollout.trace[name]) for name in ("loss", "adjoint_norm"))
    if not np.isfinite(losses).all():
        return f"the student's loss is not finite from student step {int(np.argmin(np.isfinite(losses)))} on"
    if not np.isfinite(float(result.objective)):
        return f"the dev measure after student step {len(losses) - 1} is not finite"
    if not np.isfinite(norms).all():
        step = int(np.flatnonzero(~np.isfinite(norms))[-1])
        return f"the adjoints are not finite from student step {step} back"
    if not np.isfinite(float(tf.linalg.global_norm(result.gradient))):
        return "dθ is not finite, though every adjoint is"
    return ""
