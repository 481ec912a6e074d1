import functools
import math

import pytest

from tf_l2t.hypergradient import Plan, binomial, every_k, plan_for, store_all
from tf_l2t.hypergradient.schedules import cheapest_plan, minimal_advances, parse_bytes, plan_bytes


def carry_out(plan: Plan) -> tuple[int, int]:
    """Follows a plan step by step, as a sweep would: (student steps run before segments, most snapshots at once).

    Fails where a visit starts from a snapshot that does not hold the state it should, or a segment is out of order.
    """
    snapshots = {0: 0}
    advanced, most, frontier = 0, 1, plan.num_steps
    for number, visit in enumerate(plan.visits()):
        assert (visit.load == -1) == (number == 0)
        assert snapshots[max(visit.load, 0)] == visit.start
        here = visit.start
        for move in visit.moves:
            assert move.stop > here
            advanced += move.stop - here
            here = move.stop
            if move.keep >= 0:
                assert move.keep != 0 and move.keep < plan.num_snapshots
                # What is overwritten must be behind the frontier, that is, swept already.
                assert snapshots.get(move.keep, frontier) >= frontier
                snapshots[move.keep] = here
        assert here == visit.first and visit.stop == frontier
        assert 0 < visit.stop - visit.first <= plan.segment_length
        frontier = visit.first
        most = max(most, sum(step <= frontier for step in snapshots.values()))
    assert frontier == 0
    return advanced, most


@functools.cache
def fewest(length: int, snapshots: int) -> int:
    """The minimum over all places of the next snapshot, by trying all."""
    if length == 1 or snapshots == 1:
        return length * (length - 1) // 2
    return min(step + fewest(length - step, snapshots - 1) + fewest(step, snapshots) for step in range(1, length))


@pytest.mark.parametrize(("length", "snapshots", "advances"), [
    # r l − C(s + r, r − 1) by hand: r = 1, 2, 2, 3, 4, 4, and one snapshot: l (l − 1) / 2.
    (10, 9, 9), (10, 3, 15), (100, 20, 178), (1000, 20, 2747), (10_000, 20, 37_976), (10_000, 30, 34_016),
    (50, 1, 1225), (1, 1, 0), (1, 7, 0), (2, 1, 1),
])
def test_binomial_runs_as_many_steps_as_the_closed_form(length, snapshots, advances):
    assert minimal_advances(length, snapshots) == advances
    plan = binomial(length, snapshots)
    assert carry_out(plan)[0] == plan.num_recomputed == advances


def test_the_closed_form_is_the_minimum():
    for length in range(1, 45):
        for snapshots in range(1, 9):
            assert minimal_advances(length, snapshots) == fewest(length, snapshots)
            advanced, most = carry_out(Plan(length, 1, snapshots))
            assert advanced == fewest(length, snapshots)
            assert most <= snapshots


@pytest.mark.parametrize(("num_steps", "snapshots", "segment"), [(10_000, 20, 10), (999, 4, 7), (13, 3, 5), (5, 2, 9)])
def test_binomial_in_segments(num_steps, snapshots, segment):
    plan = binomial(num_steps, snapshots, segment)
    advanced, most = carry_out(plan)
    assert advanced == plan.num_recomputed and most <= plan.num_snapshots <= snapshots
    whole = minimal_advances(math.ceil(num_steps / segment), snapshots) * min(segment, num_steps)
    # All segments but the first are full.
    assert whole - segment * 2 * math.ceil(math.log2(num_steps)) < advanced <= whole


@pytest.mark.parametrize(("num_steps", "k", "segments", "recomputed", "snapshots"), [
    (1, None, 1, 0, 1), (12, None, 3, 8, 2), (13, None, 4, 9, 3), (100, None, 10, 90, 9), (10_000, None, 100, 9900, 99),
    (10, 3, 4, 7, 3), (10, 10, 1, 0, 1), (10, 99, 1, 0, 1), (10, 1, 10, 9, 9),
])
def test_every_k_counts(num_steps, k, segments, recomputed, snapshots):
    plan = every_k(num_steps, k)
    assert (plan.num_segments, plan.num_recomputed, plan.num_snapshots) == (segments, recomputed, snapshots)


