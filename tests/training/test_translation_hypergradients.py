"""Hypergradients of translation students in float64 against differences."""

import pytest

from tests.training.test_translation_problem import WIDTH, new, pairs, teacher
from tf_l2t.hypergradient import check_hypergradient


@pytest.mark.parametrize(("student", "hvp", "form", "objective", "smallest"), [
    ("lstm2", ["reverse_over_reverse"], "paper", "log_expected_bleu", 1e-3),
    ("unrolled", ["forward_over_reverse", "reverse_over_reverse"], "mixture", "log_likelihood", 1e-3),
    ("transformer", ["forward_over_reverse"], "soft", "log_expected_bleu", 1e-2),
    ("transformer_first", ["reverse_over_reverse"], "stable", "expected_bleu", 1e-4),
])
def test_hypergradients_against_differences(student, hvp, form, objective, smallest):
    """Every student in the modes that it has, every form, every objective; the differences are not those of zero."""
    width = 3 if student == "unrolled" else WIDTH
    problem, state, _ = new(student, form, objective, train=pairs(9, 0, width), dev=pairs(6, 1, width), num_steps=3)
    report = check_hypergradient(problem, teacher(form), state, 3, num_directions=1, hvp_modes=tuple(hvp),
                                 schedules=("every_k",), verbose=False)
    assert report.passed, str(report)
    difference, = (abs(row.reference) for row in report.rows if row.name.startswith("central"))
    assert difference > smallest, str(report)
