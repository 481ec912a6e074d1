"""From a config to the training of an image classifier's teacher."""

from __future__ import annotations

from collections.abc import Callable

import keras
import ml_collections
import numpy as np

from tf_l2t.data import Splits
from tf_l2t.features import feature_names
from tf_l2t.teachers import TEACHERS, Teacher
from tf_l2t.training import TeacherTrainer
from trainers import command
from trainers.classes import summary_options
from trainers.teacher_plan import TeacherPlan, built_teacher, compile_trainer, described


def plan(config: ml_collections.ConfigDict, splits: Splits, number: int = 0) -> TeacherPlan:
    """The training of the config's teacher, everything about it checked.

    Teachers of other `number`s start from other seeds and see other students.

    Raises:
      ValueError: for options that do not fit.
    """
    outer, training = config.teacher_training, config.training
    teacher = make_teacher(config, splits, number)
    train = splits.train
    if outer.train_size:
        if not config.training.batch_size <= outer.train_size <= train.size:
            raise ValueError("config.teacher_training.train_size must be between the batch size and the "
                             f"{train.size} train examples; received {outer.train_size!r}.")
        train = train.take(np.arange(outer.train_size))
    num_steps = outer.num_steps or training.num_steps
    stages = [(make_trainer(config, splits, teacher, command.student_fn(config, splits), number, length, steps), steps)
              for length, steps in (*outer.curriculum, (num_steps, outer.steps))]
    for trainer, steps in stages:
        trainer.check_data(train, splits.dev)
        trainer.check_steps(steps, outer.validation_freq, outer.validation_rollouts)
    parts = ", ".join(f"{part.size:,} {name}" for name, part in
                      (("train", train), ("dev", splits.dev), ("test", splits.test)))
    return TeacherPlan(teacher, stages, train, splits.dev, command.describe(splits), splits.about, (
        f"data: {splits.name}, {parts}, {splits.num_classes} classes",
        f"student: {command.student_label(config)}, batches of {training.batch_size}, rate "
        f"{training.learning_rate:g} ({training.decay})",
        described(config, teacher)), summary_options(config, splits, teacher))


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
    return built_teacher(config, number, splits.num_classes, len(names), ignored=ignored, class_counts=counts)


def make_trainer(config: ml_collections.ConfigDict, splits: Splits, teacher: Teacher,
                 student_fn: Callable[[], keras.Model], number: int, num_steps: int, steps: int) -> TeacherTrainer:
    """A compiled trainer on student runs of `num_steps`, to be fitted for `steps`."""
    trainer = TeacherTrainer(
        student_fn, teacher, num_steps=num_steps, batch_size=config.training.batch_size,
        student_optimizer=command.student_optimizer(config, num_steps=num_steps),
        refresh_every=config.features.refresh_every, dev_sample_size=config.features.dev_sample_size,
        augment=splits.augment, seed=config.seed + number)
    compile_trainer(trainer, config, splits.dev.size, steps)
    return trainer
