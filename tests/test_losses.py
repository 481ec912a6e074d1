"""Losses against a second formula in NumPy, and their derivatives against differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.losses import (
    TAUGHT_FORMS,
    TaughtLoss,
    cross_entropy,
    forward_correction,
    label_smoothing,
    logit_adjustment,
    mixture_loss,
    soft_loss,
    stable_loss,
    symmetric_cross_entropy,
    taught_form,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((5, 4)) * 2
LABELS = np.array([0, 3, 1, 1, 2], np.int32)
PHI = RNG.standard_normal((4, 4))


def probabilities(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_cross_entropy():
    expected = [-np.log(p[y]) for p, y in zip(probabilities(LOGITS), LABELS, strict=True)]
    np.testing.assert_allclose(cross_entropy(LABELS, tf.constant(LOGITS)), expected, rtol=1e-13)


def by_paper(phi, p, y):
    return -sigmoid(phi[y] @ np.log(p))


def by_stable(phi, p, y):
    argument = phi[y, y] * np.log(p[y]) + sum(phi[y, j] * np.log(p[j] + 0.05) for j in range(4) if j != y)
    return -40 * sigmoid(argument)


def by_mixture(phi, p, y):
    u = p[y] + sum((8 * phi[y, j]) ** 2 * p[j] for j in range(4) if j != y)
    m = 1 - np.exp(-(8 * phi[y, y]) ** 2)
    return -(1 - m) * np.log(u) + m * (1 - u)


def by_soft(phi, p, y, frequencies=(0.25, 0.25, 0.25, 0.25)):
    s = [1 if j == y else (25 * phi[y, j]) ** 2 * frequencies[j] for j in range(4)]
    return -10 * phi[y, y] * sum(s[j] * np.log(p[j]) for j in range(4)) / sum(s)


# Every form by a second formula: of one example with the label y and the probabilities p, at Φ of a usual size.
VALUES = {"paper": (by_paper, PHI), "stable": (by_stable, PHI), "mixture": (by_mixture, 0.1 * PHI),
          "soft": (by_soft, 0.1 * PHI)}


def test_every_form_has_values_to_compare_with():
    assert VALUES.keys() == TAUGHT_FORMS.keys()


@pytest.mark.parametrize("name", TAUGHT_FORMS)
def test_values(name):
    formula, phi = VALUES[name]
    expected = [formula(phi, p, y) for p, y in zip(probabilities(LOGITS), LABELS, strict=True)]
    found = TAUGHT_FORMS[name].losses(tf.constant(LABELS), tf.constant(LOGITS), tf.constant(phi))
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_soft_loss_of_classes_of_other_sizes():
    prior, phi = np.array([0.5, 0.3, 0.15, 0.05]), 0.1 * PHI
    expected = [by_soft(phi, p, y, prior) for p, y in zip(probabilities(LOGITS), LABELS, strict=True)]
    np.testing.assert_allclose(soft_loss(LABELS, tf.constant(LOGITS), tf.constant(phi), prior), expected, rtol=1e-12)


def test_the_soft_form_contains_label_smoothing():
    """With Φ_yj = √(ε / (1 − ε + ε / C)) / κ; at a new teacher's Φ, ε is close to 0.09 for any number of classes."""
    square = (25 * 0.0125) ** 2
    for smoothing, beside in ((0.3, np.sqrt(0.3 / 0.775) / 25), (square / (1 + square * 3 / 4), 0.0125)):
        phi = np.where(np.eye(4), 0.1, beside)
        np.testing.assert_allclose(soft_loss(LABELS, tf.constant(LOGITS), tf.constant(phi)),
                                   label_smoothing(LABELS, tf.constant(LOGITS), smoothing), rtol=1e-12)
    for classes in (2, 10, 1000):
        assert square / (1 + square * (classes - 1) / classes) == pytest.approx(0.09, rel=0.04)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_soft_form_contains_logit_adjustment(smoothing):
    """With class counts, and labels smoothed towards π: targets (1 − ε) e_y + ε π."""
    counts = np.array([50, 30, 15, 5])
    prior = counts / counts.sum()
    phi = np.repeat(np.sqrt(smoothing / (1 - smoothing + smoothing * prior))[:, None], 4, axis=1) / 25
    np.fill_diagonal(phi, 0.1)
    plain = logit_adjustment(LABELS, tf.constant(LOGITS), counts)
    towards = sum(prior[j] * logit_adjustment(np.full(5, j), tf.constant(LOGITS), counts) for j in range(4))
    np.testing.assert_allclose(taught_form("soft").losses(LABELS, tf.constant(LOGITS), tf.constant(phi), counts),
                               (1 - smoothing) * plain + smoothing * towards, rtol=1e-12)


