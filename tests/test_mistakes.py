"""The likeliest mistakes: each is answered by the sentence that docs/mistakes.md promises."""

import functools
import pathlib
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from tests import tiny
from tf_l2t.hypergradient.memory import available_bytes
from tf_l2t.losses import FixedLoss
from tf_l2t.teachers import AttentionTeacher

PAGE = (pathlib.Path(__file__).parent.parent / "docs" / "mistakes.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([^|]+?) \| `(.+?)`(?: \(a warning\))? \|", PAGE, flags=re.MULTILINE))
X, Y = (np.asarray(part) for part in tiny.arrays(24))
X = X.astype("float32")


def trainer(student_fn=tiny.plain, teacher=None, compiled=True, optimizer=None, **options):
    made = tf_l2t.TeacherTrainer(student_fn, teacher or tiny.teacher(), student_optimizer=optimizer or
                                 keras.optimizers.SGD(0.1), **({"num_steps": 4, "batch_size": 6} | options))
    if compiled:
        made.compile(keras.optimizers.Adam(0.01))
    return made


def fit(train=(X, Y), dev=(X, Y), **options):
    return trainer(**options).fit(train, dev, teacher_steps=1, validation_freq=0, verbose=0, preflight=False)


def with_softmax():
    model = tiny.plain()
    return keras.Model(model.input, keras.layers.Softmax()(model.output))


def unbuilt():
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])


def budget():
    made = trainer(compiled=False)
    made.compile(keras.optimizers.Adam(0.01), memory_budget=1000)
    made.plan((X, Y), (X, Y))


def taught(**options):
    return tf_l2t.TaughtStudent(tiny.plain(), tiny.teacher(), (X, Y), num_steps=4, **options)


def compile_taught():
    student = taught()
    student.compile("sgd", loss="sparse_categorical_crossentropy")
    student.fit(X, Y, verbose=0)


def stock_callback(model):
    teacher = tiny.teacher()
    model.compile("sgd", loss=teacher.as_keras_loss())
    model.fit(X, Y, verbose=0, callbacks=[tf_l2t.Teaching(teacher, (X, Y), num_steps=1)])


def another_order(tmp_path):
    tf_l2t.export_teacher(tiny.teacher(), tmp_path / "teacher", class_names=["cat", "cow", "dog"])
    tf_l2t.load_teacher(tmp_path / "teacher", class_names=["cow", "cat", "dog"])


class Probabilities(keras.Model):
    """What a subclassed model ends in can be seen in its outputs alone."""

    def __init__(self):
        super().__init__()
        self.network = with_softmax()

    def call(self, x):
        return self.network(x)


def stock_loss():
    model = tiny.plain()
    model.compile("sgd", loss="sparse_categorical_crossentropy")
    model.fit(X, Y, verbose=0, callbacks=[tf_l2t.Teaching(tiny.teacher(), (X, Y), 4)])


def one_hot_in_compile():
    model = tiny.plain()
    model.compile("sgd", loss=FixedLoss("focal"))
    model.fit(X, np.eye(3)[Y], verbose=0)


def softmax_in_compile():
    model = with_softmax()
    model.compile("sgd", loss=FixedLoss("focal"))
    model.fit(X, Y, verbose=0)


