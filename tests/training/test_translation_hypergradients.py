"""Hypergradients of translation students in float64 against differences."""

import pytest
import tensorflow as tf

from tests.training.test_translation_problem import WIDTH, new, pairs, teacher
from tf_l2t.hypergradient import StatusFeatures, check_hypergradient

# Nothing of the status is differentiated: where it comes from does not matter here, and decoding takes long to compile.
STATUS = StatusFeatures(lambda: (), lambda state: (
    tf.stack([tf.cast(state.step, tf.float64) / 2, tf.constant(0.3, tf.float64), tf.constant(0.2, tf.float64)]), ()),
    lambda status, metrics: ())


@pytest.mark.parametrize(("student", "hvp", "form", "objective", "smallest"), [
    ("lstm2", ["reverse_over_reverse"], "paper", "log_expected_bleu", 1e-3),
    ("unrolled", ["forward_over_reverse"], "mixture", "log_likelihood", 1e-3),
    ("transformer", ["forward_over_reverse", "reverse_over_reverse"], "soft", "log_expected_bleu", 1e-2),
    ("transformer_first", ["reverse_over_reverse"], "stable", "expected_bleu", 1e-4),
])
def test_hypergradients_against_differences(student, hvp, form, objective, smallest):
    """Every student, every form, in the modes that configs have; the differences are not those of zero."""
    width = 3 if student == "unrolled" else WIDTH
    problem, state, _ = new(student, form, objective, train=pairs(9, 0, width), dev=pairs(6, 1, width), num_steps=2)
    problem, state = problem._replace(features=STATUS), state._replace(status=())
    report = check_hypergradient(problem, teacher(form), state, 3, num_directions=1, hvp_modes=tuple(hvp),
                                 schedules=("every_k",), dot_product=False, verbose=False)
    assert report.passed, str(report)
    difference, = (abs(row.reference) for row in report.rows if row.name.startswith("central"))
    assert difference > smallest, str(report)
