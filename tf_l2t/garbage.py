"""Objects that refer to each other in circles, freed at once."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

from tensorflow.python.eager import context
from tensorflow.python.framework import ops


@contextlib.contextmanager
def gone_afterwards() -> Iterator[None]:
    """What is made and dropped in here is gone afterwards; of a function that is decorated, what it does not return.

    Keras models and matplotlib's figures are full of circles, which Python looks for the later the more objects there
    are: hundreds would wait with their arrays. In here nothing is looked for, so that all that is new is still among
    the youngest objects, and to look through those takes a millisecond.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        gc.collect(0)


@contextlib.contextmanager
def graphs_gone_afterwards() -> Iterator[None]:
    """As `gone_afterwards`, for models that are compiled and fitted in here, and their graphs.

    TensorFlow registers the gradient of every call of `tf.custom_gradient` that it traces, for good, and with it the
    graph and whatever that has captured. Every Keras optimizer has such a call in its step, and LSTM students have them
    in their loops, so that of every model that was ever fitted, or translated, weights and slots would stay. And what
    it has prepared to run graphs it keeps when they are gone, 3 MB for a small network, until it is told not to. Graphs
    that were made in here cannot be differentiated afterwards, and ops that keep a state of their own, such as
    TensorFlow's old random numbers, begin anew.
    """
    registered = ops.gradient_registry._registry  # no other way leads there
    before = set(registered)
    try:
        yield
    finally:
        for name in set(registered) - before:
            if name.startswith("CustomGradient-"):
                del registered[name]
        gc.collect()
        context.context().clear_kernel_cache()
