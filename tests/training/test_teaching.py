"""A teacher's loss on a stock Keras model: as TaughtStudent teaches, and through saves, masks and odd fits."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from tests import tiny
from tests.event_files import scalars, tags
from tests.training.taught import DEV, OTHER, STEPS, TRAIN, WEIGHTS, blank_examples, network, sgd, teaching
from tf_l2t.losses import FixedLoss, TaughtLoss, TeacherLoss
from tf_l2t.students import FunctionalStudent
from tf_l2t.training import TaughtStudentSummaries

ROOT = pathlib.Path(__file__).parent.parent.parent


class Evaluates(keras.callbacks.Callback):
    """As users' own callbacks do: an evaluation in the middle of a fit."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.evaluate(*OTHER, verbose=0)


@pytest.mark.parametrize(("loss", "build", "compiled"), [
    ("stable", tiny.dense_batchnorm, {}), ("mixture", tiny.dropout, {}), ("mixture", tiny.plain, {"jit_compile": True}),
    ("stable", tiny.plain, {"steps_per_execution": 2}), ("stable", tiny.plain, {"run_eagerly": True})])
def test_it_is_the_training_of_a_taught_student(loss, build, compiled):
    """Φ, the running accuracy and all weights, through evaluations, which are no part of the status; five steps an
    epoch, Φ for four of them."""
    teacher = tiny.teacher(loss)
    taught = tf_l2t.TaughtStudent(network(build), teacher, DEV, STEPS, refresh_every=4, dev_sample_size=9)
    taught.compile(sgd(), metrics=["accuracy"])
    model = network(build)
    model.compile(sgd(), loss=teacher.as_keras_loss(), metrics=["accuracy"], **compiled)
    options = {"batch_size": 5, "shuffle": False, "validation_data": OTHER, "verbose": 0}
    if "steps_per_execution" in compiled:  # both then measure before the same steps
        options["batch_size"] = 6
    theirs = taught.fit(*TRAIN, epochs=4, **options).history
    ours = model.fit(*TRAIN, epochs=4, callbacks=[teaching(teacher), *([Evaluates()] if not compiled else [])],
                     **options).history
    assert np.ptp(taught.coefficients) > 0 and not np.allclose(taught.coefficients, teacher.first)
    np.testing.assert_allclose(model.loss.coefficients, taught.coefficients, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(model.loss.train_accuracy, taught.running_train_accuracy, rtol=1e-6)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(ours[f"val_{name}"], theirs[f"val_{name}"], rtol=1e-5, err_msg=name)
        if compiled:  # an evaluation begins the metrics anew
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, err_msg=name)
    for a, b in zip(model.weights, taught.student.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_with_several_steps_an_execution_no_interval_is_left_out():
    """25 steps an epoch, 20 an execution, Φ for 20: it is set before the executions that begin in another interval."""
    teacher, model = tiny.teacher(), network()
    model.compile(sgd(), loss=teacher.as_keras_loss(), steps_per_execution=20)
    callback, seen = teaching(teacher, refresh_every=20), []
    change = model.loss.change
    model.loss.change = lambda coefficients, interval: (seen.append(interval), change(coefficients, interval))
    x, y = np.repeat(TRAIN.x, 5, 0)[:100], np.repeat(TRAIN.y, 5)[:100]
    model.fit(x, y, batch_size=4, epochs=5, verbose=0, callbacks=[callback])
    assert seen == [0, 1, 2, 3, 4, 5, 6]  # before the steps 0, 20, 45 (of 40 … 59), 70, 95, 100, 120
    assert model.loss.interval == 6


def test_one_loss_for_one_model_after_another():
    """As in cross-validation: nothing of the first model's training is left for the second."""
    teacher = tiny.teacher()
    loss, histories = teacher.as_keras_loss(), []
    for _ in range(2):
        model = network()
        model.compile(sgd(), loss=loss)
        histories.append(model.fit(*TRAIN, batch_size=6, epochs=2, shuffle=False, verbose=0,
                                   callbacks=[teaching(teacher)]).history["loss"])
    assert histories[0] == histories[1]


def test_masks_of_a_taught_student():
    """It is the training by the callback, with examples that are left out."""
    teacher, x = tiny.teacher("mixture"), TRAIN.x.copy()
    x[::5] = 0
    taught = tf_l2t.TaughtStudent(network(blank_examples), teacher, DEV, STEPS, refresh_every=4, dev_sample_size=9)
    taught.compile(sgd())
    model = network(blank_examples)
    model.compile(sgd(), loss=teacher.as_keras_loss())
    options = {"batch_size": 6, "epochs": 2, "shuffle": False, "verbose": 0, "sample_weight": WEIGHTS}
    theirs = taught.fit(x, TRAIN.y, **options).history["loss"]
    ours = model.fit(x, TRAIN.y, callbacks=[teaching(teacher)], **options).history["loss"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for a, b in zip(model.weights, taught.student.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


DETERMINISTIC = """
import hashlib, keras, tensorflow as tf, tf_l2t
from tests import tiny
from tests.training.taught import DEV, TRAIN, network, sgd, teaching
keras.utils.set_random_seed(5)
tf.config.experimental.enable_op_determinism()
teacher = tiny.teacher("mixture")
trainer = tf_l2t.TeacherTrainer(lambda: tiny.dropout(), teacher, num_steps=6, batch_size=6, student_optimizer=sgd())
trainer.compile(keras.optimizers.Adam(0.01))
trainer.fit(TRAIN, DEV, teacher_steps=2, validation_freq=0, verbose=0)
model = network(tiny.dropout)
model.compile(sgd(), loss=teacher.as_keras_loss())
model.fit(*TRAIN, batch_size=6, epochs=2, verbose=0, callbacks=[teaching(teacher)])
student = tf_l2t.TaughtStudent(network(tiny.dropout), teacher, DEV, num_steps=8)
student.compile(sgd())
student.fit(*TRAIN, batch_size=6, epochs=2, verbose=0)
weights = [*teacher.theta, *model.weights, *student.weights]
print(hashlib.sha256(b"".join(w.numpy().tobytes() for w in weights)).hexdigest())
"""


def test_with_op_determinism_two_processes_do_the_same():
    """A teacher's training and a student's by it, with shuffling and dropout."""
    ends = [subprocess.run([sys.executable, "-c", DETERMINISTIC], cwd=ROOT, check=True, capture_output=True,
                           text=True).stdout.split()[-1] for _ in range(2)]
    assert ends[0] == ends[1] and len(ends[0]) == 64


def test_a_saved_model_goes_on(tmp_path):
    """Through ModelCheckpoint: Φ and the running accuracy are in the loss's config, t in the optimizer."""
    teacher = tiny.teacher()

    def fit(model, epochs, first=0, *callbacks):
        model.fit(*TRAIN, batch_size=5, shuffle=False, verbose=0, initial_epoch=first, epochs=epochs,
                  callbacks=[*callbacks, teaching(teacher)])

    whole, half = network(), network()
    for model in (whole, half):
        model.compile(sgd(), loss=teacher.as_keras_loss())
    fit(whole, 4)
    fit(half, 2, 0, keras.callbacks.ModelCheckpoint(tmp_path / "model.keras"))
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.loss.coefficients, half.loss.coefficients)
    assert float(again.loss.train_accuracy) == float(half.loss.train_accuracy) > 0
    fit(again, 4, 2)
    np.testing.assert_allclose(again.loss.coefficients, whole.loss.coefficients, rtol=1e-5, atol=1e-7)
    for a, b in zip(again.weights, whole.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda loss: loss, lambda loss: [loss]])
def test_backup_and_restore(wrap, tmp_path):
    """Model, optimizer and loss are made anew, as another process would; five steps an epoch, Φ for four of them."""
    teacher = tiny.teacher()

    def fit(epochs, *callbacks):
        model = network()
        model.compile(sgd(), loss=wrap(teacher.as_keras_loss()))
        model.fit(*TRAIN, batch_size=5, shuffle=False, verbose=0, epochs=epochs,
                  callbacks=[*callbacks, teaching(teacher)])
        return model

    whole = fit(3)
    fit(2, keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False))
    again = fit(3, keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False))
    ours, theirs = (model.loss if isinstance(model.loss, TeacherLoss) else model.loss[0] for model in (again, whole))
    np.testing.assert_allclose(ours.train_accuracy, theirs.train_accuracy, rtol=1e-6)
    np.testing.assert_allclose(ours.coefficients, theirs.coefficients, rtol=1e-5, atol=1e-7)
    for a, b in zip(again.weights, whole.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_files_of_weights_fit_models_of_other_losses(tmp_path):
    """Both ways."""
    taught, stock = network(), FunctionalStudent(tiny.plain, "float32").new_model(4)
    taught.compile(sgd(), loss=tiny.teacher().as_keras_loss())
    stock.compile(sgd(), loss=FixedLoss("focal"))
    for source, target in ((taught, stock), (stock, taught)):
        source.save_weights(tmp_path / "model.weights.h5")
        before = taught.loss.coefficients
        for weight in target.weights:
            weight.assign(weight + 1)
        target.load_weights(tmp_path / "model.weights.h5")
        for a, b in zip(source.weights, target.weights, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(taught.loss.coefficients, before)


def test_time_goes_on_where_steps_are_skipped():
    """A scale of the loss that is too large: gradients overflow, and the optimizer passes those steps over."""
    teacher, model, seen = tiny.teacher(), network(tiny.plain, "mixed_float16"), []
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05), initial_scale=2.0**24),
                  loss=teacher.as_keras_loss())
    callback = teaching(teacher, num_steps=9, refresh_every=1)
    model.fit(*TRAIN, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[
        callback, keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(
            model.loss.interval))])
    assert seen == list(range(9)) and int(model.optimizer.inner_optimizer.iterations) < 9


