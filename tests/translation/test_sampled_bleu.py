"""The sampled objective against all sequences of a tiny vocabulary, and against differences."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.translation.sampled_bleu import sampled_bleu_objective

RNG = np.random.default_rng(0)
LOG_PROBS = -5 * RNG.uniform(size=(3, 4))
REWARDS = RNG.uniform(size=(3, 4))
VALID = np.array([[1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], bool)


def derivatives(function, x):
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        slope = tape.gradient(value, x)
    return value, slope, outer.jacobian(slope, x)


@pytest.mark.parametrize("valid", [None, VALID])
def test_n_best(valid):
    counted = np.ones((3, 4), bool) if valid is None else valid
    expected = np.mean([sum(np.exp(LOG_PROBS[b, k]) * REWARDS[b, k] for k in range(4) if counted[b, k])
                        / max(sum(np.exp(LOG_PROBS[b, k]) for k in range(4) if counted[b, k]), 1e-30)
                        for b in range(3)])
    log_probs = tf.constant(np.where(counted, LOG_PROBS, 1e3))
    rewards = tf.constant(np.where(counted, REWARDS, np.nan))

    def objective(log_probs):
        return sampled_bleu_objective(log_probs, rewards, valid=valid)

    value, slope, hessian = derivatives(objective, log_probs)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    direction, h = tf.constant(RNG.standard_normal((3, 4))), 1e-5
    up, down = log_probs + h * direction, log_probs - h * direction
    np.testing.assert_allclose(tf.reduce_sum(slope * direction), (objective(up) - objective(down)) / (2 * h), rtol=1e-7)
    np.testing.assert_allclose(tf.tensordot(hessian, direction, 2), (derivatives(objective, up)[1] - derivatives(
        objective, down)[1]) / (2 * h), rtol=1e-6, atol=1e-9)
    assert (slope.numpy()[~counted] == 0).all()


def test_the_score_function_form_is_unbiased():
    """Averaged over all pairs of samples, value and derivatives are those of E[R], the second ones, too."""
    every = np.array(list(itertools.product(range(3), repeat=2)))  # V = 3, T = 2
    rewards, logits = tf.constant(RNG.uniform(size=9)), tf.constant(RNG.standard_normal(6))

    def log_probs(logits):
        per_position = tf.nn.log_softmax(tf.reshape(logits, [2, 3]))
        return sum(tf.gather(per_position[t], every[:, t]) for t in range(2))

    exact = derivatives(lambda z: tf.reduce_sum(tf.exp(log_probs(z)) * rewards), logits)

    @tf.function
    def of_pair(pair):
        return derivatives(lambda z: sampled_bleu_objective(
            tf.gather(log_probs(z), pair)[None], tf.gather(rewards, pair)[None], "score_function"), logits)

    averaged, probs = [0.0, 0.0, 0.0], np.exp(log_probs(logits))
    for pair in itertools.product(range(9), repeat=2):
        averaged = [total + probs[pair[0]] * probs[pair[1]] * part
                    for total, part in zip(averaged, of_pair(tf.constant(pair)), strict=True)]
    for got, expected in zip(averaged, exact, strict=True):
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_the_score_function_form_is_reinforce_with_the_others_mean():
    log_probs = tf.constant(LOG_PROBS)
    value, slope, _ = derivatives(lambda x: sampled_bleu_objective(x, tf.constant(REWARDS), "score_function"),
                                  log_probs)
    expected = [[(REWARDS[b, k] - np.mean([REWARDS[b, j] for j in range(4) if j != k])) / 12 for k in range(4)]
                for b in range(3)]
    np.testing.assert_allclose(slope, expected, rtol=1e-12)
    np.testing.assert_allclose(value, REWARDS.mean(), rtol=1e-12)


def test_bad_arguments():
    for arguments, match in (({"form": "beam"}, "'n_best'.*'beam'"),
                             ({"form": "score_function", "valid": VALID}, "no valid")):
        with pytest.raises(ValueError, match=match):
            sampled_bleu_objective(tf.constant(LOG_PROBS), tf.constant(REWARDS), **arguments)
    with pytest.raises(ValueError, match="at least 2"):
        sampled_bleu_objective(tf.constant(LOG_PROBS[:, :1]), tf.constant(REWARDS[:, :1]), "score_function")
