"""Inner optimizers against the stock Keras optimizer, step for step in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.hypergradient import InnerOptimizer, sgd
from tf_l2t.training import inner_optimizer

RATES = {"constant": 0.1, "cosine": keras.optimizers.schedules.CosineDecay(0.1, 15),
         "piecewise": keras.optimizers.schedules.PiecewiseConstantDecay([5, 12], [0.1, 0.03, 0.01])}
FORMS = {"plain": {}, "momentum": {"momentum": float(np.float32(0.9))},
         "nesterov": {"momentum": float(np.float32(0.9)), "nesterov": True}}
START = np.random.default_rng(0).standard_normal((4, 3))
TARGET = np.random.default_rng(1).standard_normal((4, 3))


def loss(w):
    return tf.reduce_sum(tf.math.softplus(w - TARGET) + 0.3 * w ** 4)


def run_keras(optimizer, regularizer=None, steps=20):
    variable = keras.Variable(START, dtype="float64")
    history = []
    for _ in range(steps):
        with tf.GradientTape() as tape:
            value = loss(variable.value) + (regularizer(variable.value) if regularizer else 0)
        optimizer.apply([tape.gradient(value, variable.value)], [variable])
        history.append(variable.numpy())
    return np.stack(history)


def run_ours(optimizer: InnerOptimizer, steps=20):
    params, history = (tf.constant(START),), []
    slots = optimizer.init(params)
    for step in range(steps):
        with tf.GradientTape() as tape:
            tape.watch(params)
            value = loss(params[0])
        params, slots = optimizer.update(tuple(tape.gradient(value, params)), slots, params, tf.constant(step))
        history.append(params[0].numpy())
    return np.stack(history)


# Keras passes its numbers through float32 even for float64 weights, so ours are given those; what is left is rounding.
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_equals_keras_sgd(form, rate, decay):
    stock = keras.optimizers.SGD(RATES[rate], weight_decay=decay or None, **FORMS[form])
    given = RATES[rate] if callable(RATES[rate]) else float(np.float32(RATES[rate]))
    ours = sgd(given, weight_decay=float(np.float32(decay)), **FORMS[form])
    np.testing.assert_allclose(run_ours(ours), run_keras(stock), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_coupled_decay_equals_an_l2_regularizer(form):
    stock = keras.optimizers.SGD(0.1, **FORMS[form])
    ours = sgd(float(np.float32(0.1)), weight_decay=0.06, coupled=True, **FORMS[form])
    expected = run_keras(stock, lambda w: 0.03 * tf.reduce_sum(w ** 2))
    np.testing.assert_allclose(run_ours(ours), expected, rtol=1e-12, atol=1e-12)
    decoupled = run_ours(sgd(float(np.float32(0.1)), weight_decay=0.06, **FORMS[form]))
    if FORMS[form]:
        assert np.abs(decoupled - expected).max() > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_a_keras_sgd_is_taken_as_it_is(form):
    options = {"weight_decay": 0.05, **({"momentum": 0.9, "nesterov": form == "nesterov"} if FORMS[form] else {})}
    for rate in RATES.values():
        stock = keras.optimizers.SGD(rate, **options)
        np.testing.assert_allclose(run_ours(inner_optimizer(stock)), run_keras(stock), rtol=1e-12, atol=1e-12)


def test_a_schedule_of_ones_own_is_taken():
    class Halving(keras.optimizers.schedules.LearningRateSchedule):  # without a get_config
        def __call__(self, step):
            return 0.1 * 0.5 ** tf.cast(step, tf.float32)

    stock = keras.optimizers.SGD(Halving(), momentum=0.9)
    np.testing.assert_allclose(run_ours(inner_optimizer(stock)), run_keras(stock), rtol=1e-12, atol=1e-12)


def _without_decay_of_biases():
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


@pytest.mark.parametrize(("optimizer", "message"), [
    (keras.optimizers.Adam(0.1), "received Adam"), (keras.optimizers.SGD(0.1, clipnorm=1.0), "clipnorm"),
    (keras.optimizers.SGD(0.1, use_ema=True), "use_ema"), ("sgd", "received str"),
    (keras.optimizers.SGD(lambda: 0.1), "a function"), (_without_decay_of_biases(), "exclude_from_weight_decay"),
])
def test_other_keras_optimizers_are_refused(optimizer, message):
    with pytest.raises(ValueError, match=message):
        inner_optimizer(optimizer)


@pytest.mark.parametrize("arguments", [
    {"learning_rate": -0.1}, {"learning_rate": float("nan")}, {"learning_rate": 0.1, "momentum": 1.0},
    {"learning_rate": 0.1, "nesterov": True}, {"learning_rate": 0.1, "weight_decay": -1},
])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="received"):
        sgd(**arguments)