@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, keras.optimizers.LossScaleOptimizer])
def test_time_goes_on_where_gradients_are_only_accumulated(wrap):
    """Three batches an epoch, a step of the weights for every second of them: t counts the batches."""
    teacher, model, seen = tiny.teacher(), network(), []
    optimizer = wrap(keras.optimizers.SGD(0.05, gradient_accumulation_steps=2))
    model.compile(optimizer, loss=teacher.as_keras_loss())
    callback = teaching(teacher, num_steps=9, refresh_every=1)
    model.fit(*TRAIN, batch_size=8, epochs=3, verbose=0, callbacks=[callback, keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(model.loss.interval))])
    assert seen == list(range(9))


def test_the_callback_is_traced_once_for_a_model(monkeypatch):
    """However often that is fitted."""
    teacher, model, traced = tiny.teacher(), network(), []
    model.compile(sgd(), loss=teacher.as_keras_loss())
    callback = teaching(teacher)
    taught = callback._taught
    monkeypatch.setattr(callback, "_taught", lambda *args: (traced.append(None), taught(*args))[1])
    for _ in range(3):
        model.fit(*TRAIN, batch_size=6, verbose=0, callbacks=[callback])
    assert len(traced) == 1


def test_a_loss_in_a_list_or_a_dict():
    teacher = tiny.teacher()
    for wrap in (lambda loss: [loss], lambda loss: {"only": loss}):
        inputs = keras.Input(tiny.IMAGE)
        model = keras.Model(inputs, keras.layers.Dense(3, name="only")(keras.layers.Flatten()(inputs)))
        model.compile(sgd(), loss=wrap(teacher.as_keras_loss()))
        assert np.isfinite(model.fit(*TRAIN, epochs=1, verbose=0, callbacks=[
            teaching(teacher, num_steps=1)]).history["loss"]).all()


