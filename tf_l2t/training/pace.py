"""How far a work is: a line for people, or for programs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any


class Pace:
    """How long the rest of a work takes, at the pace that it has had.

    Args:
      total: its parts, of like length.
      done: those that are done as this begins, which say nothing of the pace.
    """

    def __init__(self, total: int, done: int = 0):
        self._total, self._first, self._started = total, done, time.perf_counter()

    def left(self, done: int) -> float:
        """Seconds for the parts behind `done`; NaN while none has been made."""
        made = done - self._first
        return (self._total - done) * (time.perf_counter() - self._started) / made if made else math.nan


def tell(record: Mapping[str, Any], verbose: int, seconds_left: float = math.nan) -> None:
    """Prints a record, with the time left if it is known.

    Args:
      record: JSON values by name.
      verbose: 0 for nothing, 1 for a line that reads, 2 for a line of JSON.
      seconds_left: NaN for unknown.
    """
    if verbose == 1:
        parts = [f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value:,}"
                 if isinstance(value, int) else f"{name} {value}" for name, value in record.items()]
        print(", ".join(parts + ([] if math.isnan(seconds_left) else [f"{duration(seconds_left)} left"])), flush=True)
    elif verbose == 2:
        plain = {name: None if isinstance(value, float) and not math.isfinite(value) else value
                 for name, value in record.items()}  # JSON has no NaN
        if not math.isnan(seconds_left):
            plain["seconds_left"] = round(seconds_left, 1)
        print(json.dumps(plain, ensure_ascii=False, default=float), flush=True)  # NumPy's numbers


def duration(seconds: float) -> str:
    """In the unit that a reader would take."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"
