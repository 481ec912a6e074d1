"""Batches split over the replicas of a strategy, and students spread over them, against one device."""

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tests.clusters import environments
from tests.commands import start_module
from tf_l2t.hypergradient import (
    adam,
    advance,
    check_hypergradient,
    hypergradient,
    initial_state,
    sgd,
)
from tf_l2t.hypergradient.replicas import Shards


@pytest.fixture(scope="module")
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def split(problem, strategy):
    return problem._replace(shards=Shards(strategy))


# In float64, but for Φ: a teacher's weights and coefficients are float32, whose last bit is 1e-7.
@pytest.mark.parametrize(("student", "optimizer", "hvp"), [
    ("plain", sgd(0.2, momentum=0.9), "forward_over_reverse"),
    ("plain", sgd(0.2, momentum=0.9), "reverse_over_reverse"),
    ("regularised", adam(0.05, epsilon=0.01), "forward_over_reverse"),
    ("synchronized_batchnorm", sgd(0.2, momentum=0.9), "forward_over_reverse"),
    ("synchronized_batchnorm", adam(0.05, epsilon=0.01), "reverse_over_reverse"),
    ("layernorm", sgd(0.2, momentum=0.9, nesterov=True), "auto")])
def test_a_split_batch_has_the_hypergradient_of_the_whole(strategy, student, optimizer, hvp):
    problem, state = tiny.problem(getattr(tiny, student), optimizer, batch_size=8)
    teacher = tiny.teacher()
    whole = hypergradient(problem, teacher, jit=False, trace=("loss", "adjoint_norm"))(state, 3)
    function = hypergradient(split(problem, strategy), teacher, hvp=hvp, trace=("loss", "adjoint_norm"))
    parts = function(state, 3)
    assert function.choice.hvp == (hvp if hvp != "auto" else "forward_over_reverse") and not function.choice.jit
    np.testing.assert_allclose(parts.objective, whole.objective, rtol=1e-7)
    for a, b in zip((*parts.gradient, *parts.adjoint.params, *parts.rollout.final_state.params),
                    (*whole.gradient, *whole.adjoint.params, *whole.rollout.final_state.params), strict=True):
        # The adjoint of a bias in front of a batch normalisation is zero, but for rounding.
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * float(tf.reduce_max(tf.abs(b))) + 1e-14)
    np.testing.assert_allclose(parts.rollout.trace["loss"], whole.rollout.trace["loss"], rtol=1e-6)
    np.testing.assert_allclose(parts.rollout.trace["adjoint_norm"], whole.rollout.trace["adjoint_norm"], rtol=1e-6)


@pytest.mark.parametrize("student", ["plain", "synchronized_batchnorm"])
def test_two_processes_have_the_hypergradient_of_one(tmp_path, student):
    """As above, each with a half of every batch."""
    processes = [start_module("tests.hypergradient.split_worker", str(tmp_path / str(index)), student, env=env)
                 for index, env in enumerate(environments())]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    problem, state = tiny.problem(getattr(tiny, student), batch_size=8)
    whole = hypergradient(problem, tiny.teacher(), jit=False)(state, 3)
    found, other = (list(np.load(tmp_path / f"{index}.npz").values()) for index in range(2))
    for a, b, expected in zip(found, other, (whole.objective, *whole.gradient), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, expected, rtol=1e-6, atol=1e-6 * float(tf.reduce_max(tf.abs(expected))))


@pytest.mark.parametrize("student", ["dense_batchnorm", "dropout", "synchronized_batchnorm"])
def test_the_hypergradient_of_a_split_batch_is_that_of_differences(strategy, student):
    """Each part is normalised by itself, if not synchronised: another function than that of the whole batch,
    differentiated as exactly."""
    problem, state = tiny.problem(getattr(tiny, student), batch_size=8)
    report = check_hypergradient(split(problem, strategy), tiny.teacher(), state, 3, num_directions=2,
                                 hvp_modes=("forward_over_reverse", "reverse_over_reverse"), dot_product=False,
                                 schedules=("every_k",), tolerance=1e-5, agreement=1e-10, jit=False)
    assert report.passed, str(report)


def test_every_replica_has_a_student_of_its_own(strategy):
    """To the bit as one device has them, one after the other."""
    problem, state = tiny.problem()
    other = initial_state(problem, *(tuple(0.5 * p for p in part) for part in (state.params, state.non_trainable)))
    teacher = tiny.teacher()
    one, both = hypergradient(problem, teacher), hypergradient(problem, teacher, strategy=strategy)
    for result, (start, seed) in zip(both([state, other], [3, 4]), ((state, 3), (other, 4)), strict=True):
        for a, b in zip(tf.nest.flatten(result), tf.nest.flatten(one(start, seed)), strict=True):
            np.testing.assert_array_equal(a, b)
    finals = advance(problem, teacher, strategy=strategy)([state, other], [3, 4], 5)
    for final, (start, seed) in zip(finals, ((state, 3), (other, 4)), strict=True):
        for a, b in zip(tf.nest.flatten(final), tf.nest.flatten(advance(problem, teacher)(start, seed, 5)),
                        strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_mean_of_parts_keeps_structure_types_and_order(strategy):
    batch = (tf.reshape(tf.range(12, dtype=tf.float64), [4, 3]), tf.constant([1, 2, 3, 4]))
    shards = Shards(strategy)

    @tf.function
    def mean():
        return shards.mean(lambda part: {"a": tf.reduce_mean(part[0], axis=0), "seeds": tf.constant([7, 8]),
                                         "b": (tf.cast(tf.reduce_sum(part[1]), tf.float32), part[0][:, :1])}, batch)

    found = mean()
    np.testing.assert_array_equal(found["a"], [4.5, 5.5, 6.5])
    np.testing.assert_array_equal(found["seeds"], [7, 8])
    assert found["b"][0].dtype == tf.float32 and float(found["b"][0]) == (3 + 7) / 2
    np.testing.assert_array_equal(found["b"][1], [[3], [6]])


def test_what_cannot_be_split_is_refused(strategy):
    problem, state = tiny.problem(batch_size=8)
    with pytest.raises(ValueError, match="split over several"):
        hypergradient(split(problem, strategy), tiny.teacher(), hvp="saved_residuals")(state, 3)
    with pytest.raises(ValueError, match="XLA cannot compile"):
        hypergradient(split(problem, strategy), tiny.teacher(), jit=True)
