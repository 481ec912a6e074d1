import numpy as np
import tensorflow as tf

from tf_l2t.objectives import (
    accuracy,
    calibrated_log_likelihood,
    class_precision,
    log_likelihood,
    relaxed_accuracy,
)

LOGITS = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0], [1.0, 0.5, 0.0], [0.0, 4.0, 0.0]])
LABELS = np.array([0, 1, 0, 1], np.int32)
P = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def test_values():
    logits = tf.constant(LOGITS)
    chosen = P[np.arange(4), LABELS]
    np.testing.assert_allclose(relaxed_accuracy(LABELS, logits), chosen.mean(), rtol=1e-14)
    np.testing.assert_allclose(log_likelihood(LABELS, logits), np.log(chosen + 1e-3).mean(), rtol=1e-14)
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
    """Against a search over β in NumPy; the same whatever the scale of the logits, from a 20th to 20 times theirs."""
    def at(beta):
        z = beta * LOGITS
        return np.mean(z[np.arange(4), LABELS] - np.log(np.exp(z).sum(axis=1)))

    best = max(at(beta) for beta in np.geomspace(1e-2, 1e2, 100_001))  # steps of 1e-4 in log β: 1e-8 off at most
    assert best > at(1.0) + 1e-3
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
    for objective in (relaxed_accuracy, log_likelihood, calibrated_log_likelihood):
        logits = tf.constant(LOGITS)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = objective(LABELS, logits)
        up, down = (objective(LABELS, logits + h * direction) for h in (1e-6, -1e-6))
        difference = (up - down) / 2e-6
        np.testing.assert_allclose(np.sum(tape.gradient(value, logits) * direction), difference, rtol=1e-8)