same = tiny.plain()
MISTAKES = {
    "Labels begin with 1": lambda tmp: fit(train=(X, Y + 1)),
    "One-hot labels": lambda tmp: fit(train=(X, np.eye(3)[Y])),
    "One-hot labels, in a model of your own": lambda tmp: one_hot_in_compile(),
    "Labels are probabilities or regression targets": lambda tmp: fit(train=(X, Y + 0.5)),
    "The student ends in a softmax": lambda tmp: fit(student_fn=with_softmax),
    "A softmax at the end of a subclassed model": lambda tmp: stock_callback(Probabilities()),
    "A softmax, and a fixed loss": lambda tmp: softmax_in_compile(),
    "Several inputs": lambda tmp: tf_l2t.Teaching(tiny.teacher(), ({"image": X, "age": X}, Y), num_steps=4),
    "The student has no input": lambda tmp: fit(student_fn=unbuilt),
    "student_fn returns one model again and again": lambda tmp: fit(student_fn=lambda: same),
    "NaN in the inputs": lambda tmp: fit(train=(np.where(np.arange(24)[:, None, None, None] == 3, np.nan, X), Y)),
    "Examples of another shape in dev": lambda tmp: fit(dev=(X[:, :4], Y)),
    "Dev examples of one class": lambda tmp: fit(dev=(X[Y == 1], Y[Y == 1])),
    "More examples in a batch than there are": lambda tmp: fit(batch_size=50),
    "An optimizer that is not differentiated through": lambda tmp: fit(optimizer=keras.optimizers.Adafactor()),
    "The teacher is for other classes": lambda tmp: fit(teacher=AttentionTeacher(num_classes=4, num_features=7)),
    "The teacher's classes are in another order": another_order,
    "The teacher has another number of features": lambda tmp: fit(teacher=AttentionTeacher(3, num_features=3)),
    "fit before compile": lambda tmp: fit(compiled=False),
    "A run that does not fit into the memory": lambda tmp: budget(),
    "A loss for a TaughtStudent": lambda tmp: compile_taught(),
    "The callback without the teacher's loss": lambda tmp: stock_loss(),
    "A teacher that is not there": lambda tmp: tf_l2t.load_teacher(tmp / "teacher"),
    "A data set that is not there": lambda tmp: tf_l2t.data.mnist(str(tmp / "mnist.npz")),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_answered(name, tmp_path):
    with pytest.raises(ValueError) as caught:
        MISTAKES[name](tmp_path)
    pattern = ".*".join(map(re.escape, ROWS[name].split("…")))
    assert re.search(pattern, str(caught.value)), str(caught.value)


def test_every_row_of_the_page_is_tried():
    assert ROWS.keys() == MISTAKES.keys() | {
        "Few dev examples", "The teacher's loss without the callback", "A fit shorter than num_steps",
        "Labels from 1, or none that are classes, in a model of your own", "A device without the memory",
        "A run that the machine has no memory for", "A TaughtStudent's val_loss is monitored",
        "A teacher that no step made better"}


def test_few_dev_examples():
    with pytest.warns(UserWarning, match=re.escape(ROWS["Few dev examples"].split("…")[1])):
        fit(dev=(X[:6], Y[:6]))


def test_a_fit_shorter_than_num_steps():
    model, teacher = tiny.plain(), tiny.teacher()
    model.compile("sgd", loss=teacher.as_keras_loss())
    begin, end = ROWS["A fit shorter than num_steps"].split("…")
    with pytest.warns(UserWarning, match=f"{begin}6 steps, and num_steps is 20:{end} 0.3"):
        model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[tf_l2t.Teaching(teacher, (X, Y), num_steps=20)])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=begin)
        model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[tf_l2t.Teaching(teacher, (X, Y), num_steps=20)])


def test_a_teacher_that_no_step_made_better():
    begin, end = ROWS["A teacher that no step made better"].split("…")
    for rate, told in ((1000.0, 1), (1e-3, 0)):
        made = trainer(compiled=False)
        made.compile(keras.optimizers.SGD(rate), clip_norm=None)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made.fit((X, Y), (X, Y), teacher_steps=1, validation_freq=1, verbose=0, preflight=False)
        said = [str(warning.message) for warning in caught if begin in str(warning.message)]
        assert len(said) == told and all(text[len(begin):].startswith("val_objective -") and end in text
                                         for text in said), caught


def test_a_device_without_the_memory(monkeypatch):
    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating a tensor")

    said = re.escape(ROWS["A device without the memory"])
    with monkeypatch.context() as patch:
        patch.setattr("tf_l2t.training.teacher_fit.TeacherFit._hypergradients", full)
        with pytest.raises(MemoryError, match=said):
            fit()
    monkeypatch.setattr("tf_l2t.training.validation.Validation._final_states", full)  # before the first step
    with pytest.raises(MemoryError, match=said):
        trainer().fit((X, Y), (X, Y), teacher_steps=1, validation_freq=1, verbose=0, preflight=False)


def test_a_run_that_the_machine_has_no_memory_for(monkeypatch):
    """Without a budget."""
    begin, end = ROWS["A run that the machine has no memory for"].split("…")
    for left in (10**12, 10**6):
        monkeypatch.setattr("tf_l2t.hypergradient.memory.available_bytes", lambda: left)  # noqa: B023
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit()
        told = [str(warning.message) for warning in caught if begin in str(warning.message)]
        assert len(told) == (left == 10**6) and all(f"and 1 MB{end}" in text for text in told)
    assert 10**8 < available_bytes() < 10**14