def test_the_mixture_form_contains_forward_correction():
    """At Φ_yj = √(N_jy / N_yy) / κ, but for log N_yy, where m is 0."""
    noise = np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1], [0.05, 0.3, 0.65, 0.0], [0.1, 0.2, 0.2, 0.5]])
    phi = np.sqrt(noise.T / np.diag(noise)[:, None]) / 8
    np.fill_diagonal(phi, 0)
    expected = forward_correction(LABELS, tf.constant(LOGITS), noise) + np.log(np.diag(noise)[LABELS])
    np.testing.assert_allclose(mixture_loss(LABELS, tf.constant(LOGITS), tf.constant(phi)), expected, rtol=1e-12)


def test_the_mixture_form_contains_symmetric_cross_entropy():
    """At m = 4 / 4.1, where α = 0.1, β = 1, A = −4."""
    phi = np.sqrt(-np.log(0.1 / 4.1)) / 8 * np.eye(4)
    np.testing.assert_allclose(mixture_loss(LABELS, tf.constant(LOGITS), tf.constant(phi)),
                               symmetric_cross_entropy(LABELS, tf.constant(LOGITS)) / 4.1, rtol=1e-12)


@pytest.mark.parametrize("gap", [0.0, 30.0, 300.0])
def test_the_mixture_form_is_cross_entropy_where_nothing_is_doubted(gap):
    """Value, slope and curvature, however improbable the label is."""
    logits, phi = tf.constant([[gap, 0.5, -1.0]], tf.float64), tf.zeros((3, 3), tf.float64)
    found = []
    for loss in (lambda z: mixture_loss([1], z, phi), lambda z: cross_entropy([1], z)):
        with tf.GradientTape() as outer:
            outer.watch(logits)
            with tf.GradientTape() as tape:
                tape.watch(logits)
                value = loss(logits)
            slope = tape.gradient(value, logits)
        found.append((value, slope, outer.jacobian(slope, logits)))
    for got, expected in zip(*found, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-7)