def test_a_fit_that_was_interrupted_leaves_the_loss_untaught():
    """Keras then tells no callback of the end."""
    teacher, model = tiny.teacher(), network()
    model.compile(sgd(), loss=teacher.as_keras_loss())

    class Interrupts(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(*TRAIN, batch_size=6, verbose=0, callbacks=[teaching(teacher, num_steps=4), Interrupts()])
    with pytest.raises(tf.errors.InvalidArgumentError, match="give fit the callback"):
        model.fit(*TRAIN, batch_size=6, verbose=0)


@pytest.mark.parametrize("loss", [FixedLoss("focal"), TaughtLoss("stable", 0.1 * np.eye(3))])
def test_under_xla_labels_out_of_range_are_nan(loss):
    """XLA leaves assertions out."""
    for labels, finite in ((TRAIN.y, True), (TRAIN.y + 1, False), (TRAIN.y + 0.5, False)):
        model = network()
        model.compile(sgd(), loss=loss, jit_compile=True)
        history = model.fit(TRAIN.x, labels, batch_size=24, epochs=2, verbose=0).history["loss"]
        assert np.isfinite(history).all() == finite
        if not finite:
            assert np.isnan(history).all() and all(np.isnan(w).any() for w in model.get_weights())


def test_under_xla_without_the_callback_weights_are_nan():
    model = network()
    model.compile(sgd(), loss=tiny.teacher().as_keras_loss(), jit_compile=True)
    model.fit(*TRAIN, verbose=0)
    assert all(np.isnan(w).any() for w in model.get_weights())


def test_tensorboard_shows_a_stock_model(tmp_path):
    """As a `TaughtStudent`: the coefficients of its loss, as pictures and by pairs."""
    teacher, model, seen = tiny.teacher(), network(), {}
    model.compile(sgd(), loss=teacher.as_keras_loss(), metrics=["accuracy"])
    model.fit(*TRAIN, batch_size=6, epochs=2, verbose=0, callbacks=[
        teaching(teacher, num_steps=8, refresh_every=1),
        TaughtStudentSummaries(tmp_path, every=2, class_pairs=[(0, 2)], class_names=np.array(["a", "b", "c"])),
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.update({len(seen): (
            model.loss.coefficients[0, 2], float(model.loss.train_accuracy))}))])
    found = scalars(tmp_path)
    steps = (0, 2, 4, 6)
    assert found["coefficients_of_pairs/Φ(a, c)"] == pytest.approx({step: seen[step][0] for step in steps}, rel=1e-6)
    assert found["student/running_train_accuracy"] == pytest.approx({step: seen[step][1] for step in steps}, rel=1e-6)
    assert list(tags(tmp_path)["coefficients/current"]) == list(steps) and "student/accuracy" in found
    model.compile(sgd(), loss=FixedLoss("focal"))
    with pytest.raises(ValueError, match="received a Functional with the loss 'focal'"):
        model.fit(*TRAIN, verbose=0, callbacks=[TaughtStudentSummaries(tmp_path)])


