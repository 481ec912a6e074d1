"""Token losses against loops in NumPy, and their first and second derivatives against differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.translation.subwords import EOS, PAD
from tf_l2t.translation.token_losses import (
    TOKEN_LOSSES,
    TokenLoss,
    label_smoothed_nll,
    log_probs_at,
    taught_token_loss,
    token_log_probs,
    token_nll,
)

RNG = np.random.default_rng(0)
V = 7
LABELS = np.array([[4, 6, 5, EOS], [5, EOS, PAD, PAD], [EOS, PAD, PAD, PAD], [3, 3, 4, 5]], np.int32)
LOGITS = 2 * RNG.standard_normal((4, 4, V))
PHI = RNG.standard_normal(V)


def log_softmax(z):
    return z - max(z) - np.log(sum(np.exp(v - max(z)) for v in z))


def summed(token_loss):
    """Σ over the tokens that are not PAD of token_loss(log p, y)."""
    return [sum(token_loss(log_softmax(z), y) for z, y in zip(rows, labels, strict=True) if y != PAD)
            for rows, labels in zip(LOGITS, LABELS, strict=True)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def smoothed(epsilon):
    return lambda log_p, y: -sum(((1 - epsilon) * (v == y) + epsilon / V) * log_p[v] for v in range(V))


# name -> options, loss of a token
CASES = [
    ("mle", {}, lambda log_p, y: -log_p[y]),
    ("label_smoothing", {}, smoothed(0.1)),
    ("label_smoothing", {"smoothing": 0.4}, smoothed(0.4)),
    ("label_smoothing", {"smoothing": 0}, lambda log_p, y: -log_p[y]),
    ("taught", {"coefficients": PHI}, lambda log_p, y: -sigmoid(PHI[y] * log_p[y])),
    ("taught", {"coefficients": PHI, "form": "stable"}, lambda log_p, y: -40 * sigmoid(PHI[y] * log_p[y])),
    ("taught", {"coefficients": PHI / 8, "form": "mixture"}, lambda log_p, y: -np.exp(-PHI[y] ** 2) * log_p[y]
     + (1 - np.exp(-PHI[y] ** 2)) * (1 - np.exp(log_p[y]))),
    ("taught", {"coefficients": PHI, "form": "soft"}, lambda log_p, y: -10 * PHI[y] * log_p[y]),
]
CASE = pytest.mark.parametrize(("name", "options", "token_loss"), CASES)


def loss_of(name, options):
    options = {k: tf.constant(v, tf.float64) if k == "coefficients" else v for k, v in options.items()}
    return lambda logits, labels=LABELS: TOKEN_LOSSES[name](tf.constant(labels), tf.convert_to_tensor(logits),
                                                            **options)


def gradient(loss, logits, weights=1.0):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = tf.reduce_sum(weights * loss(logits))
    return tape.gradient(value, logits)


def test_every_loss_is_tested():
    assert {name for name, _, _ in CASES} == set(TOKEN_LOSSES)


@CASE
def test_values(name, options, token_loss):
    np.testing.assert_allclose(loss_of(name, options)(LOGITS), summed(token_loss), rtol=1e-12)


def test_log_probs():
    expected = [[log_softmax(z)[y] if y != PAD else 0 for z, y in zip(rows, labels, strict=True)]
                for rows, labels in zip(LOGITS, LABELS, strict=True)]
    np.testing.assert_allclose(token_log_probs(LABELS, tf.constant(LOGITS)), expected, rtol=1e-12)
    wanted = RNG.integers(0, V, (4, 4, 3))
    np.testing.assert_allclose(
        log_probs_at(tf.constant(LOGITS), tf.constant(wanted)),
        [[[log_softmax(LOGITS[b, t])[v] for v in wanted[b, t]] for t in range(4)] for b in range(4)], rtol=1e-12)


@CASE
def test_padding_changes_nothing(name, options, token_loss):
    garbage = np.where((LABELS == PAD)[:, :, None], 1e4 * RNG.standard_normal(LOGITS.shape), LOGITS)
    loss = loss_of(name, options)
    np.testing.assert_array_equal(loss(garbage), loss(LOGITS))
    found = gradient(loss, tf.constant(garbage)).numpy()
    np.testing.assert_array_equal(found, gradient(loss, tf.constant(LOGITS)))
    assert (found[LABELS == PAD] == 0).all() and (found[LABELS != PAD] != 0).all()
    longer = loss(np.pad(LOGITS, [(0, 0), (0, 2), (0, 0)]), np.pad(LABELS, [(0, 0), (0, 2)]))
    np.testing.assert_allclose(longer, loss(LOGITS), rtol=1e-14)


@CASE
def test_first_and_second_derivatives_against_differences(name, options, token_loss):
    """Second ones in both modes, and compiled with shapes that are not known; sentences weighted differently."""
    loss, logits = loss_of(name, options), tf.constant(LOGITS)
    weights, direction = tf.constant(RNG.standard_normal(4)), tf.constant(RNG.standard_normal(LOGITS.shape))
    h = 1e-5
    up, down = logits + h * direction, logits - h * direction
    slope = tf.reduce_sum(weights * (loss(up) - loss(down))) / (2 * h)
    np.testing.assert_allclose(tf.reduce_sum(gradient(loss, logits, weights) * direction), slope, rtol=1e-7)

    def reverse_over_reverse(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            along = tf.reduce_sum(gradient(loss, logits, weights) * direction)
        return tape.gradient(along, logits)

    def forward_over_reverse(logits):
        with tf.autodiff.ForwardAccumulator(logits, direction) as accumulator:
            found = gradient(loss, logits, weights)
        return accumulator.jvp(found)

    expected = (gradient(loss, up, weights) - gradient(loss, down, weights)) / (2 * h)
    assert np.abs(expected).max() > 1e-2
    compiled = tf.function(reverse_over_reverse, input_signature=[tf.TensorSpec([None, None, None], tf.float64)])
    for product in (reverse_over_reverse, forward_over_reverse, tf.function(forward_over_reverse),
                    *([] if name == "taught" else [compiled])):
        np.testing.assert_allclose(product(logits), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("form", ["paper", "stable", "mixture", "soft"])
def test_mixed_derivatives_of_the_taught_loss(form):
    """∂/∂Φ of the gradient along a direction: what a teacher learns from. In reverse, and, densely, in forward mode."""
    logits, phi = tf.constant(LOGITS), tf.constant(PHI)
    direction = tf.constant(RNG.standard_normal(LOGITS.shape))

    def along(phi):
        return tf.reduce_sum(gradient(lambda z: taught_token_loss(LABELS, z, phi, form), logits) * direction)

    h = 1e-6
    steps = h * tf.eye(V, dtype=tf.float64)
    expected = [(along(phi + step) - along(phi - step)) / (2 * h) for step in steps]
    with tf.GradientTape() as tape:
        tape.watch(phi)
        value = along(phi)
    mixed = tape.gradient(value, phi)
    assert isinstance(mixed, tf.Tensor)
    np.testing.assert_allclose(mixed, expected, rtol=1e-7, atol=1e-8)
    with tf.autodiff.ForwardAccumulator(logits, direction) as accumulator:
        with tf.GradientTape() as tape:
            tape.watch(phi)
            value = tf.reduce_sum(taught_token_loss(LABELS, logits, phi, form))
        by_phi = tape.gradient(value, phi)
    np.testing.assert_allclose(accumulator.jvp(by_phi), expected, rtol=1e-7, atol=1e-8)


def test_the_taught_loss_starts_as_maximum_likelihood():
    """At p near 1 its slope is the same, at p = 1 / 25,000 0.78 of it; that of the paper's form at Φ = 1 is 4e-5."""
    def slope(log_p, phi, form):
        logits = tf.constant([[[np.log(-np.expm1(log_p)), log_p]]], tf.float64)
        labels = tf.constant([[1]])
        taught, plain = (gradient(loss, logits)[0, 0, 1] for loss in (
            lambda z: taught_token_loss(labels, z, tf.constant([phi] * 2, tf.float64), form),
            lambda z: token_nll(labels, z)))
        return float(taught / plain)

    assert slope(-1e-4, 0.1, "stable") == pytest.approx(1, abs=1e-9)
    assert slope(-np.log(25_000), 0.1, "stable") == pytest.approx(0.78, abs=5e-3)
    assert slope(-np.log(25_000), 1.0, "paper") == pytest.approx(4e-5, rel=1e-3)
    assert slope(-np.log(25_000), 0.1, "paper") == pytest.approx(0.0195, rel=1e-2)


