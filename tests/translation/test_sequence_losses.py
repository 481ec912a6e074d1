"""Losses over candidates against loops in NumPy, and their derivatives against differences."""

import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.translation.bleu import ngram_statistics, sentence_bleu
from tf_l2t.translation.sequence_losses import (
    baseline_loss,
    candidate_weights,
    max_margin,
    minimum_risk,
    mixed,
    mixer_mask,
    reinforce,
    risk,
    sequence_nll,
    softmax_margin,
    token_reinforce,
    unique_candidates,
)
from tf_l2t.translation.subwords import EOS, PAD

RNG = np.random.default_rng(0)
SCORES = 2 * RNG.standard_normal((4, 5))
COSTS = RNG.uniform(size=(4, 5))
COSTS[0, 3] = COSTS[0, 1] = 0.01  # the first of equals
VALID = np.array([[1, 1, 0, 1, 1], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0], [0, 1, 1, 0, 1]], bool)
BASELINE = RNG.uniform(size=4)


def softmax(s):
    return np.exp(s - s.max()) / np.exp(s - s.max()).sum()


# name -> the loss, and that of one sentence's valid candidates: scores, costs, baseline
LOSSES = {
    "reinforce": (lambda s, c, v: reinforce(s, c, tf.constant(BASELINE), v),
                  lambda s, c, b: -sum(s[k] * (c[k] - b) for k in range(len(s)))),
    "minimum risk": (lambda s, c, v: minimum_risk(s, c, valid=v), lambda s, c, b: sum(softmax(0.005 * s) * c)),
    "minimum risk, sharp": (lambda s, c, v: minimum_risk(s, c, 1.5, v), lambda s, c, b: sum(softmax(1.5 * s) * c)),
    "risk": (risk, lambda s, c, b: sum(np.exp(s[k]) / sum(np.exp(s)) * c[k] for k in range(len(s)))),
    "sequence nll": (sequence_nll, lambda s, c, b: -s[c.argmin()] + np.log(sum(np.exp(s)))),
    "softmax margin": (softmax_margin, lambda s, c, b: -s[c.argmin()] + np.log(sum(np.exp(s + c)))),
    "max margin": (max_margin, lambda s, c, b: max(
        max(0, c[k] - c.min() - s[c.argmin()] + s[k]) for k in range(len(s)))),
}
LOSS = pytest.mark.parametrize("name", LOSSES)


def compiled(name):
    return tf.function(lambda s, v=None: LOSSES[name][0](s, tf.constant(COSTS), v))


def gradient(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)


@LOSS
def test_values(name):
    _, formula = LOSSES[name]
    everything = [formula(s, c, b) for s, c, b in zip(SCORES, COSTS, BASELINE, strict=True)]
    np.testing.assert_allclose(compiled(name)(tf.constant(SCORES)), everything, rtol=1e-12, atol=1e-14)
    some = [formula(s[v], c[v], b) for s, c, b, v in zip(SCORES, COSTS, BASELINE, VALID, strict=True)]
    np.testing.assert_allclose(compiled(name)(tf.constant(SCORES), VALID), some, rtol=1e-12, atol=1e-14)
    assert (np.abs(np.array(some) - everything) > 1e-4).any()


@LOSS
def test_invalid_candidates_change_nothing(name):
    """Whatever they hold: −inf is the log probability of a candidate that cannot be. None at all costs nothing."""
    loss, _ = LOSSES[name]
    valid = VALID.copy()
    valid[2] = False
    expected = loss(tf.constant(SCORES), tf.constant(COSTS), valid)
    for garbage in (1e3 * RNG.standard_normal(SCORES.shape), -np.inf, np.nan):
        scores = tf.constant(np.where(valid, SCORES, garbage))
        costs = tf.constant(np.where(valid, COSTS, garbage))
        np.testing.assert_array_equal(loss(scores, costs, valid), expected)
        found = gradient(lambda s, costs=costs: loss(s, costs, valid), scores).numpy()
        np.testing.assert_array_equal(found, gradient(lambda s: loss(s, tf.constant(COSTS), valid),
                                                      tf.constant(SCORES)))
        assert (found[~valid] == 0).all()
    assert expected[2] == 0


@LOSS
def test_derivatives_against_differences(name):
    """First ones of every score; second ones along a direction, in both modes. Costs and baselines get none."""
    scores, direction, h = tf.constant(SCORES), tf.constant(RNG.standard_normal(SCORES.shape)), 1e-5

    def loss(s):
        return LOSSES[name][0](s, tf.constant(COSTS), VALID)

    found = gradient(loss, scores).numpy()
    for b, k in np.ndindex(SCORES.shape):
        step = np.zeros(SCORES.shape)
        step[b, k] = h
        difference = tf.reduce_sum(loss(scores + step) - loss(scores - step)) / (2 * h)
        np.testing.assert_allclose(found[b, k], difference, rtol=1e-7, atol=1e-9)
    assert np.abs(found).max() > 1e-4
    expected = (gradient(loss, scores + h * direction) - gradient(loss, scores - h * direction)) / (2 * h)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        along = tf.reduce_sum(gradient(loss, scores) * direction)
    reverse = tape.gradient(along, scores, unconnected_gradients="zero")
    with tf.autodiff.ForwardAccumulator(scores, direction) as accumulator:
        found = gradient(loss, scores)
    forward = accumulator.jvp(found, unconnected_gradients="zero")
    for second in (reverse, forward):
        np.testing.assert_allclose(second, expected, rtol=1e-6, atol=1e-9)
    if name not in ("reinforce", "max margin"):
        assert np.abs(expected).max() > 1e-6
    assert gradient(lambda c: LOSSES[name][0](scores, c, VALID), tf.constant(COSTS)) is None


