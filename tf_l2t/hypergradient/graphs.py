"""Functions that stay graphs of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def separate(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as a graph of its own, also where a loop calls it.

    Within a loop's graph oneDNN takes over a MaxPoolGrad or not by the chance of the order in which it meets the
    nodes; where it does not, the op runs on one core, at ten times the cost.
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})
