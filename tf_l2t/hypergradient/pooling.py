"""Max pooling whose second derivatives are cheap.

TensorFlow's MaxPoolGrad and MaxPoolGradGrad look for the maxima of every window again each time, on one core unless
oneDNN sees pooling and gradient in one graph. Where windows do not overlap, pooling is linear once it is known where
the maxima are: the mean over each window of n m x, m = 1 at the maximum and 0 elsewhere, n the window's size. The
derivatives of every order then need nothing but m, and no full-size zeros are summed up.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf

from tf_l2t.hypergradient.graphs import separate
from tf_l2t.hypergradient.replaced import replaced

_stock = tf.nn.max_pool


def linear_max_pool() -> AbstractContextManager[None]:
    """While active, `tf.nn.max_pool` is written as a linear function of its input, where that gives the same values.

    Values are equal bit for bit: it is done for windows that do not overlap and whose size is a power of two. All
    other pooling is TensorFlow's own.
    """
    return replaced(tf.nn, "max_pool", _max_pool)


def _max_pool(input, ksize, strides, padding, data_format=None, name=None):
    window = linear_window(input, ksize, strides, padding, data_format)
    if window is None:
        return _stock(input, ksize, strides, padding, data_format, name)

    def mask_of(x):
        return maxima(x, tf.raw_ops.MaxPool(input=x, **window), window)

    with tf.name_scope(name or "linear_max_pool"):
        mask = tf.stop_gradient(separate(mask_of)(tf.stop_gradient(input)))
        return pooled(input, mask, window)


def linear_window(x: tf.Tensor, ksize: Any, strides: Any, padding: Any, data_format: Any) -> dict[str, Any] | None:
    """The windows, as arguments of TensorFlow's pooling ops, if they do not overlap and the mean gives the same values;
    otherwise None."""
    window = _pair(ksize)
    if (window is None or window != _pair(strides) or data_format not in (None, "NHWC") or x.shape.rank != 4
            or not _is_power_of_two(window[0] * window[1]) or not _is_exact(x.shape[1:3], window, padding)):
        return None
    return {"ksize": [1, *window, 1], "strides": [1, *window, 1], "padding": "VALID"}


def maxima(x: tf.Tensor, y: tf.Tensor, window: dict[str, Any]) -> tf.Tensor:
    """n m, with n the size of a window and m = 1 where the maximum of `x` stands that `y` holds, elsewhere 0."""
    size = window["ksize"][1] * window["ksize"][2]
    return tf.raw_ops.MaxPoolGrad(orig_input=x, orig_output=y, grad=size * tf.ones_like(y), **window)


def pooled(x: tf.Tensor, mask: tf.Tensor, window: dict[str, Any]) -> tf.Tensor:
    """What stands at the maxima, as the mean over each window of n m x; `mask` is that of `maxima`."""
    # An infinity beside the maximum does not count: 0 · ∞ = 0 here.
    return tf.raw_ops.AvgPool(value=tf.math.multiply_no_nan(x, mask), **window)


def spread(y: tf.Tensor, mask: tf.Tensor, window: dict[str, Any]) -> tf.Tensor:
    """`pooled`, transposed: `y` at the maxima, elsewhere 0."""
    everywhere = tf.raw_ops.AvgPoolGrad(orig_input_shape=tf.shape(mask), grad=y, **window)
    return tf.math.multiply_no_nan(everywhere, mask)


def _pair(sizes: int | Sequence[int]) -> tuple[int, int] | None:
    """Height and width of a window or stride in any form that `tf.nn.max_pool` takes; None if it has others."""
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    if len(sizes) == 4 and sizes[0] == sizes[3] == 1:
        sizes = sizes[1:3]
    if len(sizes) == 1:
        sizes *= 2
    return (sizes[0], sizes[1]) if len(sizes) == 2 else None


def _is_power_of_two(size: int) -> bool:
    return size & (size - 1) == 0


def _is_exact(image: Sequence[int | None], window: tuple[int, int], padding: Any) -> bool:
    """Whether no window reaches into the padding, where a mean has fewer members."""
    if padding == "SAME":
        return all(size is not None and size % step == 0 for size, step in zip(image, window, strict=True))
    return padding == "VALID"
