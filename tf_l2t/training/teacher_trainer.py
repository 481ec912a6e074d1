"""The loop that trains a teacher: Algorithm 1 of the L2T-DLF paper, Keras style."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_l2t.data import arrays_digest
from tf_l2t.data.augment import Augment
from tf_l2t.hypergradient import (
    CheckReport,
    Choice,
    Hypergradient,
    InnerOptimizer,
    Problem,
    StudentState,
    check_hypergradient,
    check_options,
    hypergradient,
    initial_state,
)
from tf_l2t.students import PreflightReport, choose_hvp
from tf_l2t.teachers import Teacher
from tf_l2t.training.callbacks import TeacherLines, TeacherProgress, TeacherSummaries
from tf_l2t.training.forecast import Forecast, forecast
from tf_l2t.training.identity import optimizer_identity
from tf_l2t.training.optimizers import inner_optimizer, named_optimizer
from tf_l2t.training.pace import every_few_seconds, tell
from tf_l2t.training.tasks import ClassificationTask, Task
from tf_l2t.training.teacher_fit import TeacherFit
from tf_l2t.training.teacher_notes import described, noting, optimizer_words
from tf_l2t.training.teacher_options import TeacherOptions
from tf_l2t.training.teacher_progress import TeacherCheckpoints
from tf_l2t.training.teacher_step import TeacherStep
from tf_l2t.training.validation import Validation, weights_of

# Seeds 0 … 999,999 are students that train a teacher; from here on, students that validate it. Those of
# `comparison` lie higher still, so that no table reports a student that a teacher has seen.
VALIDATION_SEED = 1_000_000
SEEDS_PER_TRAINING = 100_000


class TeacherTrainer:
    """Trains a teacher so that students that follow it do well on a dev set.

        trainer = TeacherTrainer(student_fn=lambda: tf_l2t.students.lenet(), teacher=teacher, num_steps=1100,
                                 batch_size=50, student_optimizer=keras.optimizers.SGD(0.01, momentum=0.9))
        trainer.compile(optimizer=keras.optimizers.Adam(1e-4, epsilon=1e-8))
        history = trainer.fit(train, dev, teacher_steps=60)

    Args:
      student_fn: builds a new, randomly initialised Keras classifier with logits as output; or the `Task` of other
        students, such as a `TranslationTask`.
      teacher: trained in place.
      num_steps: T, the updates of one student run.
      batch_size: of the student's mini-batches.
      student_optimizer: a `keras.optimizers.SGD`, `Adam`, `AdamW` or `RMSprop`, with any schedule, weight decay and
        clipping, or its name; or an `InnerOptimizer`.
      refresh_every: k: s_t is measured every k student steps and held in between.
      dev_sample_size: how many dev examples s_t looks at; M always looks at all. For classifiers, as is augment.
      augment: as for `tf_l2t.data.array_batches`.
      seed: rollout r of teacher step i starts student seed · 100,000 + i · rollouts + r.

    Raises:
      ValueError: if the student and the teacher do not fit, or a number is out of range.
    """

    def __init__(self, student_fn: Callable[[], keras.Model] | Task, teacher: Teacher, *, num_steps: int,
                 batch_size: int, student_optimizer: InnerOptimizer | keras.optimizers.Optimizer | str,
                 refresh_every: int = 20, dev_sample_size: int | None = 500, augment: Augment | None = None,
                 seed: int = 0):
        for name, value in (("num_steps", num_steps), ("batch_size", batch_size), ("refresh_every", refresh_every)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; received {value!r}.")
        self.teacher = teacher
        self.num_steps = num_steps
        self._task = student_fn if isinstance(student_fn, Task) else \
            ClassificationTask(student_fn, dev_sample_size, augment)
        self._task.check_teacher(teacher)
        student_optimizer = named_optimizer(student_optimizer)
        self._student_optimizer = optimizer_identity(student_optimizer)
        self._run: dict[str, Any] = {"optimizer": inner_optimizer(student_optimizer), "num_steps": num_steps,
                                     "batch_size": batch_size, "refresh_every": refresh_every}
        if not 0 <= seed < VALIDATION_SEED // SEEDS_PER_TRAINING:
            raise ValueError(f"seed must be in 0 … {VALIDATION_SEED // SEEDS_PER_TRAINING - 1}; received {seed!r}.")
        self._seed = seed * SEEDS_PER_TRAINING
        self._preflight: PreflightReport | None = None
        self.choice: Choice | None = None  # the engine's mode and plan, from the first teacher step on
        self.optimizer: Any = None
        self.last_result: Hypergradient | None = None  # of the newest rollout, for callbacks
        self.history = keras.callbacks.History()  # of the newest fit, also of one that ended with an error
        self.history.set_params({"validated": []})
        # What stock Keras callbacks look for on a model.
        self.stop_training = False
        self.train_function = None
        self.layers: list[Any] = []

    @property
    def measure(self) -> str:
        """The name of the exact measure that is logged beside M."""
        return self._task.measure

    def compile(self, optimizer: keras.optimizers.Optimizer | str, objective: str | Callable[..., tf.Tensor] =
                "log_likelihood", penalty: float = 0.0, clip_norm: float | None = 1.0, rollouts: int = 1,
                rollback: float | None = None, hvp: str = "forward_over_reverse", schedule: str | int = "every_k",
                memory_budget: str | int | None = None, truncate: int | None = None, jit: str | bool = "auto",
                adjoint_alarm: float | None = 1e4, adjoint_limit: float | None = 1e8, debug: bool = False,
                judge: str = "objective", max_dropped: int = 3, strategy: tf.distribute.Strategy | None = None,
                distribute: str = "rollouts") -> None:
        """Sets how the teacher is trained.

        Args:
          optimizer: any Keras optimizer, or its name; the paper uses Adam(1e-4, epsilon=1e-8) for 60 steps on MNIST.
          objective: "log_likelihood", "calibrated_log_likelihood" (of students that need not be sure),
            "relaxed_accuracy" (the paper's), or (labels, logits) -> scalar; of another task what its class names.
          penalty: λ ≥ 0. The teacher ascends M − λ_i r, where r is the mean of `Teacher.penalty`(Φ_t) over the run: few
            dev examples say little of most coefficients, and those are to go where they do no harm. In step i of n
            λ_i = λ i / n: coefficients have to be found before they can be told from others. The best weights
            are those of the highest M alone.
          clip_norm: the largest norm of one rollout's dθ; None for no limit.
          rollouts: students per teacher step, each from its own initialisation; their dθ are averaged.
          rollback: when a validation's value falls by more than this below the best, the teacher goes back to its
            best weights and the optimizer's steps are halved from then on (what it remembers of gradients stays); None
            to go on.
          hvp, schedule, memory_budget, truncate, jit, debug: as for `tf_l2t.hypergradient.hypergradient`.
          adjoint_alarm: warn when ‖dω_t‖ grows beyond this factor on its way back through a student's run, and name
            the `truncate` that would keep it below; None for no warning.
          adjoint_limit: a rollout whose adjoints grow beyond this factor is left out of its step and counted, as one
            whose numbers are not finite: its gradient holds for changes of θ only that are smaller by that factor.
            None for no limit.
          judge: what validated teachers are compared by: "objective", M, or "measure", the exact measure of the task,
            such as BLEU. M is smooth, so that it has a gradient, and may rise where the measure does not.
          max_dropped: after so many teacher steps in a row without a finite gradient the teacher goes back to its best
            weights, its steps halved as by `rollback`; if it has them already, the training ends.
          strategy: a `tf.distribute.MirroredStrategy`, or a `MultiWorkerMirroredStrategy`, of which every process runs
            the same program and ends with the same teacher; the first alone writes states. The teacher itself is made
            outside of its scope.
          distribute: what is spread over the strategy's replicas: "rollouts", whole student runs, those of validations
            too, with one all-reduce of dθ for each teacher step; or "batch", every mini-batch of one student, with an
            all-reduce in every student step and another on its way back. Then loss and gradient are means over the
            replicas: BatchNormalization normalises each part by itself, but with `synchronized=True` all of them
            together as on one device, and random layers draw the same numbers for each.

        Raises:
          ValueError: for an unknown objective or optimizer, or a number out of range.
        """
        self._task.check_objective(objective)
        optimizer = named_optimizer(optimizer)
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise ValueError(f"optimizer must be a Keras optimizer; received {type(optimizer).__name__}.")
        check_options(hvp, schedule, self.num_steps, memory_budget, truncate)
        options = TeacherOptions(
            objective, penalty, clip_norm, rollouts, rollback, judge, adjoint_alarm, adjoint_limit, max_dropped,
            strategy, distribute, {"hvp": hvp, "schedule": schedule, "memory_budget": memory_budget,
                                   "truncate": truncate, "jit": jit, "debug": debug})
        options.check_fits(self.teacher, self._run["batch_size"], self._task.student.model)
        self.optimizer = optimizer
        self.optimizer.build(self.teacher.theta)
        self._options = options
        self._apply = TeacherStep(self.teacher, optimizer, options)

    def fit(self, train: Any, dev: Any, teacher_steps: int, *, validation_data: Any = None,
            validation_freq: int = 5, validation_rollouts: int = 2, callbacks: Sequence[keras.callbacks.Callback] = (),
            verbose: int = 1, preflight: bool = True, checkpoint_dir: str | os.PathLike[str] | None = None
            ) -> keras.callbacks.History:
        """Runs `teacher_steps` teacher optimization steps and leaves the teacher at its best weights.

        Every `validation_freq` steps, and before the first, new students of seeds that never train the teacher
        follow it; the teacher whose students have the highest mean objective, or exact measure (`judge`), is the best.
        If that is the one that the training began with, a warning says so.

        Args:
          train: (x, y), what students are trained on.
          dev: (x, y), on which M and s_t are measured.
          teacher_steps: the number of steps of the teacher's optimizer.
          validation_data: (x, y) that validation students are measured on; the dev set if None.
          validation_freq: 0 for no validation; then the teacher is left at its last weights.
          validation_rollouts: students per validation.
          callbacks: Keras callbacks; a teacher step is their epoch.
          verbose: 1 for a progress bar with the time left, 2 for a line of JSON for every teacher step, 0 for silence.
          preflight: check the student first (`preflight`). Where only the other `hvp` is right for it, that one is
            used, with a warning.
          checkpoint_dir: where the training is kept, after the first validation and after every teacher step. If it is
            there already, it goes on: stopped at any moment, by whatever, it ends with the same teacher, to the bit on
            the same machine with as many cores. (The state of your own callbacks is not kept.) SIGTERM then waits for
            the end of a teacher step.

        Returns:
          A Keras `History`; per teacher step the means over rollouts of `objective` (M), `dev_accuracy` (`dev_bleu` of
          translation), `gradient_norm` (‖dθ‖ before clipping), `penalty` (r, if λ > 0) and `adjoint_norm` (‖dω_0‖);
          `adjoint_growth`, the largest factor by which ‖dω_t‖ grew on its way back in any rollout; `dropped` (steps so
          far without a finite gradient), `dropped_rollouts` (rollouts so far without one; the other rollouts of a step
          still count), `seconds`; at validations `val_objective`, `val_accuracy` (`val_bleu`) and `rollbacks` (so far).
          Its `params` have the values before the first step, as `initial_val_objective`, and `validated`, the numbers
          of the steps, from 1, after which students were validated.

        Raises:
          ValueError: for data that does not fit, a trainer that is not compiled, or a student that no teacher can be
            trained through; it names the layers and the remedy; or if `checkpoint_dir` holds another training.
          TeacherDivergedError: after `max_dropped` steps in a row without a finite gradient at the best weights, or
            without validations at any; it gives advice.
          WorkerLostError: if another process of the strategy is gone. Start all of them again: with `checkpoint_dir`
            they go on behind the newest step that the first has kept.
          MemoryError: if a sweep does not fit into the device's memory; with what to change.
          UnwritableError: if a checkpoint cannot be written; those before it are kept.
          TerminatedError: after SIGTERM, with `checkpoint_dir`.
        """
        self.check_steps(teacher_steps, validation_freq, validation_rollouts)
        for callback in callbacks:
            if isinstance(callback, TeacherSummaries):
                callback.check(self.teacher.coefficients_shape)
            if isinstance(callback, keras.callbacks.BackupAndRestore):
                raise ValueError("BackupAndRestore knows neither seeds nor best weights of a teacher's training; leave "
                                 "it out, and give fit checkpoint_dir, with which it goes on to the same bits.")
        train, dev = self.check_data(train, dev)
        held_out = dev if validation_data is None else self._task.checked(validation_data, "validation_data", dev=True)
        options, problem, first = self._options, self._problem(train, dev), VALIDATION_SEED + self._seed
        validate = Validation(self.teacher, self._task, problem, options.objective, held_out,
                              range(first, first + validation_rollouts), options.engine["jit"], options.judge,
                              options.spread)
        identity: dict[str, Any] = {}
        if checkpoint_dir is not None or options.replicas.num_processes > 1:
            identity = self._identity(teacher_steps, validation_freq, validation_rollouts) | {
                "data": arrays_digest([x for data in (train, dev, held_out) for x in self._task.content(data)])}
        with options.replicas.lost_workers(lambda: "at the start"):
            states = TeacherCheckpoints(checkpoint_dir, identity, self.teacher, self.optimizer, validate,
                                        options.replicas)
            progress = states.restore()
            deferred = options.replicas.any(checkpoint_dir is not None)
        report = self._checked_student(verbose) if preflight and progress.step < teacher_steps else None
        engine = options.engine | ({"hvp": choose_hvp(report, options.engine["hvp"])} if report else {})
        gradient_fn = hypergradient(problem, self.teacher, trace=("coefficients", "loss", "adjoint_norm"),
                                    strategy=options.spread.strategy, **engine)
        _, measure = self._task.measures(options.objective, dev)

        history = keras.callbacks.History()
        bar = [TeacherLines(0 if verbose == 1 else verbose)]
        if verbose == 1:
            bar.append(TeacherProgress(teacher_steps, progress.step))
        calls = keras.callbacks.CallbackList([*callbacks, history, *bar], add_history=False, add_progbar=False,
                                             model=self, verbose=0, epochs=teacher_steps, steps=1)
        self.stop_training = False
        self.choice = None
        calls.on_train_begin()
        history.epoch, history.history, self.history = progress.epochs, progress.history, history
        history.params["validated"] = progress.validated
        begins = f"{f'goes on {progress.where()}' if progress.step else 'begins'}, {options.replicas}"
        logging.info("%s", begins)
        if progress.step or options.replicas.count > 1:
            if verbose == 1:
                print(begins)
            elif verbose == 2:
                tell({"training": begins}, verbose)
        note = noting(self.teacher, {
            "num_steps": self.num_steps, **described(self._task.student.model),
            "student_optimizer": optimizer_words(self._student_optimizer), "batch_size": self._run["batch_size"],
            "train": train.size, "dev": dev.size, "seed": self._seed // SEEDS_PER_TRAINING,
            "objective": str(getattr(options.objective, "__name__", options.objective))},
            progress, validate, "dev" if held_out is dev else "validation_data")
        steps = TeacherFit(self, options, task=self._task, problem=problem, gradient_fn=gradient_fn, measure=measure,
                           apply=self._apply, validate=validate, validation_freq=validation_freq, states=states,
                           deferred=deferred, progress=progress, first_seed=self._seed,
                           teacher_steps=teacher_steps, note=note)
        try:
            steps.run(calls, history, verbose)
        except BaseException:
            note()  # it may have been left at other weights than those of the newest step
            for callback in callbacks:
                if isinstance(callback, TeacherSummaries):
                    callback.close()
            raise
        if validation_freq:
            self.set_weights(validate.best_weights)
            validate.warn_of_start(progress.initial)
        note()
        calls.on_train_end()
        return history

    def _problem(self, train: Any, dev: Any) -> Problem:
        problem = self._task.problem(train, dev, self.teacher, self._options.objective, **self._run)
        return problem._replace(shards=self._options.shards)

    def _identity(self, teacher_steps: int, validation_freq: int, validation_rollouts: int) -> dict[str, Any]:
        """What makes this training this one, as JSON values, as far as they tell: not what a function computes."""
        students = self._run | self._task.identity() | {
            "optimizer": self._student_optimizer, "first": arrays_digest(tf.nest.flatten(self._task.init(self._seed)))}
        return {"teacher": self.teacher.spec(), "students": students, "seed": self._seed,
                "optimizer": optimizer_identity(self.optimizer), "engine": self._options.engine,
                "training": self._options.identity() | {
                    "teacher_steps": teacher_steps, "validation_freq": validation_freq,
                    "validation_rollouts": validation_rollouts}}

    def check_steps(self, teacher_steps: int, validation_freq: int = 5, validation_rollouts: int = 2) -> None:
        """Raises the ValueErrors of `fit` about its numbers, and about a trainer that is not compiled."""
        if self.optimizer is None:
            raise ValueError("call compile(optimizer=...) before fit.")
        if teacher_steps < 1 or validation_freq < 0 or validation_rollouts < 1:
            raise ValueError("teacher_steps and validation_rollouts must be at least 1 and validation_freq at least 0; "
                             f"received {teacher_steps!r}, {validation_rollouts!r}, {validation_freq!r}.")
        if self._options.rollback is not None and not validation_freq:
            raise ValueError("rollback goes by validations: set validation_freq to at least 1, or rollback=None.")
        if teacher_steps * self._options.rollouts > SEEDS_PER_TRAINING:
            raise ValueError(f"teacher_steps · rollouts must be at most {SEEDS_PER_TRAINING:,}; received "
                             f"{teacher_steps * self._options.rollouts:,}.")

    def check_data(self, train: Any, dev: Any) -> tuple[Any, Any]:
        """`train` and `dev` as `fit` takes them; raises its ValueErrors about data."""
        train, dev = self._task.checked(train, "train"), self._task.checked(dev, "dev", dev=True)
        if self._run["batch_size"] > train.size:
            raise ValueError(f"batch_size must be at most the {train.size} train examples; received "
                             f"{self._run['batch_size']!r}.")
        return train, dev

    def preflight(self, verbose: int = 1) -> PreflightReport | None:
        """`tf_l2t.preflight` of this trainer's students, made once: `print(trainer.preflight())`; None for students
        that the library itself has checked.

        Args:
          verbose: 1 for a line every few seconds, with the time left; 2 for lines of JSON; 0 for none.
        """
        return self._checked_student(verbose)

    def _checked_student(self, verbose: int) -> PreflightReport | None:
        if self._preflight is None:
            tell({"checking": "the student's layers"}, verbose)
            self._preflight = self._task.preflight(every_few_seconds(
                lambda done, total, left: tell({"layers checked": done, "total": total}, verbose, left)))
        return self._preflight

    def plan(self, train: Any, dev: Any) -> Choice:
        """How `fit` would compute a teacher's gradient, and the memory that it is predicted to take; no step is run.

        Raises:
          ValueError: for data that does not fit, or a memory budget that is too small.
        """
        problem, state = self._first_student(train, dev)
        return hypergradient(problem, self.teacher, **self._options.engine).predict(state)

    def forecast(self, train: Any, dev: Any, teacher_steps: int, *, validation_freq: int = 5,
                 validation_rollouts: int = 2, timed_steps: int = 8) -> Forecast:
        """What `fit` with these arguments will take: memory, and the time predicted from a few steps on this machine.

        `print(trainer.forecast(train, dev, teacher_steps=60))`; the teacher is left as it is.

        Args:
          train, dev, teacher_steps, validation_freq, validation_rollouts: as for `fit`.
          timed_steps: student steps that are run forward and back.

        Raises:
          ValueError: as `fit`, or for fewer than 2 timed steps.
        """
        self.check_steps(teacher_steps, validation_freq, validation_rollouts)
        problem, state = self._first_student(train, dev)
        validations = 1 + -(-teacher_steps // validation_freq) if validation_freq else 0
        return forecast(problem, self.teacher, state, self._options.engine, teacher_steps=teacher_steps,
                        rollouts=-(-self._options.rollouts // self._options.spread.count), validations=validations,
                        validation_rollouts=-(-validation_rollouts // self._options.spread.count),
                        refresh_every=self._run["refresh_every"], timed_steps=timed_steps)

    def check(self, train: Any, dev: Any, num_steps: int | None = None, **kwargs: Any) -> CheckReport:
        """`tf_l2t.hypergradient.check_hypergradient` for this student, loss, optimizer and data, in float64.

        Args:
          train, dev: as for `fit`; a few dozen examples are enough.
          num_steps: the horizon to check at; the trainer's if None.
          **kwargs: passed on, such as `tolerance`.
        """
        if self.optimizer is None:
            raise ValueError("call compile(optimizer=...) before check.")
        task, options = self._task.in_float64(), self._run | {"num_steps": num_steps or self.num_steps}
        problem = task.problem(task.checked(train, "train"), task.checked(dev, "dev"), self.teacher,
                               self._options.objective, **options)
        return check_hypergradient(problem, self.teacher, initial_state(problem, *task.init(self._seed)), self._seed,
                                   **kwargs)

    def _first_student(self, train: Any, dev: Any) -> tuple[Problem, StudentState]:
        train, dev = self.check_data(train, dev)
        problem = self._problem(train, dev)
        return problem, self._new_student(problem, self._seed)

    def _new_student(self, problem: Problem, seed: int) -> StudentState:
        return initial_state(problem, *self._task.init(seed))

    # What stock Keras callbacks (ModelCheckpoint, EarlyStopping, TensorBoard, …) call.
    def get_weights(self) -> list[np.ndarray]:
        """The teacher's trained weights θ, as arrays."""
        return weights_of(self.teacher)

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Gives the teacher the weights that `get_weights` returned."""
        for variable, value in zip(self.teacher.theta, weights, strict=True):
            variable.assign(value)

    def save(self, filepath: str, overwrite: bool = True, **kwargs: Any) -> None:
        """Exports the teacher (`tf_l2t.export_teacher`)."""
        from tf_l2t.export import export_teacher

        del kwargs
        export_teacher(self.teacher, filepath, num_steps=self.num_steps, overwrite=overwrite)

    def save_weights(self, filepath: str, overwrite: bool = True) -> None:
        """Writes θ as a TensorFlow checkpoint, `filepath` the prefix of its files."""
        del overwrite
        tf.train.Checkpoint(teacher=self.teacher).write(str(filepath))

    def load_weights(self, filepath: str) -> None:
        """Gives the teacher the θ that `save_weights` wrote.

        Raises:
          ValueError: if there is none there, or a teacher's with other variables.
        """
        try:
            status = tf.train.Checkpoint(teacher=self.teacher).read(str(filepath))
            status.assert_existing_objects_matched()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise ValueError(f"{str(filepath)!r} does not hold the weights of a {type(self.teacher).__name__} such as "
                             f"this one: {error}") from error
