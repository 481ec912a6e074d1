"""What every translation student is: an encoder and a decoder that runs whole sentences or one token at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


class Translator(keras.Model):
    """Base class of encoder–decoder students.

        logits = model((source, previous))             # [batch, T, vocabulary], by teacher forcing
        memory = model.encode(source)
        state = model.start(memory, max_length)
        logits, state = model.step(memory, state, tokens, position)   # [batch, vocabulary], token by token

    `source` [batch, S] and `previous` [batch, T] are integers padded with 0, as Keras's `mask_zero` has it; `previous`
    is the target moved right by one, behind a start token. Both ways use the same weights and give the same logits.
    Memory and state are nests of tensors whose first axis is the batch, so that a decoder may pick rows of them. A
    state may grow, along axes that are of length 0 at the start: a `tf.while_loop` over steps needs shape invariants,
    and XLA compiles none.

    A subclass creates all weights in `__init__`, so that a new model, a loaded one and a copy of its weights as plain
    tensors (`FunctionalTranslator`) are alike from the start; it defines `encode`, `last_hidden`, `logits`, `start` and
    `step`.

    Args:
      vocabulary_size: V, of source and target, which share one vocabulary.

    Attributes:
      unroll: whether it takes sentences of one static length only.

    Raises:
      ValueError: for a vocabulary of fewer than 5 tokens: four of them are padding, start, end and unknown.
    """

    unroll = False

    def __init__(self, vocabulary_size: int, **kwargs: Any):
        super().__init__(**kwargs)
        if vocabulary_size < 5:
            raise ValueError(f"vocabulary_size must be at least 5; received {vocabulary_size!r}.")
        self.vocabulary_size = vocabulary_size
        self.supports_jit = False  # one trace for batches of any width, where XLA would compile each anew

    def call(self, inputs: Any, training: bool = False) -> Any:
        source, previous = (tf.cast(ids, tf.int32) for ids in inputs)  # under a strategy Keras builds by floats
        return self.decode(self.encode(source, training), previous, training)

    def encode(self, source: Any, training: bool = False) -> Any:
        """The memory of source sentences [batch, S]."""
        raise NotImplementedError

    def decode(self, memory: Any, previous: Any, training: bool = False) -> Any:
        """Logits [batch, T, V] of the tokens that follow every prefix of `previous` [batch, T]."""
        return self.logits(self.last_hidden(memory, previous, training))

    def last_hidden(self, memory: Any, previous: Any, training: bool = False) -> Any:
        """The vectors [batch, T, units] that `logits` projects: for losses that do not need the logits of all."""
        raise NotImplementedError

    def logits(self, hidden: Any) -> Any:
        """Logits [..., V] of last hidden vectors [..., units]."""
        raise NotImplementedError

    def start(self, memory: Any, max_length: int) -> Any:
        """The state before the first of at most `max_length` steps."""
        raise NotImplementedError

    def step(self, memory: Any, state: Any, tokens: Any, position: Any) -> tuple[Any, Any]:
        """Logits [batch, V] of what follows `tokens` [batch], which stand at `position`, and the next state."""
        raise NotImplementedError

    def picked(self, state: Any, rows: Any) -> Any:
        """`state` with the row rows[i], of the same source as row i, in the place of row i: what a beam search goes on
        with. A subclass may leave alone what depends on the source only."""
        return tf.nest.map_structure(lambda x: tf.gather(x, rows), state)

    def build(self, input_shape: Any = None) -> None:
        self.built = True  # weights are there since __init__

    # Keras saves no states of random layers, so that training that goes on would draw other dropout.

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        for number, variable in enumerate(self.non_trainable_variables):
            store[f"state_{number}"] = variable

    def load_own_variables(self, store: Any) -> None:
        names = list(store.keys())
        stored = {name: store[name] for name in names}
        super().load_own_variables({key: value for key, value in stored.items() if not key.startswith("state_")})
        for number, variable in enumerate(self.non_trainable_variables):
            if f"state_{number}" in stored:
                variable.assign(stored[f"state_{number}"])


def projected(x: Any, kernel: Any, bias: Any = None) -> Any:
    """x W + b over the last axis, as one product of matrices: products of stacks of matrices are slower on CPUs, and
    so are their gradients."""
    flat = tf.matmul(tf.reshape(x, [-1, kernel.shape[0]]), kernel)
    if bias is not None:
        flat += bias
    return tf.reshape(flat, tf.concat([tf.shape(x)[:-1], [kernel.shape[1]]], axis=0))


def product(kernel: Any) -> Callable[[Any], Any]:
    """x -> x W, for loops over steps, [batch, n] by [n, m].

    W', by which x's gradient is multiplied, is made here, once: reading W the other way round at every step takes Eigen
    four times as long (1.8 ms in place of 0.44 for 32 × 1024 by 1024 × 256, on one core).
    """
    kernel = tf.convert_to_tensor(kernel)  # of a variable: read once, and custom gradients take no mirrored ones
    transposed = tf.transpose(kernel)

    @tf.custom_gradient
    def times(x: Any, kernel: Any) -> Any:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            return tf.matmul(upstream, transposed), tf.matmul(x, upstream, transpose_a=True)

        return tf.matmul(x, kernel), gradient

    return lambda x: times(x, kernel)


def previous_tokens(target: tf.Tensor, start: int) -> tf.Tensor:
    """`target` [batch, T] moved right by one, behind the start token: what a decoder reads."""
    return tf.concat([tf.fill([tf.shape(target)[0], 1], tf.constant(start, target.dtype)), target[:, :-1]], axis=1)
