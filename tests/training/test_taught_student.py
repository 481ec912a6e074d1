"""TaughtStudent as a Keras model, and against the engine's own run of the same student."""

import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from tests import tiny
from tests.event_files import scalars, tags
from tf_l2t.data import ArrayPair, array_batches, batch_dataset
from tf_l2t.hypergradient import initial_state, rollout
from tf_l2t.losses import taught_form
from tf_l2t.objectives import log_likelihood
from tf_l2t.students import FunctionalStudent
from tf_l2t.students.functional import building
from tf_l2t.training import TaughtStudent, TaughtStudentSummaries, classification_problem, inner_optimizer

ROOT = pathlib.Path(__file__).parent.parent.parent
STEPS, BATCH = 23, 6


def float32(pair: ArrayPair) -> ArrayPair:
    return ArrayPair(pair.x.astype(np.float32), pair.y)


TRAIN, DEV = float32(tiny.arrays(24, 0)), float32(tiny.arrays(15, 1))


def optimizer():
    return keras.optimizers.SGD(keras.optimizers.schedules.PolynomialDecay(0.05, STEPS, 0.0), momentum=0.9)


def batches(steps=STEPS):
    return batch_dataset(array_batches(TRAIN.x, TRAIN.y, BATCH), 3, steps)


def taught(build=tiny.dense_batchnorm, teacher=None, seed=3, **options):
    network = FunctionalStudent(build).new_model(seed)
    model = TaughtStudent(network, teacher or tiny.teacher(), DEV, STEPS, refresh_every=4, dev_sample_size=9, **options)
    model.compile(optimizer=optimizer(), metrics=["accuracy"])
    return model


@pytest.mark.parametrize("build", [tiny.plain, tiny.dense_batchnorm, tiny.conv_batchnorm, tiny.dropout])
@pytest.mark.parametrize("loss", ["stable", "paper"])
def test_fit_equals_the_engines_run(build, loss):
    teacher = tiny.teacher(loss)
    model = taught(build, teacher)
    model.fit(batches(), verbose=0)
    student = FunctionalStudent(build)
    problem = classification_problem(
        student, TRAIN, DEV, loss=taught_form(loss).per_example, objective=log_likelihood,
        optimizer=inner_optimizer(optimizer()), num_steps=STEPS, batch_size=BATCH, refresh_every=4, dev_sample_size=9)
    # Without XLA, as fit: it draws other dropout masks from the same seeds.
    run = rollout(problem, teacher, trace=("coefficients",), jit=False)(initial_state(problem, *student.init(3)), 3)
    # The same float32 arithmetic in another order of operations: 23 steps of rounding.
    for ours, keras_weight in zip(run.final_state.params, model.student.trainable_variables, strict=True):
        np.testing.assert_allclose(keras_weight, ours, rtol=1e-4, atol=2e-5)
    for ours, keras_weight in zip(run.final_state.non_trainable, model.student.non_trainable_variables, strict=True):
        np.testing.assert_allclose(keras_weight, ours, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(model.coefficients, run.trace["coefficients"][-1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.running_train_accuracy, run.final_state.status.train_accuracy, rtol=1e-5)


def test_a_loaded_teacher_trains_to_the_same_weights_in_another_process(tmp_path):
    teacher = tiny.teacher()
    live = taught(teacher=teacher)
    live.fit(batches(), verbose=0)
    path = tf_l2t.export_teacher(teacher, tmp_path / "teacher")
    code = ("import sys, numpy as np, tf_l2t\nfrom tests.training import test_taught_student as t\n"
            "model = t.taught(teacher=tf_l2t.load_teacher(sys.argv[1]))\nmodel.fit(t.batches(), verbose=0)\n"
            "np.savez(sys.argv[2], *model.student.get_weights())")
    subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path / "w.npz")], check=True)
    with np.load(tmp_path / "w.npz") as arrays:
        for name, weight in zip(arrays.files, live.student.get_weights(), strict=True):
            np.testing.assert_array_equal(arrays[name], weight)


