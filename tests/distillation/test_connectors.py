"""Losses with weights against NumPy, convolution by convolution, and their derivatives against differences."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillation.test_matching import bins, cc, unit
from tf_l2t.distillation.connectors import (
    ActivationBoundaries,
    CorrelationCongruence,
    FactorTransfer,
    FitNet,
    Regressor,
    VariationalInformation,
)
from tf_l2t.distillation.contrastive import ContrastiveRepresentation
from tf_l2t.distillation.encoders import HiddenStates

RNG = np.random.default_rng(0)


def maps(size, channels, batch=3):
    return RNG.standard_normal((batch, size, size, channels))


def convolved(x, kernel, bias=0.0, stride=1, pad=0):
    """The sum over a window of the padded image, window after window."""
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    h, w = kernel.shape[:2]
    rows, columns = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], (h, w), strict=True))
    out = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * stride:i * stride + h, j * stride:j * stride + w]
            out[:, i, j] = np.einsum("bhwc,hwcd->bd", window, kernel) + bias
    return out


def transposed(x, kernel, bias, stride, pad):
    """Every place of the input adds its kernel, of shape [h, w, out, in], to the output; `pad` is cut off all sides."""
    h, w = kernel.shape[:2]
    rows, columns = ((n - 1) * stride + k for n, k in zip(x.shape[1:3], (h, w), strict=True))
    out = np.zeros((len(x), rows, columns, kernel.shape[2]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, i * stride:i * stride + h, j * stride:j * stride + w] += np.einsum("bc,hwdc->bhwd", x[:, i, j],
                                                                                       kernel)
    return out[:, pad:rows - pad, pad:columns - pad] + bias


def batch_normed(x, gamma, beta):
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


def weights(layer, seed=1):
    """Random ones, so that no gamma is 1 and no bias 0; by the end of their paths."""
    rng = np.random.default_rng(seed)
    for w in layer.trainable_weights:
        w.assign(rng.standard_normal(w.shape) * 0.5)
    return {"/".join(w.path.split("/")[1:]): w.numpy() for w in layer.trainable_weights}


def regressed(x, w, kind, prefix=""):
    kernel, bias = w[f"{prefix}conv/kernel"], w[f"{prefix}conv/bias"]
    y = {"half": lambda: convolved(x, kernel, bias, stride=2, pad=1), "valid": lambda: convolved(x, kernel, bias),
         "double": lambda: transposed(x, kernel, bias, stride=2, pad=1)}[kind]()
    return batch_normed(y, w[f"{prefix}bn/gamma"], w[f"{prefix}bn/beta"])


SIZES = {"half": 8, "double": 2, "valid": 6}  # of the student, where the teacher's is 4


def fitnet(kind):
    def formula(t, s, w):
        return ((np.maximum(regressed(s, w, kind, "regressor/"), 0) - t) ** 2).mean()

    return FitNet, {}, maps(4, 3), maps(SIZES[kind], 2), formula


def boundaries(size, channels, margin, connected):
    def formula(t, s, w):
        s = regressed(s, w, "half", "connector/") if connected else s
        total = 0.0
        for a, b in zip(s.ravel(), t.ravel(), strict=True):
            total += (a + margin) ** 2 if b <= 0 and a > -margin else 0
            total += (a - margin) ** 2 if b > 0 and a <= margin else 0
        return total / len(t) * 0.003

    return ActivationBoundaries, {"margin": margin}, maps(4, 3), maps(size, channels), formula


def vid(size):
    def formula(t, s, w):
        small = min(4, size)
        t, s = (np.array([bins(image, small) for image in x]) for x in (t, s))
        for i in range(3):
            s = np.einsum("bhwc,cd->bhwd", s, w[f"mean{i}/kernel"][0, 0])
            s = np.maximum(s, 0) if i < 2 else s
        variance = np.log(1 + np.exp(w["rho"])) + 1e-5
        return np.mean([(s[..., c] - t[..., c]) ** 2 / variance[c] / 2 + np.log(variance[c]) / 2 for c in range(3)])

    return VariationalInformation, {}, maps(4, 3), maps(size, 2), formula


def congruence(options):
    def formula(t, s, w):
        e = [x.reshape(len(x), -1) @ w[f"{name}/kernel"] + w[f"{name}/bias"] for x, name in
             ((t, "teacher"), (s, "student"))]
        return cc(*e, **options)

    return CorrelationCongruence, {"width": 4, **options}, maps(2, 3), RNG.standard_normal((3, 5)), formula


def factors(size, variant):
    def formula(t, s, w):
        for i in range(3):
            t = leaky(convolved(t, w[f"paraphraser/conv{i}/kernel"], w[f"paraphraser/conv{i}/bias"], pad=1))
            s = convolved(s, w[f"translator/conv{i}/kernel"], w[f"translator/conv{i}/bias"], pad=1)
            s = leaky(batch_normed(s, w[f"translator/bn{i}/gamma"], w[f"translator/bn{i}/beta"]))
        small = min(4, size)
        t, s = (np.array([bins(image, small) for image in x]) for x in (t, s))
        total = 0.0
        for a, b in zip(t, s, strict=True):
            q_t, q_s = ((unit(x.ravel()) if variant == "paper" else unit((x * x).mean(-1).ravel())) for x in (a, b))
            total += abs(q_t - q_s).sum() if variant == "paper" else abs(q_t - q_s).mean()
        return total / len(t)

    return FactorTransfer, {"variant": variant}, maps(4, 4), maps(size, 3), formula


CASES = {
    **{f"fitnet, {kind}": fitnet(kind) for kind in SIZES},
    "ab": boundaries(4, 3, 1.0, False), "ab, margin 2": boundaries(4, 3, 2.0, False),
    "ab, connected": boundaries(8, 2, 1.0, True),
    "vid": vid(4), "vid, larger student": vid(8), "vid, smaller student": vid(2),
    "cc": congruence({}), "cc, paper": congruence({"variant": "paper"}),
    "ft": factors(4, "repdistiller"), "ft, larger student": factors(8, "repdistiller"),
    "ft, smaller student": factors(2, "repdistiller"), "ft, paper": factors(4, "paper"),
    "ft, paper, smaller student": factors(2, "paper"),
}


def built(name):
    kind, options, t, s, formula = CASES[name]
    layer = kind(**options, dtype="float64")
    layer.build(t.shape, s.shape)
    return layer, weights(layer), t, s, formula


def loss_of(layer, t, s):
    if isinstance(layer, (FitNet, ActivationBoundaries, FactorTransfer)):
        return layer(tf.convert_to_tensor(t), tf.convert_to_tensor(s), training=True)
    return layer(tf.convert_to_tensor(t), tf.convert_to_tensor(s))


@pytest.mark.parametrize("name", CASES)
def test_against_numpy(name):
    layer, w, t, s, formula = built(name)
    got = loss_of(layer, t, s)
    assert got.shape == ()
    # Keras holds the slope of a leaky ReLU as a float32, 1.5e-8 from 0.1.
    np.testing.assert_allclose(got, formula(t, s, w), rtol=1e-8 if "ft" in name.split(",")[0] else 1e-9)


@pytest.mark.parametrize("name", CASES)
def test_derivatives_against_differences(name):
    """In the student's features and every weight at once, along a random direction."""
    layer, _, t, s, _ = built(name)
    rng = np.random.default_rng(2)
    trained = [w for w in layer.trainable_weights if w.path.split("/")[1] not in ("paraphraser", "decoder")]
    features = tf.Variable(s)
    with tf.GradientTape() as tape:
        loss = loss_of(layer, t, features)
    gradient = tape.gradient(loss, [features, *(w.value for w in trained)])
    directions = [rng.standard_normal(g.shape) for g in gradient]
    start = [w.numpy() for w in trained]
    step, ends = 1e-6, []
    for sign in (1, -1):
        for w, value, direction in zip(trained, start, directions[1:], strict=True):
            w.assign(value + sign * step * direction)
        ends.append(float(loss_of(layer, t, s + sign * step * directions[0])))
    along = sum((g.numpy() * d).sum() for g, d in zip(gradient, directions, strict=True))
    np.testing.assert_allclose(along, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-8)


