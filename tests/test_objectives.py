import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.objectives import (
    OBJECTIVES,
    accuracy,
    calibrated_log_likelihood,
    class_precision,
    log_likelihood,
    relaxed_accuracy,
)

LOGITS = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0], [1.0, 0.5, 0.0], [0.0, 4.0, 0.0]])
LABELS = np.array([0, 1, 0, 1], np.int32)
P = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def best_temperature(steps=100_001):
    """By a search over β; steps of 1e-4 in log β are 1e-8 off at most."""
    def at(beta):
        z = beta * LOGITS
        return np.mean(z[np.arange(4), LABELS] - np.log(np.exp(z).sum(axis=1)))

    return max(at(beta) for beta in np.geomspace(1e-2, 1e2, steps)), at(1.0)


CHOSEN = P[np.arange(4), LABELS]
# Every objective by a second formula, and the relative error that this has.
VALUES = {"relaxed_accuracy": (CHOSEN.mean, 1e-14), "log_likelihood": (np.log(CHOSEN + 1e-3).mean, 1e-14),
          "calibrated_log_likelihood": (lambda: best_temperature()[0], 2e-7)}


def test_every_objective_has_a_value_to_compare_with():
    assert VALUES.keys() == OBJECTIVES.keys()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_values(name):
    formula, error = VALUES[name]
    np.testing.assert_allclose(OBJECTIVES[name](LABELS, tf.constant(LOGITS)), formula(), rtol=error)


def test_measures():
    logits = tf.constant(LOGITS)
    np.testing.assert_allclose(accuracy(LABELS, logits), 3 / 4)
    # Predicted 0, 2, 0, 1: class 0 twice right, class 1 once right, class 2 once wrong.
    np.testing.assert_allclose(class_precision(LABELS, logits), [1, 1, 0])


def test_precision_of_a_class_that_is_never_predicted_is_zero():
    np.testing.assert_array_equal(class_precision(np.array([1, 0], np.int32), tf.constant([[1.0, 0.0, 0.0]] * 2)),
                                  [0.5, 0, 0])


def test_a_dead_class_keeps_a_gradient_in_the_likelihood_only():
    logits = tf.constant([[0.0, 12.0, 0.0]], tf.float64)
    for objective, low, high in ((relaxed_accuracy, 0, 1e-4), (log_likelihood, 5e-3, 1)):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = objective(np.array([0], np.int32), logits)
        assert low < float(tape.gradient(value, logits)[0, 0]) < high


def test_the_calibrated_likelihood_is_that_of_the_best_temperature():
    """The same whatever the scale of the logits, from a 20th to 20 times theirs."""
    best, at_one = best_temperature()
    assert best > at_one + 1e-3
    for scale in (0.05, 1.0, 20.0):
        value = float(calibrated_log_likelihood(LABELS, tf.constant(scale * LOGITS)))
        np.testing.assert_allclose(value, best, atol=1e-7)


def test_the_calibrated_likelihood_is_finite_where_no_temperature_is_best():
    logits = tf.constant([[5.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    right = calibrated_log_likelihood(np.array([0, 1], np.int32), logits)  # β → ∞
    wrong = calibrated_log_likelihood(np.array([1, 2], np.int32), logits)  # β → 0
    np.testing.assert_allclose([right, wrong], [0, -np.log(3)], atol=1e-2)


def test_gradients_against_differences():
    direction = np.random.default_rng(0).standard_normal(LOGITS.shape)
    for objective in OBJECTIVES.values():
        logits = tf.constant(LOGITS)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = objective(LABELS, logits)
        up, down = (objective(LABELS, logits + h * direction) for h in (1e-6, -1e-6))
        difference = (up - down) / 2e-6
        np.testing.assert_allclose(np.sum(tape.gradient(value, logits) * direction), difference, rtol=1e-8)
