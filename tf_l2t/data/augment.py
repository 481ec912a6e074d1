"""Random changes of train images, as pure functions of a seed: the reverse sweep gets the same ones again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
PADDINGS = ("reflect", "constant")


def flip_and_crop(padding: int = 4, mode: str = "reflect", fill: float | Sequence[float] = 0.0, flip: bool = True
                  ) -> Augment:
    """Every image is flipped left to right with probability 1/2 and moved by up to `padding` pixels in each direction.

    It is a crop of the image's own size, at a place drawn uniformly, of the padded image.

    Args:
      padding: pixels on every side.
      mode: what pads: "reflect" (mirrored; the outermost pixels are not repeated) or "constant".
      fill: of "constant", a value or one per channel: what black has become by normalisation.
      flip: False for images whose mirror image is something else, such as digits.

    Returns:
      (x [batch, h, w, channels], seed int64 [2]) -> x, for `tf_l2t.data.array_batches`.

    Raises:
      ValueError: for a negative padding or another mode; when called, if images are too small to be mirrored so far.
    """
    if padding < 0 or mode not in PADDINGS:
        raise ValueError(f"padding must be at least 0 and mode one of {PADDINGS}; received {padding!r}, {mode!r}.")

    def augment(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        batch, (height, width) = tf.shape(x)[0], x.shape[1:3]
        if mode == "reflect" and padding >= min(height, width):
            raise ValueError(f"images of {height} x {width} cannot be mirrored {padding} pixels beyond their border.")
        # One draw for all: rows and columns to move by, and whether to flip.
        draws = tf.random.stateless_uniform([3, batch], seed, 0, 2 ** 30, tf.int32)
        moves, flips = draws[:2] % (2 * padding + 1), (draws[2] % 2 == 1) & flip
        rows = moves[0, :, tf.newaxis] + tf.range(height)
        columns = tf.range(width)
        columns = moves[1, :, tf.newaxis] + tf.where(flips[:, tf.newaxis], columns[::-1], columns)
        borders = [[0, 0], [padding, padding], [padding, padding], [0, 0]]
        if mode == "reflect":
            padded = tf.pad(x, borders, "REFLECT")
        else:
            value = tf.cast(tf.constant(fill), x.dtype)
            padded = tf.pad(x - value, borders) + value
        return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)

    return augment
