"""The likeliest mistakes: each is answered by the sentence that docs/mistakes.md promises."""

import pathlib
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from tests import tiny
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
        "Few dev examples", "The teacher's loss without the callback", "No classes, in a model of your own",
        "A fit shorter than the callback was told", "A device without the memory"}


def test_few_dev_examples():
    with pytest.warns(UserWarning, match=re.escape(ROWS["Few dev examples"].split("…")[1])):
        fit(dev=(X[:6], Y[:6]))


def test_a_fit_shorter_than_the_callback_was_told():
    model, teacher = tiny.plain(), tiny.teacher()
    model.compile("sgd", loss=teacher.as_keras_loss())
    begin, end = ROWS["A fit shorter than the callback was told"].split("…")
    with pytest.warns(UserWarning, match=f"{begin}6 steps, and the callback has num_steps=20:{end} 0.3"):
        model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[tf_l2t.Teaching(teacher, (X, Y), num_steps=20)])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=begin)
        model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[tf_l2t.Teaching(teacher, (X, Y), num_steps=20)])


def test_a_device_without_the_memory(monkeypatch):
    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating a tensor")

    monkeypatch.setattr("tf_l2t.training.teacher_fit.TeacherFit._hypergradients", full)
    with pytest.raises(MemoryError, match=re.escape(ROWS["A device without the memory"])):
        fit()


def test_the_teachers_loss_without_the_callback():
    model = tiny.plain()
    model.compile("sgd", loss=tiny.teacher().as_keras_loss())
    said = re.escape(ROWS["The teacher's loss without the callback"])
    with pytest.raises(tf.errors.InvalidArgumentError, match=said):
        model.fit(X, Y, verbose=0)


def test_labels_that_are_none_in_a_model_of_your_own():
    model = tiny.plain()
    model.compile("sgd", loss=FixedLoss("focal"))
    with pytest.raises(tf.errors.InvalidArgumentError, match=ROWS["No classes, in a model of your own"].split("…")[0]):
        model.fit(X, Y + 0.5, verbose=0)
