"""A library's side of the benchmark: a process that answers JSON lines on stdin with JSON lines on stdout.

    {"cmd": "setup", "work": PATH, "schedule": …, "hvp": …, "jit": …}   reads the work, builds the student
    {"cmd": "gradient", "path": PATH}    one call; M, dM/dW, dM/dV to PATH; seconds, foreseen peak
    {"cmd": "time"}                      one call; seconds
    {"cmd": "plain", "path": PATH}       the same T steps without the teacher's gradient; seconds

Every answer is {"ok": …} or {"error": …, "unsupported": whether the library has no such setting}.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from benchmarks.work import Work, read


class Options(NamedTuple):
    """How the gradient is to be made, in the library's own terms.

    Attributes:
      schedule: what is kept of the forward run.
      hvp: how second derivatives are made, where there is a choice.
      jit: whether XLA compiles, where there is a choice.
    """

    schedule: str
    hvp: str | None
    jit: bool


class Program(Protocol):
    """The work in one library, its arrays in place."""

    def gradient(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """M, dM/dW, dM/dV."""

    def plain(self) -> np.ndarray:
        """The last bias of the student after T steps of plain training."""


class _Worker:
    def __init__(self, build: Callable[[Work, Options], Program]):
        self.build = build

    def setup(self, work: str, schedule: str, hvp: str | None, jit: bool) -> dict[str, Any]:
        self.program = self.build(read(work), Options(schedule, hvp, jit))
        gc.collect()
        return {}

    def gradient(self, path: str) -> dict[str, Any]:
        seconds, (objective, values, keys) = _timed(self.program.gradient)
        np.savez(path, objective=objective, values=values, keys=keys)
        return {"seconds": seconds, "planned_mb": getattr(self.program, "planned_mb", None)}

    def time(self) -> dict[str, Any]:
        return {"seconds": _timed(self.program.gradient)[0]}

    def plain(self, path: str | None = None) -> dict[str, Any]:
        seconds, bias = _timed(self.program.plain)
        if path is not None:
            np.savez(path, bias=bias)
        return {"seconds": seconds}


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()  # graphs with cycles of the call before
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def serve(build: Callable[[Work, Options], Program]) -> None:
    """Answers until stdin ends. `build` raises NotImplementedError for options that the library does not have."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    worker = _Worker(build)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"ok": getattr(worker, request.pop("cmd"))(**request)}
        except NotImplementedError as error:
            reply = {"error": str(error), "unsupported": True}
        except Exception:
            reply = {"error": traceback.format_exc(), "unsupported": False}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
