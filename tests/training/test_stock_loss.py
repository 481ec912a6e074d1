"""Taught losses behave as the stock loss does, by the callback and as a TaughtStudent."""

import itertools
import pathlib
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from tests import tiny
from tests.training.taught import DEV, OTHER, STEPS, TRAIN, WEIGHTS, blank_examples, network, sgd, teaching
from tf_l2t.teachers import StaticTeacher


def cross_entropy_teacher():
    """The form "mixture" at Φ = 0 is cross entropy."""
    teacher = StaticTeacher(3, 6, loss="mixture")
    for variable in teacher.theta:
        variable.assign(tf.zeros_like(variable))
    assert not teacher(tf.zeros(6)).numpy().any()
    return teacher


def compiled_model(by, compiled, build=tiny.plain, dtype="float32", teacher=None):
    """A model with a taught loss, by the callback or as a TaughtStudent, or with Keras' own; its student; the callbacks
    that it needs. The loss is cross entropy if no teacher is given."""
    keras.utils.set_random_seed(0)
    student = model = network(build, dtype)
    teacher, callbacks = teacher or cross_entropy_teacher(), []
    if by == "student":
        model, loss = tf_l2t.TaughtStudent(student, teacher, DEV, STEPS, refresh_every=4, dev_sample_size=9), {}
    elif by == "loss":
        loss = {"loss": teacher.as_keras_loss()}
        callbacks.append(teaching(teacher))
    else:
        loss = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    model.compile(**({"optimizer": sgd(), "metrics": ["accuracy"]} | loss | compiled))
    return model, student, callbacks


def fitted(by, fit, compiled, build=tiny.plain, dtype="float32"):
    """History and weights."""
    model, student, callbacks = compiled_model(by, compiled, build, dtype)
    history = model.fit(**{"verbose": 0, "epochs": 2, "shuffle": False, **fit,
                           "callbacks": [*callbacks, *fit.get("callbacks", list)()]}).history
    return history, [np.asarray(w, np.float32) for w in student.weights]


class RestoreBest(keras.callbacks.ModelCheckpoint):
    """Ends a fit with the best weights that a ModelCheckpoint has kept."""

    def __init__(self, monitor):
        self._folder = tempfile.TemporaryDirectory()
        file = str(pathlib.Path(self._folder.name, "best.weights.h5"))
        super().__init__(file, monitor, save_best_only=True, save_weights_only=True, mode="min")

    def on_train_end(self, logs=None):
        self.model.load_weights(self.filepath)


def among_two(y, logits):
    return keras.metrics.sparse_top_k_categorical_accuracy(y, logits, 2)


def no_callbacks():
    return []


ARRAYS = {"x": TRAIN.x, "y": TRAIN.y, "batch_size": 6, "callbacks": no_callbacks}


@pytest.mark.parametrize("by", ["loss", "student"])
@pytest.mark.parametrize(("fit", "compiled"), [
    ({}, {}),
    ({"class_weight": {0: 0.5, 1: 2.0, 2: 1.0}}, {}),
    ({"sample_weight": WEIGHTS}, {"weighted_metrics": ["accuracy"]}),
    ({"validation_split": 0.25}, {}),
    ({"validation_data": (*OTHER, WEIGHTS[:12])}, {}),
    ({"x": tf.data.Dataset.from_tensor_slices((TRAIN.x, TRAIN.y)).batch(6), "y": None, "batch_size": None}, {}),
    ({"x": tf.data.Dataset.from_tensor_slices((TRAIN.x, TRAIN.y[:, None])).batch(6).repeat(), "y": None,
      "batch_size": None, "steps_per_epoch": 5}, {}),
    ({}, {"steps_per_execution": 2}),
    ({}, {"jit_compile": True}),
    ({}, {"run_eagerly": True}),
    ({}, {"metrics": [among_two]}),
    ({"epochs": 6, "validation_data": tuple(OTHER),
      "callbacks": lambda: [keras.callbacks.EarlyStopping("val_loss", patience=0, min_delta=10.0)]}, {}),
    ({"callbacks": lambda: [keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))]}, {}),
    ({"epochs": 4, "validation_data": tuple(OTHER), "callbacks": lambda: [RestoreBest("val_accuracy")]}, {}),
], ids=["plain", "class_weight", "sample_weight", "validation_split", "validation weights", "tf.data", "repeated",
        "steps_per_execution", "jit_compile", "run_eagerly", "metrics", "EarlyStopping", "LearningRateScheduler",
        "ModelCheckpoint"])
