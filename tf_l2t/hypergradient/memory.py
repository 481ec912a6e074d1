"""What a sweep needs of memory and of work, known before it runs; the choice of mode and plan within a budget."""

from __future__ import annotations

import pathlib
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_l2t.hypergradient.rules import Rule, UnavailableModeError, snapshot
from tf_l2t.hypergradient.schedules import Plan, cheapest_plan, plan_bytes, plan_for, store_all
from tf_l2t.hypergradient.state import StudentState

# Work of a step's adjoint in student steps, roughly: between that of the MLP and of LeNet (docs/benchmarks.md).
ADJOINT_WORK = {"saved_residuals": 1.5, "forward_over_reverse": 2.3, "reverse_over_reverse": 2.5}
# Graphs, compiled code and buffers of TensorFlow's own, beyond the process's size before the first call; with XLA; and
# where the sweep has more than one segment. Measured: docs/benchmarks.md, "Memory against T".
OVERHEAD, XLA_OVERHEAD, SEGMENTS_OVERHEAD = 36_000_000, 200_000_000, 40_000_000
# The first of these is of a step of 220 ops, the MLP's; of every further op, tracing and running its derivatives, from
# ResNets of 8 to 32 layers: docs/benchmarks.md, "The first call".
FEW_OPS, OP_OVERHEAD = 220, 210_000
# A step's own temporaries in the sweep, over those of the same step in training; of the MLP at batch 20, LeNet at 500.
WORKING = {"saved_residuals": 4.3, "reverse_over_reverse": 4.3, "forward_over_reverse": 3.6}
AMPLE = 1_000_000_000
_VIEWS = ("Identity", "Reshape", "Squeeze", "ExpandDims", "StopGradient")


class Choice(NamedTuple):
    """How a hypergradient is computed, and what that is predicted to take.

    Attributes:
      hvp, plan, jit: the mode, the schedule, and whether XLA compiles the steps.
      snapshot_bytes: of one snapshot.
      step_bytes: kept for each step of the segment being swept.
      peak_bytes: predicted most memory beyond that of the process before the first call.
      extra_work: student steps run again, as a fraction of T.
    """

    hvp: str
    plan: Plan
    jit: bool
    snapshot_bytes: int
    step_bytes: int
    peak_bytes: int
    extra_work: float

    def __str__(self) -> str:
        return (f"{self.hvp}, {self.plan.num_segments} segments of {self.plan.segment_length} steps, "
                f"{self.plan.num_snapshots} snapshots{', XLA' if self.jit else ''}: predicted peak "
                f"{self.peak_bytes / 1e6:,.0f} MB, {self.extra_work:.0%} of the student's steps run again")


def choose(modes: Sequence[str], rule_of: Callable[[str], Rule], schedule: str | int | Plan, num_steps: int,
           budget: int | None, jit: bool, state: StudentState, batch: Any, live: int,
           ops: int) -> tuple[Rule, Choice]:
    """The rule and the plan of least work.

    Args:
      modes: HVP modes to choose from.
      rule_of: the rule of a mode.
      schedule: what to follow where there is no budget, as for `plan_for`.
      num_steps: T.
      budget: bytes, or None.
      jit: whether the steps are compiled by XLA, which has a segment's batches made beforehand.
      state, batch: of the student, for their sizes.
      live, ops: `live_bytes` and `num_ops` of a step of the student.

    Raises:
      ValueError: if the budget is too small for any plan; says what would do.
    """
    stacked = 2 * num_bytes(tf.nest.flatten(batch)) if jit else 0  # one by one, and then as one tensor
    found, needs = [], []
    for mode in modes:
        try:
            rule = rule_of(mode)
        except UnavailableModeError:
            if mode == modes[-1]:
                raise
            continue
        snapshot_bytes, step_bytes = num_bytes(snapshot(state)), num_bytes(rule.kept) + stacked
        fixed = overhead(ops, jit) + int(WORKING[mode] * live)
        plan: Plan | None = plan_for(schedule, num_steps, snapshot_bytes, step_bytes)
        whole = store_all(num_steps)
        if budget is not None and fixed + plan_bytes(whole, snapshot_bytes, step_bytes) <= budget:
            plan = whole
        elif budget is not None:
            plan = cheapest_plan(num_steps, budget - fixed - SEGMENTS_OVERHEAD, snapshot_bytes, step_bytes)
        needs.append(fixed + SEGMENTS_OVERHEAD + snapshot_bytes + step_bytes)
        if plan is not None:
            fixed += SEGMENTS_OVERHEAD * (plan.num_segments > 1)
            peak = fixed + plan_bytes(plan, snapshot_bytes, step_bytes)
            extra = plan.num_recomputed / num_steps
            found.append((rule, Choice(mode, plan, jit, snapshot_bytes, step_bytes, peak, extra)))
    if budget is not None and not found:
        raise ValueError(f"memory_budget is {budget / 1e6:,.0f} MB, but a student of this size needs at least "
                         f"{min(needs) / 1e6:,.0f} MB. Raise it, or use a smaller batch.")
    if budget is None:
        # The same plan for all: the fastest, unless what it keeps is out of proportion.
        least = min(choice.peak_bytes for _, choice in found)
        found = [(rule, choice) for rule, choice in found if choice.peak_bytes <= max(2 * least, AMPLE)]
    return min(found, key=lambda pair: ADJOINT_WORK[pair[1].hvp] + pair[1].extra_work)


