"""Every teacher by one table: its formula, start, derivatives, way through the file system and into Keras."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from tests import tiny
from tf_l2t.hypergradient import check_hypergradient
from tf_l2t.losses import soft_loss, taught_form
from tf_l2t.students import FunctionalStudent
from tf_l2t.teachers import TEACHERS, AttentionTeacher, Teacher

RNG = np.random.default_rng(0)


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def attention(theta, s, start):
    values, keys = theta
    return values @ softmax(keys @ s)


def mlp(theta, s, start):
    inputs, thresholds, outputs, bias = theta
    return start * np.eye(3) + (bias + np.tanh(s @ inputs + thresholds) @ outputs / len(thresholds)).reshape(3, 3)


# name: (options, the formula in NumPy)
ALL = {"attention": ({"num_keys": 4, "seed": 1}, attention), "diagonal": ({"num_keys": 4, "seed": 1}, attention),
       "shared_diagonal": ({"num_keys": 4, "seed": 1}, lambda theta, s, start: attention(
           (theta[0] + theta[2], theta[1]), s, start)),
       "mlp": ({"hidden": 5, "seed": 1}, mlp), "static": ({}, lambda theta, s, start: theta[0])}


def build(name, loss="stable", moved=True):
    """A teacher for 3 classes and 6 features, away from its start, so that every part of it plays a role."""
    teacher = TEACHERS[name](3, 6, loss=loss, **ALL[name][0])
    for i, v in enumerate(teacher.theta if moved else ()):
        v.assign_add(0.05 * tf.random.stateless_normal(v.shape, [7, i]))
    return teacher


def test_the_table_is_whole():
    assert set(ALL) == set(TEACHERS)


@pytest.mark.parametrize("name", ALL)
def test_formula(name):
    teacher = build(name)
    theta = [v.numpy().astype(np.float64) for v in teacher.theta]
    many = RNG.uniform(size=(5, 6)).astype(np.float32)
    expected = np.stack([ALL[name][1](theta, s.astype(np.float64), 0.1) for s in many])
    assert expected.shape[1:] == teacher.coefficients_shape
    np.testing.assert_allclose(teacher(many), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(teacher(many[2]), expected[2], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", ["stable", "mixture", "soft", "paper"])
@pytest.mark.parametrize("name", ALL)
def test_starts_near_a_multiple_of_the_identity(name, loss):
    teacher = build(name, loss, moved=False)
    start, spread = {"stable": (0.1, 0), "mixture": (0.06, 0.016), "soft": (0.1, 0.0125), "paper": (1, 0)}[loss]
    start = start * np.ones(3) if "diagonal" in name else np.where(np.eye(3), start, spread)
    for s in RNG.uniform(size=(3, 6)).astype(np.float32):
        np.testing.assert_allclose(teacher(s), start, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_gradients_by_theta_against_differences(name):
    teacher = build(name)
    theta = tuple(tf.cast(v, tf.float64) for v in teacher.theta)
    s = tf.constant(np.linspace(0, 1, 6))
    weights = tf.constant(RNG.standard_normal(teacher.coefficients_shape))
    with tf.GradientTape() as tape:
        tape.watch(theta)
        value = tf.reduce_sum(weights * teacher.apply(theta, s))
    gradient = tape.gradient(value, theta)
    for i in range(len(theta)):
        direction = tf.random.stateless_normal(theta[i].shape, [3, i], dtype=tf.float64)
        up, down = (tf.reduce_sum(weights * teacher.apply(tuple(
            t + h * direction if k == i else t for k, t in enumerate(theta)), s)) for h in (1e-6, -1e-6))
        np.testing.assert_allclose(tf.reduce_sum(gradient[i] * direction), (up - down) / 2e-6, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_the_hypergradient_through_it_against_differences(name):
    problem, state = tiny.problem(num_steps=4)
    report = check_hypergradient(problem, build(name), state, 3, schedules=("every_k",), dot_product=False)
    assert report.passed, str(report)


@pytest.mark.parametrize("name", ALL)
def test_spec_round_trip(name):
    teacher = build(name, "paper", moved=False)
    again = Teacher.from_spec(json.loads(json.dumps(teacher.spec())))
    assert type(again) is type(teacher) and again.get_config() == teacher.get_config()
    for a, b in zip(again.theta, teacher.theta, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ALL)
def test_exported_loaded_and_followed_by_a_keras_student(name, tmp_path):
    teacher = build(name, "mixture")
    path = tf_l2t.export_teacher(teacher, tmp_path / "teacher", num_steps=40)
    loaded = tf_l2t.load_teacher(path)
    assert type(loaded) is type(teacher)
    s, y, z = RNG.uniform(size=6).astype(np.float32), np.array([0, 2, 1, 1], np.int32), RNG.standard_normal((4, 3))
    z = tf.constant(z, tf.float32)
    np.testing.assert_array_equal(loaded(s), teacher(s))
    raw = tf.saved_model.load(str(path)).signatures
    np.testing.assert_allclose(raw["coefficients"](features=tf.constant(s))["coefficients"], teacher(s), rtol=1e-6,
                               atol=1e-8)  # float32: entries near 0 are differences of larger ones
    np.testing.assert_allclose(raw["loss"](features=tf.constant(s), labels=tf.constant(y), logits=z)["loss"],
                               taught_form("mixture").per_example(y, z, teacher(s)), rtol=1e-6)
    x, y = tiny.arrays(24)
    student = tf_l2t.TaughtStudent(FunctionalStudent(tiny.plain).new_model(0), loaded, (x, y), num_steps=40)
    student.compile(keras.optimizers.SGD(0.1))
    student.fit(x.astype(np.float32), y, batch_size=8, verbose=0)
    assert student.coefficients.shape == teacher.coefficients_shape and np.abs(student.coefficients).max() > 0


@pytest.mark.parametrize("name", ALL)
def test_class_counts_adjust_the_logits(name, tmp_path):
    teacher = TEACHERS[name](3, 6, loss="stable", class_counts=[8, 1, 1], **ALL[name][0])
    s, y, z = RNG.uniform(size=6).astype(np.float32), np.array([0, 2, 1], np.int32), RNG.standard_normal((3, 3))
    adjusted = tf.constant(z + np.log([0.8, 0.1, 0.1]), tf.float32)
    expected = taught_form("stable").per_example(y, adjusted, teacher(s))
    np.testing.assert_allclose(teacher.per_example(y, tf.constant(z, tf.float32), teacher(s)), expected, rtol=1e-6)
    loaded = tf_l2t.load_teacher(tf_l2t.export_teacher(teacher, tmp_path / "teacher", num_steps=40))
    assert loaded.get_config()["class_counts"] == [8, 1, 1]
    np.testing.assert_allclose(loaded.per_example(y, tf.constant(z, tf.float32), loaded(s)), expected, rtol=1e-6)
    raw = tf.saved_model.load(str(tmp_path / "teacher")).signatures["loss"]
    np.testing.assert_allclose(raw(features=tf.constant(s), labels=tf.constant(y),
                                   logits=tf.constant(z, tf.float32))["loss"], expected, rtol=1e-6)
    for counts in ([8, 1], [8, 1, 0]):
        with pytest.raises(ValueError, match="class_counts"):
            TEACHERS[name](3, 6, class_counts=counts, **ALL[name][0])


@pytest.mark.parametrize("name", ALL)
def test_class_counts_soften_labels_in_proportion(name, tmp_path):
    teacher = TEACHERS[name](3, 6, loss="soft", class_counts=[8, 1, 1], **ALL[name][0])
    s, y, z = RNG.uniform(size=6).astype(np.float32), np.array([0, 2, 1], np.int32), RNG.standard_normal((3, 3))
    prior = tf.constant([0.8, 0.1, 0.1])
    expected = soft_loss(y, tf.constant(z + np.log([0.8, 0.1, 0.1]), tf.float32), teacher(s), prior)
    np.testing.assert_allclose(teacher.per_example(y, tf.constant(z, tf.float32), teacher(s)), expected, rtol=1e-6)
    loaded = tf_l2t.load_teacher(tf_l2t.export_teacher(teacher, tmp_path / "teacher", num_steps=40))
    np.testing.assert_allclose(loaded.per_example(y, tf.constant(z, tf.float32), loaded(s)), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_penalty(name):
    """Zero at multiples of I; its formula in NumPy, the mean over leading axes."""
    teacher = build(name)
    harmless = 0.3 * (np.ones(3) if "diagonal" in name else np.eye(3))
    assert teacher.penalty(tf.constant(harmless)) < 1e-25
    phi = harmless + 0.03 * RNG.standard_normal((2, 4, *harmless.shape))
    relative = phi.reshape(8, *harmless.shape) / 0.1
    expected = []
    for matrix in relative:
        weights = matrix if "diagonal" in name else np.diag(matrix)
        doubts = 0
        for i in range(0 if "diagonal" in name else 3):
            one, other = (abs(matrix[i, j]) for j in range(3) if j != i)
            doubts += one + other + 5 * one * other
        expected.append(25 * len(weights) * weights.var() + doubts)
    np.testing.assert_allclose(teacher.penalty(tf.constant(phi)), np.mean(expected), rtol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_penalty_of_the_soft_form(name):
    """Zero where all off-diagonal coefficients are equal and all diagonal ones are; its formula in NumPy."""
    teacher = build(name, "soft")
    alike = 0.2 * np.ones(3) if "diagonal" in name else 0.2 * np.eye(3) - 0.05
    assert teacher.penalty(tf.constant(alike)) < 1e-25
    phi = alike + 0.03 * RNG.standard_normal((2, 4, *alike.shape))
    expected = []
    for matrix in phi.reshape(8, *alike.shape) / 0.1:
        weights = matrix if "diagonal" in name else np.diag(matrix)
        beside = np.zeros(1) if "diagonal" in name else matrix[~np.eye(3, dtype=bool)]
        expected.append(25 * len(weights) * weights.var() + 64 * len(beside) * beside.var())
    np.testing.assert_allclose(teacher.penalty(tf.constant(phi)), np.mean(expected), rtol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_ignored_features_change_nothing(name):
    teacher = TEACHERS[name](3, 6, ignored=[0, 4], **ALL[name][0])
    for i, v in enumerate(teacher.theta):
        v.assign_add(0.05 * tf.random.stateless_normal(v.shape, [7, i]))
    s = np.linspace(0.1, 0.9, 6).astype(np.float32)
    blind, other = s.copy(), s.copy()
    blind[[0, 4]], other[3] = 0, 0
    np.testing.assert_array_equal(teacher(s), teacher(blind))
    assert name == "static" or not np.allclose(teacher(s), teacher(other), rtol=1e-4)
    again = Teacher.from_spec(json.loads(json.dumps(teacher.spec())))
    assert again.get_config() == teacher.get_config() and again.get_config()["ignored"] == [0, 4]
    with pytest.raises(ValueError, match="numbers of features"):
        TEACHERS[name](3, 6, ignored=[6], **ALL[name][0])


@pytest.mark.parametrize(("spec", "message"), [
    ({"class": "Oracle", "config": {}}, "AttentionTeacher"),
    ({"class": "AttentionTeacher", "config": {"keys": 3}}, "does not build"),
    ({"class": "AttentionTeacher", "config": {"num_classes": 1, "num_features": 4}}, "num_classes"),
])
def test_bad_specs(spec, message):
    with pytest.raises(ValueError, match=message):
        Teacher.from_spec(spec)


@pytest.mark.parametrize("name", ALL)
def test_bad_arguments(name):
    for arguments in ((1, 4), (3, 0), *([(3, 4, 0)] if name != "static" else [])):
        with pytest.raises(ValueError, match="at least"):
            TEACHERS[name](*arguments)
    with pytest.raises(ValueError, match="no taught loss"):
        AttentionTeacher(3, 4, loss="hinge")
