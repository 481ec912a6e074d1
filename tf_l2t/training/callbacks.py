"""Keras callbacks: a teacher's progress bar, and what TensorBoard shows of teachers and taught students."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.hypergradient.state import integer_tensor
from tf_l2t.losses import TeacherLoss
from tf_l2t.plotting import coefficient_image, curve_image, labelled_pairs
from tf_l2t.teachers import Teacher
from tf_l2t.training.pace import Pace, tell
from tf_l2t.training.teaching import optimizer_steps, the_loss

SCALARS = ("objective", "dev_accuracy", "dev_bleu", "gradient_norm", "adjoint_norm", "adjoint_growth", "dropped",
           "dropped_rollouts", "learning_rate", "val_objective", "val_accuracy", "val_bleu")
HIDDEN_IN_BAR = ("seconds", "adjoint_growth", "learning_rate", "dropped_rollouts")


def _write_scalars(folder: str, values: Mapping[str, Any]) -> None:
    """To the default summary writer; as arrays, of which TensorFlow keeps nothing (see `integer_tensor`)."""
    for name, value in values.items():
        tf.summary.scalar(f"{folder}/{name}", np.asarray(value))


class TeacherProgress(keras.callbacks.Callback):
    """One bar over the teacher steps behind the first `done`, with the time left."""

    def __init__(self, teacher_steps: int, done: int = 0):
        super().__init__()
        self._first, self._done = done, 0
        names = (*SCALARS, "seconds")
        self._bar = keras.utils.Progbar(teacher_steps - done, stateful_metrics=names, unit_name="teacher step")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        shown = {name: value for name, value in (logs or {}).items() if name not in HIDDEN_IN_BAR}
        self._done = epoch + 1 - self._first
        self._bar.update(self._done, list(shown.items()), finalize=False)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._bar.update(self._done, finalize=True)


class TeacherLines(keras.callbacks.Callback):
    """Tells of every teacher step: `step`, counted from 1, what the history has of it, and `seconds_left`.

    Args:
      verbose: as for `tell`.
    """

    def __init__(self, verbose: int):
        super().__init__()
        self._verbose = verbose

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._pace: Pace | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._pace = self._pace or Pace(self.params["epochs"], epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        left = self._pace.left(epoch + 1) if self._pace else math.nan
        tell({"step": epoch + 1, **(logs or {})}, self._verbose, left)


class _Summaries(keras.callbacks.Callback):
    """An event file that is open while a run lasts, and Φ in it."""

    def __init__(self, log_dir: str | pathlib.Path, every: int, class_pairs: Sequence[tuple[int | str, int | str]],
                 class_names: Sequence[str]):
        super().__init__()
        if every < 1:
            raise ValueError(f"the steps between two records must be at least 1; received {every!r}.")
        self._log_dir, self._every = str(log_dir), every
        self._class_pairs, self._class_names = tuple(class_pairs), tuple(class_names)

    def check(self, coefficients_shape: Sequence[int]) -> None:
        """Raises ValueError for pairs or names of classes that are not those of Φ of such a shape."""
        self._pairs = labelled_pairs(self._class_pairs, coefficients_shape[0], self._class_names)
        if self._pairs and len(coefficients_shape) != 2:
            raise ValueError("class_pairs: the teacher is one of diagonal Φ, and has no coefficient for a pair of "
                             "classes.")

    def _begin(self, coefficients_shape: Sequence[int]) -> None:
        self.check(coefficients_shape)
        self._writer = tf.summary.create_file_writer(self._log_dir)

    def _at(self, step: int) -> Any:
        """A context whose summaries are of that step."""
        return self._writer.as_default(step=integer_tensor(step))

    def _write_coefficients(self, name: str, coefficients: np.ndarray) -> None:
        """Φ as a heat-map image and a histogram, to the default summary writer."""
        tf.summary.image(name, coefficient_image(coefficients, class_names=self._class_names)[np.newaxis])
        tf.summary.histogram(f"{name}/values", coefficients)

    def _write_pairs(self, coefficients: np.ndarray) -> None:
        _write_scalars("coefficients_of_pairs", {label: coefficients[pair] for label, pair in self._pairs.items()})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Ends what is open; a fit that ends with an error tells its callbacks nothing."""
        self._writer.close()


