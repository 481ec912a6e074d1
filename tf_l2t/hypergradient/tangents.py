"""Forward-mode derivatives of ops, as lean as the ops themselves.

A `ForwardAccumulator` asks, op by op, for the tangents of an op's outputs, and hands over zeros for every input that
has none. TensorFlow answers with a function for each op and signature, which transposes the op's gradient function and
in which those zeros are tensors like any other: the first layer of a student then multiplies a batch of zeros by its
kernel at every step, and the tangent of a reduction is a Tile of a reshaped Tile. Here

    y = f(x_1, …, x_n), linear in each x_i:    ẏ = Σ_i f(x_1, …, ẋ_i, …, x_n)    over the inputs that move
    y linear in all of its inputs together:    ẏ = f(ẋ_1, …, ẋ_n)
    any other op:                              its gradient function, transposed by a tape, for the inputs that move

all written straight into the graph that is being traced. Max pooling is linear in the sense of `pooling`, whose masks
serve its tangent and that of its gradient.

What replicas reduce between them, such as the moments of a synchronised batch normalisation, is reduced outside of
their threads, where no accumulator sees it: its tangents would be zero without a word. They are reduced as the values
are.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import execute, forwardprop

from tf_l2t.hypergradient.pooling import linear_window, maxima, pooled, spread
from tf_l2t.hypergradient.replaced import replaced, while_used

_ZERO = tf.UnconnectedGradients.ZERO
# Ops and the inputs in each of which they are linear; in others of floating-point type, their derivative is zero.
_MULTILINEAR = {
    **dict.fromkeys(("AvgPool", "BatchToSpaceND", "BiasAddGrad", "BroadcastTo", "Cumsum", "ExpandDims", "GatherV2",
                     "Mean", "MirrorPad", "Neg", "Pad", "Reshape", "ReverseV2", "Slice", "SpaceToBatchND", "Squeeze",
                     "StridedSlice", "Sum", "Tile", "Transpose", "ReluGrad", "Relu6Grad"), (0,)),
    "MaxPoolGrad": (2,),
    **dict.fromkeys(("BatchMatMulV2", "Conv2D", "DepthwiseConv2dNative", "MatMul", "Mul"), (0, 1)),
    **dict.fromkeys(("Conv2DBackpropFilter", "DepthwiseConv2dNativeBackpropFilter"), (0, 2)),
    **dict.fromkeys(("Conv2DBackpropInput", "DepthwiseConv2dNativeBackpropInput"), (1, 2)),
    "AvgPoolGrad": (1,),
}
_LINEAR = ("AddV2", "BiasAdd", "ConcatV2", "Pack", "Sub")


@contextlib.contextmanager
def forward_accumulator(primals: Sequence[tf.Tensor], tangents: Sequence[tf.Tensor]) -> Iterator[Any]:
    """A `tf.autodiff.ForwardAccumulator` whose products in graphs are those of this module; the tangents are the same.

    TensorFlow has no public place for this: what is replaced is what its `forwardprop` module registers, and it is put
    back afterwards. Other threads, and eager code, get TensorFlow's own answers all the while.

    Raises:
      NotImplementedError: where another `ForwardAccumulator` is entered inside: whose tangents are asked for could not
        be told.
    """
    accumulator, thread = tf.autodiff.ForwardAccumulator(primals, tangents), threading.get_ident()
    with (accumulator, replaced(tf.autodiff.ForwardAccumulator, "__enter__", _enter_inside),
          replaced(tf.distribute.ReplicaContext, "all_reduce", _all_reduce),
          while_used("the tangents of ops", _register)):
        _active[thread] = accumulator, {}
        try:
            yield accumulator
        finally:
            del _active[thread]


_enter = tf.autodiff.ForwardAccumulator.__enter__
_stock_all_reduce = tf.distribute.ReplicaContext.all_reduce
# Of every thread that is inside: its accumulator, and masks of max pooling. Replicas are threads that take turns.
_active: dict[int, tuple[Any, dict[Any, tf.Tensor]]] = {}


def _register() -> Callable[[], None]:
    pywrap_tfe.TFE_Py_RegisterJVPFunction(_jvp)
    return lambda: pywrap_tfe.TFE_Py_RegisterJVPFunction(forwardprop._jvp_dispatch)


def _jvp(op_name: str, attributes: Any, inputs: Any, outputs: Any, tangents: Any, use_batch: bool = False) -> Any:
    accumulator, masks = _active.get(threading.get_ident(), (None, {}))
    if tf.executing_eagerly() or accumulator is None:
        return forwardprop._jvp_dispatch(op_name, attributes, inputs, outputs, tangents, use_batch)
    if op_name in forwardprop._SPECIAL_CASES:
        return forwardprop._SPECIAL_CASES[op_name](attributes, inputs, outputs, tangents)
    # It would ask for the tangents of what is written here, too. The student's tape sees that, which costs time in
    # tracing only: no target of the tape depends on it.
    accumulator._pop_accumulator()
    try:
        return _tangents(op_name, attributes, inputs, outputs, tangents, masks)
    finally:
        accumulator._push_accumulator()


def _enter_inside(other: Any) -> Any:
    if tf.executing_eagerly() or threading.get_ident() not in _active:
        return _enter(other)
    raise NotImplementedError("a ForwardAccumulator inside a student's loss")


def _all_reduce(context: tf.distribute.ReplicaContext, reduce_op: Any, value: Any, options: Any = None) -> Any:
    """A replica's all-reduce, whose tangents are the reduced tangents: it is linear in the values of all replicas."""
    accumulator, _ = _active.get(threading.get_ident(), (None, None))
    if tf.executing_eagerly() or accumulator is None:
        return _stock_all_reduce(context, reduce_op, value, options)
    values = [tf.convert_to_tensor(v) for v in tf.nest.flatten(value)]
    tangents = [accumulator.jvp(v, unconnected_gradients=_ZERO) for v in values]
    accumulator._pop_accumulator()
    try:
        reduced = _stock_all_reduce(context, reduce_op, values, options)
        moved = _stock_all_reduce(context, reduce_op, tangents, options)
    finally:
        accumulator._push_accumulator()
    for y, tangent in zip(reduced, moved, strict=True):
        accumulator._watch(y, tangent)
    return tf.nest.pack_sequence_as(value, reduced)


