"""Trajectory schedules: which states of the forward run are kept, and what is recomputed. Pure planning."""

from __future__ import annotations

import math
from typing import NamedTuple


class Plan(NamedTuple):
    """Snapshots at the steps 0, k, 2k, …; the states between two snapshots are recomputed from the first.

    Attributes:
      num_steps: T.
      segment_length: k. With k = 1 every state is a snapshot and nothing is recomputed.
    """

    num_steps: int
    segment_length: int

    @property
    def num_segments(self) -> int:
        """How many snapshots the forward run keeps: ceil(T / k)."""
        return -(-self.num_steps // self.segment_length)

    @property
    def num_recomputed(self) -> int:
        """How many student steps the reverse sweep runs again: all but the last of every segment."""
        return self.num_steps - self.num_segments

    @property
    def max_states(self) -> int:
        """The most states held at once: all snapshots, and one segment's recomputed states."""
        return self.num_segments + min(self.segment_length, self.num_steps) - 1


def store_all(num_steps: int) -> Plan:
    """Keep every state: T states of memory, no recomputation."""
    return every_k(num_steps, 1)


def every_k(num_steps: int, k: int | None = None) -> Plan:
    """Keep every k-th state (√T by default): T/k + k states of memory, less than one extra forward run of work.

    Args:
      num_steps: T ≥ 1.
      k: distance between two snapshots; None for the nearest integer to √T, which minimises T/k + k.

    Raises:
      ValueError: if a number is below 1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1; received {num_steps!r}.")
    if k is None:
        k = max(1, round(math.sqrt(num_steps)))
    if k < 1:
        raise ValueError(f"k, the distance between two snapshots, must be at least 1; received {k!r}.")
    return Plan(num_steps, min(k, num_steps))


def plan_for(schedule: str | int | Plan, num_steps: int) -> Plan:
    """The plan that a `schedule` argument means: "store_all", "every_k" (√T), an integer k, or a plan.

    Raises:
      ValueError: for any other value, or a plan made for another number of steps.
    """
    if isinstance(schedule, Plan):
        if schedule.num_steps != num_steps:
            raise ValueError(f"the plan is for {schedule.num_steps} steps, the problem has {num_steps}.")
        return schedule
    if schedule == "store_all":
        return store_all(num_steps)
    if schedule == "every_k":
        return every_k(num_steps)
    if isinstance(schedule, int) and not isinstance(schedule, bool):
        return every_k(num_steps, schedule)
    raise ValueError('schedule must be "store_all", "every_k", an integer k or a Plan; '
                     f"received {schedule!r}.")
