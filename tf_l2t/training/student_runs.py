"""Many students of one kind, compiled once: what comparisons are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_l2t.data import ArrayPair
from tf_l2t.data.augment import Augment
from tf_l2t.hypergradient import StatusFeatures, StepOutput, advance, initial_state, sgd
from tf_l2t.objectives import accuracy
from tf_l2t.students import FunctionalStudent
from tf_l2t.training.problem import PerExampleLoss, classification_problem
from tf_l2t.training.rates import learning_rate
from tf_l2t.training.step_losses import StepLoss
from tf_l2t.training.under_way import UnderWay


class Weights(NamedTuple):
    """A student's weights between two runs."""

    params: tuple[tf.Tensor, ...]
    non_trainable: tuple[tf.Tensor, ...]


class StudentRun(NamedTuple):
    """One trained student.

    Attributes:
      last: weights after the last step.
      best: weights at the evaluation with the highest dev accuracy (the earliest of equals).
      dev_accuracy: of `last`.
      best_dev_accuracy: of `best`.
      curve: (step, dev accuracy) of every evaluation.
    """

    last: Weights
    best: Weights
    dev_accuracy: float
    best_dev_accuracy: float
    curve: tuple[tuple[int, float], ...]


class StudentRuns:
    """Trains students of one architecture on the same data by the same loss, from any weights at any learning rate.

    Args:
      student: the architecture.
      train: what they are trained on.
      dev: what they are evaluated on, and what the status features look at.
      loss: (labels, logits, coefficients) -> [batch]; or a `StepLoss`.
      coefficients_fn: a teacher; None for a loss without one, which gets 0 and costs no look at the status.
      num_steps, batch_size, momentum: of the student's SGD.
      decay: of the rate over num_steps, as `tf_l2t.training.rates.learning_rate`.
      refresh_every, dev_sample_size: of the status features.
      evaluate_every: steps between two looks at the dev accuracy; 0 for the end only.
      augment: as for `tf_l2t.data.array_batches`.
    """

    def __init__(self, student: FunctionalStudent, train: ArrayPair, dev: ArrayPair, *, loss: PerExampleLoss | StepLoss,
                 coefficients_fn: Callable[[tf.Tensor], tf.Tensor] | None, num_steps: int, batch_size: int,
                 momentum: float, decay: str = "linear", refresh_every: int = 20, dev_sample_size: int | None = 500,
                 evaluate_every: int = 0, augment: Augment | None = None):
        self._student = student
        self._dev = dev
        # A variable, so that another rate needs no other graph.
        self._rate = tf.Variable(0.0, trainable=False)
        batch_size = min(batch_size, train.size)
        schedule = self._schedule(decay, num_steps)
        self._problem = classification_problem(
            student, train, dev, loss=_never if isinstance(loss, StepLoss) else loss, objective=accuracy,
            optimizer=sgd(schedule, momentum), num_steps=num_steps, batch_size=batch_size, refresh_every=refresh_every,
            dev_sample_size=dev_sample_size, augment=augment)
        if coefficients_fn is None:
            self._problem = self._problem._replace(features=StatusFeatures(
                lambda: (), lambda state: (tf.zeros(()), ()), lambda status, metrics: ()))
        self._memory: tuple[tf.Tensor, ...] = ()
        if isinstance(loss, StepLoss):
            self._memory = (*loss.memory(), tf.zeros((), tf.int32))
            self._problem = self._problem._replace(loss_fn=self._carrying(loss, schedule),
                                                   batch_fn=loss.batch_fn(train, batch_size, augment))
        self._advance = advance(self._problem, coefficients_fn or tf.identity)
        self._stops = [*range(evaluate_every, num_steps, evaluate_every), num_steps] if evaluate_every else [num_steps]

    def _carrying(self, loss: StepLoss, schedule: Callable[[tf.Tensor], tf.Tensor]) -> Callable[..., StepOutput]:
        """The engine's loss of a step, with the loss's memory and a step number behind the student's own weights."""
        own = len(self._student.model.non_trainable_variables)

        def loss_fn(params, non_trainable, batch, coefficients):
            *memory, step = non_trainable[own:]
            outcome = loss(params, non_trainable[:own], tuple(memory), batch, step, schedule(step))
            return StepOutput(outcome.loss, (*outcome.non_trainable, *outcome.memory, step + 1), {})

        return loss_fn

    def _schedule(self, decay: str, num_steps: int) -> Callable[[tf.Tensor], tf.Tensor]:
        shape = learning_rate(1.0, decay, num_steps)
        return lambda step: self._rate * (shape(step) if callable(shape) else shape)

    def __call__(self, seed: int, learning_rate: float, start: Weights | None = None,
                 under_way: UnderWay | None = None) -> StudentRun:
        """Trains one student; `seed` draws its batches and, without `start`, its initial weights.

        With `under_way` it goes on where it was stopped, and is kept at its looks.
        """
        self._rate.assign(learning_rate)
        weights = start or Weights(*self._student.init(seed))
        own = len(weights.non_trainable)
        state = initial_state(self._problem, weights.params, (*weights.non_trainable, *self._memory))
        best, best_value, curve = weights, -1.0, list[tuple[int, float]]()
        if under_way:
            (state, best), found = under_way.restore((state, best))
            if found:
                best_value, curve = found["best"], [(step, value) for step, value in found["curve"]]
        for stop in self._stops[len(curve):]:
            state = self._advance(state, seed, stop)
            weights = Weights(state.params, state.non_trainable[:own])
            value = self._student.accuracy(*weights, self._dev.x, self._dev.y)
            curve.append((stop, value))
            if value > best_value:
                best, best_value = weights, value
            if under_way and stop != self._stops[-1]:
                under_way.look((state, best), {"step": stop, "best": best_value, "curve": curve})
        return StudentRun(weights, best, value, best_value, tuple(curve))


def _never(*_):
    raise AssertionError("a StepLoss takes the place of this")


def folds(data: ArrayPair, count: int, seed: int = 0) -> list[tuple[ArrayPair, ArrayPair]]:
    """(kept, held out) pairs of `count`-fold cross-validation; parts are of equal size, a remainder is left out.

    Raises:
      ValueError: for fewer than 2 folds or fewer examples than folds.
    """
    if count < 2 or data.size < count:
        raise ValueError(f"cross-validation needs at least 2 folds and as many examples; received {count} folds of "
                         f"{data.size} examples.")
    size = data.size // count
    order = np.random.default_rng(seed).permutation(data.size)[:size * count].reshape(count, size)
    return [(data.take(np.delete(order, i, axis=0).ravel()), data.take(order[i])) for i in range(count)]