def test_save_load_predict_and_go_on(tmp_path):
    model = taught()
    model.fit(batches(10), verbose=0)
    model.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(loaded.predict(DEV.x, verbose=0), model.predict(DEV.x, verbose=0))
    assert loaded.evaluate(*DEV, verbose=0) == model.evaluate(*DEV, verbose=0)
    assert loaded.num_steps == STEPS and loaded.refresh_every == 4
    for m in (model, loaded):
        m.fit(batches(8), verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


SAVED = """
import sys
import keras, tf_l2t
model = tf_l2t.load_model(sys.argv[1])
print(type(model).__name__, type(model.loss).__name__)
"""


@pytest.mark.parametrize("what", ["TaughtStudent", "TeacherLoss", "FixedLoss"])
def test_a_saved_model_is_loaded_in_a_process_that_has_imported_nothing_else(what, tmp_path):
    model = taught(tiny.plain) if what == "TaughtStudent" else tiny.plain()
    if what != "TaughtStudent":
        loss = tiny.teacher().as_keras_loss() if what == "TeacherLoss" else tf_l2t.losses.FixedLoss("focal")
        model.compile("sgd", loss=loss)
    model.save(tmp_path / "model.keras")
    done = subprocess.run([sys.executable, "-c", SAVED, str(tmp_path / "model.keras")], capture_output=True, text=True,
                          check=False)
    names = ("TaughtStudent", "NoneType") if what == "TaughtStudent" else ("Functional", what)
    assert done.returncode == 0 and done.stdout.split() == [*names], done.stderr


REGISTERED = """
import keras, tf_l2t
try:
    tf_l2t.load_model("none.keras")
except ValueError:
    pass
print(*(name for name in keras.saving.get_custom_objects()))
"""


def test_every_class_that_a_model_may_hold_is_known_by_load_model():
    """In a process that has imported none of them."""
    sources = [path.read_text() for path in (ROOT / "tf_l2t").rglob("*.py")]
    registered = [name for source in sources for name in re.findall(
        r'^@keras\.saving\.register_keras_serializable\(package="tf_l2t"\)\nclass (\w+)', source, re.MULTILINE)]
    assert len(registered) == sum(source.count("@keras.saving.register_keras_serializable") for source in sources) > 10
    done = subprocess.run([sys.executable, "-c", REGISTERED], capture_output=True, text=True, check=True, cwd=ROOT)
    assert {f"tf_l2t>{name}" for name in registered} <= set(done.stdout.split())


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    """The loss is computed in float32, regularisers with it, and t / T is exact however long T is."""
    teacher, steps = tiny.teacher(), 70_000
    with building(3, policy):
        network = tiny.regularised()
    model = TaughtStudent(network, teacher, DEV, steps, refresh_every=1)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    model._step.assign(steps - 100)
    history = model.fit(TRAIN.x, TRAIN.y, batch_size=24, shuffle=False, verbose=0).history
    logits = tf.cast(network(DEV.x, training=False), tf.float32)
    status = tf_l2t.features.status_vector(
        tf.constant(steps - 100), steps, tf.constant(0.0), tf.constant(DEV.y), logits)
    assert float(status[0]) == pytest.approx(1 - 100 / steps, abs=1e-6)
    np.testing.assert_allclose(model.coefficients, teacher(status), rtol=1e-6)
    logits = tf.cast(network(TRAIN.x, training=True), tf.float32)
    losses = teacher.per_example(tf.constant(TRAIN.y), logits, tf.constant(model.coefficients))
    expected = float(tf.reduce_mean(losses)) + float(tf.add_n(network.losses))
    assert float(tf.add_n(network.losses)) > 0 and history["loss"][0] == pytest.approx(expected, rel=1e-6)


def test_backup_and_restore(tmp_path):
    """Model and optimizer are made anew, as another process would."""
    def fit(epochs, *callbacks):
        model = taught(tiny.plain)
        model.fit(*TRAIN, batch_size=5, shuffle=False, verbose=0, epochs=epochs, callbacks=callbacks)
        return model

    whole = fit(3)
    fit(2, keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False))
    again = fit(3, keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False))
    assert again.step == whole.step == 15
    for a, b in zip(again.weights, whole.weights, strict=True):  # Φ, the teacher and the running accuracy among them
        np.testing.assert_array_equal(a, b)


