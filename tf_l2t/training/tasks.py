"""What a `TeacherTrainer` needs to know of the task: the student, its data, its problem and its measures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tf_l2t.data import ArrayPair, check_dev, check_pair
from tf_l2t.data.augment import Augment
from tf_l2t.hypergradient import Problem, StudentState
from tf_l2t.losses.keras_loss import check_no_probabilities
from tf_l2t.objectives import OBJECTIVES, accuracy
from tf_l2t.students import FunctionalModel, FunctionalStudent, PreflightReport, check_examples, preflight
from tf_l2t.teachers import Teacher
from tf_l2t.training.identity import function_identity
from tf_l2t.training.problem import classification_problem
from tf_l2t.training.taught_student import check_fits

Measure = Callable[[StudentState], float]
FEW = 5  # dev examples a class, below which a warning says so


class Task:
    """Base class of tasks.

    Attributes:
      measure: the name of the exact measure that is logged beside M, such as "accuracy".
      student: the student as pure functions.
    """

    measure: ClassVar[str]
    student: FunctionalModel

    def in_float64(self) -> Task:
        """The same with students of double precision, for checks against differences."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """What tells its students' runs from others, beside what a trainer knows; JSON values."""
        return {}

    def check_teacher(self, teacher: Teacher) -> None:
        """Raises ValueError unless a teacher's coefficients and features are this task's."""
        raise NotImplementedError

    def checked(self, data: Any, what: str, dev: bool = False) -> Any:
        """Data that fits the student, as `problem` takes it, with its `size`; `dev` for what M is measured on.

        Raises:
          ValueError: for data that does not fit.
        """
        raise NotImplementedError

    def content(self, data: Any) -> Sequence[Any]:
        """The arrays and numbers by which checked data are told from others."""
        return data

    def check_objective(self, objective: Any) -> None:
        """Raises ValueError for an objective that `problem` does not take."""
        raise NotImplementedError

    def problem(self, train: Any, dev: Any, teacher: Teacher, objective: Any, **options: Any) -> Problem:
        """The student's training run; `options` are optimizer, num_steps, batch_size and refresh_every."""
        raise NotImplementedError

    def measures(self, objective: Any, data: Any) -> tuple[Measure, Measure]:
        """M and the exact measure, on `data`, of a student's state."""
        raise NotImplementedError

    def init(self, seed: int) -> tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, ...]]:
        """(params, non_trainable) of the student that begins a run of that seed."""
        return self.student.init(seed)

    def preflight(self, progress: Callable[[int, int], None] | None = None) -> PreflightReport | None:
        """A check of the students' second derivatives, of which `progress` hears as from `tf_l2t.preflight`; None for
        students that have none to be made."""
        raise NotImplementedError


class ClassificationTask(Task):
    """Classifiers of arrays.

    Args:
      student_fn: builds a new, randomly initialised Keras classifier with logits as output.
      dev_sample_size: how many dev examples s_t looks at.
      augment: as for `tf_l2t.data.array_batches`.
      dtype: as for `FunctionalStudent`.

    Raises:
      ValueError: as `FunctionalStudent`, or for a sample of less than 1.
    """

    measure = "accuracy"
    student: FunctionalStudent

    def __init__(self, student_fn: Callable[[], keras.Model], dev_sample_size: int | None = 500,
                 augment: Augment | None = None, dtype: str | None = None):
        if dev_sample_size is not None and dev_sample_size < 1:
            raise ValueError(f"dev_sample_size must be at least 1, or None for all; received {dev_sample_size!r}.")
        self.student = FunctionalStudent(student_fn, dtype)
        self._student_fn = student_fn
        self._options: dict[str, Any] = {"dev_sample_size": dev_sample_size, "augment": augment}

    def in_float64(self) -> ClassificationTask:
        return ClassificationTask(self._student_fn, **self._options, dtype="float64")

    def identity(self) -> dict[str, Any]:
        return self._options | {"augment": function_identity(self._options["augment"])}

    def check_teacher(self, teacher: Teacher) -> None:
        check_fits(teacher, self.student.num_classes)

    def checked(self, data: Any, what: str, dev: bool = False) -> ArrayPair:
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise ValueError(f"{what} must be a pair (x, y) of arrays; received {type(data).__name__}.")
        pair = check_pair(data[0], data[1], self.student.num_classes, what)
        check_examples(self.student.model, pair.x, what)
        if what == "dev" and pair.size < FEW * self.student.num_classes:
            warnings.warn(f"{what}: {pair.size} examples of {self.student.num_classes} classes are few: what they say "
                          "of a coefficient is mostly noise. Some 50 a class are a good start; compile(penalty=...) "
                          "holds back what few speak for.", stacklevel=4)
        if dev:
            check_no_probabilities(self.student.model(pair.x[:8], training=False))
        return check_dev(pair, what) if dev else pair

    def check_objective(self, objective: Any) -> None:
        if not callable(objective) and objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {sorted(OBJECTIVES)} or a function; received {objective!r}.")

    def problem(self, train: ArrayPair, dev: ArrayPair, teacher: Teacher, objective: Any, **options: Any) -> Problem:
        return classification_problem(self.student, train, dev, loss=teacher.per_example,
                                      objective=_function(objective), **self._options, **options)

    def measures(self, objective: Any, data: ArrayPair) -> tuple[Measure, Measure]:
        x, y = tf.convert_to_tensor(data.x), tf.convert_to_tensor(data.y)

        def measure(function: Callable[..., tf.Tensor]) -> Measure:
            @tf.function(autograph=False)
            def value(params: Any, non_trainable: Any) -> tf.Tensor:
                return function(y, self.student.apply(params, non_trainable, x, training=False)[0])

            return lambda state: float(value(state.params, state.non_trainable))

        return measure(_function(objective)), measure(accuracy)

    def preflight(self, progress: Callable[[int, int], None] | None = None) -> PreflightReport:
        return preflight(self._student_fn, progress)


def _function(objective: Any) -> Callable[..., tf.Tensor]:
    return objective if callable(objective) else OBJECTIVES[objective]
