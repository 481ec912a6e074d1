import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tf_l2t.features import dev_sample, feature_names, status_vector
from tf_l2t.hypergradient import rollout
from tf_l2t.objectives import running_accuracy


def test_the_papers_thirteen_numbers():
    names = feature_names(10)
    assert len(names) == 13 and names[:3] == ("progress", "train_accuracy", "dev_accuracy")
    logits = tf.one_hot([0, 1, 1, 3], 10)
    s = status_vector(tf.constant(30), 120, tf.constant(0.75), np.array([0, 1, 2, 3], np.int32), logits).numpy()
    np.testing.assert_allclose(s, [0.25, 0.75, 0.75, 1, 0.5, 0, 1, 0, 0, 0, 0, 0, 0])


def test_steps_beyond_the_horizon_stay_in_range():
    s = status_vector(tf.constant(500), 120, tf.constant(0.5), np.array([0], np.int32), tf.constant([[1.0, 0.0]]))
    assert float(s[0]) == 1


def test_features_of_a_run_follow_the_definition():
    """Every refreshed s_t against one made by hand from the student's weights at that step."""
    problem, state = tiny.problem(num_steps=7, refresh_every=3)
    result = rollout(problem, tiny.teacher(), trace=("metrics",))(state, 0)
    accuracies = np.asarray(result.trace["metrics"]["accuracy"])
    running = [0.0]
    for value in accuracies:
        running.append(0.9 * running[-1] + 0.1 * value)
    x, y = dev_sample(*tiny.arrays(15, 1), 9)
    for t in (0, 3, 6):
        state_t = state if t == 0 else rollout(problem._replace(num_steps=t), tiny.teacher())(state, 0).final_state
        w1, b1, w2, b2 = state_t.params
        predicted = np.argmax(np.tanh(x.reshape(9, -1) @ w1 + b1) @ w2 + b2, axis=1)
        precision = [np.mean(y[predicted == c] == c) if (predicted == c).any() else 0 for c in range(3)]
        np.testing.assert_allclose(result.features[t], [t / 7, running[t], np.mean(predicted == y), *precision],
                                   atol=1e-12)
        np.testing.assert_array_equal(result.features[min(t + 2, 6)], result.features[t])
    assert result.features.numpy().min() >= 0 and result.features.numpy().max() <= 1


def test_running_accuracy():
    assert float(running_accuracy(tf.constant(0.5), tf.constant(1.0))) == pytest.approx(0.55)


def test_dev_sample_is_a_fixed_subset():
    x, y = tiny.arrays(30)
    small = dev_sample(x, y, 10)
    again = dev_sample(x, y, 10)
    np.testing.assert_array_equal(small[0], again[0])
    assert len(small[0]) == 10 and all(any(np.array_equal(a, b) for b in x) for a in small[0])
    assert len(dev_sample(x, y, None)[0]) == len(dev_sample(x, y, 99)[0]) == 30
    with pytest.raises(ValueError, match="at least 1"):
        dev_sample(x, y, 0)