def test_the_paraphraser_learns_to_reconstruct_only():
    layer, w, t, s, _ = built("ft")
    with tf.GradientTape(persistent=True) as tape:
        loss, error = loss_of(layer, t, s), layer.reconstruction(tf.constant(t))
    own = [v.value for v in (*layer.paraphraser.trainable_weights, *layer.decoder.trainable_weights)]
    assert tape.gradient(loss, own) == [None] * 12
    assert all(np.abs(g).sum() > 0 for g in tape.gradient(error, own))
    x = t
    for part in ("paraphraser", "decoder"):
        for i in range(3):
            kernel, bias = w[f"{part}/conv{i}/kernel"], w[f"{part}/conv{i}/bias"]
            x = leaky(convolved(x, kernel, bias, pad=1) if part == "paraphraser" else transposed(x, kernel, bias, 1, 1))
    np.testing.assert_allclose(error, ((x - t) ** 2).mean(), rtol=1e-7)  # a leaky slope of float32


def test_initial_weights_are_pytorchs():
    """Uniform within 1 / sqrt(inputs of a unit): 50 channels times 9 places; of a transposed one, its outputs."""
    keras.utils.set_random_seed(0)
    layer = FactorTransfer()
    layer.build((None, 4, 4, 50), (None, 4, 4, 20))
    for part, inputs in ((layer.paraphraser.layers[0], 50), (layer.decoder.layers[2], 50)):
        kernel, bias = (w.numpy() for w in part.weights)
        bound = (inputs * 9) ** -0.5
        assert abs(kernel).max() <= bound and abs(kernel).max() > 0.99 * bound
        assert abs(bias).max() <= bound and abs(bias).max() > 0.8 * bound
    for value in (5.0, 1000.0):  # of which the second has an exponential beyond all numbers
        variance = VariationalInformation(variance=value)
        variance.build((None, 4, 4, 3), (None, 4, 4, 2))
        np.testing.assert_allclose(np.logaddexp(0, variance._rho) + 1e-5, value, rtol=1e-6)


