"""Tangents written into the graph: right against central differences, and without products with zeros."""

import threading

import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.hypergradient import replaced, tangents
from tf_l2t.hypergradient.tangents import forward_accumulator

_IMAGE = {"strides": [1, 1, 1, 1], "padding": "VALID"}
_PAD = [[0, 0], [1, 2], [0, 1], [0, 0]]
_POOL = {"ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "VALID"}
A, B = (2, 4, 6, 3), (2, 4, 6, 3)
KERNEL = (2, 3, 3, 4)
raw = tf.raw_ops

# op -> (function of two tensors, their shapes)
CASES = {
    "AddN": (lambda a, b: tf.add_n([a, b, a]), A, B),
    "AddV2": (lambda a, b: a + b[:, :1], A, B),
    "AvgPool": (lambda a, b: raw.AvgPool(value=a, **_POOL) + 0 * b[:, :2, :3], A, B),
    "AvgPoolGrad": (lambda a, b: raw.AvgPoolGrad(orig_input_shape=A, grad=a[:, :2, :3], **_POOL) * b, A, B),
    "BatchMatMulV2": (lambda a, b: tf.matmul(a, b, transpose_b=True), A, B),
    "BatchToSpaceND": (lambda a, b: tf.batch_to_space(a, [2, 1], [[0, 1], [0, 0]]) + b[:1, :1], A, B),
    "BiasAdd": (lambda a, b: tf.nn.bias_add(a, b[0, 0, 0]), A, B),
    "BiasAddGrad": (lambda a, b: raw.BiasAddGrad(out_backprop=a) * b, A, B),
    "BroadcastTo": (lambda a, b: tf.broadcast_to(a[:, :1], A) * b, A, B),
    "ConcatV2": (lambda a, b: tf.concat([a, b, a], 2), A, B),
    "Conv2D": (lambda a, b: raw.Conv2D(input=a, filter=b, **_IMAGE), A, KERNEL),
    "Conv2DBackpropFilter": (lambda a, b: raw.Conv2DBackpropFilter(
        input=a, filter_sizes=[2, 3, 3, 3], out_backprop=b[:, :3, :4], **_IMAGE), A, B),
    "Conv2DBackpropInput": (lambda a, b: raw.Conv2DBackpropInput(
        input_sizes=[2, 5, 8, 3], filter=b, out_backprop=tf.concat([a, a[..., :1]], 3), **_IMAGE), A, KERNEL),
    "Cumsum": (lambda a, b: tf.cumsum(a, 1, reverse=True) * b, A, B),
    "DepthwiseConv2dNative": (lambda a, b: raw.DepthwiseConv2dNative(input=a, filter=b, **_IMAGE), A, KERNEL),
    "DepthwiseConv2dNativeBackpropFilter": (lambda a, b: raw.DepthwiseConv2dNativeBackpropFilter(
        input=a, filter_sizes=[2, 3, 3, 1], out_backprop=b[:, :3, :4], **_IMAGE), A, B),
    "DepthwiseConv2dNativeBackpropInput": (lambda a, b: raw.DepthwiseConv2dNativeBackpropInput(
        input_sizes=[2, 5, 8, 3], filter=b[..., :1], out_backprop=a, **_IMAGE), A, KERNEL),
    "ExpandDims": (lambda a, b: tf.expand_dims(a, 1) * tf.expand_dims(b, 1), A, B),
    "GatherV2": (lambda a, b: tf.gather(a, [1, 1, 0], axis=1) * b[:, :3], A, B),
    "MatMul": (lambda a, b: tf.matmul(a[0, 0], b[0, 0], transpose_a=True), A, B),
    "Mean": (lambda a, b: tf.reduce_mean(a, [1, 2], keepdims=True) * b, A, B),
    "MirrorPad": (lambda a, b: tf.pad(a, _PAD, "REFLECT") * tf.pad(b, _PAD, "SYMMETRIC"), A, B),
    "Mul": (lambda a, b: a * b[:, :1], A, B),
    "Neg": (lambda a, b: -a * b, A, B),
    "Pack": (lambda a, b: tf.stack([a, b], 1), A, B),
    "Pad": (lambda a, b: tf.pad(a, _PAD) * tf.pad(b, _PAD), A, B),
    "Relu6Grad": (lambda a, b: raw.Relu6Grad(gradients=a, features=b), A, B),
    "ReluGrad": (lambda a, b: raw.ReluGrad(gradients=a, features=b), A, B),
    "Reshape": (lambda a, b: tf.reshape(a, [-1, 8]) * tf.reshape(b, [-1, 8]), A, B),
    "ReverseV2": (lambda a, b: tf.reverse(a, [1]) * b, A, B),
    "Slice": (lambda a, b: tf.slice(a, [0, 1, 0, 0], [2, 2, 6, 3]) * b[:, 2:], A, B),
    "SpaceToBatchND": (lambda a, b: tf.space_to_batch(a, [2, 1], [[0, 0], [0, 0]]) * b[:1, :2], A, B),
    "Squeeze": (lambda a, b: tf.squeeze(a[:, :1], 1) * b[:, 0], A, B),
    "StridedSlice": (lambda a, b: a[:, ::2, 1:4] * b[:, ::2, :3], A, B),
    "Sub": (lambda a, b: a - b[:, :1], A, B),
    "Sum": (lambda a, b: tf.reduce_sum(a, [0, 3]) * b[0, ..., 0], A, B),
    "Tile": (lambda a, b: tf.tile(a, [1, 2, 1, 1]) * b[:, :1], A, B),
    "Transpose": (lambda a, b: tf.transpose(a, [0, 3, 1, 2]) * tf.transpose(b, [0, 3, 1, 2]), A, B),
    "MaxPoolGrad": (lambda a, b: pool_gradient(a, b[:, :2, :3], "VALID") * (1 + a), A, B),
    "MaxPool": (lambda a, b: tf.nn.max_pool(a, 2, 2, "VALID") * tf.nn.max_pool(b, 2, 2, "SAME"), A, B),
    # Not in any table: their gradient functions, transposed.
    "IRFFT": (lambda a, b: tf.signal.irfft(tf.signal.rfft(a) * tf.signal.rfft(b)), (*B[:3], 8), (*B[:3], 8)),
    "LogSoftmax": (lambda a, b: tf.nn.log_softmax(a) * tf.exp(b), A, B),
    "Split": (lambda a, b: tf.split(a, 3, axis=3)[1] * b[..., :1], A, B),
}


def pool_gradient(x, y, padding, **window):
    how = {**_POOL, "padding": padding, **window}
    return raw.MaxPoolGrad(orig_input=x, orig_output=raw.MaxPool(input=x, **how), grad=y, **how)


def pooled_twice(x):
    return tf.nn.max_pool(x, 2, 2, "VALID") * tf.nn.max_pool(x, (1, 2), (1, 2), "VALID")[:, :2]


@tf.custom_gradient
def reversed_gradient(x):
    return x, lambda dy: -dy


# What is given twice, or comes out in several parts.
MORE = {
    "Einsum": (lambda a, b: tf.einsum("bhwi,bhwj->bhij", a, a) + tf.einsum("bhwi,bhwj->bhij", a, b), A, B),
    "Maximum": (lambda a, b: tf.maximum(a, a) * tf.maximum(a, b), A, B),
    "Pow": (lambda a, b: tf.exp(a) ** tf.exp(a) * tf.exp(b), A, B),
    "Mul": (lambda a, b: a * a * b * b, A, B),
    "ConcatV2": (lambda a, b: tf.concat([a, a, b], 0), A, B),
    "IdentityN": (lambda a, b: reversed_gradient(a) * b, A, B),  # of the values: differences know no custom gradient
    "SplitV": (lambda a, b: tf.multiply(*tf.split(a * b, [2, 2], axis=1)), A, B),
    "TopKV2": (lambda a, b: tf.math.top_k(a, 2).values * b[..., :2], A, B),
    "Unpack": (lambda a, b: tf.add_n([x * x for x in tf.unstack(a, axis=1)]) * b[:, 0], A, B),
}


# Windows that overlap, or reach into the padding: pooling is not linear in the sense of the others.
OTHER_POOLING = {
    "MaxPool": (lambda a, b: tf.nn.max_pool(a, 3, 1, "VALID") * tf.nn.max_pool(b, 2, 3, "SAME")[:, :2, :1], A, B),
    "Mul": (lambda a, b: pooled_twice(a) * pooled_twice(b), A, B),
    "MaxPoolGrad": (lambda a, b: pool_gradient(a, b[:, :2, :3], "SAME", ksize=[1, 3, 3, 1], strides=[1, 3, 2, 1])[
        :, :, :3] * (1 + a[:, :, :3]), A, B),
}


def draw(shape, seed):
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


def tangent(function, primals, directions, moving):
    @tf.function
    def traced(*primals):
        watched = [primals[i] for i in moving]
        with forward_accumulator(watched, [directions[i] for i in moving]) as accumulator:
            result = function(*primals)
        return accumulator.jvp(result, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return traced(*primals)


@pytest.mark.parametrize("moving", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize(("op", "case"), [*CASES.items(), *MORE.items(), *OTHER_POOLING.items()])
def test_tangents_against_central_differences(op, case, moving):
    function, *shapes = case
    primals = [draw(shape, i) for i, shape in enumerate(shapes)]
    directions = [draw(shape, 2 + i) for i, shape in enumerate(shapes)]
    graph = tf.function(function).get_concrete_function(*primals).graph
    assert op in {found.type for found in graph.get_operations()}
    h = 1e-6  # kinks lie further apart

    def moved(by):
        return function(*(p + by * directions[i] if i in moving else p for i, p in enumerate(primals)))

    difference = (moved(h) - moved(-h)) / (2 * h)
    assert np.abs(difference).max() > 0.1 or op in ("Relu6Grad", "ReluGrad", "AvgPool")
    # Rounding of a difference: 1e-16 / h times the size of values, which are sums of up to 100 products.
    np.testing.assert_allclose(tangent(function, primals, directions, moving), difference, rtol=1e-7, atol=1e-7)


def test_every_op_of_the_tables_is_tested():
    assert {*tangents._MULTILINEAR, *tangents._LINEAR} <= set(CASES)


def test_what_has_no_tangents_is_refused():
    """Rather than left out, which would be silently wrong."""
    @tf.function
    def traced(w):
        with forward_accumulator([w], [w]) as accumulator:
            y = tf.TensorArray(w.dtype, size=1, element_shape=w.shape).write(0, tf.tanh(w)).stack()
        return accumulator.jvp(y)

    with pytest.raises(TypeError, match="variant"):
        traced(draw((4, 3), 0))


def test_a_layer_on_data_is_multiplied_once():
    """x W, and its tangent x Ẇ: no product with the tangent that x does not have."""
    x = draw((5, 4), 0)

    @tf.function
    def traced(w, v):
        with forward_accumulator([w], [v]) as accumulator:
            y = tf.matmul(x, w)
        return y, accumulator.jvp(y)

    concrete = traced.get_concrete_function(draw((4, 3), 1), draw((4, 3), 2))
    assert [op.type for op in concrete.graph.get_operations()].count("MatMul") == 2


def test_an_accumulator_inside_is_refused():
    """The outer one would not see the inner one's products."""
    @tf.function
    def traced(w):
        with forward_accumulator([w], [w]), tf.autodiff.ForwardAccumulator(w, w) as inner:
            y = tf.tanh(w)
        return inner.jvp(y)

    w = draw((4, 3), 0)
    with pytest.raises(NotImplementedError, match="inside a student's loss"):
        traced(w)
    with tf.autodiff.ForwardAccumulator(w, w) as accumulator:  # afterwards, as ever
        y = tf.sin(w)
    np.testing.assert_allclose(accumulator.jvp(y), tf.cos(w) * w, rtol=1e-14)


def test_other_threads_get_tensorflow_s_own():
    w, results = draw((4, 3), 0), []

    @tf.function
    def traced(w):
        with tf.autodiff.ForwardAccumulator(w, w) as accumulator:
            y = tf.sin(w)
        return accumulator.jvp(y)

    with forward_accumulator([w], [w]):
        thread = threading.Thread(target=lambda: results.append(traced(w)))
        thread.start()
        thread.join()
    np.testing.assert_allclose(results[0], tf.cos(w) * w, rtol=1e-14)


def test_threads_take_turns():
    """As replicas do, wherever they reduce something: each has its own tangents, whoever enters and leaves first."""
    order, w = [threading.Semaphore(1), threading.Semaphore(0)], draw((4, 3), 0)
    functions, results = [tf.sin, lambda x: x * x * x], [None, None]

    def turn(i):
        order[1 - i].release()
        assert order[i].acquire(timeout=60)

    def work(i):
        @tf.function(autograph=False)
        def traced(w):
            with forward_accumulator([w], [w]) as accumulator:
                turn(i)
                y = functions[i](w)
                turn(i)
            turn(i)
            return y, accumulator.jvp(y)

        assert order[i].acquire(timeout=60)
        results[i] = traced(w)
        order[1 - i].release()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(results[0], (tf.sin(w), tf.cos(w) * w), rtol=1e-14)
    np.testing.assert_allclose(results[1], (w**3, 3 * w**3), rtol=1e-14)
    assert not tangents._active and not replaced._used


def test_tensorflow_s_own_products_are_put_back():
    w, v = draw((4, 3), 0), draw((4, 3), 1)

    def count():
        @tf.function
        def traced(w):
            with tf.autodiff.ForwardAccumulator(w, v) as accumulator:
                y = tf.tanh(w)
            return accumulator.jvp(y)

        return sum("jvp" in op.name.lower() or "PartitionedCall" in op.type
                   for op in traced.get_concrete_function(w).graph.get_operations())

    before = count()
    with pytest.raises(RuntimeError), forward_accumulator([w], [v]):
        raise RuntimeError
    assert count() == before > 0


def test_eagerly_it_is_tensorflow_s_own():
    w, v = draw((4, 3), 0), draw((4, 3), 1)
    with forward_accumulator([w], [v]) as accumulator:
        y = tf.tanh(w)
    np.testing.assert_allclose(accumulator.jvp(y), (1 - np.tanh(w) ** 2) * v, rtol=1e-14)