def test_reinforce_with_a_baseline_for_each_candidate():
    baseline = tf.constant(RNG.uniform(size=(4, 5)))
    np.testing.assert_allclose(reinforce(tf.constant(SCORES), COSTS, baseline), [
        -sum(SCORES[b, k] * (COSTS[b, k] - baseline[b, k]) for k in range(5)) for b in range(4)], rtol=1e-12)
    assert gradient(lambda x: reinforce(tf.constant(SCORES), COSTS, x), baseline) is None


def test_unique_candidates():
    candidates = [
        [[4, 5, EOS, PAD], [4, 6, EOS, PAD], [4, 5, EOS, 7], [4, 5, 6, 7], [EOS, 4, 5, 6], [EOS, PAD, PAD, PAD]],
        [[4, 4, 4, 4], [4, 4, 4, 4], [4, 4, 4, 4], [4, 4, 4, EOS], [4, 4, 4, PAD], [5, 4, 4, 4]],
    ]
    got = tf.function(unique_candidates, input_signature=[tf.TensorSpec([None, None, None], tf.int32)])(candidates)
    np.testing.assert_array_equal(got, [[1, 1, 0, 1, 1, 0], [1, 0, 0, 1, 0, 1]])


def test_duplicates_and_empty_candidates_in_a_loss():
    """From tokens to a loss: as if the duplicate were not there; an empty candidate costs 1."""
    candidates = np.array([[[4, 5, 6, 7, EOS], [4, 5, EOS, PAD, PAD], [4, 5, 6, 7, EOS], [EOS, PAD, PAD, PAD, PAD]]],
                          np.int32)
    reference = np.tile(np.array([[4, 5, 6, 7, EOS]], np.int32), (4, 1))
    costs = 1 - sentence_bleu(ngram_statistics(candidates[0], reference, tf.float64))[None]
    assert costs[0, 0] == 0 and costs[0, 3] == 1
    valid = unique_candidates(candidates)
    scores = tf.constant([[-1.0, -2.0, -1.0, -0.5]], tf.float64)
    kept = [0, 1, 3]
    for loss in (risk, sequence_nll, softmax_margin, max_margin, minimum_risk):
        np.testing.assert_allclose(loss(scores, costs, valid=valid),
                                   loss(tf.gather(scores, kept, axis=1), tf.gather(costs, kept, axis=1)), rtol=1e-12)


def test_candidate_weights():
    got = candidate_weights(tf.constant(SCORES), VALID).numpy()
    assert (got[~VALID] == 0).all()
    for b in range(4):
        np.testing.assert_allclose(got[b][VALID[b]], softmax(SCORES[b][VALID[b]]), rtol=1e-12)


def test_a_margin_that_is_kept_costs_nothing():
    costs = tf.constant([[0.1, 0.5, 0.9]])
    assert float(max_margin(tf.constant([[0.0, -0.5, -0.9]]), costs)[0]) == 0
    assert float(max_margin(tf.constant([[0.0, -0.3, -0.9]]), costs)[0]) == pytest.approx(0.1)


@pytest.mark.parametrize("steps", [0, 2, 4])
def test_token_reinforce(steps):
    """Against loops, with garbage at padding; the first positions are likelihood; rewards and baseline are numbers."""
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    log_p, rewards, baseline = -RNG.uniform(size=(4, 4)), RNG.uniform(size=(4, 4)), RNG.uniform(size=(4, 4))
    expected = [-sum(log_p[b, t] * (1 if t < steps else rewards[b, t] - baseline[b, t])
                     for t in range(4) if mask[b, t]) for b in range(4)]

    def loss(log_p, rewards=rewards, baseline=baseline):
        return token_reinforce(log_p, tf.convert_to_tensor(rewards), tf.convert_to_tensor(baseline), mask, steps)

    log_probs = tf.constant(np.where(mask, log_p, -np.inf))
    np.testing.assert_allclose(loss(log_probs), expected, rtol=1e-12)
    weights = np.where(np.arange(4) < steps, 1, rewards - baseline)
    np.testing.assert_allclose(gradient(loss, log_probs), -weights * mask, rtol=1e-12)
    for moved in ("rewards", "baseline"):
        value = tf.constant(rewards)
        assert gradient(lambda x, moved=moved: loss(log_probs, **{moved: x}), value) is None


def test_mixer_mask():
    np.testing.assert_array_equal(mixer_mask(5, 2), [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(tf.function(mixer_mask)(tf.constant(3), tf.constant(7)), [1, 1, 1])


def test_baseline_loss():
    mask = np.array([[1, 1, 1], [1, 0, 0]], bool)
    baseline, rewards = RNG.uniform(size=(2, 3)), RNG.uniform(size=(2, 3))
    error = np.where(mask, baseline - rewards, 0)
    value = tf.constant(np.where(mask, baseline, np.nan))
    np.testing.assert_allclose(baseline_loss(value, tf.constant(rewards), mask), (error ** 2).sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(gradient(lambda b: baseline_loss(b, tf.constant(rewards), mask), value), 2 * error,
                               rtol=1e-12)
    assert gradient(lambda r: baseline_loss(value, r, mask), tf.constant(rewards)) is None


def test_mixed():
    np.testing.assert_allclose(mixed(tf.constant([1.0, 2.0]), tf.constant([3.0, 0.0]), 0.4), [2.2, 0.8], rtol=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match="alpha must be a number > 0"):
        minimum_risk(tf.constant(SCORES), COSTS, 0.0)
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\]"):
        mixed(tf.constant(1.0), tf.constant(1.0), 1.5)
