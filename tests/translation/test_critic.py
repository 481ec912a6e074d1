"""Actor-critic losses against loops in NumPy, and their derivatives against differences."""

import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.translation.critic import actor_loss, critic_loss, critic_targets

RNG = np.random.default_rng(0)
B, T, V = 3, 4, 5
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], bool)
REWARDS = RNG.uniform(size=(B, T))
LOGITS = RNG.standard_normal((B, T, V))
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=-1, keepdims=True)
Q = RNG.standard_normal((B, T, V))
ACTIONS = RNG.integers(0, V, (B, T))


def noisy(values):
    return tf.constant(np.where(MASK.reshape(MASK.shape + (1,) * (values.ndim - 2)), values,
                                1e3 * RNG.standard_normal(values.shape)))


def gradient(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)


def expected_targets():
    expected = np.zeros((B, T))
    for b in range(B):
        for t in range(T):
            if MASK[b, t]:
                expected[b, t] = REWARDS[b, t]
                if t + 1 < T and MASK[b, t + 1]:
                    expected[b, t] += sum(PROBS[b, t + 1, a] * Q[b, t + 1, a] for a in range(V))
    return expected


def test_critic_targets():
    got = tf.function(critic_targets)(noisy(REWARDS), noisy(PROBS), noisy(Q), tf.constant(MASK))
    np.testing.assert_allclose(got, expected_targets(), rtol=1e-12)
    assert gradient(lambda q: critic_targets(tf.constant(REWARDS), tf.constant(PROBS), q, MASK), tf.constant(Q)) is None


def test_a_critic_that_has_converged_knows_what_is_to_come():
    """With Q' = Q and one possible token, the fixed point of the targets is the reward to go."""
    q = np.cumsum(REWARDS[:, ::-1] * MASK[:, ::-1], axis=1)[:, ::-1]
    only = np.eye(V)[ACTIONS]
    got = critic_targets(tf.constant(REWARDS), tf.constant(only), tf.constant(only * q[..., None]), MASK)
    np.testing.assert_allclose(got, q * MASK, rtol=1e-12)


@pytest.mark.parametrize("penalty", [0.0, 1e-3, 0.5])
def test_critic_loss(penalty):
    targets = expected_targets()
    expected = [sum((Q[b, t, ACTIONS[b, t]] - targets[b, t]) ** 2
                    + penalty * sum((Q[b, t, a] - Q[b, t].mean()) ** 2 for a in range(V))
                    for t in range(T) if MASK[b, t]) for b in range(B)]
    np.testing.assert_allclose(critic_loss(noisy(Q), ACTIONS, noisy(targets), MASK, penalty), expected, rtol=1e-12)


def test_actor_loss():
    expected = [-sum(PROBS[b, t, a] * Q[b, t, a] for t in range(T) if MASK[b, t] for a in range(V)) for b in range(B)]
    np.testing.assert_allclose(actor_loss(noisy(np.log(PROBS)), noisy(Q), MASK), expected, rtol=1e-12)
    assert gradient(lambda q: actor_loss(tf.constant(np.log(PROBS)), q, MASK), tf.constant(Q)) is None


@pytest.mark.parametrize("loss", [
    lambda x: critic_loss(x, ACTIONS, tf.constant(REWARDS), MASK, 0.3),
    lambda x: actor_loss(tf.nn.log_softmax(x), tf.constant(Q), MASK),
], ids=["critic", "actor"])
def test_derivatives_against_differences(loss):
    x, h = noisy(LOGITS), 1e-5
    found = gradient(loss, x).numpy()
    assert (found[~MASK] == 0).all()
    for b, t, a in np.ndindex(B, T, V):
        step = np.zeros((B, T, V))
        step[b, t, a] = h
        difference = (loss(x + step) - loss(x - step))[b] / (2 * h)
        np.testing.assert_allclose(found[b, t, a], difference, rtol=1e-6, atol=1e-8)
    direction = tf.constant(RNG.standard_normal((B, T, V)))
    second = gradient(lambda x: tf.reduce_sum(gradient(loss, x) * direction), x)
    expected = (gradient(loss, x + h * direction) - gradient(loss, x - h * direction)) / (2 * h)
    np.testing.assert_allclose(second, expected, rtol=1e-6, atol=1e-8)
    assert np.abs(expected).max() > 1e-2


def test_a_negative_penalty():
    with pytest.raises(ValueError, match="penalty"):
        critic_loss(tf.constant(Q), ACTIONS, tf.constant(REWARDS), MASK, -1.0)
