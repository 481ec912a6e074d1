"""Large-margin softmax against arc cosines in NumPy, differences, and cross entropy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tests.training.taught import blank_examples, network
from tf_l2t.losses import LargeMarginStudent, annealed, cross_entropy, large_margin_logits

RNG = np.random.default_rng(0)
FEATURES, KERNEL = RNG.standard_normal((40, 6)), RNG.standard_normal((6, 5))
LABELS = RNG.integers(0, 5, 40).astype(np.int32)


def by_arccos(labels, features, kernel, margin, annealing):
    """The formula of the paper, example by example."""
    logits = features @ kernel
    for i, y in enumerate(labels):
        norms = np.linalg.norm(features[i]) * np.linalg.norm(kernel[:, y])
        theta = np.arccos(logits[i, y] / norms)
        k = min(int(theta // (np.pi / margin)), margin - 1)
        psi = (-1) ** k * np.cos(margin * theta) - 2 * k
        logits[i, y] = norms * (annealing * np.cos(theta) + psi) / (1 + annealing)
    return logits


@pytest.mark.parametrize("annealing", [0.0, 0.7, 1000.0])
@pytest.mark.parametrize("margin", [1, 2, 3, 4])
def test_against_arccos(margin, annealing):
    expected = by_arccos(LABELS, FEATURES, KERNEL, margin, annealing)
    got = large_margin_logits(LABELS, tf.constant(FEATURES), tf.constant(KERNEL), margin, annealing)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
    angles = np.arccos((FEATURES @ KERNEL)[np.arange(40), LABELS] / np.linalg.norm(FEATURES, axis=1)
                       / np.linalg.norm(KERNEL, axis=0)[LABELS])
    assert len({int(a // (np.pi / margin)) for a in angles}) == margin  # every piece of ψ is seen


def test_psi_falls_and_lies_below_the_cosine():
    theta = np.linspace(0, np.pi, 400)
    features = np.stack([np.cos(theta), np.sin(theta)], axis=1)
    kernel = tf.constant([[1.0, 0.0], [0.0, 1.0]], tf.float64)
    for margin in (2, 3, 4):
        psi = large_margin_logits(np.zeros(400, np.int32), tf.constant(features), kernel, margin)[:, 0].numpy()
        assert (np.diff(psi) <= 1e-9).all() and (psi <= np.cos(theta) + 1e-9).all()
        np.testing.assert_allclose(psi[[0, -1]], [1, 1 - 2 * margin], atol=1e-9)


@pytest.mark.parametrize("margin", [2, 3, 4])
def test_derivatives_against_differences(margin):
    features, kernel = tf.constant(FEATURES), tf.constant(KERNEL)
    directions = tf.constant(RNG.standard_normal(FEATURES.shape)), tf.constant(RNG.standard_normal(KERNEL.shape))

    def gradient(features, kernel):
        with tf.GradientTape() as tape:
            tape.watch([features, kernel])
            value = tf.reduce_sum(cross_entropy(LABELS, large_margin_logits(LABELS, features, kernel, margin, 0.5)))
        return value, tape.gradient(value, [features, kernel])

    def along(grads):
        return tf.add_n([tf.reduce_sum(g * d) for g, d in zip(grads, directions, strict=True)])

    h = 1e-6
    with tf.GradientTape() as tape:
        tape.watch([features, kernel])
        slope = along(gradient(features, kernel)[1])
    curvature = along(tape.gradient(slope, [features, kernel]))
    ahead, behind = (gradient(features + s * h * directions[0], kernel + s * h * directions[1]) for s in (1, -1))
    np.testing.assert_allclose(slope, (ahead[0] - behind[0]) / (2 * h), rtol=1e-7)
    np.testing.assert_allclose(curvature, (along(ahead[1]) - along(behind[1])) / (2 * h), rtol=1e-6)


def test_features_of_zero_have_finite_derivatives():
    features, kernel = tf.zeros([2, 6]), tf.constant(KERNEL, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(features)
        value = tf.reduce_sum(large_margin_logits(LABELS[:2], features, kernel, 4))
    assert np.isfinite(tape.gradient(value, features)).all()


def test_annealed():
    assert float(annealed(0)) == 1000
    np.testing.assert_allclose(annealed(5000), 1000 * 1.125 ** -35, rtol=1e-4)  # a power of 35 of a float32
    assert float(annealed(10 ** 6, least=3.0)) == 3


def student():
    return keras.Sequential([keras.Input(tiny.IMAGE), keras.layers.Flatten(), keras.layers.Dense(5, "relu"),
                             keras.layers.Dense(tiny.NUM_CLASSES, bias_initializer="ones")])


def test_a_fit_step_is_sgd_on_the_formula():
    keras.utils.set_random_seed(3)
    x, y = tiny.arrays(12)
    model = LargeMarginStudent(student(), margin=4, base=2.0, gamma=0.1, power=1.0)
    w1, b1, w2, b2 = (tf.constant(v.numpy()) for v in model.student.trainable_variables)
    with tf.GradientTape() as tape:
        tape.watch(w2)
        features = tf.nn.relu(tf.reshape(tf.cast(x, tf.float32), [12, -1]) @ w1 + b1)
        logits = tf.constant(by_arccos(y, features.numpy(), w2.numpy(), 4, 2.0), tf.float32) + b2
        value = tf.reduce_mean(cross_entropy(y, logits))
        slope = tape.gradient(tf.reduce_mean(cross_entropy(y, large_margin_logits(y, features, w2, 4, 2.0) + b2)), w2)
    model.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
    history = model.fit(x.astype(np.float32), y, batch_size=12, verbose=0).history
    np.testing.assert_allclose(history["loss"][0], value, rtol=1e-5)
    np.testing.assert_allclose(model.student.trainable_variables[2], w2 - 0.1 * slope, rtol=1e-4, atol=1e-6)
    assert history["accuracy"][0] == pytest.approx(np.mean(np.argmax(features @ w2 + b2, axis=1) == y))


@pytest.mark.parametrize(("policy", "rounding"), [("float32", 1e-5), ("mixed_bfloat16", 2e-2),
                                                  ("mixed_float16", 3e-3)])
def test_with_margin_one_it_is_the_stock_loss(policy, rounding):
    """Weights of examples and a Keras mask among them, and in half precision the optimizer that scales the loss."""
    x, y = tiny.arrays(24)
    x[::5] = 0
    options = {"batch_size": 6, "epochs": 2, "shuffle": False, "verbose": 0, "sample_weight": np.linspace(0, 2, 24)}
    models = [network(blank_examples, policy) for _ in range(2)]
    first = models[0].get_weights()
    ours = LargeMarginStudent(models[0], margin=1)
    ours.compile(keras.optimizers.SGD(0.1))
    models[1].compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found, expected = (model.fit(x.astype(np.float32), y, **options).history["loss"] for model in (ours, models[1]))
    np.testing.assert_allclose(found, expected, rtol=rounding)
    assert type(ours.optimizer) is type(models[1].optimizer)
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(a, b, rtol=rounding, atol=rounding)
    assert np.abs(models[1].get_weights()[0] - first[0]).max() > 5 * rounding


def test_fit_learns_and_is_saved(tmp_path):
    keras.utils.set_random_seed(3)
    y = (np.arange(90) % 3).astype(np.int32)
    x = np.random.default_rng(0).standard_normal((90, *tiny.IMAGE)).astype(np.float32)
    x[np.arange(90), 0, 2 * y, 0] += 6  # a pixel of its own for every class
    model = LargeMarginStudent(student(), margin=3, gamma=0.01)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), metrics=["accuracy"])
    model.fit(x, y, batch_size=30, epochs=20, verbose=0)
    loss, accuracy = model.evaluate(x, y, verbose=0)
    assert accuracy > 0.9
    np.testing.assert_allclose(loss, np.mean(cross_entropy(y, model.predict(x, verbose=0))), rtol=1e-5)
    model.save(tmp_path / "student.keras")
    again = keras.models.load_model(tmp_path / "student.keras")
    assert again.get_config()["gamma"] == 0.01 and int(again._step) == 60
    again.fit(x, y, batch_size=30, verbose=0)
    model.fit(x, y, batch_size=30, verbose=0)
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)


def test_bad_arguments():
    with pytest.raises(ValueError, match="margin"):
        large_margin_logits(LABELS, tf.constant(FEATURES), tf.constant(KERNEL), 5)
    with pytest.raises(ValueError, match="margin"):
        LargeMarginStudent(student(), margin=0)
    with pytest.raises(ValueError, match="at least 0"):
        LargeMarginStudent(student(), gamma=-1.0)
    model, (x, y) = LargeMarginStudent(student()), tiny.arrays(12)
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="compile without one"):
        model.fit(x.astype(np.float32), y, verbose=0)
    model = LargeMarginStudent(student())
    model.compile("sgd")
    with pytest.raises(ValueError, match="One-hot"):
        model.fit(x.astype(np.float32), np.eye(3)[y], verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels must be integers in 0"):
        model.fit(x.astype(np.float32), y + 1, verbose=0)
    with pytest.raises(ValueError, match="last layer"):
        LargeMarginStudent(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.ReLU()]))