def test_it_is_exported_as_its_student(tmp_path):
    model = taught(tiny.plain)
    model.fit(batches(3), verbose=0)
    model.export(str(tmp_path / "served"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(tf.constant(DEV.x)), model.predict(DEV.x, verbose=0), rtol=1e-6)


def test_fit_learns_and_keras_features_work(tmp_path):
    model = taught(tiny.plain)
    model.compile(optimizer=keras.optimizers.SGD(0.02, momentum=0.9), metrics=["accuracy"], steps_per_execution=4)
    history = model.fit(TRAIN.x, TRAIN.y, validation_data=tuple(DEV), batch_size=8, epochs=40, verbose=0,
                        callbacks=[keras.callbacks.EarlyStopping("accuracy", patience=40),
                                   keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"))])
    assert max(history.history["accuracy"]) > 0.9 > 0.5 > history.history["accuracy"][0]
    assert set(history.history) == {"accuracy", "loss", "val_accuracy", "val_loss"}
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "best.keras").predict(DEV.x, verbose=0),
                               model.student.predict(DEV.x, verbose=0), rtol=1e-5)


def test_the_loss_is_the_taught_one_with_sample_weights_and_regularisers():
    model = taught(tiny.regularised)
    model.fit(batches(5), verbose=0)
    logits = model.predict(DEV.x, verbose=0)
    values = taught_form("stable").per_example(DEV.y, tf.constant(logits), tf.constant(model.coefficients)).numpy()
    penalty = 0.01 * np.sum(np.square(model.student.get_weights()[0]))
    weights = np.linspace(0, 2, 15).astype(np.float32)
    assert model.evaluate(*DEV, verbose=0, batch_size=15)[0] == pytest.approx(values.mean() + penalty, rel=1e-5)
    assert model.evaluate(*DEV, sample_weight=weights, verbose=0, batch_size=15)[0] == pytest.approx(
        (weights * values).mean() + penalty, rel=1e-5)


def test_examples_of_any_length():
    inputs = keras.Input((None, 4))
    logits = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(inputs))
    x, y = np.random.default_rng(0).normal(size=(15, 7, 4)).astype("float32"), np.arange(15) % 3
    model = tf_l2t.TaughtStudent(keras.Model(inputs, logits), tiny.teacher(), (x, y), num_steps=3)
    model.compile("sgd")
    assert np.isfinite(model.fit(x[:, :5], y, batch_size=5, verbose=0).history["loss"]).all()
    with pytest.raises(ValueError, match=r"the student takes examples of shape \(None, 4\); .* the same preprocessing"):
        tf_l2t.TaughtStudent(keras.Model(inputs, logits), tiny.teacher(), (x[:, :, :3], y), num_steps=3)


def test_labels_as_a_column_are_the_same():
    first, second = taught(tiny.plain), taught(tiny.plain)
    first.fit(TRAIN.x, TRAIN.y, 24, verbose=0, shuffle=False)
    second.fit(TRAIN.x, TRAIN.y[:, None], batch_size=24, verbose=0, shuffle=False)
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_summaries_can_be_read_back(tmp_path):
    model = taught(tiny.plain)
    seen = {}
    model.fit(batches(), validation_data=tuple(DEV), verbose=0, callbacks=[
        TaughtStudentSummaries(tmp_path, every=10, class_pairs=[("b", 2)], class_names=["a", "b", "c"]),
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.update(
            {batch: np.array(model.coefficients)}))])
    shown = tags(tmp_path)
    assert {"student/running_train_accuracy", "coefficients/current", "coefficients/current/values",
            "student/accuracy", "student/val_accuracy"} <= set(shown)
    assert list(shown["coefficients/current"]) == [0, 10, 20]
    picture = tf.io.decode_png(shown["coefficients/current"][0][2]).numpy()
    assert picture.ndim == 3 and picture.std() > 0
    for label, pair in (("Φ(b, c)", (1, 2)), ("Φ(c, b)", (2, 1))):
        assert scalars(tmp_path)[f"coefficients_of_pairs/{label}"] == pytest.approx(
            {step: seen[step][pair] for step in (0, 10, 20)}, rel=1e-6)


@pytest.mark.parametrize(("x", "y", "message"), [
    (TRAIN.x, TRAIN.y + 7, "labels from 7 to 9"), (TRAIN.x * np.nan, TRAIN.y, "NaN"),
    (TRAIN.x, np.eye(3)[TRAIN.y], "One-hot"), (TRAIN.x[:5], TRAIN.y, "24"),
])
def test_bad_training_data(x, y, message):
    model = taught(tiny.plain)
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bad_labels_in_a_data_set():
    for y, message in ((TRAIN.y + 7, "labels must be in"), (np.eye(3)[TRAIN.y], "One-hot")):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=message):
            taught(tiny.plain).fit(tf.data.Dataset.from_tensor_slices((TRAIN.x, y)).batch(6), verbose=0)


def test_a_second_loss_is_refused():
    model = taught(tiny.plain)
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="teacher sets the loss"):
        model.fit(*TRAIN, verbose=0)


@pytest.mark.parametrize(("change", "message"), [
    ({"dev_data": (DEV.x, 0 * DEV.y)}, "at least two classes"), ({"dev_data": (DEV.x[:, :3], DEV.y)}, "of shape"),
    ({"dev_data": (DEV.x * np.nan, DEV.y)}, "NaN"), ({"dev_data": (DEV.x, DEV.y + 1)}, "labels from 1 to 3"),
    ({"num_steps": 0}, "num_steps"), ({"refresh_every": 0}, "refresh_every"),
    ({"teacher": tf_l2t.teachers.AttentionTeacher(4, 7)}, "4 classes, the student has 3"),
    ({"teacher": tf_l2t.teachers.AttentionTeacher(3, 5)}, "5 features"), ({"teacher": "runs/teacher"}, "load_teacher"),
])
def test_what_does_not_fit(change, message):
    arguments = {"teacher": tiny.teacher(), "dev_data": DEV, "num_steps": 5} | change
    with pytest.raises(ValueError, match=message):
        TaughtStudent(tiny.plain(), **arguments)