def test_extreme_logits_keep_their_digits():
    logits = tf.constant([[[1e4, 0, 1e4 - 1, 0]], [[0, 1e4, 0, 0]]])
    labels = tf.constant([[2], [3]])
    np.testing.assert_allclose(token_nll(labels, logits), [1 + np.log1p(np.exp(-1)), 1e4], rtol=1e-6)
    for loss in (token_nll, label_smoothed_nll, lambda y, z: taught_token_loss(y, z, -tf.ones([4]))):
        assert np.isfinite(loss(labels, logits)).all()
        assert np.isfinite(gradient(lambda z, loss=loss: loss(labels, z), logits)).all()


@pytest.mark.parametrize("per", ["sentence", "token"])
@CASE
def test_as_a_keras_loss(name, options, token_loss, per, tmp_path):
    """The model's embedding makes a Keras mask, which is not the labels' and must not come in."""
    x = RNG.integers(0, 5, (4, 4))
    model = keras.Sequential([keras.layers.Embedding(5, 3, mask_zero=True), keras.layers.Dense(V)])
    model.compile("sgd", loss=TokenLoss(name, per=per, **options))
    logits = model.predict(x, verbose=0)
    losses = TOKEN_LOSSES[name](LABELS, tf.constant(logits, tf.float64), **{
        k: tf.constant(v, tf.float64) if k == "coefficients" else v for k, v in options.items()})
    expected = np.sum(losses) / (4 if per == "sentence" else 11)
    np.testing.assert_allclose(model.evaluate(x, LABELS, verbose=0), expected, rtol=1e-5)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again.evaluate(x, LABELS, verbose=0), expected, rtol=1e-5)
    assert again.loss.get_config() == model.loss.get_config()


