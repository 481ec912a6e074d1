"""Objects that refer to each other in circles, freed at once."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


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
