"""Fixed losses against a second formula in NumPy, their derivatives against differences, and as Keras losses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.losses import FIXED_LOSSES, FixedLoss, TaughtLoss, estimated_noise, fixed_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((6, 4)) * 2
LABELS = np.array([0, 3, 1, 1, 2, 3], np.int32)
NOISE = np.array([[.6, .4, 0, 0], [0, .7, .2, .1], [.1, .1, .8, 0], [0, 0, 0, 1]])
COUNTS = [100, 30, 9, 1]


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def smooth(z, p, y, sharpness=50.0):
    margin = np.log(p[y]) - max(np.log(p[j]) for j in range(4) if j != y)
    return np.log1p(np.exp(-sharpness * margin)) if margin > 0 else -sharpness * margin + np.log1p(
        np.exp(sharpness * margin))


def balanced(z, p, y, counts=COUNTS, beta=0.999):
    effective = [sum(beta ** k for k in range(n)) for n in counts]  # a geometric series
    weights = np.array([1 / e for e in effective])
    return -weights[y] / weights.mean() * np.log(p[y])


# name -> options and the loss of one example
FORMULAS = {
    "cross_entropy": [({}, lambda z, p, y: -np.log(p[y]))],
    "smooth": [({}, smooth), ({"sharpness": 3.0}, lambda z, p, y: smooth(z, p, y, 3.0))],
    "label_smoothing": [({"smoothing": s}, lambda z, p, y, s=s: -sum(
        ((1 - s) * (j == y) + s / 4) * np.log(p[j]) for j in range(4))) for s in (0.0, 0.1, 0.5)],
    "focal": [({"gamma": g}, lambda z, p, y, g=g: -(1 - p[y]) ** g * np.log(p[y])) for g in (0, 1, 2.0, 5)],
    "generalised_cross_entropy": [({"q": q}, lambda z, p, y, q=q: (1 - p[y] ** q) / q) for q in (0.1, 0.7, 1)],
    "symmetric_cross_entropy": [({"alpha": 0.5, "beta": 2.0, "log_zero": -6.0}, lambda z, p, y: -0.5 * np.log(p[y])
                                 - 2.0 * sum(p[j] * (0 if j == y else -6.0) for j in range(4)))],
    "forward_correction": [({"noise": NOISE}, lambda z, p, y: -np.log(p @ NOISE[:, y]))],
    "gold_correction": [({"noise": NOISE}, lambda z, p, y: -np.log(p @ NOISE[:, y]))],  # trusted ones: see below
    "class_balanced": [({"counts": COUNTS}, balanced), ({"counts": COUNTS, "beta": 0}, lambda z, p, y: -np.log(p[y])),
                       ({"counts": COUNTS, "beta": 0.9}, lambda z, p, y: balanced(z, p, y, COUNTS, 0.9))],
    "logit_adjustment": [({"counts": COUNTS, "tau": t}, lambda z, p, y, t=t: -np.log(
        softmax(z + t * np.log(np.array(COUNTS) / 140))[y])) for t in (0, 1.0, 1.5)],
}
CASES = [(name, options, formula) for name, rows in FORMULAS.items() for options, formula in rows]


def test_every_loss_is_tested():
    assert FORMULAS.keys() == FIXED_LOSSES.keys()


def test_gold_correction_of_trusted_labels_is_cross_entropy():
    mixed = np.where(np.arange(6) % 2, LABELS, LABELS + 4)
    got = fixed_loss("gold_correction", noise=NOISE)(mixed, tf.constant(LOGITS))
    cross = fixed_loss("cross_entropy")(LABELS, tf.constant(LOGITS))
    forward = fixed_loss("forward_correction", noise=NOISE)(LABELS, tf.constant(LOGITS))
    np.testing.assert_allclose(got, np.where(np.arange(6) % 2, forward, cross), rtol=1e-13)


def test_estimated_noise():
    probabilities = np.array([[.5, .5, 0], [.7, .2, .1], [0, .4, .6]])
    np.testing.assert_allclose(estimated_noise([0, 0, 2], probabilities), [[.6, .35, .05], [0, 1, 0], [0, .4, .6]],
                               rtol=1e-12)


@pytest.mark.parametrize(("name", "options", "formula"), CASES)
def test_values(name, options, formula):
    expected = [formula(z, softmax(z), y) for z, y in zip(LOGITS, LABELS, strict=True)]
    np.testing.assert_allclose(fixed_loss(name, **options)(LABELS, tf.constant(LOGITS)), expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "options", "formula"), CASES)
def test_derivatives_against_differences(name, options, formula):
    del formula
    loss, direction = fixed_loss(name, **options), RNG.standard_normal(LOGITS.shape)

    def gradient(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = tf.reduce_sum(tf.sin(loss(LABELS, logits)))
        return value, tape.gradient(value, logits)

    logits, h = tf.constant(LOGITS), 1e-6
    (low, low_gradient), (high, high_gradient) = gradient(logits - h * direction), gradient(logits + h * direction)
    with tf.autodiff.ForwardAccumulator(logits, tf.constant(direction)) as accumulator:
        value, first = gradient(logits)
    # Rounding of 1e-16 in values of up to 500 (smooth), over h.
    np.testing.assert_allclose(accumulator.jvp(value), (high - low) / (2 * h), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(accumulator.jvp(first), (high_gradient - low_gradient) / (2 * h), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("name", "options", "formula"), CASES)
def test_extreme_logits_stay_finite(name, options, formula):
    del formula
    for scale in (1e-3, 1.0, 1e3):
        logits = tf.constant(LOGITS * scale, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = tf.reduce_mean(fixed_loss(name, **options)(LABELS, logits))
        assert np.isfinite(loss) and np.isfinite(tape.gradient(loss, logits)).all()


@pytest.mark.parametrize(("name", "options", "formula"), CASES)
def test_as_a_keras_loss(name, options, formula):
    loss = FixedLoss(name, **options)
    expected = np.mean([formula(z, softmax(z), y) for z, y in zip(LOGITS, LABELS, strict=True)])
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    for one in (loss, copy):
        for labels in (LABELS, LABELS[:, None]):
            np.testing.assert_allclose(one(labels, tf.constant(LOGITS, tf.float32)), expected, rtol=2e-5)


def test_keras_agrees_where_it_has_the_loss():
    logits = tf.constant(LOGITS, tf.float32)
    stock = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    np.testing.assert_allclose(FixedLoss("label_smoothing", smoothing=0.2)(LABELS, logits),
                               stock(np.eye(4)[LABELS], logits), rtol=1e-6)
    stock = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    np.testing.assert_allclose(FixedLoss("cross_entropy")(LABELS, logits), stock(LABELS, logits), rtol=1e-6)


def test_fit_by_a_fixed_loss(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    model.compile(keras.optimizers.SGD(0.5), loss=FixedLoss("generalised_cross_entropy", q=0.5))
    history = model.fit(LOGITS, LABELS, epochs=20, verbose=0)
    assert history.history["loss"][-1] < 0.8 * history.history["loss"][0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.evaluate(LOGITS, LABELS, verbose=0), model.evaluate(LOGITS, LABELS, verbose=0))


@pytest.mark.parametrize(("name", "options", "match"), [
    ("crossentropy", {}, "there are"),
    ("focal", {"alpha": 1}, r"takes \['gamma'\]; received \['alpha'\]"),
    ("forward_correction", {}, r"needs \['noise'\]"),
])
def test_bad_names_and_options(name, options, match):
    with pytest.raises(ValueError, match=match):
        fixed_loss(name, **options)
    with pytest.raises(ValueError, match=match):
        FixedLoss(name, **options)


@pytest.mark.parametrize(("name", "options"), [
    ("smooth", {"sharpness": 0}), ("label_smoothing", {"smoothing": 1}), ("focal", {"gamma": 0.5}),
    ("generalised_cross_entropy", {"q": 0}), ("generalised_cross_entropy", {"q": 1.1}),
    ("symmetric_cross_entropy", {"alpha": -1}), ("symmetric_cross_entropy", {"log_zero": 0}),
    ("forward_correction", {"noise": np.ones((4, 4))}), ("forward_correction", {"noise": np.eye(3)}),
    ("class_balanced", {"counts": [1, 2, 3]}), ("class_balanced", {"counts": [1, 2, 3, 0]}),
    ("class_balanced", {"counts": COUNTS, "beta": 1}), ("logit_adjustment", {"counts": COUNTS, "tau": -1}),
    ("focal", {"gamma": float("nan")}),
])
def test_options_out_of_range(name, options):
    with pytest.raises(ValueError, match="received"):
        fixed_loss(name, **options)(LABELS, tf.constant(LOGITS))


def test_values_are_refused_before_training():
    for name, options in (("focal", {"gamma": 0.5}), ("forward_correction", {"noise": np.ones((3, 3))})):
        with pytest.raises(ValueError, match="received"):
            FixedLoss(name, **options)


def test_one_hot_labels_are_refused():
    with pytest.raises(ValueError, match=r"labels must be integers \[batch\]; received shape \(6, 4\)"):
        FixedLoss("focal")(np.eye(4)[LABELS], tf.constant(LOGITS, tf.float32))


@pytest.mark.parametrize(("loss", "sets"), [
    (FixedLoss("focal"), 1), (FixedLoss("gold_correction", noise=NOISE), 2), (TaughtLoss("stable", np.eye(4)), 1),
])
def test_labels_out_of_range_are_refused(loss, sets):
    logits = tf.constant(LOGITS, tf.float32)
    assert np.isfinite(loss(np.r_[LABELS[:-1], 4 * sets - 1], logits))
    for wrong in (-1, 4 * sets):
        with pytest.raises(tf.errors.InvalidArgumentError, match=rf"must be integers in 0 .*{4 * sets - 1}.*received"):
            loss(np.r_[LABELS[:-1], wrong], logits)
