"""Trajectory schedules: which states of the forward run are kept, and what is run again. Pure planning.

The run's T steps are cut into segments. The reverse sweep takes the segments from the last to the first; each is run
forward once more from its first state, everything that its sweep needs kept, and swept. A plan says which first
states are kept as snapshots, and how the others are reached.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Move(NamedTuple):
    """Run on to step `stop` and keep the state there in snapshot `keep`; −1, nothing, in the last of a visit."""

    stop: int
    keep: int


class Visit(NamedTuple):
    """One segment of the reverse sweep: from a snapshot to the segment's first step, then the sweep of the segment.

    Attributes:
      load: the snapshot to start from; −1 in the first visit, which is the forward run itself.
      start: the step of that state.
      moves: how the segment's first step is reached.
      first, stop: the segment is the steps first … stop − 1.
    """

    load: int
    start: int
    moves: tuple[Move, ...]
    first: int
    stop: int


class Plan(NamedTuple):
    """How T steps are reversed.

    Attributes:
      num_steps: T.
      segment_length: the steps of a segment; where T is no multiple of it, the first segment is shorter. In the last
        segment the forward run and the sweep's run are one.
      num_snapshots: the most states kept at once, the initial one included.
    """

    num_steps: int
    segment_length: int
    num_snapshots: int

    @property
    def num_segments(self) -> int:
        """ceil(T / segment_length)."""
        return -(-self.num_steps // self.segment_length)

    @property
    def num_recomputed(self) -> int:
        """How many student steps are run beyond the T that every reverse sweep must run once."""
        return sum(visit.first - visit.start for visit in self.visits())

    def visits(self) -> list[Visit]:
        """The segments in the order in which they are swept: revolve's, with segments in the place of steps.

        The number of steps run is the least possible for this number of snapshots, `minimal_advances` segments.
        """
        bounds = [max(0, self.num_steps - j * self.segment_length) for j in range(self.num_segments, -1, -1)]
        free = list(range(self.num_snapshots - 1, 0, -1))
        kept = [(0, 0)]  # (segment, snapshot), the initial state first
        visits: list[Visit] = []
        end = self.num_segments
        while end:
            here, load = kept[-1]
            start, moves = here, []
            while end - here > 1:
                step = _first_snapshot(end - here, len(free) + 1)
                here += step
                keep = -1
                if end - here > 1:  # the last one is swept at once
                    keep = free.pop()
                    kept.append((here, keep))
                moves.append(Move(bounds[here], keep))
            end -= 1
            visits.append(Visit(load if visits else -1, bounds[start], tuple(moves), bounds[end], bounds[end + 1]))
            while kept and kept[-1][0] >= end:
                free.append(kept.pop()[1])
        return visits


def _reach(snapshots: int, repeats: int) -> int:
    """The most steps that can be reversed with so many snapshots when none is run more than `repeats` times."""
    return math.comb(snapshots + repeats, snapshots) if repeats >= 0 else 0


def _repeats(length: int, snapshots: int) -> int:
    repeats = 0
    while _reach(snapshots, repeats) < length:
        repeats += 1
    return repeats


def minimal_advances(length: int, snapshots: int) -> int:
    """The least number of forward steps that reversing `length` steps takes with `snapshots` snapshots.

        t(l, s) = r l − C(s + r, r − 1),   r the least with l ≤ C(s + r, s)

    The step that each adjoint step makes itself is not counted, the first forward run is; the initial state is one of
    the s snapshots. Source: Griewank and Walther, "Revolve", ACM TOMS 26(1), 2000.
    """
    repeats = _repeats(length, snapshots)
    return repeats * length - (math.comb(snapshots + repeats, repeats - 1) if repeats else 0)


def _first_snapshot(length: int, snapshots: int) -> int:
    """After how many of `length` > 1 steps the next snapshot is best taken: the smallest of the optimal choices."""
    repeats = _repeats(length, snapshots)
    return max(1, _reach(snapshots, repeats - 2), length - _reach(snapshots - 1, repeats))


def store_all(num_steps: int) -> Plan:
    """One segment: what every step needs is kept, nothing is run again."""
    _check_steps(num_steps)
    return Plan(num_steps, num_steps, 1)


def every_k(num_steps: int, k: int | None = None, snapshot_bytes: int = 1, step_bytes: int = 1) -> Plan:
    """A snapshot every k-th step: ⌈T/k⌉ − 1 snapshots and one segment of k, less than one extra forward run.

    Args:
      num_steps: T ≥ 1.
      k: distance between two snapshots; None for the one of least memory, about √(T snapshot_bytes / step_bytes), so
        that memory grows as √T.
      snapshot_bytes, step_bytes: of a snapshot, and of what the sweep keeps per step of a segment; only their ratio
        counts.

    Raises:
      ValueError: if a number is below 1.
    """
    _check_steps(num_steps)
    if k is None:
        least = math.sqrt(num_steps * step_bytes / max(1, snapshot_bytes))
        k = -(-num_steps // min(num_steps, max(1, round(least))))
    if k < 1:
        raise ValueError(f"k, the distance between two snapshots, must be at least 1; received {k!r}.")
    k = min(k, num_steps)
    return Plan(num_steps, k, max(1, -(-num_steps // k) - 1))


def binomial(num_steps: int, snapshots: int | None = None, segment_length: int = 1) -> Plan:
    """Revolve's schedule: the fewest steps run again for a given number of snapshots.

    Args:
      num_steps: T ≥ 1.
      snapshots: s ≥ 1, the initial state included; None for ⌈log₂ T⌉ + 1.
      segment_length: the steps between two places where a snapshot may be taken. Segments of a few steps cost little
        memory and run fewer steps again.

    Raises:
      ValueError: if a number is below 1.
    """
    _check_steps(num_steps)
    if snapshots is None:
        snapshots = max(1, math.ceil(math.log2(num_steps)) + 1)
    if snapshots < 1 or segment_length < 1:
        raise ValueError("snapshots and segment_length must be at least 1; received "
                         f"snapshots={snapshots!r}, segment_length={segment_length!r}.")
    segment_length = min(segment_length, num_steps)
    return Plan(num_steps, segment_length, min(snapshots, max(1, -(-num_steps // segment_length) - 1)))


def _check_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1; received {num_steps!r}.")


def plan_for(schedule: str | int | Plan, num_steps: int, snapshot_bytes: int = 1, step_bytes: int = 1) -> Plan:
    """The plan that a `schedule` argument means.

    Args:
      schedule: "store_all"; "every_k" (memory of the order of √T); an integer k; "binomial" (⌈log₂ T⌉ + 1 snapshots),
        "binomial:20" (20 snapshots) or "binomial:20:5" (in segments of 5 steps); or a `Plan`.
      num_steps: T.
      snapshot_bytes, step_bytes: as for `every_k`.

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
        return every_k(num_steps, None, snapshot_bytes, step_bytes)
    if isinstance(schedule, int) and not isinstance(schedule, bool):
        return every_k(num_steps, schedule)
    if isinstance(schedule, str):
        name, *numbers = schedule.split(":")
        if name == "binomial" and len(numbers) <= 2 and all(number.isdecimal() for number in numbers):
            return binomial(num_steps, *map(int, numbers))
    raise ValueError('schedule must be "store_all", "every_k", an integer k, "binomial", "binomial:SNAPSHOTS", '
                     f'"binomial:SNAPSHOTS:SEGMENT" or a Plan; received {schedule!r}.')