def test_it_behaves_as_the_stock_loss(fit, compiled, by):
    (ours, weights), (theirs, expected) = (fitted(way, ARRAYS | fit, compiled) for way in (by, "Keras"))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-7, err_msg=name)
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def masked_steps():
    """A mask [batch, time], which ends in the recurrent layer."""
    layers = keras.layers
    return keras.Sequential([keras.Input(tiny.IMAGE), layers.Reshape((6, 12)), layers.Masking(), layers.SimpleRNN(5),
                             layers.Dense(3)])


@pytest.mark.parametrize("build", [blank_examples, masked_steps])
def test_masks(build):
    x = TRAIN.x.copy()
    x[::5] = 0
    x[1::5, 3:] = 0
    (ours, weights), (theirs, expected) = (fitted(by, ARRAYS | {"x": x}, {}, build) for by in ("loss", "Keras"))
    if build is blank_examples:  # the mask counts: with it the loss is another
        unmasked, _ = fitted("Keras", ARRAYS | {"x": x + 1e-9}, {}, build)
        assert theirs["loss"] != pytest.approx(unmasked["loss"], rel=1e-3)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-7, err_msg=name)
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("by", ["loss", "student"])
@pytest.mark.parametrize(("policy", "rounding"), [("mixed_bfloat16", 2e-2), ("mixed_float16", 3e-3)])
def test_mixed_precision(policy, rounding, by):
    """Logits of 8 or 11 bits: as the stock loss, to their rounding."""
    (ours, weights), (theirs, expected) = (fitted(way, ARRAYS, {}, dtype=policy) for way in (by, "Keras"))
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=rounding)
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rounding, atol=rounding)
    moved = [np.abs(a - b).max() for a, b in zip(expected, network(tiny.plain, policy).get_weights(), strict=True)]
    assert max(moved) > 10 * rounding


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float32"])
def test_gradients_of_half_precision_are_scaled(policy):
    """As those of the student itself, under whatever policy it is wrapped."""
    optimizers = []
    for model in (network(tiny.plain, policy),
                  tf_l2t.TaughtStudent(network(tiny.plain, policy), tiny.teacher(), DEV, STEPS)):
        model.compile(sgd())
        optimizers.append(type(model.optimizer))
    assert optimizers[0] is optimizers[1]
    assert (optimizers[0] is keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")


@pytest.mark.parametrize("by", ["loss", "student"])
@pytest.mark.parametrize("how", ["saved", "backed up"])
def test_half_a_training_goes_on(how, by, tmp_path):
    """In a model that is loaded, or a new one that BackupAndRestore puts where the first one ended."""
    def halves(by, folder):
        folder.mkdir()
        keeps = [keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False)] if how == "backed up" else []
        model, _, callbacks = compiled_model(by, {})
        model.fit(**options, epochs=2, callbacks=[*keeps, *callbacks])
        if keeps:
            model, _, callbacks = compiled_model(by, {})
        else:
            model.save(folder / "model.keras")
            model = tf_l2t.load_model(folder / "model.keras")
        history = model.fit(**options, initial_epoch=0 if keeps else 2, epochs=4, callbacks=[*keeps, *callbacks])
        return history.history, (model.student if by == "student" else model).get_weights()

    options = {"x": TRAIN.x, "y": TRAIN.y, "batch_size": 6, "validation_data": tuple(OTHER), "shuffle": False,
               "verbose": 0}
    (ours, weights), (theirs, expected) = (halves(way, tmp_path / way) for way in (by, "Keras"))
    whole, last = fitted("Keras", options | {"epochs": 4}, {})
    for name in theirs:
        assert len(theirs[name]) == 2
        np.testing.assert_allclose(theirs[name], whole[name][2:], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, err_msg=name)
    for a, b, c in zip(weights, expected, last, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(b, c, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("by", ["loss", "student"])
def test_early_stopping_while_the_loss_changes(by):
    """It monitors a metric, stops when that has not risen for two epochs, and puts the best weights back."""
    teacher, seen, losses = tiny.teacher("mixture"), [], []
    model, student, callbacks = compiled_model(by, {}, teacher=teacher)
    callbacks += [
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: (
            seen.append(student.get_weights()),
            losses.append(np.array(model.coefficients if by == "student" else model.loss.coefficients)))),
        keras.callbacks.EarlyStopping("val_accuracy", patience=2, restore_best_weights=True)]
    history = model.fit(*TRAIN, batch_size=6, epochs=40, shuffle=False, verbose=0, validation_data=tuple(OTHER),
                        callbacks=callbacks).history["val_accuracy"]
    best = int(np.argmax(history))
    assert len(history) == best + 3 < 40 and best > 0
    assert max(np.abs(a - b).max() for a, b in itertools.pairwise(losses)) > 0.01
    for a, b in zip(student.get_weights(), seen[best], strict=True):
        np.testing.assert_array_equal(a, b)
