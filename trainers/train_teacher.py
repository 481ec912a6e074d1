"""Trains a teacher and exports it.

    python -m trainers.train_teacher --config configs/demo.py --workdir runs/teacher

Writes manifest.json, history.json, tensorboard/, figures/ and the SavedModel teacher/ to the work directory. With
--dry_run it writes nothing and needs no directory: it prints what the run would be and, from a few steps timed on this
machine (--timed_steps), how long it would take.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import ml_collections
import numpy as np
import tensorflow as tf
from absl import flags

import tf_l2t
from tf_l2t import plotting
from tf_l2t.data import ArrayPair, Splits
from tf_l2t.features import feature_names
from tf_l2t.teachers import TEACHERS, Teacher
from tf_l2t.training import TeacherSummaries, TeacherTrainer
from tf_l2t.training.rates import learning_rate
from tf_l2t.training.workdir import check_workdir, create_workdir, write_json
from trainers import command

VERBOSE = flags.DEFINE_integer("verbose", 1, "1 for a progress bar, 0 for silence.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the plan, with predicted memory and time, and stop.")
TIMED_STEPS = flags.DEFINE_integer("timed_steps", 8, "Steps that a dry run times; 0 for none: memory alone.")


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Callable[[], None]:
    if DRY_RUN.value:
        dry_run(config)
        return lambda: None
    check_workdir(workdir)
    splits = command.load_splits(config)
    fit = teacher_training(config, splits)
    path = create_workdir(workdir, command.command_line(), command.plain(config), command.describe(splits))

    def work() -> None:
        teacher_dir, curve = fit(path)
        print(f"teacher: {teacher_dir}\nTensorBoard: {path / 'tensorboard'}\ncurve: {curve}")

    return work


def teacher_training(config: ml_collections.ConfigDict, splits: Splits, number: int = 0
                     ) -> Callable[[pathlib.Path], tuple[pathlib.Path, pathlib.Path]]:
    """The training of the config's teacher, everything about it checked, as a function of the run's directory.

    It writes what `train_teacher` does, the teacher last, and returns the paths of teacher and curve. Teachers of other
    `number`s start from other seeds and see other students.
    """
    outer = config.teacher_training
    teacher = make_teacher(config, splits, number)
    stages, train = make_stages(config, splits, teacher, number)
    if outer.memory_budget:
        for trainer in stages:
            trainer.plan(train, splits.dev)  # a budget that is too small is told now
    num_steps = stages[-1].num_steps

    def fit(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
        history, validated = keras.callbacks.History(), Validated()
        path.mkdir(parents=True, exist_ok=True)
        freq = frequency(config)
        try:
            for trainer, (_, steps) in zip(stages, outer.curriculum, strict=False):
                trainer.fit(train, splits.dev, steps, verbose=VERBOSE.value, **freq)
            stages[-1].fit(train, splits.dev, outer.steps, verbose=VERBOSE.value, **freq,
                           callbacks=[TeacherSummaries(path / "tensorboard"), history, validated])
        finally:  # a run that diverged keeps its best teacher, one that was interrupted its newest
            teacher_dir = tf_l2t.export_teacher(teacher, path / "teacher", num_steps=num_steps,
                                                summary={"data": dict(splits.about)})
            write_history(history, validated.steps, path)
            curve = draw_curve(history, validated.steps, path / "figures" / "teacher_curve.png")
        return teacher_dir, curve

    return fit


def make_stages(config: ml_collections.ConfigDict, splits: Splits, teacher: Teacher, number: int = 0
                ) -> tuple[list[TeacherTrainer], ArrayPair]:
    """The trainers of the curriculum's stages and of the whole horizon, checked, and the examples that they train on.

    Raises:
      ValueError: for options that do not fit.
    """
    outer = config.teacher_training
    train = splits.train
    if outer.train_size:
        if not config.training.batch_size <= outer.train_size <= train.size:
            raise ValueError("config.teacher_training.train_size must be between the batch size and the "
                             f"{train.size} train examples; received {outer.train_size!r}.")
        train = train.take(np.arange(outer.train_size))
    num_steps = outer.num_steps or config.training.num_steps
    stages = [make_trainer(config, splits, teacher, command.student_fn(config, splits), number, length, steps)
              for length, steps in (*outer.curriculum, (num_steps, outer.steps))]
    for trainer in stages:
        trainer.check_data(train, splits.dev)
        trainer.check_steps(outer.steps, outer.validation_freq, outer.validation_rollouts)
    return stages, train


def dry_run(config: ml_collections.ConfigDict) -> None:
    """Prints the plan of the training.

    Raises:
      ValueError: for what the training would refuse.
    """
    if TIMED_STEPS.value < 2 and TIMED_STEPS.value != 0:
        raise ValueError(f"--timed_steps must be 0 or at least 2; received {TIMED_STEPS.value}.")
    splits = command.load_splits(config)
    teacher = make_teacher(config, splits)
    stages, train = make_stages(config, splits, teacher)
    training, outer = config.training, config.teacher_training
    parts = ", ".join(f"{part.size:,} {name}" for name, part in
                      (("train", train), ("dev", splits.dev), ("test", splits.test)))
    print(f"data: {splits.name}, {parts}, {splits.num_classes} classes")
    print(f"student: {command.student_label(config)}, batches of {training.batch_size}, rate "
          f"{training.learning_rate:g} ({training.decay})")
    print(f"teacher: {config.teacher.name}, {config.teacher.loss} form, "
          f"{sum(int(tf.size(v)) for v in teacher.theta):,} weights")
    if config.quoted:
        print(f"quoted: {config.quoted}")
    for trainer, (_, steps) in zip(stages, (*outer.curriculum, (0, outer.steps)), strict=True):
        print(f"{steps} teacher steps:", flush=True)
        print(trainer.forecast(train, splits.dev, steps, **frequency(config), timed_steps=TIMED_STEPS.value)
              if TIMED_STEPS.value else f"engine: {trainer.plan(train, splits.dev)}")


def frequency(config: ml_collections.ConfigDict) -> dict[str, Any]:
    outer = config.teacher_training
    return {"validation_freq": outer.validation_freq, "validation_rollouts": outer.validation_rollouts}


def make_teacher(config: ml_collections.ConfigDict, splits: Splits, number: int = 0) -> Teacher:
    """The config's teacher at its start.

    Raises:
      ValueError: for an unknown teacher or feature, or options that it does not take.
    """
    if config.teacher.name not in TEACHERS:
        raise ValueError(f"config.teacher.name must be one of {sorted(TEACHERS)}; received {config.teacher.name!r}.")
    names = feature_names(splits.num_classes)
    unknown = set(config.teacher.ignored) - {*names, "dev_precision"}
    if unknown:
        raise ValueError(f"config.teacher.ignored names {sorted(unknown)}; the features are {names}.")
    ignored = [i for i, name in enumerate(names) if name in config.teacher.ignored
               or (name.startswith("dev_precision_") and "dev_precision" in config.teacher.ignored)]
    counts = np.bincount(splits.train.y, minlength=splits.num_classes) if config.teacher.class_counts else None
    seed = config.teacher.seed + number
    attention = {"num_keys": config.teacher.num_keys, "seed": seed}
    options = {"attention": attention, "diagonal": attention, "mlp": {"hidden": config.teacher.hidden, "seed": seed},
               "static": {}}
    return TEACHERS[config.teacher.name](splits.num_classes, len(names), loss=config.teacher.loss, ignored=ignored,
                                         class_counts=counts, **options[config.teacher.name])


def make_trainer(config: ml_collections.ConfigDict, splits: Splits, teacher: Teacher,
                 student_fn: Callable[[], keras.Model], number: int, num_steps: int, steps: int) -> TeacherTrainer:
    """A compiled trainer on student runs of `num_steps`, to be fitted for `steps`; `truncate` is as much of its run as
    of the config's."""
    outer = config.teacher_training
    trainer = TeacherTrainer(
        student_fn, teacher, num_steps=num_steps, batch_size=config.training.batch_size,
        student_optimizer=command.student_optimizer(config, num_steps=num_steps),
        refresh_every=config.features.refresh_every, dev_sample_size=config.features.dev_sample_size,
        augment=splits.augment, seed=config.seed + number)
    # What few dev examples say of a coefficient that hardly matters is noise; Adam would make it as large as the rest.
    epsilon = max(outer.epsilon, outer.damping / splits.dev.size)
    whole = outer.num_steps or config.training.num_steps
    trainer.compile(keras.optimizers.Adam(learning_rate(outer.learning_rate, outer.decay, steps), epsilon=epsilon),
                    objective=outer.objective, penalty=outer.penalty, clip_norm=outer.clip_norm or None,
                    rollouts=outer.rollouts, rollback=outer.rollback if outer.rollback >= 0 else None, hvp=outer.hvp,
                    schedule=outer.schedule, memory_budget=outer.memory_budget or None,
                    truncate=max(1, round(outer.truncate * num_steps / whole)) if outer.truncate else None)
    return trainer


class Validated(keras.callbacks.Callback):
    """Notes the teacher steps, from 1, after which students were validated: a run that diverged has other ones."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if "val_accuracy" in (logs or {}):
            self.steps.append(epoch + 1)


def write_history(history: keras.callbacks.History, validated: list[int], path: pathlib.Path) -> None:
    """As JSON, which has no NaN: a student that diverged shows as null."""
    plain = {name: [value if math.isfinite(value) else None for value in values]
             for name, values in history.history.items()}
    write_json(path / "history.json", plain | {"validated": validated})


def draw_curve(history: keras.callbacks.History, validated: list[int], path: pathlib.Path) -> pathlib.Path:
    values = {name: [100 * value for value in history.history.get(name, [])]
              for name in ("dev_accuracy", "val_accuracy")}
    steps = range(1, len(values["dev_accuracy"]) + 1)
    return plotting.plot_teacher_curve(steps, values["dev_accuracy"], path,
                                       (validated, values["val_accuracy"]) if validated else None)


if __name__ == "__main__":
    command.main(prepare)
