"""A process's memory, seen from outside it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import threading
import time
from collections.abc import Callable

POLL_SECONDS = 0.005


def status(pid: int, field: str) -> int:
    """A memory field of /proc/PID/status, in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if not found:
        raise ProcessLookupError(f"process {pid} has no {field}: it has ended.")
    return int(found[1]) * 1024


def resident(pid: int) -> int:
    """The process's resident memory now, in bytes."""
    return status(pid, "VmRSS")


class Peak:
    """The most resident memory of a process between entry and exit, in bytes, as `peak`.

    The kernel keeps that figure; where it may not be reset, resident memory is read every few milliseconds instead, and
    `exact` is False.
    """

    def __init__(self, pid: int):
        self.pid = pid
        self.peak = 0

    def __enter__(self) -> Peak:
        try:
            pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")
            self.exact = True
        except OSError:
            self.exact = False
            self._ended = threading.Event()
            self._poller = threading.Thread(target=self._poll, daemon=True)
            self._poller.start()
        return self

    def _poll(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            try:
                self.peak = max(self.peak, resident(self.pid))
            except OSError:
                return

    def __exit__(self, *exception: object) -> None:
        if not self.exact:
            self._ended.set()
            self._poller.join()
        with contextlib.suppress(OSError):  # the process has ended; what it was doing says why
            self.peak = max(self.peak, status(self.pid, "VmHWM") if self.exact else resident(self.pid))


def repeated(call: Callable[[], object], times: int) -> tuple[list[float], int]:
    """The seconds of each of so many calls, and the most memory during them beyond what this process held, in MB."""
    seconds, before = [], resident(os.getpid())
    with Peak(os.getpid()) as memory:
        for _ in range(times):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return seconds, round((memory.peak - before) / 1e6)
