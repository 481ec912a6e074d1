import gc
import os
import pathlib
import random
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tf_l2t.students import STUDENTS, FunctionalStudent, lenet, mlp


@pytest.mark.parametrize(("build", "count"), [(mlp, 397_510), (lenet, 431_080)])
def test_the_papers_sizes(build, count):
    model = build()
    assert model.count_params() == count
    assert model.output_shape == (None, 10)
    assert model(np.zeros((2, 28, 28, 1), np.float32)).shape == (2, 10)


def test_lenet_layers():
    shapes = [layer.output.shape[1:] for layer in lenet().layers]
    assert shapes == [(28, 28, 1), (24, 24, 20), (12, 12, 20), (8, 8, 50), (4, 4, 50), (800,), (500,), (10,)]


@pytest.mark.parametrize("name", ["mlp", "lenet"])
def test_students_take_other_classes_and_sizes(name):
    model = STUDENTS[name](num_classes=4, input_shape=(20, 20, 3), activation="tanh")
    assert model.output_shape == (None, 4)


def test_apply_equals_the_model_and_changes_nothing():
    student = FunctionalStudent(tiny.dense_batchnorm)
    params, non_trainable = student.init(3)
    model = student.new_model(3)
    x = tiny.arrays(8).x.astype(np.float32)
    for training in (False, True):
        logits, after, penalty = student.apply(params, non_trainable, x, training=training)
        np.testing.assert_allclose(logits, model(x, training=training), rtol=1e-6)
        for value, variable in zip(after, model.non_trainable_variables, strict=True):
            np.testing.assert_allclose(value, variable, rtol=1e-6)
    assert float(penalty) == 0
    again = student.init(3)
    for a, b in zip(params + non_trainable, again[0] + again[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_seeds_make_students_and_leave_the_callers_random_state_alone():
    student = FunctionalStudent(tiny.dropout)
    random.seed(7)
    expected = random.random()
    random.seed(7)
    first, other = student.init(1), student.init(2)
    assert random.random() == expected
    assert not np.array_equal(first[0][0], other[0][0])
    assert not np.array_equal(first[1][0], other[1][0])  # the dropout seed
    np.testing.assert_array_equal(student.init(1)[0][0], first[0][0])


def test_students_are_gone_at_once():
    """Not when Python next looks for cycles, which takes the longer the more objects there are."""
    built = []

    def build():
        model = tiny.dense_batchnorm()
        built.append(weakref.ref(model))
        return model

    student = FunctionalStudent(build)
    gc.disable()
    try:
        student.init(1)
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert built[0]() is student.model and built[1]() is None
    student.init(2)
    assert built[2]() is None and gc.isenabled()


def test_students_leave_names_as_they_were_and_no_memory_behind():
    """TensorFlow keeps some 35 KB for every name that a variable ever had: 4 variables, 150 KB a student."""
    def resident():
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def number():
        return int(keras.layers.Dense(1).name.partition("dense_")[2] or 0)

    student = FunctionalStudent(lambda: keras.Sequential([
        keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(3)]))
    first = number()
    for seed in range(100):
        student.init(seed)
    gc.collect()
    before = resident()
    for seed in range(300):
        student.init(seed)
    gc.collect()
    assert resident() - before < 300 * 15_000
    assert number() == first + 1


def test_the_penalty_is_the_regularisers_sum():
    student = FunctionalStudent(tiny.regularised)
    params, non_trainable = student.init(0)
    _, _, penalty = student.apply(params, non_trainable, tiny.arrays(4).x, training=True)
    np.testing.assert_allclose(penalty, 0.01 * np.sum(np.square(params[0])), rtol=1e-5)


def test_float64_students_leave_the_dtype_policy_alone():
    student = FunctionalStudent(tiny.plain, dtype="float64")
    assert all(p.dtype == tf.float64 for p in student.init(0)[0])
    assert keras.config.dtype_policy().name == "float32"


def test_accuracy_in_chunks():
    student = FunctionalStudent(tiny.plain)
    params, non_trainable = student.init(0)
    x, y = tiny.arrays(23)
    whole = np.mean(np.argmax(student.apply(params, non_trainable, x, training=False)[0], axis=1) == y)
    for chunk in (1, 5, 23, 100):
        assert student.accuracy(params, non_trainable, x, y, chunk) == pytest.approx(whole)


def _with_softmax():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def _subclassed():
    model = Subclassed()
    model(np.zeros((1, 4)))
    return model


def test_a_subclassed_model_can_be_wrapped():
    def build():
        inputs = keras.Input((4,))
        return keras.Model(inputs, Subclassed()(inputs))

    student = FunctionalStudent(build)
    params, non_trainable = student.init(0)
    assert student.num_classes == 3
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(student.apply(params, non_trainable, x, False)[0], x @ params[0] + params[1], rtol=1e-6)


def test_one_shared_model_is_no_initialisation():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="new model at every call"):
        FunctionalStudent(lambda: model).init(0)


@pytest.mark.parametrize(("build", "message"), [
    (_subclassed, "wrap a subclassed one"),
    (_with_softmax, "logits"), (lambda: "mlp", "keras.Model"),
    (lambda: keras.Sequential([keras.layers.Dense(3)]), "no weights yet"),
    (lambda: keras.Sequential([keras.Input((4, 4)), keras.layers.Dense(3)]), "one output"),
    (lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), "at least 2 classes"),
])
def test_what_is_no_student(build, message):
    with pytest.raises(ValueError, match=message):
        FunctionalStudent(build)


def test_student_fn_must_build_one_architecture():
    sizes = iter([5, 6])
    student = FunctionalStudent(lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(next(sizes))]))
    with pytest.raises(ValueError, match="same architecture"):
        student.init(0)
