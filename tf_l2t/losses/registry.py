"""Fixed losses by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_l2t.losses.fixed import (
    cross_entropy,
    focal,
    generalised_cross_entropy,
    label_smoothing,
    smooth_zero_one,
    symmetric_cross_entropy,
)
from tf_l2t.losses.known import class_balanced, forward_correction, gold_correction, logit_adjustment

FIXED_LOSSES: dict[str, Callable[..., tf.Tensor]] = {
    "cross_entropy": cross_entropy,
    "smooth": smooth_zero_one,
    "label_smoothing": label_smoothing,
    "focal": focal,
    "generalised_cross_entropy": generalised_cross_entropy,
    "symmetric_cross_entropy": symmetric_cross_entropy,
    "forward_correction": forward_correction,
    "gold_correction": gold_correction,
    "class_balanced": class_balanced,
    "logit_adjustment": logit_adjustment,
}
"""The fixed losses by name: (labels, logits, **options) -> loss of every example."""

# How many sets of C labels a loss knows, where that is not one: y of untrusted examples, C + y of trusted ones.
LABEL_SETS = {"gold_correction": 2}


def fixed_loss(name: str, **options: Any) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The loss of that name as a function (labels, logits) -> [batch].

    Raises:
      ValueError: for an unknown name, an option that the loss does not have, one that it needs and is not given, or a
        value out of range.
    """
    if name not in FIXED_LOSSES:
        raise ValueError(f"no loss is called {name!r}; there are {sorted(FIXED_LOSSES)}.")
    _, _, *known = inspect.signature(FIXED_LOSSES[name]).parameters.values()
    needed = {p.name for p in known if p.default is p.empty}
    if not needed <= set(options) <= {p.name for p in known}:
        raise ValueError(f"{name} takes {[p.name for p in known]}" + (f" and needs {sorted(needed)}" if needed else "")
                         + f"; received {sorted(options)}.")
    function = functools.partial(FIXED_LOSSES[name], **options)
    classes = max((len(value) for value in options.values() if np.ndim(value)), default=2)
    function(tf.zeros([1], tf.int32), tf.zeros([1, classes]))  # raises here, rather than in a training step
    return function
