"""A network on many examples in parts, so that its memory is that of a part."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_l2t.hypergradient.state import Tensors

LogitsFn = Callable[[Tensors, Tensors, tf.Tensor], tf.Tensor]


def in_parts(logits_fn: LogitsFn, size: int) -> LogitsFn:
    """`logits_fn`, computed for at most `size` examples at a time, and so is its derivative.

    Exact for any measure of all logits, as examples do not depend on each other:

        dM/dω = Σ_parts (d logits_part / dω)ᵀ dM/d logits_part,  each part run again for it.

    Args:
      logits_fn: (weights, non-trainable weights, x [examples, ...]) -> logits [examples, C], each by itself.
      size: of the largest part. x of no more examples is not parted.

    Returns:
      A function like `logits_fn`. Of x in parts there is a first derivative by the weights, and none by x.
    """
    def logits(params: Tensors, non_trainable: Tensors, x: tf.Tensor) -> tf.Tensor:
        count = x.shape[0]
        if count <= size:
            return logits_fn(params, non_trainable, x)
        parts = -(-count // size)
        length = -(-count // parts)
        missing = parts * length - count
        x = tf.reshape(tf.concat([x, x[:missing]], 0), [parts, length, *x.shape[1:]])

        @tf.custom_gradient
        def run(*weights: tf.Tensor):
            found = tf.map_fn(lambda part: logits_fn(weights[:len(params)], weights[len(params):], part), x,
                              fn_output_signature=params[0].dtype, parallel_iterations=1)
            num_classes = found.shape[-1]

            def gradient(upstream: tf.Tensor) -> list[tf.Tensor | None]:
                upstream = tf.reshape(tf.pad(upstream, [[0, missing], [0, 0]]), [parts, length, num_classes])

                def body(index: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
                    own = [tf.identity(w) for w in weights]
                    with tf.GradientTape() as tape:
                        floats = [w for w in own if w.dtype.is_floating]
                        tape.watch(floats)
                        part = logits_fn(tuple(own[:len(params)]), tuple(own[len(params):]), x[index])
                    found = tape.gradient(part, floats, upstream[index],
                                          unconnected_gradients=tf.UnconnectedGradients.ZERO)
                    return index + 1, [a + b for a, b in zip(sums, found, strict=True)]

                zeros = [tf.zeros_like(w) for w in weights if w.dtype.is_floating]
                _, sums = tf.while_loop(lambda index, _: index < parts, body, (tf.constant(0), zeros),
                                        maximum_iterations=parts, parallel_iterations=1)
                rest = iter(sums)
                return [next(rest) if w.dtype.is_floating else None for w in weights]

            return tf.reshape(found, [parts * length, num_classes])[:count], gradient

        return run(*params, *non_trainable)

    return logits