def test_fit():
    x = np.tile(np.arange(1, 5), (8, 1))
    labels = np.tile([[4, 5, EOS, PAD]], (8, 1))
    model = keras.Sequential([keras.layers.Embedding(5, 8), keras.layers.Dense(6)])
    model.compile(keras.optimizers.Adam(0.1), loss=TokenLoss())
    history = model.fit(x, labels, epochs=30, batch_size=4, verbose=0).history["loss"]
    assert history[0] > 3 and history[-1] < 0.1
    np.testing.assert_array_equal(np.argmax(model.predict(x[:1], verbose=0), axis=-1)[0, :3], [4, 5, EOS])


def test_sample_weights_are_the_sentences():
    losses = token_nll(LABELS, tf.constant(LOGITS)).numpy()
    weights = np.array([1.0, 0.0, 2.0, 0.5])
    got = TokenLoss(dtype="float64")(LABELS, tf.constant(LOGITS), sample_weight=weights)
    np.testing.assert_allclose(got, np.sum(weights * losses) / 4, rtol=1e-12)


def test_only_padding_costs_nothing():
    for per in ("sentence", "token"):
        assert float(TokenLoss(per=per)(np.zeros((2, 3)), tf.random.normal([2, 3, V]))) == 0


@pytest.mark.parametrize(("arguments", "match"), [
    ({"loss": "hinge"}, "'taught'"), ({"per": "batch"}, "'sentence'.*'batch'"),
    ({"loss": "taught"}, r"needs \['coefficients'\]"), ({"smoothing": 0.1}, r"received \['smoothing'\]"),
    ({"loss": "label_smoothing", "smoothing": 1.0}, "smoothing must be"),
    ({"loss": "taught", "coefficients": [[1.0, 2.0]]}, "finite"),
    ({"loss": "taught", "coefficients": [1.0, np.nan]}, "finite"),
    ({"loss": "taught", "coefficients": [1.0, 2.0], "form": "hinge"}, "hinge"),
])
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        TokenLoss(**arguments)


def test_bad_shapes_and_labels():
    loss = TokenLoss()
    for labels, logits in ((LABELS[:, :3], LOGITS), (LABELS[0], LOGITS), (LABELS, LOGITS[..., 0])):
        with pytest.raises(ValueError, match="labels must be integers"):
            loss(labels, tf.constant(logits))
    with pytest.raises(ValueError, match=r"each of the 7 tokens.*\(6,\)"):
        TokenLoss("taught", coefficients=np.ones(6))(LABELS, tf.constant(LOGITS))
    for wrong in (V, -1):
        with pytest.raises(tf.errors.InvalidArgumentError, match="tokens of the vocabulary"):
            loss(np.where(LABELS == 6, wrong, LABELS), tf.constant(LOGITS))
