"""Inner optimizers against the stock Keras optimizer, step for step in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tf_l2t.hypergradient import InnerOptimizer, adam, clip, rmsprop, sgd
from tf_l2t.training import TeacherTrainer, inner_optimizer
from tf_l2t.training.optimizers import named_optimizer

RATES = {"constant": 0.1, "cosine": keras.optimizers.schedules.CosineDecay(0.1, 15),
         "piecewise": keras.optimizers.schedules.PiecewiseConstantDecay([5, 12], [0.1, 0.03, 0.01])}
FORMS = {"plain": {}, "momentum": {"momentum": float(np.float32(0.9))},
         "nesterov": {"momentum": float(np.float32(0.9)), "nesterov": True}}
SHAPES = ((4, 3), (3,))
START = [np.random.default_rng(0).standard_normal(shape) for shape in SHAPES]
TARGET = [np.random.default_rng(1).standard_normal(shape) for shape in SHAPES]


def loss(weights):
    return tf.add_n([tf.reduce_sum(tf.math.softplus(w - target) + 0.3 * w ** 4)
                     for w, target in zip(weights, TARGET, strict=True)])


def flat(tensors):
    return np.concatenate([np.ravel(t) for t in tensors])


def run_keras(optimizer, regularizer=None, steps=20):
    variables = [keras.Variable(w, dtype="float64") for w in START]
    history = []
    for _ in range(steps):
        weights = [v.value for v in variables]
        with tf.GradientTape() as tape:
            value = loss(weights) + (regularizer(weights) if regularizer else 0)
        optimizer.apply(tape.gradient(value, weights), variables)
        history.append(flat(variables))
    return np.stack(history)


def run_ours(optimizer: InnerOptimizer, steps=20, seen=None):
    """The weights after every step; the gradients before it are appended to `seen`."""
    params, history = tuple(map(tf.constant, START)), []
    slots = optimizer.init(params)
    for step in range(steps):
        with tf.GradientTape() as tape:
            tape.watch(params)
            value = loss(params)
        grads = tuple(tape.gradient(value, params))
        if seen is not None:
            seen.append(grads)
        params, slots = optimizer.update(grads, slots, params, tf.constant(step))
        assert all(s.dtype == p.dtype and s.shape == p.shape for kind in slots
                   for s, p in zip(kind, params, strict=True))
        history.append(flat(params))
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
    expected = run_keras(stock, lambda weights: 0.03 * tf.add_n([tf.reduce_sum(w ** 2) for w in weights]))
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


# In float32, adam's 1 − β₂ = 1 − 0.999 would be off by 1e-5: equality to 1e-12 shows which numbers Keras rounds.
ADAPTIVE = {
    "adam": (keras.optimizers.Adam, adam, {}),
    "adam_other": (keras.optimizers.Adam, adam, {"beta_1": 0.7, "beta_2": 0.6, "epsilon": 0.03}),
    "amsgrad": (keras.optimizers.Adam, adam, {"beta_2": 0.6, "amsgrad": True}),
    "rmsprop": (keras.optimizers.RMSprop, rmsprop, {}),
    "rmsprop_momentum": (keras.optimizers.RMSprop, rmsprop, {"rho": 0.8, "momentum": 0.7, "epsilon": 0.01}),
    "rmsprop_centered": (keras.optimizers.RMSprop, rmsprop, {"momentum": 0.9, "centered": True}),
}


@pytest.mark.parametrize("form", ADAPTIVE)
@pytest.mark.parametrize("rate", ["constant", "cosine"])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_equals_keras_adaptive(form, rate, decay):
    kind, ours, options = ADAPTIVE[form]
    expected = run_keras(kind(RATES[rate], weight_decay=decay or None, **options))
    given = RATES[rate] if callable(RATES[rate]) else float(np.float32(RATES[rate]))
    made = ours(given, weight_decay=float(np.float32(decay)), **options)
    assert not made.linear
    np.testing.assert_allclose(run_ours(made), expected, rtol=1e-12, atol=1e-12)
    translated = inner_optimizer(kind(RATES[rate], weight_decay=decay or None, **options))
    np.testing.assert_allclose(run_ours(translated), expected, rtol=1e-12, atol=1e-12)


def test_adamw_is_adam_with_decoupled_decay():
    stock = keras.optimizers.AdamW(RATES["piecewise"], weight_decay=0.1, amsgrad=True)
    expected = run_keras(stock)
    ours = adam(RATES["piecewise"], weight_decay=float(np.float32(0.1)), amsgrad=True)
    np.testing.assert_allclose(run_ours(ours), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(run_ours(inner_optimizer(stock)), expected, rtol=1e-12, atol=1e-12)


def test_the_forms_differ():
    runs = [run_ours(ours(0.1, **options)) for _, ours, options in ADAPTIVE.values()]
    runs.append(run_ours(adam(0.1, beta_2=0.6)))  # amsgrad without its maximum
    assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(runs) for b in runs[:i])


def lengths(grads, kind):
    """What a bound of that kind is compared with, at one step."""
    if kind == "value":
        return np.abs(flat(grads))
    return np.array([np.linalg.norm(flat(grads))] if kind == "global_norm" else [np.linalg.norm(g) for g in grads])


# Bounds that some of the twenty steps exceed and others do not.
CLIPS = {"norm": ("clipnorm", 1.5), "value": ("clipvalue", 0.5), "global_norm": ("global_clipnorm", 2.0)}
CLIPPED = {"sgd": (keras.optimizers.SGD, {"learning_rate": 0.03, "momentum": 0.5}),
           "adamw": (keras.optimizers.AdamW, {"learning_rate": RATES["cosine"], "weight_decay": 0.05})}


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("inner", CLIPPED)
def test_equals_keras_clipping(kind, inner):
    (option, bound), (stock, options) = CLIPS[kind], CLIPPED[inner]
    expected = run_keras(stock(**options, **{option: bound}))
    ours, seen = clip(inner_optimizer(stock(**options)), **{kind: bound}), []
    assert not ours.linear
    np.testing.assert_allclose(run_ours(ours, seen=seen), expected, rtol=1e-12, atol=1e-12)
    exceeded = np.stack([lengths(grads, kind) > bound for grads in seen])
    assert exceeded.any() and not exceeded.all()
    translated = inner_optimizer(stock(**options, **{option: bound}))
    np.testing.assert_allclose(run_ours(translated), expected, rtol=1e-12, atol=1e-12)
    assert np.abs(expected - run_keras(stock(**options))).max() > 1e-2


def test_a_global_norm_that_is_not_finite_is_nan_as_in_keras():
    grads = (tf.constant([1e200, 1.0], tf.float64), tf.constant([1.0], tf.float64))  # the square overflows
    params = tuple(map(tf.zeros_like, grads))
    after, _ = clip(sgd(0.1), global_norm=1.0).update(grads, (), params, tf.constant(0))
    variables = [keras.Variable(p, dtype="float64") for p in params]
    keras.optimizers.SGD(0.1, global_clipnorm=1.0).apply(list(grads), variables)
    assert np.isnan(flat(after)).all() and np.isnan(flat(variables)).all()


def test_a_bound_that_keras_ignores_is_ignored():
    optimizer = keras.optimizers.SGD(0.1, clipnorm=0.0)
    np.testing.assert_allclose(run_ours(inner_optimizer(optimizer)), run_keras(optimizer), rtol=1e-12, atol=1e-12)


def _without_decay_of_biases():
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


class OwnAdam(keras.optimizers.Adam):
    """A subclass may do anything, so it is not taken for its base."""


@pytest.mark.parametrize(("optimizer", "message"), [
    (keras.optimizers.Adagrad(0.1), "SGD.*Adam.*AdamW.*RMSprop.*InnerOptimizer; received Adagrad"),
    (OwnAdam(0.1), "received OwnAdam"), ("sgd", "received str"),
    (keras.optimizers.SGD(0.1, use_ema=True), "SGD.*use_ema"),
    (keras.optimizers.Adam(0.1, loss_scale_factor=8.0), "Adam.*loss_scale_factor"),
    (keras.optimizers.AdamW(0.1, gradient_accumulation_steps=2), "AdamW.*gradient_accumulation_steps"),
    (keras.optimizers.SGD(lambda: 0.1), "a function"), (_without_decay_of_biases(), "exclude_from_weight_decay"),
    (keras.optimizers.RMSprop(0.1, epsilon=0.0), "epsilon must be above 0"),
])
def test_other_keras_optimizers_are_refused(optimizer, message):
    with pytest.raises(ValueError, match=message):
        inner_optimizer(optimizer)


def test_a_name_is_the_optimizer_with_keras_own_options():
    for name in ("sgd", "adam", "adamw", "rmsprop"):
        np.testing.assert_array_equal(run_ours(inner_optimizer(named_optimizer(name))),
                                      run_ours(inner_optimizer(keras.optimizers.get(name))))
        trainer = TeacherTrainer(tiny.plain, tiny.teacher(), num_steps=2, batch_size=2, student_optimizer=name)
        trainer.compile(name)
        assert type(trainer.optimizer) is type(keras.optimizers.get(name))
        with pytest.raises(ValueError, match="no optimizer of the name 'speed'"):
            trainer.compile("speed")
    with pytest.raises(ValueError, match=r"SGD.*received Adagrad"):
        TeacherTrainer(tiny.plain, tiny.teacher(), num_steps=2, batch_size=2, student_optimizer="adagrad")
    with pytest.raises(ValueError, match="no optimizer of the name 'speed'"):
        TeacherTrainer(tiny.plain, tiny.teacher(), num_steps=2, batch_size=2, student_optimizer="speed")


@pytest.mark.parametrize(("make", "arguments"), [
    (sgd, {"learning_rate": -0.1}), (sgd, {"learning_rate": float("nan")}),
    (sgd, {"learning_rate": 0.1, "momentum": 1.0}), (sgd, {"learning_rate": 0.1, "nesterov": True}),
    (sgd, {"learning_rate": 0.1, "weight_decay": -1}),
    (adam, {"learning_rate": -0.1}), (adam, {"beta_1": 1.0}), (adam, {"beta_2": -0.1}), (adam, {"epsilon": 0.0}),
    (adam, {"weight_decay": float("nan")}),
    (rmsprop, {"rho": 1.0}), (rmsprop, {"momentum": -0.5}), (rmsprop, {"epsilon": -1e-7}),
    (rmsprop, {"learning_rate": float("nan")}),
])
def test_bad_arguments(make, arguments):
    with pytest.raises(ValueError, match=f"{list(arguments)[-1]}.*received"):
        make(**arguments)


@pytest.mark.parametrize("bounds", [{}, {"norm": 1.0, "value": 1.0}, {"norm": 0.0}, {"value": -1.0},
                                    {"global_norm": float("nan")}])
def test_bad_bounds(bounds):
    with pytest.raises(ValueError, match="received"):
        clip(sgd(0.1), **bounds)
