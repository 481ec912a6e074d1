"""What makes tracing quicker in processes of tests."""

import gc

from tensorflow.python.util import tf_stack


def trace_lightly() -> None:
    """Looks for garbage less often, and writes no Python stack down for every op that is traced.

    Graphs are very many small objects: a sixth of the time went into looking for garbage among those that stay, and a
    quarter into stacks, which errors of ops quote and no test reads.
    """
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
    stack = tf_stack.extract_stack()
    tf_stack.extract_stack = lambda stacklevel=1: stack
