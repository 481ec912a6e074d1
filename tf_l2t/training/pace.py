"""How far a work is: a line for people, or for programs, and in absl's log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging


class Pace:
    """How long the rest of a work takes, at the pace that it has had.

    Args:
      total: its parts, of like length.
      done: those that are done as this begins, which say nothing of the pace.
    """

    def __init__(self, total: float, done: float = 0):
        self._total, self._first, self._started = total, done, time.perf_counter()

    def left(self, done: float, skipped: float = 0) -> float:
        """Seconds for the parts behind `done`; NaN while none has been made. Of those that are done, `skipped` were
        there already, and say nothing of the pace either."""
        made = done - self._first - skipped
        return (self._total - done) * (time.perf_counter() - self._started) / made if made else math.nan


def every_few_seconds(say: Callable[[int, int, float], Any], seconds: float = 5.0) -> Callable[..., None]:
    """A function that is told (done, total), or (done, total, skipped) of those that were there already, and hands it
    on with the seconds left, at most every so many seconds.

    Args:
      say: hears (done, total, seconds left).
      seconds: between two of these, and before the first.
    """
    pace, said = Pace(1), time.monotonic()

    def progress(done: int, total: int, skipped: int = 0) -> None:
        nonlocal said
        if time.monotonic() - said >= seconds:
            said = time.monotonic()
            say(done, total, pace.left(done / total, skipped / total))

    return progress


def tell(record: Mapping[str, Any], verbose: int, seconds_left: float = math.nan) -> None:
    """Prints a record, with the time left if it is known, and logs it.

    Args:
      record: JSON values by name.
      verbose: 0 for nothing, 1 for a line that reads, 2 for a line of JSON.
      seconds_left: NaN for unknown.
    """
    parts = [f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value:,}"
             if isinstance(value, int) else f"{name} {value}" for name, value in record.items()]
    line = ", ".join(parts + ([] if math.isnan(seconds_left) else [f"{duration(seconds_left)} left"]))
    logging.info("%s", line)
    if verbose == 1:
        print(line, flush=True)
    elif verbose == 2:
        left = {} if math.isnan(seconds_left) else {"seconds_left": round(seconds_left, 1)}
        print(json_line({**record, **left}), flush=True)


def json_line(record: Mapping[str, Any]) -> str:
    """A record as one line of JSON: numbers that are not finite are null, paths and whatever else as text."""
    def plain(value: Any) -> Any:
        if hasattr(value, "_asdict"):
            value = value._asdict()
        if isinstance(value, Mapping):
            return {str(key): plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value if value is None or isinstance(value, bool | int | float | str) else str(value)

    return json.dumps(plain(record), ensure_ascii=False)


def duration(seconds: float) -> str:
    """In the unit that a reader would take."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"
