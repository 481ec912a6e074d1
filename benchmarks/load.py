"""How busy other processes keep the machine: on shared cores a timing means nothing without it."""

from __future__ import annotations

import os
import pathlib
import time

QUIET_CORES = 0.15


def _busy() -> float:
    """Seconds of processor time used by everything so far, stolen time included."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _used(pid: int) -> float:
    """Seconds of processor time used by one process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Others:
    """Between entry and exit, the cores kept busy on average by processes other than `pid`, as `cores`."""

    def __init__(self, pid: int):
        self.pid = pid
        self.cores = 0.0

    def __enter__(self) -> Others:
        self._start = time.perf_counter(), _busy(), _used(self.pid)
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is None:
            elapsed, busy, used = time.perf_counter(), _busy(), _used(self.pid)
            self.cores = max(0.0, (busy - self._start[1] - used + self._start[2]) / (elapsed - self._start[0]))


def wait_for_quiet(limit: float) -> bool:
    """Waits until a second passes in which the machine is nearly idle; False if none came within `limit` seconds."""
    deadline = time.perf_counter() + limit
    while limit > 0:
        before = _busy()
        time.sleep(1)
        if _busy() - before < QUIET_CORES:
            return True
        if time.perf_counter() > deadline:
            return False
    return False
