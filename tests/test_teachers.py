import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.teachers import AttentionTeacher, Teacher


def test_attention_formula():
    teacher = AttentionTeacher(3, 6, num_keys=4, seed=1)
    teacher.values.assign(np.random.default_rng(0).standard_normal((3, 3, 4)))
    s = np.random.default_rng(1).uniform(size=6)
    v, w = teacher.keys.numpy().astype(np.float64), teacher.values.numpy().astype(np.float64)
    e = np.exp(v @ s)
    np.testing.assert_allclose(teacher(tf.constant(s, tf.float32)), w @ (e / e.sum()), rtol=1e-5)
    many = np.random.default_rng(2).uniform(size=(5, 6)).astype(np.float32)
    np.testing.assert_allclose(teacher(many), np.stack([teacher(row) for row in many]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("loss", "start"), [("stable", 0.1), ("paper", 1.0)])
def test_starts_at_a_multiple_of_the_identity(loss, start):
    teacher = AttentionTeacher(10, 13, loss=loss)
    for s in np.random.default_rng(0).uniform(size=(3, 13)).astype(np.float32):
        np.testing.assert_allclose(teacher(s), start * np.eye(10), atol=1e-6)
    assert [v.shape for v in teacher.theta] == [(10, 10, 10), (10, 13)]


def test_apply_is_a_function_of_theta_with_gradients():
    teacher = AttentionTeacher(3, 6, num_keys=4)
    theta = tuple(tf.cast(v, tf.float64) + 0.1 * tf.random.stateless_normal(v.shape, [1, 2], dtype=tf.float64)
                  for v in teacher.theta)
    s = tf.constant(np.linspace(0, 1, 6))
    weights = tf.constant(np.random.default_rng(0).standard_normal((3, 3)))
    with tf.GradientTape() as tape:
        tape.watch(theta)
        value = tf.reduce_sum(weights * teacher.apply(theta, s))
    gradient = tape.gradient(value, theta)
    for i in range(2):
        direction = tf.random.stateless_normal(theta[i].shape, [3, i], dtype=tf.float64)
        up, down = (tf.reduce_sum(weights * teacher.apply(tuple(
            t + h * direction if k == i else t for k, t in enumerate(theta)), s)) for h in (1e-6, -1e-6))
        np.testing.assert_allclose(tf.reduce_sum(gradient[i] * direction), (up - down) / 2e-6, rtol=1e-7)


def test_spec_round_trip():
    teacher = AttentionTeacher(4, 7, num_keys=3, loss="paper", seed=9)
    again = Teacher.from_spec(teacher.spec())
    assert type(again) is AttentionTeacher and again.get_config() == teacher.get_config()
    np.testing.assert_array_equal(again.keys, teacher.keys)


@pytest.mark.parametrize(("spec", "message"), [
    ({"class": "Oracle", "config": {}}, "AttentionTeacher"),
    ({"class": "AttentionTeacher", "config": {"keys": 3}}, "does not build"),
    ({"class": "AttentionTeacher", "config": {"num_classes": 1, "num_features": 4}}, "num_classes"),
])
def test_bad_specs(spec, message):
    with pytest.raises(ValueError, match=message):
        Teacher.from_spec(spec)


def test_bad_arguments():
    for arguments in ((1, 4), (3, 0), (3, 4, 0)):
        with pytest.raises(ValueError, match="at least"):
            AttentionTeacher(*arguments)
    with pytest.raises(ValueError, match="no taught loss"):
        AttentionTeacher(3, 4, loss="hinge")
