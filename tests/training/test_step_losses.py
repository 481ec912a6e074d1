"""The rivals that look into a step, against eager second computations of one and of a few steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tf_l2t.data import ArrayPair
from tf_l2t.losses import annealed, cross_entropy, large_margin_logits
from tf_l2t.students import FunctionalStudent
from tf_l2t.training.step_losses import LargeMarginStep, MetaWeightStep, ReweightStep
from tf_l2t.training.student_runs import StudentRuns

STUDENT = FunctionalStudent(tiny.plain)
TRAIN, CLEAN = (ArrayPair(p.x.astype(np.float32), p.y) for p in (tiny.arrays(24, 0), tiny.arrays(12, 1)))
RATE, STEPS, BATCH = 0.05, 3, 8


def runs(loss, num_steps=STEPS, **options):
    return StudentRuns(STUDENT, TRAIN, CLEAN, loss=loss, coefficients_fn=None, num_steps=num_steps, batch_size=BATCH,
                       momentum=0.0, decay="constant", **options)


def example_gradient(params, non_trainable, x, y):
    with tf.GradientTape() as tape:
        tape.watch(params)
        loss = tf.reduce_mean(cross_entropy(y, STUDENT.apply(params, non_trainable, x, training=True)[0]))
    return loss, tape.gradient(loss, params)


def dot(a, b):
    return float(tf.add_n([tf.reduce_sum(u * v) for u, v in zip(a, b, strict=True)]))


def by_hand(loss, weigh, seed=4):
    """SGD on Σ w_i ℓ_i, one example after another; `weigh` gets (params, non_trainable, the batch, ℓ, ∇ℓ)."""
    params, non_trainable = STUDENT.init(seed)
    batch_fn = loss.batch_fn(TRAIN, BATCH)
    for step in range(STEPS):
        x, y, *clean = batch_fn(tf.constant(seed, tf.int64), tf.constant(step))
        each = [example_gradient(params, non_trainable, x[i:i + 1], y[i:i + 1]) for i in range(BATCH)]
        weights = weigh(params, non_trainable, clean, [float(v) for v, _ in each], [g for _, g in each], step)
        params = tuple(p - RATE * tf.add_n([w * g[k] for w, (_, g) in zip(weights, each, strict=True)])
                       for k, p in enumerate(params))
    return params


def assert_same(run, expected, before):
    for a, b, start in zip(run.last.params, expected, before, strict=True):
        # float32, sums in another order; relative to how far the weights went
        np.testing.assert_allclose(a - start, b - start, rtol=2e-4, atol=1e-6)


def test_reweighting():
    loss = ReweightStep(STUDENT, CLEAN, clean_batch_size=5)

    def weigh(params, non_trainable, clean, losses, gradients, step):
        direction = example_gradient(params, non_trainable, *clean)[1]
        agreement = np.maximum([dot(g, direction) for g in gradients], 0)
        assert 0 < np.sum(agreement > 0) < BATCH  # some examples are dropped, not all
        return agreement / agreement.sum()

    assert_same(runs(loss)(4, RATE), by_hand(loss, weigh), STUDENT.init(4)[0])


def test_meta_weight_net():
    loss = MetaWeightStep(STUDENT, CLEAN, clean_batch_size=5)
    theta = [tf.Variable(v) for v in loss.memory()[:4]]
    optimizer = keras.optimizers.Adam(1e-3, epsilon=1e-8)

    def network(losses):
        hidden = tf.nn.relu(tf.constant(losses)[:, None] @ theta[0] + theta[1])
        return tf.sigmoid(hidden @ theta[2] + theta[3])[:, 0]

    def weigh(params, non_trainable, clean, losses, gradients, step):
        with tf.GradientTape() as tape:  # through the step ahead as it is written, not by products along a direction
            weights = network(losses)
            ahead = tuple(p - RATE / BATCH * tf.add_n([weights[i] * g[k] for i, g in enumerate(gradients)])
                          for k, p in enumerate(params))
            value = example_gradient(ahead, non_trainable, *clean)[0]
        optimizer.apply([g + 1e-4 * v for g, v in zip(tape.gradient(value, theta), theta, strict=True)], theta)
        return network(losses).numpy() / BATCH

    expected = by_hand(loss, weigh)
    assert_same(runs(loss)(4, RATE), expected, STUDENT.init(4)[0])


def test_large_margin_steps():
    loss = LargeMarginStep(STUDENT, num_steps=4000, margin=4)
    params, _ = STUDENT.init(4)
    batch_fn = loss.batch_fn(TRAIN, BATCH)
    for step in range(STEPS):
        x, y = batch_fn(tf.constant(4, tf.int64), tf.constant(step))
        with tf.GradientTape() as tape:
            tape.watch(params)
            w1, b1, w2, b2 = params
            hidden = tf.tanh(tf.reshape(x, [BATCH, -1]) @ w1 + b1)
            logits = large_margin_logits(y, hidden, w2, 4, annealed(step, gamma=0.5 / 4000)) + b2
            value = tf.reduce_mean(cross_entropy(y, logits))
        params = tuple(p - RATE * g for p, g in zip(params, tape.gradient(value, params), strict=True))
    assert_same(runs(loss)(4, RATE), params, STUDENT.init(4)[0])
    # With the margin at once the student goes elsewhere.
    other = runs(LargeMarginStep(STUDENT, num_steps=1, margin=4))(4, RATE)
    assert not np.allclose(other.last.params[2], params[2], atol=1e-4)


def test_a_students_own_state_is_carried_beside_the_losses():
    student = FunctionalStudent(tiny.dense_batchnorm)
    made = StudentRuns(student, TRAIN, CLEAN, loss=ReweightStep(student, CLEAN), coefficients_fn=None, num_steps=4,
                       batch_size=BATCH, momentum=0.9, evaluate_every=2)
    run = made(1, RATE)
    before = student.init(1)[1]
    assert len(run.last.non_trainable) == len(before)
    assert not np.allclose(run.last.non_trainable[0], before[0])  # moving statistics moved
    assert [step for step, _ in run.curve] == [2, 4] and run.curve[-1][1] == run.dev_accuracy


@pytest.mark.parametrize("make", [lambda: LargeMarginStep(FunctionalStudent(lambda: keras.Sequential([
    keras.Input((3,)), keras.layers.Dense(4), keras.layers.ReLU()])), 10, 2)])
def test_bad_students(make):
    with pytest.raises(ValueError, match="last layer"):
        make()
