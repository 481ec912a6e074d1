"""What a student run consists of: its state, its problem, one step's output."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_l2t.hypergradient.optimizers import InnerOptimizer
from tf_l2t.hypergradient.replicas import Shards

Tensors = tuple[tf.Tensor, ...]


class StudentState(NamedTuple):
    """Everything that one student step reads and writes.

    Attributes:
      params: the trainable weights ω_t.
      non_trainable: the other weights: moving statistics (floating point, differentiated) and seed states of
        random layers (integers, replayed). With both in the state, repeating a step repeats it exactly.
      slots: the inner optimizer's state, such as momentum.
      step: t, a scalar int32: how many updates have been made.
      status: whatever `StatusFeatures` remembers from step to step. Never differentiated.
    """

    params: Tensors
    non_trainable: Tensors
    slots: tuple[Tensors, ...]
    step: tf.Tensor
    status: Any = ()


class StepOutput(NamedTuple):
    """What `Problem.loss_fn` returns.

    Attributes:
      loss: scalar L_Φ(ω_t; batch), the mean over the batch's examples plus the student's own regularisers.
      non_trainable: the non-trainable weights after the step, in the order in which they came.
      metrics: dict of scalars about the batch (such as `accuracy`); not differentiated.
    """

    loss: tf.Tensor
    non_trainable: Tensors
    metrics: dict[str, tf.Tensor]


class StatusFeatures(NamedTuple):
    """How the student's status vector s_t comes about. None of it is differentiated.

    Attributes:
      init_fn: () -> status, the value of `StudentState.status` at t = 0.
      features_fn: state -> (s_t [num_features], status). Called once before every forward step.
      update_fn: (status, metrics) -> status, after the step.
    """

    init_fn: Callable[[], Any]
    features_fn: Callable[[StudentState], tuple[tf.Tensor, Any]]
    update_fn: Callable[[Any, dict[str, tf.Tensor]], Any]


class Problem(NamedTuple):
    """A student's training run as pure functions: what is differentiated (L2T-DLF, section 3.3).

    Attributes:
      loss_fn: (params, non_trainable, batch, coefficients) -> `StepOutput`.
      batch_fn: (seed, step) -> batch, any nest of tensors. It must be a pure function of the two scalars: the
        reverse sweep asks for the same batch again.
      objective_fn: (params, non_trainable) -> scalar M, the relaxed dev measure that the teacher maximises.
      optimizer: the student's `InnerOptimizer`.
      features: the student's `StatusFeatures`.
      num_steps: T, the number of updates of a run.
      narrow_fn: batch -> the batch without padding that it does not need, which `loss_fn` then gets: batches are kept
        in one shape, and computed on in another at every step. None where there is nothing to take off. Memory is
        predicted for batches as they are kept. `loss` is what the engine calls; a random layer that draws by the
        batch's shape, such as dropout, draws other numbers for a narrowed batch.
      shards: how a step's batch is split over the replicas of a strategy; None for no split. What `loss_fn` returns is
        to be a mean over the batch's examples then, and is the mean over the parts.
    """

    loss_fn: Callable[[Tensors, Tensors, Any, tf.Tensor], StepOutput]
    batch_fn: Callable[[tf.Tensor, tf.Tensor], Any]
    objective_fn: Callable[[Tensors, Tensors], tf.Tensor]
    optimizer: InnerOptimizer
    features: StatusFeatures
    num_steps: int
    narrow_fn: Callable[[Any], Any] | None = None
    shards: Shards | None = None

    def loss(self, params: Tensors, non_trainable: Tensors, batch: Any, coefficients: tf.Tensor) -> StepOutput:
        """`loss_fn` of the narrowed batch."""
        return self.loss_fn(params, non_trainable, self.narrow_fn(batch) if self.narrow_fn else batch, coefficients)

    def over_batch(self, function: Callable[[Any], Any], batch: Any) -> Any:
        """function(batch), a mean over the batch's examples; over its parts where it is split."""
        return self.shards.mean(function, batch) if self.shards else function(batch)


def integer_tensor(value: int | tf.Tensor, dtype: tf.DType = tf.int64) -> tf.Tensor:
    """A seed or a step as a tensor, by way of NumPy: TensorFlow keeps a tensor of every Python number that it is given,
    some 600 bytes each, as long as the process lives."""
    if not tf.is_tensor(value):
        value = np.asarray(operator.index(value), dtype.as_numpy_dtype)
    return tf.convert_to_tensor(value, dtype)


def initial_state(problem: Problem, params: Tensors, non_trainable: Tensors = ()) -> StudentState:
    """The state at t = 0 for the given initial weights."""
    params = tuple(tf.convert_to_tensor(p) for p in params)
    non_trainable = tuple(tf.convert_to_tensor(n) for n in non_trainable)
    return StudentState(params, non_trainable, problem.optimizer.init(params),
                        tf.zeros((), tf.int32), problem.features.init_fn())