def cheapest_plan(num_steps: int, memory: int, snapshot_bytes: int, step_bytes: int) -> Plan | None:
    """The plan that runs the fewest steps again within `memory` bytes, the one of least memory among equals.

    Args:
      num_steps: T.
      memory: for snapshots and one segment's steps.
      snapshot_bytes: of one snapshot.
      step_bytes: what the sweep of a segment keeps per step.

    Returns:
      The plan, or None if not even one snapshot and one step fit.
    """
    best, best_cost = None, (math.inf, math.inf)
    for length in _lengths(num_steps):
        room = (memory - length * step_bytes) // max(1, snapshot_bytes)
        if room < 1:
            continue
        plan = binomial(num_steps, min(room, num_steps), length)
        if length * minimal_advances(num_steps // length, plan.num_snapshots) > best_cost[0]:
            continue  # even without the steps of the first, shorter segment
        cost = (plan.num_recomputed, plan_bytes(plan, snapshot_bytes, step_bytes))
        if cost < best_cost:
            best, best_cost = plan, cost
    return best


def _lengths(num_steps: int) -> list[int]:
    """Segment lengths worth trying, from T down: all of them, or of many thousands every hundredth part."""
    lengths, length = [], num_steps
    while length:
        lengths.append(length)
        length -= 1 if num_steps <= 20_000 else max(1, length // 100)
    return lengths


def plan_bytes(plan: Plan, snapshot_bytes: int, step_bytes: int) -> int:
    """The memory of a plan's snapshots and of one segment's steps."""
    return plan.num_snapshots * snapshot_bytes + plan.segment_length * step_bytes


def parse_bytes(size: str | int) -> int:
    """A number of bytes: 500_000_000, "500MB", "1.5 GB", "64KB" (powers of 1000).

    Raises:
      ValueError: for anything else, or a size that is not positive.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    if isinstance(size, str):
        text = size.strip().upper()
        for unit, factor in (("KB", 10**3), ("MB", 10**6), ("GB", 10**9), ("TB", 10**12), ("B", 1)):
            if text.endswith(unit):
                try:
                    number = float(text.removesuffix(unit))
                except ValueError:
                    break
                if math.isfinite(number) and number > 0:
                    return int(number * factor)
                break
    raise ValueError(f'a memory budget is a number of bytes, or such as "500MB" or "2GB"; received {size!r}.')
