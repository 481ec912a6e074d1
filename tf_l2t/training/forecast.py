"""What the training of a teacher will take, known after a few timed steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_l2t.hypergradient import Choice, Problem, StudentState, advance, hypergradient
from tf_l2t.teachers import Teacher
from tf_l2t.training.pace import duration


class Forecast(NamedTuple):
    """The plan of a training, `str(forecast)` its print.

    Attributes:
      num_weights: trained weights of a student.
      num_steps: T.
      swept: of them, in a reverse sweep.
      choice: the engine's mode and plan, with the predicted memory.
      compile_seconds: once, for a graph of a sweep.
      step_seconds: of a student step.
      adjoint_seconds: of a step of the reverse sweep, without steps run again.
      teacher_step_seconds: of an optimization step of the teacher.
      validation_seconds: of a validation.
      total_seconds: of the training.
    """

    num_weights: int
    num_steps: int
    swept: int
    choice: Choice
    compile_seconds: float
    step_seconds: float
    adjoint_seconds: float
    teacher_step_seconds: float
    validation_seconds: float
    total_seconds: float

    def __str__(self) -> str:
        return "\n".join([
            f"student: {self.num_weights:,} weights, {self.num_steps:,} steps, of which {self.swept:,} are swept back",
            f"engine: {self.choice}",
            f"timed here: {1000 * self.step_seconds:,.1f} ms a student step, {1000 * self.adjoint_seconds:,.1f} ms a "
            f"step of the sweep; {self.compile_seconds:,.0f} s to compile",
            f"predicted: {duration(self.teacher_step_seconds)} a teacher step, {duration(self.validation_seconds)} a "
            f"validation, {duration(self.total_seconds)} in total"])


def forecast(problem: Problem, teacher: Teacher, state: StudentState, engine: dict[str, Any], *, teacher_steps: int,
             rollouts: int, validations: int, validation_rollouts: int, refresh_every: int, timed_steps: int
             ) -> Forecast:
    """Plans the whole, runs `timed_steps` steps forward and back, and multiplies.

    Args:
      problem, teacher, state: of the training; a student's first state.
      engine: the arguments of `hypergradient`.
      teacher_steps, rollouts, validations, validation_rollouts: how often what runs.
      refresh_every: student steps between two looks at its status.
      timed_steps: at least 2.

    Raises:
      ValueError: for fewer timed steps, or a memory budget that is too small.
    """
    if timed_steps < 2:
        raise ValueError(f"timed_steps must be at least 2; received {timed_steps!r}.")
    choice = hypergradient(problem, teacher, **engine).predict(state)
    swept = min(engine.get("truncate") or problem.num_steps, problem.num_steps)

    short = problem._replace(num_steps=timed_steps + 1)
    run = advance(short, teacher)
    run(state, 0, 1)
    first, state_1 = _timed(lambda: run(state, 0, 1))  # a step that looks at the student's status, too
    steps, _ = _timed(lambda: run(state_1, 0, timed_steps + 1))
    looks = timed_steps // refresh_every
    step = (steps - looks * first) / (timed_steps - looks) if looks < timed_steps else first
    look = max(0.0, first - step)

    objective = tf.function(_objective_gradient(problem), autograph=False)
    objective(state.params, state.non_trainable)
    measure, _ = _timed(lambda: objective(state.params, state.non_trainable))

    gradient = hypergradient(short, teacher, hvp=choice.hvp, schedule="store_all", jit=choice.jit)
    whole, _ = _timed(lambda: gradient(state, 0))
    again, _ = _timed(lambda: gradient(state, 0))
    adjoint = max(0.0, again - measure - first - steps) / (timed_steps + 1)

    forward = problem.num_steps * step + -(-problem.num_steps // refresh_every) * look
    backward = swept * adjoint + choice.plan.num_recomputed * step
    teacher_step = rollouts * (forward + backward + measure)
    validation = validation_rollouts * (forward + measure)
    weights = int(sum(tf.size(p) for p in state.params))
    return Forecast(weights, problem.num_steps, swept, choice, max(0.0, whole - again), step, adjoint, teacher_step,
                    validation, teacher_steps * teacher_step + validations * validation)


def _objective_gradient(problem: Problem) -> Callable[..., Any]:
    def gradient(params, non_trainable):
        with tf.GradientTape() as tape:
            tape.watch(params)
            value = problem.objective_fn(params, non_trainable)
        return tape.gradient(value, params)

    return gradient


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = function()
    for tensor in tf.nest.flatten(result)[-1:]:
        tensor.numpy()
    return time.perf_counter() - started, result