LABELS = np.array([0, 0, 1, 2, 1, 2, 2, 0])


def contrast(**options):
    keras.utils.set_random_seed(0)
    layer = ContrastiveRepresentation(LABELS, width=4, num_negatives=5, dtype="float64", **options)
    layer.build((3, 6), (3, 2, 2, 2))
    return layer, weights(layer)


def embedded(x, w, name):
    e = x.reshape(len(x), -1) @ w[f"{name}/kernel"] + w[f"{name}/bias"]
    return e / np.sqrt((e * e).sum(1, keepdims=True))


def test_contrastive_loss_and_memory_against_numpy():
    layer, w = contrast(momentum=0.3)
    banks = {w.path.split("/")[-1]: w.numpy() for w in layer.non_trainable_weights}
    teacher, student, index = RNG.standard_normal((3, 6)), maps(2, 2), np.array([5, 0, 2])
    negatives = np.array([[0, 1, 2, 4, 4], [2, 3, 5, 6, 2], [0, 1, 7, 6, 5]])
    layer._negatives = lambda labels: tf.constant(negatives, tf.int32)
    constants = {}
    for turn in range(2):
        own = {"teacher": embedded(teacher, w, "teacher"), "student": embedded(student, w, "student")}
        total = 0.0
        for name, other in (("teacher", "student"), ("student", "teacher")):
            h = np.array([[np.exp(own[name][b] @ banks[f"{other}_bank"][i] / 0.07) for i in (index[b], *negatives[b])]
                          for b in range(3)])
            h /= constants.setdefault(name, h.mean() * 8)
            m = 5 / 8
            total -= np.mean([np.log(row[0] / (row[0] + m + 1e-7)) + sum(np.log(m / (x + m + 1e-7)) for x in row[1:])
                              for row in h])
        got = layer(tf.constant(teacher), tf.constant(student), tf.constant(index), tf.constant(LABELS[index]),
                    training=turn == 0)
        np.testing.assert_allclose(got, total, rtol=1e-9)
        if turn == 0:  # the second time it finds the renewed rows, and the first batch's constants
            for name, v in own.items():
                for b, i in enumerate(index):
                    banks[f"{name}_bank"][i] = unit(0.3 * banks[f"{name}_bank"][i] + 0.7 * v[b])
        else:
            teacher, student = 2 * teacher, student
        for name, bank in banks.items():
            if name.endswith("bank"):
                now = next(v for v in layer.non_trainable_weights if v.path.endswith(name))
                np.testing.assert_allclose(now, bank, rtol=1e-9)


