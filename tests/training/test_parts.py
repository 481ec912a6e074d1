"""A network in parts against the same network as a whole."""

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tf_l2t.hypergradient import check_hypergradient
from tf_l2t.objectives import OBJECTIVES, log_likelihood
from tf_l2t.students import FunctionalStudent, mlp, resnet8
from tf_l2t.training import problem
from tf_l2t.training.parts import in_parts

X, Y = tiny.arrays(23, 1)


def _logits_fn(student, sizes):
    def logits(params, non_trainable, x):
        sizes.append(x.shape[0])
        return student.apply(params, non_trainable, x, training=False)[0]

    return logits


def _measured(logits_fn, objective, weights, compiled):
    params, rest = weights

    def run():
        floats = [w for w in rest if w.dtype.is_floating]
        with tf.GradientTape() as tape:
            tape.watch([params, floats])
            logits = logits_fn(params, rest, tf.constant(X))
            value = objective(tf.constant(Y), logits)
        return logits, value, tape.gradient(value, [*params, *floats], unconnected_gradients="zero")

    return tf.nest.flatten((tf.function(run, autograph=False, jit_compile=compiled == "XLA") if compiled else run)())


@pytest.mark.parametrize("size", [1, 7, 22])
@pytest.mark.parametrize("name", ["conv_batchnorm", "dropout"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_values_and_gradients_are_those_of_the_whole(objective, name, size):
    """To rounding in float64; of moving statistics too, and past seeds, which have no derivative."""
    student, sizes = FunctionalStudent(tiny.STUDENTS[name], dtype="float64"), []
    weights = student.init(3)
    expected = _measured(_logits_fn(student, []), OBJECTIVES[objective], weights, "graph")
    found = _measured(in_parts(_logits_fn(student, sizes), size), OBJECTIVES[objective], weights, "graph")
    assert max(sizes) <= size
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("compiled", ["", "XLA"])
def test_eagerly_and_by_xla(compiled):
    student = FunctionalStudent(tiny.dense_batchnorm, dtype="float64")
    weights = student.init(3)
    expected = _measured(_logits_fn(student, []), log_likelihood, weights, "graph")
    found = _measured(in_parts(_logits_fn(student, []), 5), log_likelihood, weights, compiled)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def test_few_examples_are_not_parted():
    student, sizes = FunctionalStudent(tiny.plain), []
    in_parts(_logits_fn(student, sizes), len(X))(*student.init(0), tf.constant(X, tf.float32))
    assert sizes == [len(X)]


def test_a_teachers_gradient_through_parts(monkeypatch):
    """Batches of 7 are the least part: 15 dev examples go in three, s_t's 9 in two."""
    whole, state = tiny.problem(tiny.conv_batchnorm, num_steps=5)
    monkeypatch.setattr(problem, "PART_BYTES", 1)
    parted, _ = tiny.problem(tiny.conv_batchnorm, num_steps=5)
    sizes = []
    apply = FunctionalStudent.apply
    monkeypatch.setattr(FunctionalStudent, "apply", lambda self, p, n, x, training: (
        None if training else sizes.append(x.shape[0]), apply(self, p, n, x, training))[1])
    report = check_hypergradient(parted, tiny.teacher(), state, 3, schedules=("every_k",), dot_product=False,
                                 verbose=False)
    assert report.passed, str(report)
    assert set(sizes) == {5}  # three parts of 5; two of 5, the last with one that is there twice
    for a, b in zip(tf.nest.flatten(parted.objective_fn(state.params, state.non_trainable)),
                    tf.nest.flatten(whole.objective_fn(state.params, state.non_trainable)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_numbers_per_example():
    assert FunctionalStudent(lambda: mlp(hidden=500)).numbers_per_example == 784 + 784 + 500 + 10
    # The image; stem and first block; the next two blocks, each with a padded input; the ends.
    blocks = 10 * 16 * 32 ** 2 + (16 * 34 ** 2 + 8 * 32 * 16 ** 2) + (32 * 18 ** 2 + 8 * 64 * 8 ** 2)
    assert FunctionalStudent(resnet8).numbers_per_example == 3 * 32 ** 2 + blocks + 64 + 10