def test_every_k_weighs_snapshots_against_steps():
    """Snapshots of 25 times a step's bytes: five times longer segments than √T, and no other k needs less memory."""
    plan = every_k(400, None, 25, 1)
    assert plan == Plan(400, 100, 3)
    for snapshot_bytes, step_bytes in ((1, 1), (25, 1), (1, 9), (3_200_000, 128_000)):
        chosen = plan_bytes(every_k(400, None, snapshot_bytes, step_bytes), snapshot_bytes, step_bytes)
        least = min(plan_bytes(every_k(400, k), snapshot_bytes, step_bytes) for k in range(1, 401))
        assert chosen <= 1.15 * least  # segments of equal length cannot always meet the optimum


def test_every_k_runs_all_but_the_last_segment_again():
    for num_steps in range(1, 40):
        for k in range(1, num_steps + 1):
            plan = every_k(num_steps, k)
            assert carry_out(plan) == (num_steps - k, plan.num_snapshots)


def test_store_all_recomputes_nothing():
    assert store_all(50) == Plan(50, 50, 1)
    assert carry_out(store_all(50)) == (0, 1)


def test_the_cheapest_plan_fits_and_no_other_is_cheaper():
    for num_steps in (1, 7, 60):
        for memory in range(10, 400, 23):
            plan = cheapest_plan(num_steps, memory, 10, 3)
            fitting = [Plan(num_steps, k, s) for k in range(1, num_steps + 1) for s in range(1, num_steps + 1)
                       if plan_bytes(Plan(num_steps, k, s), 10, 3) <= memory]
            assert (plan is None) == (not fitting)
            if plan is not None:
                assert plan_bytes(plan, 10, 3) <= memory
                assert plan.num_recomputed <= min(p.num_recomputed for p in fitting)


def test_more_memory_never_costs_more_steps():
    costs = [cheapest_plan(10_000, memory, 3_200_000, 300_000).num_recomputed
             for memory in range(10_000_000, 4_000_000_000, 50_000_000)]
    assert costs == sorted(costs, reverse=True) and costs[-1] == 0


def test_plan_for_names():
    assert plan_for("store_all", 9) == Plan(9, 9, 1)
    assert plan_for("every_k", 9) == Plan(9, 3, 2)
    assert plan_for(4, 9) == Plan(9, 4, 2)
    assert plan_for("binomial", 9) == Plan(9, 1, 5)
    assert plan_for("binomial:3", 9) == Plan(9, 1, 3)
    assert plan_for("binomial:3:2", 9) == Plan(9, 2, 3)
    assert plan_for(Plan(9, 2, 1), 9) == Plan(9, 2, 1)


@pytest.mark.parametrize("schedule", ["sqrt", None, 0, -1, 1.5, True, Plan(8, 2, 1), "binomial:0", "binomial:x",
                                      "binomial:3:2:1", "binomial:3:0", "every_k:3"])
def test_plan_for_refuses(schedule):
    with pytest.raises(ValueError, match=r"schedule|at least 1|8 steps"):
        plan_for(schedule, 9)


@pytest.mark.parametrize(("size", "expected"), [(1, 1), ("500MB", 500_000_000), ("1.5 GB", 1_500_000_000),
                                                ("64kb", 64_000), ("12 B", 12)])
def test_sizes(size, expected):
    assert parse_bytes(size) == expected


@pytest.mark.parametrize("size", ["500", "MB", "-1MB", "infGB", "nanMB", 0, -5, 1.5, None, True, "5 XB"])
def test_sizes_refused(size):
    with pytest.raises(ValueError, match="memory budget"):
        parse_bytes(size)