def test_contrastive_derivatives_against_differences():
    layer, _ = contrast()
    teacher, student, index = RNG.standard_normal((3, 6)), maps(2, 2), tf.constant([5, 0, 2])
    drawn = layer._negatives(tf.constant(LABELS[[5, 0, 2]]))
    layer._negatives = lambda labels: drawn

    def loss():
        return layer(tf.constant(teacher), tf.convert_to_tensor(s), index, tf.constant(LABELS[[5, 0, 2]]))

    s = tf.Variable(student)
    loss()  # sets the constants
    changed = [s, *(w.value for w in layer.trainable_weights)]
    assert len(changed) == 5  # kernel and bias of either embedding
    with tf.GradientTape() as tape:
        value = loss()
    for variable, gradient in zip(changed, tape.gradient(value, changed), strict=True):
        start, direction = variable.numpy(), RNG.standard_normal(variable.shape)
        sides = []
        for sign in (1, -1):
            variable.assign(start + sign * 1e-6 * direction)
            sides.append(float(loss()))
        variable.assign(start)
        np.testing.assert_allclose((gradient.numpy() * direction).sum(), (sides[0] - sides[1]) / 2e-6, rtol=1e-6,
                                   atol=1e-8)


def test_negatives_are_of_other_classes_and_uniform():
    layer = ContrastiveRepresentation(LABELS, num_negatives=6000, seed=1)
    drawn = layer._negatives(tf.constant([0, 1, 2])).numpy()
    again = ContrastiveRepresentation(LABELS, num_negatives=6000, seed=1)._negatives(tf.constant([0, 1, 2]))
    np.testing.assert_array_equal(drawn, again)
    for label, row in enumerate(drawn):
        others = np.flatnonzero(label != LABELS)
        counts = np.bincount(row, minlength=8)
        assert counts[label == LABELS].sum() == 0
        # Five deviations of a binomial count.
        share = 1 / len(others)
        assert (abs(counts[others] - 6000 * share) < 5 * np.sqrt(6000 * share * (1 - share))).all()


@pytest.mark.parametrize(("make", "match"), [
    (lambda: Regressor().build((None, 8, 8, 3), (None, 5, 5, 2)), "5 x 5 and 8 x 8"),
    (lambda: FitNet().build((None, 8), (None, 5, 5, 2)), r"feature maps .* received shape \(None, 8\)"),
    (lambda: ActivationBoundaries(margin=0.0), "above 0; received 0.0"),
    (lambda: VariationalInformation(variance=0.0), "variance must be above"),
    (lambda: FactorTransfer(variant="x"), "variant"),
    (lambda: FactorTransfer(rate=0.1).build((None, 4, 4, 5), (None, 4, 4, 5)), "leaves no factor"),
    (lambda: FactorTransfer(rate=0.0), "rate must be above 0"),
    (lambda: ContrastiveRepresentation([1, 1, 1]), "two classes at least"),
    (lambda: ContrastiveRepresentation([0.5, 1.0]), "integers"),
    (lambda: ContrastiveRepresentation(LABELS, momentum=1.0), "momentum"),
])
def test_bad_input(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(("layer", "options"), [
    (FitNet, {}), (ActivationBoundaries, {"margin": 0.5}), (VariationalInformation, {"variance": 2.0}),
    (CorrelationCongruence, {"width": 7, "variant": "paper", "gamma": 0.3, "order": 1}),
    (FactorTransfer, {"rate": 0.3, "variant": "paper"}), (HiddenStates, {}),
    (ContrastiveRepresentation, {"labels": [2, 0, 1, 0], "width": 5, "num_negatives": 3, "nce_temperature": 0.1,
                                 "momentum": 0.2, "seed": 4})])
def test_layers_come_back_from_their_configs(layer, options):
    """By name, as from a file; each option is in the config, as it was given."""
    made = layer(**options, name="mine", dtype="float64")
    found = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(made))))
    assert type(found) is layer and (found.name, found.dtype) == ("mine", "float64")
    assert found.get_config() == made.get_config() and options.items() <= found.get_config().items()