def _tangents(op_name: str, attributes: Any, inputs: Any, outputs: Any, tangents: Any,
              masks: dict[Any, tf.Tensor]) -> list[Any]:
    """The tangents of an op's outputs; None where they do not move."""
    if any(t.dtype == tf.variant for t in (*inputs, *outputs)):
        raise TypeError(f"{op_name} has an input or output of dtype variant, which has no tangent: forward-mode "
                        "derivatives do not pass through it.")
    moving = [i for i, (x, t) in enumerate(zip(inputs, tangents, strict=True)) if _can_move(x) and not _is_zero(t)]
    if not moving:
        return [None] * len(outputs)
    if op_name in ("MaxPool", "MaxPoolGrad"):
        linear = _of_max_pool(outputs[0].op, inputs, tangents, masks)
        if linear is not None:
            return [linear]
    if op_name == "IdentityN":  # of a custom gradient: values, and arguments
        return [t if _can_move(y) else None for y, t in zip(outputs, tangents, strict=True)]
    if op_name == "AddN":
        return [tf.add_n([tangents[i] for i in moving])]
    if op_name in _LINEAR:
        return [_again(outputs[0].op, [t if _can_move(x) else x for x, t in zip(inputs, tangents, strict=True)])]
    if op_name in _MULTILINEAR:
        terms = [_again(outputs[0].op, [tangents[i] if i == j else x for j, x in enumerate(inputs)])
                 for i in _MULTILINEAR[op_name] if i in moving]
        return [tf.add_n(terms) if terms else None]
    # A tensor that is given twice moves once: its gradient is that of both places.
    moved = {inputs[i].ref(): tangents[i] for i in moving}
    return _transposed_twice(op_name, attributes, inputs, outputs, [x.deref() for x in moved], [*moved.values()])


def _again(op: tf.Operation, inputs: list[tf.Tensor]) -> tf.Tensor:
    """The result of the same op at other inputs."""
    graph, types = tf.compat.v1.get_default_graph(), [t.dtype for t in op.outputs]
    result = graph.create_op(op.type, inputs, types, attrs=dict(op.node_def.attr)).outputs[0]
    result.set_shape(op.outputs[0].shape)
    return result


def _of_max_pool(op: tf.Operation, inputs: Any, tangents: Any, masks: dict[Any, tf.Tensor]) -> tf.Tensor | None:
    """The tangent of max pooling or of its gradient by windows that do not overlap; None if they do."""
    x, *others = inputs
    padding, data_format = (op.get_attr(name).decode() for name in ("padding", "data_format"))
    window = linear_window(x, op.get_attr("ksize"), op.get_attr("strides"), padding, data_format)
    if window is None:
        return None
    y = others[0] if others else op.outputs[0]
    key = x.ref(), *window["ksize"]
    if key not in masks:
        masks[key] = maxima(x, y, window)
    return spread(tangents[2], masks[key], window) if others else pooled(tangents[0], masks[key], window)


def _transposed_twice(op_name: str, attributes: Any, inputs: Any, outputs: Any, sources: list[tf.Tensor],
                      tangents: list[tf.Tensor]) -> list[Any]:
    places = [i for i, y in enumerate(outputs) if _can_move(y)]
    results: list[Any] = [None] * len(outputs)
    if not places:
        return results
    with tf.GradientTape() as transposing:
        with tf.GradientTape() as tape:
            tape.watch(sources)
            execute.record_gradient(op_name, inputs, attributes, outputs)
        targets = [outputs[i] for i in places]
        cotangents = [tf.ones_like(y) for y in targets]  # any: the gradient is linear in them
        transposing.watch(cotangents)
        gradients = tape.gradient(targets, sources, cotangents, unconnected_gradients=_ZERO)
    moved = transposing.gradient(gradients, cotangents, output_gradients=tangents)
    for place, tangent in zip(places, moved, strict=True):
        # What a gather is the transpose of comes as the slices that were gathered.
        results[place] = tf.convert_to_tensor(tangent) if isinstance(tangent, tf.IndexedSlices) else tangent
    return results


def _can_move(tensor: tf.Tensor) -> bool:
    return tensor.dtype.is_floating or tensor.dtype.is_complex


def _is_zero(tangent: tf.Tensor) -> bool:
    """Whether a tangent is one of the zeros that stand in for none."""
    if tangent.op.type == "Fill":
        tangent = tangent.op.inputs[1]
    if tangent.op.type == "Const":
        return not tf.get_static_value(tangent).any()
    return tangent.op.type == "ZerosLike"