def test_tensorboard_shows_a_model_that_was_restored_behind_the_callback_s_beginning(tmp_path):
    """Every so many steps from there on, and not every step until the count has caught up."""
    teacher, model = tiny.teacher(), network()
    model.compile(sgd(), loss=teacher.as_keras_loss())
    model.fit(*TRAIN, batch_size=6, epochs=1, verbose=0, callbacks=[
        teaching(teacher, num_steps=200), TaughtStudentSummaries(tmp_path, every=2),
        keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: model.optimizer.iterations.assign(100))])
    assert list(tags(tmp_path)["coefficients/current"]) == [100, 102]


@pytest.mark.parametrize("before", [False, True])
def test_a_model_is_not_trained_by_a_loss_that_nothing_changes(before):
    """Nor after a fit with the callback; evaluations need none."""
    teacher, model = tiny.teacher(), network()
    model.compile(sgd(), loss=teacher.as_keras_loss())
    if before:
        model.fit(*TRAIN, verbose=0, callbacks=[teaching(teacher)])
    assert np.isfinite(model.evaluate(*OTHER, verbose=0))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"give fit the callback tf_l2t\.Teaching"):
        model.fit(*TRAIN, verbose=0)


def test_bad_input():
    teacher = tiny.teacher()
    with pytest.raises(ValueError, match="at least 1; received num_steps=0"):
        teaching(teacher, num_steps=0)
    with pytest.raises(ValueError, match="dev_data"):
        teaching(teacher, dev_data=(DEV.x, DEV.y + 5))
    with pytest.raises(ValueError, match=r"pair of arrays, \(x, y\); received .*Dataset"):
        teaching(teacher, dev_data=tf.data.Dataset.from_tensor_slices(tuple(DEV)))
    with pytest.raises(ValueError, match="x is list of several inputs"):
        teaching(teacher, dev_data=([DEV.x, DEV.x], DEV.y))
    with pytest.raises(ValueError, match="num_steps='24'"):
        teaching(teacher, num_steps="24")
    teaching(teacher, dev_data=(DEV.x.tolist(), DEV.y.tolist()))  # examples in a list are an array
    with pytest.raises(ValueError, match=r"tf_l2t\.teachers\.Teacher"):
        teaching("runs/teacher")

    def begin(loss, callback, **compiled):
        model = network()
        model.compile(sgd(), loss=loss, **compiled)
        model.fit(*TRAIN, verbose=0, callbacks=[callback])

    for loss in ("sparse_categorical_crossentropy", FixedLoss("focal"), TaughtLoss("stable", np.eye(3))):
        with pytest.raises(ValueError, match=r"as_keras_loss\(\)"):
            begin(loss, teaching(teacher))
    with pytest.raises(ValueError, match="of another teacher"):
        begin(tiny.teacher("paper").as_keras_loss(), teaching(teacher))
    counted = tf_l2t.teachers.AttentionTeacher(**{**tiny.teacher("soft").get_config(), "class_counts": [90, 9, 1]})
    with pytest.raises(ValueError, match=r"another teacher: .*\(90.*, 9.*, 1.*\)"):
        begin(counted.as_keras_loss(), teaching(tiny.teacher("soft")))
    five = keras.Sequential([keras.Input(tiny.IMAGE), keras.layers.Flatten(), keras.layers.Dense(5)])
    five.compile(sgd(), loss=teacher.as_keras_loss())
    with pytest.raises(ValueError, match=r"logits \[batch, 3\] of dev_data's examples; received shape \(8, 5\)"):
        five.fit(*TRAIN, verbose=0, callbacks=[teaching(teacher)])
