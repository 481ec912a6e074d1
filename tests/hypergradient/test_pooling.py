"""Max pooling as a linear function: the same values, the same derivatives, and stock pooling where it would not be."""

import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.hypergradient.pooling import linear_max_pool
from tf_l2t.hypergradient.tangents import forward_accumulator

# (image, window, strides, padding): windows that do not overlap and end with the image.
LINEAR = [((6, 8), 2, 2, "VALID"), ((7, 9), 2, None, "VALID"), ((6, 8), [1, 2, 4, 1], [1, 2, 4, 1], "SAME"),
          ((8, 8), [4], 4, "VALID"), ((6, 6), (2, 1), (2, 1), "VALID")]
STOCK = [((6, 8), 3, 3, "VALID"), ((6, 8), 2, 1, "VALID"), ((7, 8), 2, 2, "SAME"), ((8, 8), 4, 2, "VALID")]


def pooled(x, window, strides, padding):
    return tf.nn.max_pool(x, window, strides if strides is not None else window, padding)


def draw(image, seed, dtype=np.float64):
    return tf.constant(np.random.default_rng(seed).normal(size=(3, *image, 2)).astype(dtype))


def op_types(image, window, strides, padding):
    with linear_max_pool():
        graph = tf.function(lambda x: pooled(x, window, strides, padding)).get_concrete_function(
            tf.TensorSpec([3, *image, 2])).graph
    return {op.type for op in graph.get_operations()}


@pytest.mark.parametrize("how", LINEAR)
def test_linear_values_and_gradients_equal_the_stock_ones_bit_for_bit(how):
    image, *rest = how
    assert "AvgPool" in op_types(*how)
    for dtype in (np.float32, np.float64):
        x = draw(image, 0, dtype)
        x = tf.where(x < 0, tf.zeros_like(x), x)  # ties, as after a ReLU
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            stock = pooled(x, *rest)
            with linear_max_pool():
                linear = pooled(x, *rest)
        np.testing.assert_array_equal(linear, stock)
        direction = tf.random.stateless_normal(stock.shape, (1, 2), dtype=dtype)
        np.testing.assert_array_equal(tape.gradient(linear, x, direction), tape.gradient(stock, x, direction))


@pytest.mark.parametrize("how", STOCK)
def test_other_pooling_is_stock(how):
    assert "AvgPool" not in op_types(*how)
    with linear_max_pool():
        values = pooled(draw(how[0], 0), *how[1:])
    np.testing.assert_array_equal(values, pooled(draw(how[0], 0), *how[1:]))


@pytest.mark.parametrize("mode", ["forward_over_reverse", "reverse_over_reverse"])
def test_second_derivatives_against_central_differences(mode):
    x, u = draw((6, 8), 0), draw((6, 8), 1)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(tf.sin(pooled(x ** 3, 2, 2, "VALID")))
        return tape.gradient(y, x)

    @tf.function
    def product():
        if mode == "forward_over_reverse":
            with forward_accumulator([x], [u]) as accumulator:
                g = gradient(x)
            return accumulator.jvp(g)
        with linear_max_pool():
            with tf.GradientTape() as tape:
                tape.watch(x)
                g = gradient(x)
            return tape.gradient(g, x, u)

    h = 1e-6  # maxima lie further apart than this, so that no difference straddles a kink
    difference = (gradient(x + h * u) - gradient(x - h * u)) / (2 * h)
    result = product()
    assert np.abs(result).max() > 1
    np.testing.assert_allclose(result, difference, rtol=1e-6, atol=1e-6)


def test_an_infinity_beside_the_maximum_does_not_count():
    x = tf.constant([[1., -np.inf], [0., 0.5]])[None, :, :, None]
    with linear_max_pool():
        assert pooled(x, 2, 2, "VALID").numpy().item() == 1.
