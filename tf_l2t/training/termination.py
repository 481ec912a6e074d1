"""SIGTERM, which schedulers and `kill` send, waits for the end of a step."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tf_l2t.training.errors import TerminatedError


@contextlib.contextmanager
def deferred_termination(anywhere: Callable[[bool], bool] = bool) -> Iterator[Callable[[], None]]:
    """Within it, a first SIGTERM ends nothing; a second one ends the process at once.

        with deferred_termination() as end_if_told:
            for step in steps:
                ...  # and save
                end_if_told()

    The function raises `TerminatedError` once the signal has come. Where it was not asked any more, the signal comes
    again behind the last line, to whoever would have heard it. Threads other than the main one, which get no
    signals, are left as they are.

    Args:
      anywhere: whether this process was told -> whether any of those that work together was.
    """
    told = False

    def tell(number: int, frame: Any) -> None:
        nonlocal told
        told = True
        signal.signal(number, signal.SIG_DFL)

    def end_if_told() -> None:
        if anywhere(told):
            raise TerminatedError("told to end (SIGTERM); everything so far is kept, and the same command goes on.")

    if threading.current_thread() is not threading.main_thread():
        yield end_if_told
        return
    before = signal.signal(signal.SIGTERM, tell)
    try:
        yield end_if_told
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
        if told and not isinstance(sys.exception(), TerminatedError):
            signal.raise_signal(signal.SIGTERM)  # nobody has heard of it: there was another end, or no step any more