def test_the_mixture_form_shares_a_hopeless_label():
    """p_y = e^-200 is below any float32; class 0 still takes its share, all of it."""
    logits = tf.constant([[200.0, 0.0, 0.0]])
    phi = tf.constant([[0, 0, 0], [1e-4, 0, 0], [0, 0, 0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = mixture_loss([1], logits, phi)
    np.testing.assert_allclose(value, [-2 * np.log(8e-4)], rtol=1e-5)  # u = N_10 p_0
    np.testing.assert_allclose(tape.gradient(value, logits), np.zeros((1, 3)), atol=1e-6)


@pytest.mark.parametrize("name", TAUGHT_FORMS)
def test_a_diagonal_is_a_matrix_of_zeros_beside_it(name):
    diagonal = tf.constant([0.3, -0.1, 0.2, 0.05], tf.float64)
    loss = taught_form(name).per_example
    np.testing.assert_allclose(loss(LABELS, tf.constant(LOGITS), diagonal),
                               loss(LABELS, tf.constant(LOGITS), tf.linalg.diag(diagonal)), rtol=1e-13)


def test_the_stable_form_starts_as_cross_entropy():
    """At Φ = 0.1 I its gradient is σ'(0.1 log p) / σ'(0) times that of cross entropy: within 0.7 % for p_y > 0.2."""
    logits = tf.constant([[1.0, 0.0, 0.5, -1.0], [3.0, 0.0, 0.0, 1.0]], tf.float64)
    labels = tf.constant([0, 0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        taught = tf.reduce_sum(stable_loss(labels, logits, 0.1 * tf.eye(4, dtype=tf.float64)))
        fixed = tf.reduce_sum(cross_entropy(labels, logits))
    np.testing.assert_allclose(tape.gradient(taught, logits), tape.gradient(fixed, logits), rtol=7e-3)


@pytest.mark.parametrize("name", TAUGHT_FORMS)
def test_derivatives_and_mixed_derivatives_against_differences(name):
    form = taught_form(name)
    logits, phi = tf.constant(LOGITS), tf.constant(form.start * PHI)
    d_logits, d_phi = tf.constant(RNG.standard_normal((5, 4))), tf.constant(form.start * RNG.standard_normal((4, 4)))

    def gradient(logits, phi):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = tf.reduce_sum(form.per_example(LABELS, logits, phi))
        return tape.gradient(value, logits)

    with tf.GradientTape() as tape:
        tape.watch([logits, phi])
        along = tf.reduce_sum(gradient(logits, phi) * d_logits)
    hessian, mixed = tape.gradient(along, [logits, phi])
    h = 1e-5
    by_logits = tf.reduce_sum((gradient(logits + h * d_logits, phi) - gradient(logits - h * d_logits, phi))
                              * d_logits) / (2 * h)
    by_phi = tf.reduce_sum((gradient(logits, phi + h * d_phi) - gradient(logits, phi - h * d_phi)) * d_logits) / (2 * h)
    np.testing.assert_allclose(tf.reduce_sum(hessian * d_logits), by_logits, rtol=1e-7)
    np.testing.assert_allclose(tf.reduce_sum(mixed * d_phi), by_phi, rtol=1e-7)


@pytest.mark.parametrize("loss", [stable_loss, mixture_loss, soft_loss])
def test_extreme_logits_stay_finite(loss):
    logits = tf.constant([[1e4, 0, 0, 0], [0, 1e4, 0, 0.0]], tf.float32)
    labels = tf.constant([1, 1])
    for sign in (-1, 1):
        phi = sign * tf.ones((4, 4))
        with tf.GradientTape() as outer:
            outer.watch([logits, phi])
            with tf.GradientTape() as tape:
                tape.watch(logits)
                values = loss(labels, logits, phi)
            gradient = tape.gradient(values, logits)
        second = outer.gradient(gradient, [logits, phi])
        for tensor in (values, gradient, *second):
            assert np.isfinite(tensor).all()


@pytest.mark.parametrize("shape", [(4, 4), (4,)])
@pytest.mark.parametrize("name", TAUGHT_FORMS)
def test_as_a_keras_loss(name, shape, tmp_path):
    phi = 0.1 * np.random.default_rng(1).standard_normal(shape)
    x = np.random.default_rng(2).standard_normal((5, 3)).astype(np.float32)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    model.compile("sgd", loss=TaughtLoss(name, phi))
    loss = model.evaluate(x, LABELS[:, None], verbose=0)
    logits = tf.constant(model.predict(x, verbose=0))
    expected = np.mean(taught_form(name).per_example(LABELS, logits, tf.constant(phi, tf.float32)))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again.evaluate(x, LABELS, verbose=0), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="One-hot"):
        model.evaluate(x, np.eye(4)[LABELS], verbose=0)


def test_as_a_keras_loss_with_class_counts():
    phi, counts = np.where(np.eye(4), 0.1, 0.0125), [50, 30, 15, 5]
    loss = TaughtLoss("soft", phi, class_counts=np.array(counts))
    expected = np.mean(taught_form("soft").losses(LABELS, tf.constant(LOGITS), tf.constant(phi), counts))
    for made in (loss, TaughtLoss.from_config(loss.get_config())):
        np.testing.assert_allclose(made(LABELS, tf.constant(LOGITS, tf.float32)), expected, rtol=1e-6)
    for wrong in ([50, 30], [50, 30, 15, 0]):
        with pytest.raises(ValueError, match="class_counts"):
            TaughtLoss("soft", phi, class_counts=wrong)


def test_bad_coefficients():
    for phi in (np.ones((2, 3)), np.ones((2, 2, 2)), [np.nan, 1.0], 3.0):
        with pytest.raises(ValueError, match="finite numbers"):
            TaughtLoss("stable", phi)


def test_unknown_form():
    with pytest.raises(ValueError, match="'stable'"):
        taught_form("hinge")
