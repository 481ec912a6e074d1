"""What makes graphs cheaper to make in the processes of tests; nothing that is computed changes."""

import gc

from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.util import tf_stack


def made_cheaply() -> None:
    """For the process that calls it, before it has made any.

    Graphs are very many small objects: a sixth of the time went into looking for garbage among those that stay, and an
    eighth into where in Python every operation was made.
    """
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
    tf_stack.extract_stack = lambda stacklevel=1: None
    pywrap_tf_session.TF_SetOpStackTrace = lambda operation, stack: None
