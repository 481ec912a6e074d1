"""Losses that need more of a training step than labels and logits: its features, a clean batch, a memory.

They are what some rivals of a taught loss are made of. Each is a pure function of the student's weights, the batch and
a few tensors of its own that are carried from step to step, so that `StudentRuns` can compile it like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_l2t.data import ArrayPair, array_batches
from tf_l2t.data.augment import Augment
from tf_l2t.losses import annealed, cross_entropy, large_margin_logits
from tf_l2t.losses.large_margin import last_dense
from tf_l2t.students import FunctionalStudent

Tensors = tuple[tf.Tensor, ...]
CLEAN_SEED_OFFSET = 17  # so that clean batches are not drawn in the order of the others


class StepOutcome(NamedTuple):
    """The mini-batch loss, the student's new non-trainable weights, and the new memory."""

    loss: tf.Tensor
    non_trainable: Tensors
    memory: Tensors


class StepLoss:
    """Base class: a loss of one training step.

    Args:
      student: the architecture.
    """

    def __init__(self, student: FunctionalStudent):
        self._student = student

    def memory(self) -> Tensors:
        """What is carried from step to step, as it is before the first."""
        return ()

    def batch_fn(self, train: ArrayPair, batch_size: int, augment: Augment | None = None) -> Callable[..., Any]:
        """(seed, step) -> the batch of a step."""
        return array_batches(train.x, train.y, batch_size, augment)

    def __call__(self, params: Tensors, non_trainable: Tensors, memory: Tensors, batch: Any, step: tf.Tensor,
                 step_size: tf.Tensor) -> StepOutcome:
        """The outcome of a step; its loss is differentiated by `params`.

        Args:
          params, non_trainable: the student's weights.
          memory: as `memory()` or the last outcome gave it.
          batch: of `batch_fn`.
          step: t.
          step_size: the student's learning rate of this step.
        """
        raise NotImplementedError


class LargeMarginStep(StepLoss):
    """Large-margin softmax on the student's last dense layer (`tf_l2t.losses.large_margin_logits`).

    Args:
      student: ends in a Dense layer without activation.
      num_steps: T; λ falls as in the authors' code over 20,000 steps, 1000 (1 + 0.5 t / T)^−35, whatever T is.
      margin: m.
      least: where λ stops; 0 for the full margin, which students that cannot bring features of a class close enough
        in angle never learn.

    Raises:
      ValueError: if the student ends in another layer.
    """

    def __init__(self, student: FunctionalStudent, num_steps: int, margin: int, least: float = 0.0):
        super().__init__(student)
        dense = last_dense(student.model)
        self._margin, self._annealing = margin, {"gamma": 0.5 / num_steps, "least": least}
        self._with_features = keras.Model(student.model.inputs, [dense.input, student.model.output])
        self._kernel = [v is dense.kernel for v in student.model.trainable_variables].index(True)

    def __call__(self, params, non_trainable, memory, batch, step, step_size):
        x, y = batch
        (features, plain), non_trainable, penalties = self._with_features.stateless_call(
            list(params), list(non_trainable), x, training=True, return_losses=True)
        kernel = params[self._kernel]
        bias = plain - tf.linalg.matmul(features, kernel)
        logits = bias + large_margin_logits(y, features, kernel, self._margin, annealed(step, **self._annealing))
        loss = tf.add_n([tf.reduce_mean(cross_entropy(y, logits)), *penalties])
        return StepOutcome(loss, tuple(non_trainable), memory)


