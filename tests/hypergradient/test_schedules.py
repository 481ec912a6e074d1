import pytest

from tf_l2t.hypergradient import Plan, every_k, plan_for, store_all


@pytest.mark.parametrize(("num_steps", "k", "segments", "recomputed", "states"), [
    (1, None, 1, 0, 1), (12, None, 4, 8, 6), (13, None, 4, 9, 7),
    (100, None, 10, 90, 19), (10_000, None, 100, 9900, 199),
    (10, 3, 4, 6, 6), (10, 10, 1, 9, 10), (10, 99, 1, 9, 10), (10, 1, 10, 0, 10),
])
def test_every_k_counts(num_steps, k, segments, recomputed, states):
    plan = every_k(num_steps, k)
    assert (plan.num_segments, plan.num_recomputed, plan.max_states) == (segments, recomputed, states)


def test_every_k_by_counting_the_steps():
    for num_steps in range(1, 40):
        for k in range(1, num_steps + 1):
            starts = range(0, num_steps, k)
            again = sum(min(start + k, num_steps) - start - 1 for start in starts)
            assert every_k(num_steps, k).num_recomputed == again
            assert every_k(num_steps, k).num_segments == len(starts)


def test_store_all_recomputes_nothing():
    assert store_all(50) == Plan(50, 1)
    assert store_all(50).num_recomputed == 0


def test_plan_for_names():
    assert plan_for("store_all", 9) == Plan(9, 1)
    assert plan_for("every_k", 9) == Plan(9, 3)
    assert plan_for(4, 9) == Plan(9, 4)
    assert plan_for(Plan(9, 2), 9) == Plan(9, 2)


@pytest.mark.parametrize("schedule", ["sqrt", None, 0, -1, 1.5, True, Plan(8, 2)])
def test_plan_for_refuses(schedule):
    with pytest.raises(ValueError, match=r"schedule|at least 1|8 steps"):
        plan_for(schedule, 9)