def check_available(choice: Choice) -> None:
    """Warns if a sweep is predicted to take more memory than the machine has left, where no GPU takes it."""
    left = available_bytes()
    if left is not None and choice.peak_bytes > left and not tf.config.list_physical_devices("GPU"):
        warnings.warn(f"a sweep is predicted to need {choice.peak_bytes / 1e6:,.0f} MB, and {left / 1e6:,.0f} MB are "
                      "left: the process may be killed. Give compile a memory_budget, such as '4GB', or truncate; or "
                      "the trainer fewer steps or a smaller batch_size.", stacklevel=2)


def available_bytes() -> int | None:
    """What the machine, or the group of processes that this one is limited with, has left; None where Linux does not
    say."""
    found = []
    try:
        content = pathlib.Path("/proc/meminfo").read_text()
        found += [1024 * int(count) for count in re.findall(r"^MemAvailable:\s*(\d+) kB$", content, re.MULTILINE)]
        limit, used = (pathlib.Path("/sys/fs/cgroup", name).read_text() for name in ("memory.max", "memory.current"))
        found.append(int(limit) - int(used))
    except (OSError, ValueError):  # no such files, or no limit
        pass
    return min(found, default=None)


def overhead(ops: int, jit: bool) -> int:
    """Bytes of the graphs that come of a step of so many ops, and of what runs them."""
    return OVERHEAD + OP_OVERHEAD * max(0, ops - FEW_OPS) + XLA_OVERHEAD * jit


def num_ops(graph: tf.Graph) -> int:
    """The ops of a graph and of the functions that it calls."""
    described = graph.as_graph_def()
    return len(described.node) + sum(len(function.node_def) for function in described.library.function)


def num_bytes(tensors: Sequence[Any]) -> int:
    """The size of tensors, or of tensors described by shape and dtype."""
    return int(sum(np.prod(t.shape.as_list(), dtype=np.int64) * t.dtype.size for t in tensors))


def live_bytes(graph: tf.Graph) -> int:
    """The most bytes that the results in a graph take at a time, its inputs and constants left out.

    As if its ops ran one by one as they were made, each result freed after its last use.
    """
    root: dict[Any, Any] = {}  # of results that share another one's buffer
    size: dict[Any, int] = {}
    last: dict[Any, int] = {}
    operations = graph.get_operations()
    for position, op in enumerate(operations):
        for tensor in op.inputs:
            last[root.get(tensor.ref(), tensor.ref())] = position
        for tensor in op.outputs:
            if op.type in _VIEWS:
                root[tensor.ref()] = root.get(op.inputs[0].ref(), op.inputs[0].ref())
            elif op.type not in ("Placeholder", "Const") and tensor.shape.is_fully_defined():
                size[tensor.ref()] = num_bytes([tensor]) if tensor.dtype.size else 0
                last[tensor.ref()] = position
    freed = [0] * len(operations)
    for tensor, count in size.items():
        freed[last[tensor]] += count
    live = most = 0
    for op, gone in zip(operations, freed, strict=True):
        live += sum(size.get(tensor.ref(), 0) for tensor in op.outputs)
        most = max(most, live)
        live -= gone
    return most