def test_a_loss_is_monitored(tmp_path):
    """It is another one at every Φ."""
    said = ROWS["A TaughtStudent's val_loss is monitored"].split("…")
    student = taught()
    student.compile("sgd", metrics=["accuracy"])
    early = keras.callbacks.EarlyStopping
    keep = functools.partial(keras.callbacks.ModelCheckpoint, tmp_path / "m.keras")
    for callback, warns in ((early("val_loss"), True), (early("val_accuracy"), False), (keep(), False),
                            (keep(monitor="val_accuracy", save_best_only=True), False)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            student.fit(X, Y, batch_size=6, validation_data=(X, Y), verbose=0,
                        callbacks=callback)
        told = [str(warning.message) for warning in caught if "monitors" in str(warning.message)]
        assert len(told) == warns and all(text.startswith(said[0]) and said[1] in text for text in told)


def test_a_taught_student_s_fit_of_another_length():
    begin, end = ROWS["A fit shorter than num_steps"].split("…")
    student = taught()
    student.compile("sgd")
    with pytest.warns(UserWarning, match=f"{begin}24 steps, and num_steps is 4:{end} 6"):
        student.fit(X, Y, batch_size=1, verbose=0)


class Hidden(keras.layers.Layer):
    """Ends in what only the traced ops, or the outputs, show."""

    def __init__(self, function):
        super().__init__()
        self._function = function

    def call(self, x):
        return self._function(x)


def by_hand(x):
    return tf.exp(x) / tf.reduce_sum(tf.exp(x), axis=-1, keepdims=True)


def ending(last, nested=False):
    """A student whose last part is a layer, an activation or a function."""
    layers = keras.layers
    last = layers.Dense(3, activation=last) if not isinstance(last, keras.layers.Layer) else last
    parts = [layers.Flatten(), layers.Dense(3), last]
    return keras.Sequential([keras.Input(tiny.IMAGE), *([keras.Sequential(parts)] if nested else parts)])


def keras_operation():
    inputs = keras.Input(tiny.IMAGE)
    return keras.Model(inputs, keras.ops.softmax(keras.layers.Dense(3)(keras.layers.Flatten()(inputs))))


def wrapped():
    inputs = keras.Input(tiny.IMAGE)
    return keras.Model(inputs, Probabilities()(inputs))


ENDS = {"nested": lambda: ending(keras.layers.Softmax(), nested=True), "tf.nn.softmax": lambda: ending(tf.nn.softmax),
        "sigmoid": lambda: ending("sigmoid"), "tf.sigmoid": lambda: ending(tf.sigmoid), "operation": keras_operation,
        "subclassed": wrapped, "by hand": lambda: ending(Hidden(by_hand)),
        "sigmoid in a layer": lambda: ending(Hidden(tf.sigmoid))}


@pytest.mark.parametrize("end", ENDS)
def test_probabilities_are_refused_however_they_are_made(end):
    with pytest.raises(ValueError, match=r"ends in a s|returns probabilities"):
        fit(student_fn=ENDS[end])
    with pytest.raises(ValueError, match=r"ends in a s|returns probabilities"):
        student = tf_l2t.TaughtStudent(ENDS[end](), tiny.teacher(), (X, Y), num_steps=4)
        student.compile("sgd")
        student.fit(X, Y, verbose=0)


@pytest.mark.parametrize("end", ["tanh", "relu", "log_softmax", None])
def test_other_ends_are_taken(end):
    assert np.isfinite(fit(student_fn=lambda: ending(end)).history["objective"]).all()


def test_a_softmax_and_a_fixed_loss_that_run_eagerly():
    model = keras.Sequential([tiny.plain(), keras.layers.Softmax()])
    model.compile("sgd", loss=FixedLoss("focal"), run_eagerly=True)
    with pytest.raises(ValueError, match="returns probabilities, and its loss takes logits"):
        model.fit(X, Y, verbose=0)


def test_the_teachers_loss_without_the_callback():
    model = tiny.plain()
    model.compile("sgd", loss=tiny.teacher().as_keras_loss())
    said = re.escape(ROWS["The teacher's loss without the callback"])
    with pytest.raises(tf.errors.InvalidArgumentError, match=said):
        model.fit(X, Y, verbose=0)


def test_labels_that_are_none_in_a_model_of_your_own():
    model = tiny.plain()
    model.compile("sgd", loss=FixedLoss("focal"))
    said = ROWS["Labels from 1, or none that are classes, in a model of your own"].split(" … ")
    for labels in (Y + 0.5, Y + 1):
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            model.fit(X, labels, verbose=0)
        assert all(part in str(caught.value) for part in said)
