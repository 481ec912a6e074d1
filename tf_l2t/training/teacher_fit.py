"""The steps of a teacher's training, from wherever it stands to its end."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.hypergradient import Hypergradient, HypergradientFunction, Problem, StudentState, initial_state
from tf_l2t.training.errors import TeacherDivergedError, UnwritableError
from tf_l2t.training.pace import every_few_seconds, tell
from tf_l2t.training.tasks import Measure, Task
from tf_l2t.training.teacher_options import TeacherOptions
from tf_l2t.training.teacher_progress import Progress, TeacherCheckpoints
from tf_l2t.training.teacher_step import TeacherStep
from tf_l2t.training.termination import deferred_termination
from tf_l2t.training.validation import Validation

OUT_OF_MEMORY = ("the device's memory is not enough for a sweep through a student's run. Give compile a memory_budget, "
                 "such as '4GB', schedule='binomial:8', or truncate; or the trainer a smaller batch_size.")


class TeacherFit:
    """One `TeacherTrainer.fit`, everything made and checked.

    Args:
      trainer: whose weights are trained; the `model` of its callbacks.
      options: of the training.
      task, problem, gradient_fn, measure: the students, their run, dθ of it, and their exact measure on dev.
      apply: a step of the teacher.
      validate: a validation.
      validation_freq: after how many steps there is one; 0 for never.
      states: where the training is kept.
      deferred: whether SIGTERM waits for the end of a step.
      progress: how far the training is.
      first_seed: of the first rollout of the first step.
      teacher_steps: at which it ends.
      note: notes on the teacher what is known of it as it stands; called after every step, before callbacks.
    """

    def __init__(self, trainer: Any, options: TeacherOptions, *, task: Task, problem: Problem,
                 gradient_fn: HypergradientFunction, measure: Measure, apply: TeacherStep, validate: Validation,
                 validation_freq: int, states: TeacherCheckpoints, deferred: bool, progress: Progress,
                 first_seed: int, teacher_steps: int, note: Callable[[], None]):
        self._trainer, self._options, self._task, self._problem = trainer, options, task, problem
        self._gradient_fn, self._measure, self._apply = gradient_fn, measure, apply
        self._validate, self._validation_freq = validate, validation_freq
        self._states, self._deferred, self._progress = states, deferred, progress
        self._first_seed, self._teacher_steps, self._note = first_seed, teacher_steps, note

    def run(self, calls: keras.callbacks.CallbackList, history: keras.callbacks.History, verbose: int) -> None:
        """Goes on to the end.

        Raises:
          MemoryError, TeacherDivergedError, UnwritableError, TerminatedError, WorkerLostError: as `TeacherTrainer.fit`.
        """
        try:
            self._go_on(calls, history, verbose)
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(OUT_OF_MEMORY) from error

    def _go_on(self, calls: keras.callbacks.CallbackList, history: keras.callbacks.History, verbose: int) -> None:
        progress, replicas = self._progress, self._options.replicas
        ending: Any = deferred_termination(replicas.any) if self._deferred else contextlib.nullcontext(lambda: None)
        with replicas.lost_workers(progress.where), ending as end_if_told:
            if self._validation_freq and not progress.initial:
                tell({"validating": "the teacher as it is", "students": self._validate.num_students,
                      "steps": self._problem.num_steps}, verbose)
                progress.initial = self._validate(every_few_seconds(lambda done, total, left: tell(
                    {"student steps": done, "total": total}, verbose, left)))
                self._keep()
                end_if_told()
            history.params |= {f"initial_{name}": value for name, value in progress.initial.items()}
            while progress.step < self._teacher_steps and not progress.stopped:
                calls.on_epoch_begin(progress.step)
                logs = self._step(verbose)
                self._note()
                calls.on_epoch_end(progress.step - 1, logs)
                if progress.dropped_in_a_row == self._options.max_dropped:
                    self._rescue()
                if replicas.any(self._trainer.stop_training):  # one process' callbacks stop all
                    progress.stopped = True
                    if self._validation_freq and "val_objective" not in logs:
                        self._validate()
                self._keep()
                end_if_told()

    def _keep(self) -> None:
        """Keeps the step; where the first process cannot, all end, as what starts them again would do so for ever."""
        failed: UnwritableError | None = None
        try:
            self._states.save(self._progress)
        except UnwritableError as error:
            failed = error
        by_any = self._deferred and self._options.replicas.any(failed is not None)
        if failed:
            raise failed
        if by_any:
            raise UnwritableError("another process of this cluster cannot keep its state; its message says why.")

    def _step(self, verbose: int) -> dict[str, float]:
        """A teacher step, with the validation after it if one is due."""
        progress, options, trainer = self._progress, self._options, self._trainer
        started = time.perf_counter()
        first = self._first_seed + progress.step * options.rollouts
        if trainer.choice is None:
            tell({"compiling": "a rollout and its reverse sweep"}, verbose)
        results = options.spread.run(self._hypergradients, range(first, first + options.rollouts))
        trainer.last_result = results[-1][1] if results else None
        if trainer.choice is None:
            trainer.choice = self._gradient_fn.choice
            tell({"engine": str(trainer.choice)}, verbose)
        logs = self._applied([(number, result, self._measure(result.rollout.final_state))
                              for number, result in results])
        logs["seconds"] = time.perf_counter() - started
        freq = self._validation_freq
        if freq and (progress.step % freq == 0 or progress.step == self._teacher_steps):
            logs |= self._validated()
        return logs

    def _hypergradients(self, seeds: list[int]) -> Sequence[Hypergradient]:
        states = [self._student(seed) for seed in seeds]
        if self._options.spread.strategy:
            return self._gradient_fn(states, seeds)
        return [self._gradient_fn(state, seed) for state, seed in zip(states, seeds, strict=True)]

    def _student(self, seed: int) -> StudentState:
        return initial_state(self._problem, *self._task.init(seed))

    def _applied(self, results: Sequence[tuple[int, Hypergradient, float]]) -> dict[str, float]:
        """One step of the teacher's optimizer from its rollouts, counted."""
        trainer, progress, options = self._trainer, self._progress, self._options
        before = trainer.get_weights()
        rate = float(trainer.optimizer.learning_rate)
        applied, figures, dropped = self._apply(results, options.rollouts, progress.step / self._teacher_steps,
                                                progress)
        if progress.rollbacks:  # not by the rate: under a schedule it cannot be set, and a callback may set it
            part = 0.5 ** progress.rollbacks
            trainer.set_weights([b + part * (a - b) for a, b in zip(trainer.get_weights(), before, strict=True)])
        progress.dropped_rollouts += dropped
        progress.dropped_in_a_row = 0 if applied else progress.dropped_in_a_row + 1
        progress.dropped += not applied
        progress.step += 1
        logs = {"objective": figures.objective, "gradient_norm": figures.gradient_norm,
                "adjoint_norm": figures.adjoint_norm, "learning_rate": rate}
        if options.penalty:
            logs["penalty"] = figures.penalty
        return logs | {"adjoint_growth": figures.adjoint_growth, "dropped": progress.dropped,
                       "dropped_rollouts": progress.dropped_rollouts, f"dev_{self._task.measure}": figures.measure}

    def _validated(self) -> dict[str, float]:
        """Validates the teacher, and takes it back to its best weights where it has become too bad."""
        logs, validate, progress, rollback = self._validate(), self._validate, self._progress, self._options.rollback
        progress.validated.append(progress.step)
        if rollback is not None and validate.value < validate.best_value - rollback:
            self._trainer.set_weights(validate.best_weights)
            progress.rollbacks += 1
        return logs | {"rollbacks": progress.rollbacks}

    def _rescue(self) -> None:
        """After too many steps without a gradient: back to the best weights, or, if there it stood, the end.

        Raises:
          TeacherDivergedError: if the teacher is at its best weights already, or there are none.
        """
        best = self._validate.best_weights if self._validation_freq else None
        progress, count = self._progress, self._options.max_dropped
        away = best is not None and any(np.any(b != now)
                                        for b, now in zip(best, self._trainer.get_weights(), strict=True))
        if best is not None:
            self._trainer.set_weights(best)
        if not away:
            raise TeacherDivergedError(
                f"no finite gradient in {count} teacher steps in a row (the last was step {progress.step - 1}). Lower "
                "the student's or the teacher's learning rate, shorten num_steps, or use the stable loss. The teacher "
                f"is left at its {'last' if best is None else 'best'} weights.")
        progress.rollbacks, progress.dropped_in_a_row = progress.rollbacks + 1, 0
        warnings.warn(f"no finite gradient in {count} teacher steps in a row: the teacher is back at its best weights "
                      f"behind step {progress.step - 1}, and its steps are halved.", stacklevel=5)
