"""Where a gradient is exactly zero, roots and norms have no derivative; the run has one all the same."""

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tf_l2t.hypergradient import (
    HVP_MODES,
    Problem,
    StatusFeatures,
    StepOutput,
    adam,
    adaptive,
    check_hypergradient,
    clip,
    hypergradient,
    initial_state,
    objective_of,
    rmsprop,
    sgd,
)

FEATURES = np.array([1.0, 0.6, -0.3, 0.8])


class Linear:
    """φ_t = θ s_t, at θ = 0."""

    trainable_variables = (tf.Variable(0.0, dtype=tf.float64),)

    def apply(self, theta, features):
        return theta[0] * features[0]


def linear_problem(optimizer):
    """L = φ_t Σω, M = −Σ(ω_T − 2)² / 2: at θ = 0 every gradient is zero, and ∂g/∂θ = s_t is not."""
    return Problem(
        loss_fn=lambda p, n, batch, k: StepOutput(k * tf.add_n([tf.reduce_sum(w) for w in p]), n, {}),
        batch_fn=lambda seed, step: (),
        objective_fn=lambda p, n: -tf.add_n([tf.reduce_sum((w - 2) ** 2) for w in p]) / 2,
        optimizer=optimizer,
        features=StatusFeatures(lambda: (), lambda state: (tf.constant(FEATURES)[None, :][:, state.step], ()),
                                lambda status, metrics: ()),
        num_steps=len(FEATURES))


def adam_slope(rate=0.1, beta_1=0.9, beta_2=0.999, epsilon=0.05):
    """dω_T/dθ, by hand: the first moments' derivatives over ε. (tf.cast rounds β where Keras does.)"""
    mean, slope = 0.0, 0.0
    for count, feature in enumerate(FEATURES, 1):
        mean += (1 - beta_1) * (feature - mean)
        power_1, power_2 = (float(np.float32(beta)) ** count for beta in (beta_1, beta_2))
        correction = np.sqrt(1 - power_2) / (1 - power_1)
        slope -= rate * correction * mean / epsilon
    return slope


ADAM, TOTAL = adam(0.1, epsilon=0.05), FEATURES.sum()
SLOPES = {  # name: (optimizer, dω_T/dθ at θ = 0)
    "adam": (ADAM, adam_slope()),
    "amsgrad": (adam(0.1, epsilon=0.05, amsgrad=True), adam_slope()),
    "rmsprop": (rmsprop(0.1, epsilon=0.04, centered=True), -0.1 * TOTAL / 0.2),
    "clip_norm": (clip(sgd(0.1), norm=1.0), -0.1 * TOTAL),
    "clip_value": (clip(sgd(0.1), value=1.0), -0.1 * TOTAL),
    "clip_global_norm": (clip(sgd(0.1), global_norm=1.0), -0.1 * TOTAL),
    "clipped_adam": (clip(ADAM, global_norm=1.0), adam_slope()),
}


@pytest.mark.parametrize("name", SLOPES)
def test_the_gradient_at_zero_gradients_in_closed_form_and_against_differences(name):
    optimizer, slope = SLOPES[name]
    problem, teacher = linear_problem(optimizer), Linear()
    start = (tf.constant([1.3, 0.4], tf.float64), tf.constant(-0.2, tf.float64))
    state = initial_state(problem, start)
    expected = slope * (0.7 + 1.6 + 2.2)  # ΣdM/dω_T: nothing moves at θ = 0
    for hvp in HVP_MODES:
        result = hypergradient(problem, teacher, hvp=hvp)(state, 0)
        np.testing.assert_allclose(result.gradient[0], expected, rtol=1e-13)
        assert all(np.isfinite(a).all() for a in tf.nest.flatten(result.adjoint))
    objective, h = objective_of(problem, teacher), 1e-7  # M bends with |θ| / ε there
    up, down = (float(objective((tf.constant(d, tf.float64),), state, 0, result.rollout.features)) for d in (h, -h))
    assert (up - down) / (2 * h) == pytest.approx(expected, rel=1e-5)


def dead_input_problem(optimizer):
    """A dense student of which a third of the inputs is always 0."""
    pairs = [tiny.arrays(24, 0), tiny.arrays(15, 1)]
    for pair in pairs:
        pair.x[:, ::3] = 0
    student = tiny.FunctionalStudent(tiny.plain, dtype="float64")
    problem = tiny.classification_problem(
        student, *pairs, loss=tiny.taught_form("stable").per_example, objective=tiny.log_likelihood,
        optimizer=optimizer, num_steps=8, batch_size=7, refresh_every=3, dev_sample_size=9)
    return problem, initial_state(problem, *student.init(5))


def test_weights_of_dead_inputs_spoil_nothing():
    problem, state = dead_input_problem(adam(0.02))
    # At the stock ε a step bends where a gradient is about 3e-6, so the difference's own step has to be short.
    report = check_hypergradient(problem, tiny.teacher(), state, 3, num_directions=2, schedules=("every_k",),
                                 epsilon=1e-6, tolerance=1e-5, agreement=1e-10)
    assert report.passed, str(report)
    result = hypergradient(problem, tiny.teacher())(state, 3)
    assert all(np.isfinite(a).all() for a in tf.nest.flatten([result.adjoint, result.gradient]))
    square = result.rollout.final_state.slots[1][0].numpy().reshape(*tiny.IMAGE, -1)
    assert (square[::3] == 0).all() and (square[1::3] > 0).all()


def both_modes(optimizer):
    """The derivative of one update by (g, slots) at g = 0, slots = 0 along ones: forward, and reverse transposed."""
    params = (tf.ones(2, tf.float64), tf.ones((), tf.float64))
    inputs = [*map(tf.zeros_like, params), *tf.nest.flatten(optimizer.init(params))]

    def update(inputs):
        slots = tf.nest.pack_sequence_as(optimizer.init(params), inputs[2:])
        return optimizer.update(tuple(inputs[:2]), slots, params, tf.constant(0))[0]

    with tf.autodiff.ForwardAccumulator(inputs, [tf.ones_like(x) for x in inputs]) as accumulator:
        outputs = update(inputs)
    pushed = accumulator.jvp(outputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = update(inputs)
    pulled = tape.gradient(outputs, inputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return float(sum(map(tf.reduce_sum, pushed))), float(sum(map(tf.reduce_sum, pulled)))


@pytest.mark.parametrize("name", SLOPES)
def test_both_modes_of_differentiation_agree_at_zero(name):
    pushed, pulled = both_modes(SLOPES[name][0])
    assert pushed == pytest.approx(pulled, rel=1e-14) and pushed < 0


def test_with_a_plain_root_they_would_not(monkeypatch):
    """TensorFlow takes 0 · ∞ as 0 in its root's reverse mode, but not in its forward mode."""
    monkeypatch.setattr(adaptive, "safe_sqrt", tf.sqrt)
    assert np.isnan(both_modes(ADAM)[0])