class _WithCleanBatches(StepLoss):
    """A step that looks at a batch of clean examples beside its own.

    Args:
      student: the architecture.
      clean: the examples.
      clean_batch_size: at most so many of them in a step.
    """

    def __init__(self, student: FunctionalStudent, clean: ArrayPair, clean_batch_size: int = 100):
        super().__init__(student)
        self._clean = clean
        self._clean_batch_size = min(clean_batch_size, clean.size)

    def batch_fn(self, train: ArrayPair, batch_size: int, augment: Augment | None = None) -> Callable[..., Any]:
        own = array_batches(train.x, train.y, batch_size, augment)
        clean = array_batches(self._clean.x, self._clean.y, self._clean_batch_size, augment)
        return lambda seed, step: (*own(seed, step), *clean(seed + CLEAN_SEED_OFFSET, step))

    def _losses(self, params: Tensors, non_trainable: Tensors, x: tf.Tensor, y: tf.Tensor
                ) -> tuple[tf.Tensor, Tensors, tf.Tensor]:
        logits, non_trainable, penalty = self._student.apply(params, non_trainable, x, training=True)
        return cross_entropy(y, logits), non_trainable, penalty

    def _clean_gradient(self, params: Tensors, non_trainable: Tensors, x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(params)
            clean_loss = tf.reduce_mean(self._losses(params, non_trainable, x, y)[0])
        return [tf.convert_to_tensor(g) for g in tape.gradient(clean_loss, params)]

    def _along(self, params: Tensors, non_trainable: Tensors, x: tf.Tensor, y: tf.Tensor, direction: list[tf.Tensor]
               ) -> tf.Tensor:
        """⟨∇ℓ_i, direction⟩ of every example, [batch]."""
        with tf.autodiff.ForwardAccumulator(list(params), direction) as accumulator:
            losses = self._losses(params, non_trainable, x, y)[0]
        return accumulator.jvp(losses)


class ReweightStep(_WithCleanBatches):
    """Examples weighted by how well their gradients agree with that of a clean batch.

        w_i ∝ max(0, ⟨∇ℓ_i(ω), ∇L_clean(ω)⟩), Σ w_i = 1;  loss = Σ w_i ℓ_i

    The derivative of the clean loss after one step with weights ε by ε_i, at ε = 0, is minus that product times the
    rate; all of them are one forward-mode product.

    Source: Ren et al., "Learning to reweight examples for robust deep learning", ICML 2018, algorithm 1.
    """

    def __call__(self, params, non_trainable, memory, batch, step, step_size):
        x, y, x_clean, y_clean = batch
        gradient = self._clean_gradient(params, non_trainable, x_clean, y_clean)
        agreement = tf.nn.relu(self._along(params, non_trainable, x, y, gradient))
        weights = tf.stop_gradient(tf.math.divide_no_nan(agreement, tf.reduce_sum(agreement)))
        losses, non_trainable, penalty = self._losses(params, non_trainable, x, y)
        return StepOutcome(tf.reduce_sum(weights * losses) + penalty, non_trainable, memory)


class MetaWeightStep(_WithCleanBatches):
    """Examples weighted by a small network of their loss, V(ℓ_i; Θ), trained to lower the loss of a clean batch.

        ω̂ = ω − α ∇ (1/n) Σ V(ℓ_i; Θ) ℓ_i;   Θ ← Adam(Θ, ∂L_clean(ω̂)/∂Θ);   loss = (1/n) Σ V(ℓ_i; Θ) ℓ_i

    V has one hidden layer of 100 ReLUs and a sigmoid at its end; α is the student's rate; Θ's rate 1e-3 and its decay
    1e-4 are those of the authors' code. ∂L_clean/∂Θ = −(α/n) Σ ⟨∇ℓ_i(ω), ∇L_clean(ω̂)⟩ ∂V(ℓ_i; Θ)/∂Θ: one
    forward-mode product again.

    Source: Shu et al., "Meta-Weight-Net: learning an explicit mapping for sample weighting", NeurIPS 2019.
    """

    HIDDEN, RATE, DECAYS, EPSILON, WEIGHT_DECAY = 100, 1e-3, (0.9, 0.999), 1e-8, 1e-4

    def memory(self) -> Tensors:
        initial = (keras.initializers.GlorotUniform(seed=0)((1, self.HIDDEN)), tf.zeros([self.HIDDEN]),
                   keras.initializers.GlorotUniform(seed=1)((self.HIDDEN, 1)), tf.zeros([1]))
        zeros = tuple(tf.zeros_like(v) for v in initial)
        return (*(tf.convert_to_tensor(v) for v in initial), *zeros, *zeros)

    def __call__(self, params, non_trainable, memory, batch, step, step_size):
        x, y, x_clean, y_clean = batch
        theta, means, squares = memory[:4], memory[4:8], memory[8:]
        with tf.GradientTape() as tape:
            tape.watch(params)
            losses, _, penalty = self._losses(params, non_trainable, x, y)
            weighted = tf.reduce_mean(tf.stop_gradient(self._weights(theta, losses)) * losses) + penalty
        ahead = tuple(p - step_size * g for p, g in zip(params, tape.gradient(weighted, params), strict=True))
        direction = self._clean_gradient(ahead, non_trainable, x_clean, y_clean)
        agreement = tf.stop_gradient(self._along(params, non_trainable, x, y, direction))
        with tf.GradientTape() as tape:
            tape.watch(theta)
            value = -step_size * tf.reduce_mean(agreement * self._weights(theta, tf.stop_gradient(losses)))
        gradient = [g + self.WEIGHT_DECAY * v for g, v in zip(tape.gradient(value, theta), theta, strict=True)]
        count = tf.cast(step + 1, tf.float32)
        b1, b2 = self.DECAYS
        means = tuple(b1 * m + (1 - b1) * g for m, g in zip(means, gradient, strict=True))
        squares = tuple(b2 * s + (1 - b2) * g ** 2 for s, g in zip(squares, gradient, strict=True))
        theta = tuple(t - self.RATE * (m / (1 - b1 ** count)) / (tf.sqrt(s / (1 - b2 ** count)) + self.EPSILON)
                      for t, m, s in zip(theta, means, squares, strict=True))
        theta, means, squares = (tuple(map(tf.stop_gradient, part)) for part in (theta, means, squares))
        losses, non_trainable, penalty = self._losses(params, non_trainable, x, y)
        weights = tf.stop_gradient(self._weights(theta, losses))
        return StepOutcome(tf.reduce_mean(weights * losses) + penalty, non_trainable, (*theta, *means, *squares))

    def _weights(self, theta: Tensors, losses: tf.Tensor) -> tf.Tensor:
        w1, b1, w2, b2 = theta
        hidden = tf.nn.relu(tf.linalg.matmul(losses[:, tf.newaxis], w1) + b1)
        return tf.sigmoid(tf.linalg.matmul(hidden, w2) + b2)[:, 0]