class TeacherSummaries(_Summaries):
    """TensorBoard event files of a `TeacherTrainer`'s run.

    Per teacher step: the scalars `teacher/…` of the history. Of the step's last rollout, every `images_every` steps:
    Φ_t at its start, middle and end, as heat-map images and histograms `coefficients/start`, `/middle`, `/end`;
    ‖dω_t‖ of every student step t as the curve `adjoint/norm_by_step`. Of the pairs of classes Φ_t(i, j) at its end as
    the scalars `coefficients_of_pairs/Φ(i, j)`, and of every student step as the curves `coefficients/pairs_by_step`.
    Once, the graph of the teacher.

    Args:
      log_dir: for the event file.
      images_every: teacher steps between two sets of images.
      config: JSON values that are shown as the text `config`; None for none.
      class_pairs: classes, two each, numbers or names, whose coefficients are shown, in both directions.
      class_names: of the classes in order; () for their numbers.
      profile: the first and the last teacher step, counted from 0, of which TensorFlow's profiler takes a trace, for
        TensorBoard's page `profile` (package tensorboard-plugin-profile); () for none. A trace grows with the students'
        steps.

    Raises:
      ValueError: for a number below 1, or steps to profile that are not two that rise; from `fit`, for classes that
        the teacher does not have, or pairs of a teacher without them.
    """

    def __init__(self, log_dir: str | pathlib.Path, images_every: int = 10, config: Any = None,
                 class_pairs: Sequence[tuple[int | str, int | str]] = (), class_names: Sequence[str] = (),
                 profile: Sequence[int] = ()):
        super().__init__(log_dir, images_every, class_pairs, class_names)
        if len(profile) and not (len(profile) == 2 and 0 <= profile[0] <= profile[1]):
            raise ValueError("profile must be the first and the last teacher step to profile, counted from 0; received "
                             f"{tuple(profile)}.")
        self._config = config
        self._profile = tuple(profile)
        self._profiles = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        teacher: Teacher = self.model.teacher
        self._begin(teacher.coefficients_shape)
        status = tf.TensorSpec([teacher.num_features], tf.float32, "features")
        with self._writer.as_default(step=0):
            tf.summary.graph(tf.function(lambda features: teacher(features)).get_concrete_function(status).graph)
        if self._config is not None:
            lines = json.dumps(self._config, indent=2, ensure_ascii=False).splitlines()
            with self._writer.as_default(step=0):
                tf.summary.text("config", "\n".join(f"    {line}" for line in lines))  # as Markdown, a block of code

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._profile and self._profile[0] <= epoch <= self._profile[1] and not self._profiles:
            tf.profiler.experimental.start(self._log_dir)
            self._profiles = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._profile and epoch == self._profile[1]:
            self._end_profile()
        with self._at(epoch):
            _write_scalars("teacher", {name: logs[name] for name in SCALARS if logs and name in logs})
            if self.model.last_result is None:  # every student of the step was another process's
                return
            trace = self.model.last_result.rollout.trace
            self._write_pairs(trace["coefficients"][-1].numpy())
            if epoch % self._every == 0 or epoch == self.params["epochs"] - 1:
                self._write_images(trace["coefficients"], trace["adjoint_norm"])
        self._writer.flush()

    def close(self) -> None:
        self._end_profile()
        super().close()

    def _end_profile(self) -> None:
        if self._profiles:
            tf.profiler.experimental.stop()
            self._profiles = False

    def _write_images(self, matrices: tf.Tensor, adjoint_norms: tf.Tensor) -> None:
        norms = curve_image({"": adjoint_norms.numpy()}, "student step t", "norm of the adjoint", log=True)
        tf.summary.image("adjoint/norm_by_step", norms[np.newaxis])
        for name, index in (("start", 0), ("middle", len(matrices) // 2), ("end", -1)):
            self._write_coefficients(f"coefficients/{name}", matrices[index].numpy())
        if self._pairs:
            curves = {label: matrices[:, i, j].numpy() for label, (i, j) in self._pairs.items()}
            tf.summary.image("coefficients/pairs_by_step",
                             curve_image(curves, "student step t", "coefficient")[np.newaxis])


class TaughtStudentSummaries(_Summaries):
    """TensorBoard event files of the run of a `TaughtStudent`, or of a model whose loss a `Teaching` callback changes.

    Every `every` batches: the running train accuracy, Φ_t as a heat-map image and a histogram, and Φ_t(i, j) of the
    pairs of classes as the scalars `coefficients_of_pairs/Φ(i, j)`; after every epoch, the metrics of the logs.

    Args:
      log_dir: for the event file.
      every: student steps between two records.
      class_pairs, class_names: as in `TeacherSummaries`.
    """

    def __init__(self, log_dir: str | pathlib.Path, every: int = 100,
                 class_pairs: Sequence[tuple[int | str, int | str]] = (), class_names: Sequence[str] = ()):
        super().__init__(log_dir, every, class_pairs, class_names)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        loss = the_loss(self.model) if getattr(self.model, "loss", None) is not None else None
        if not isinstance(loss, TeacherLoss) and not hasattr(self.model, "running_train_accuracy"):
            raise ValueError("TaughtStudentSummaries is for a TaughtStudent, or for a model that was compiled with "
                             f"loss=teacher.as_keras_loss(); received a {type(self.model).__name__} with the loss "
                             f"{getattr(loss, 'name', loss)!r}.")
        self._loss = loss
        self._begin(self._coefficients().shape)
        self._next = self._step()

    def _step(self) -> int:
        return optimizer_steps(self.model) if self._loss is not None else self.model.step

    def _coefficients(self) -> np.ndarray:
        return (self._loss or self.model).coefficients

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        done = self._step() - 1  # the step that this batch made; with steps_per_execution not every one is seen
        if done >= self._next:
            running = self.model.running_train_accuracy if self._loss is None else self._loss.train_accuracy
            with self._at(done):
                _write_scalars("student", {"running_train_accuracy": running})
                self._write_coefficients("coefficients/current", self._coefficients())
                self._write_pairs(self._coefficients())
            self._next += self._every * ((done - self._next) // self._every + 1)  # what was restored may be far on

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        with self._at(self._step()):
            _write_scalars("student", logs or {})
        self._writer.flush()


class TranslatorSummaries:
    """TensorBoard event files of a translation student's run: what `fit_translator` calls at every look.

    The figures of a look as the scalars `student/…`; of a taught student, Φ as the histogram `coefficients`. A run that
    goes on adds a file.

    Args:
      log_dir: for the event file.
    """

    def __init__(self, log_dir: str | pathlib.Path):
        self._log_dir = str(log_dir)
        self._writer: Any = None

    def __call__(self, model: keras.Model, record: Mapping[str, float]) -> None:
        self._writer = self._writer or tf.summary.create_file_writer(self._log_dir)
        with self._writer.as_default(step=integer_tensor(int(record["step"]))):
            _write_scalars("student", {name: value for name, value in record.items() if name != "step"})
            if hasattr(model, "coefficients"):
                tf.summary.histogram("coefficients", model.coefficients)
        self._writer.flush()
