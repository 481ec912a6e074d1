"""The training of a teacher as a config asks for it, whatever its students do."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import keras
import ml_collections
import tensorflow as tf

from tf_l2t.teachers import TEACHERS, Teacher
from tf_l2t.training import TeacherTrainer
from tf_l2t.training.rates import learning_rate
from trainers import fields
from trainers.cluster import strategy


class TeacherPlan(NamedTuple):
    """A training, checked.

    Attributes:
      teacher: at its start.
      stages: (trainer, teacher steps) of the curriculum's stages, the whole horizon last.
      train, dev: as the trainers take them.
      about: of the data, for the manifest.
      source: of the data, for the exported teacher.
      description: lines that say what is trained on what.
      summaries: further arguments of `TeacherSummaries`.
    """

    teacher: Teacher
    stages: list[tuple[TeacherTrainer, int]]
    train: Any
    dev: Any
    about: dict[str, Any]
    source: dict[str, Any]
    description: tuple[str, ...]
    summaries: dict[str, Any]


# What a config says of every teacher in fields of its own.
OF_ALL = {"num_classes", "num_features", "loss", "ignored", "class_counts", "name"}


def teacher_options(config: ml_collections.ConfigDict, number: int = 0) -> dict[str, Any]:
    """What the class of the config's teacher takes beside sizes and loss: of config.teacher's num_keys, hidden and seed
    those that it has, and config.teacher.options.

    Args:
      config: of an experiment; the class is known.
      number: added to the seed.

    Raises:
      ValueError: for options that it does not take.
    """
    teacher = config.teacher
    named = inspect.signature(TEACHERS[teacher.name]).parameters.values()
    known = {one.name for one in named if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)} - OF_ALL
    given = {"num_keys": teacher.num_keys, "hidden": teacher.get("hidden"), "seed": teacher.seed + number}
    wrong = set(dict(teacher.options)) - (known - {"seed"})
    if wrong:
        raise ValueError(f"config.teacher.options: the teacher {teacher.name!r} takes {sorted(known - {'seed'})}, and "
                         f"its seed as config.teacher.seed; received {sorted(wrong)}.")
    return {**{name: value for name, value in given.items() if name in known}, **dict(teacher.options)}


def built_teacher(config: ml_collections.ConfigDict, number: int, num_classes: int, num_features: int, **more: Any
                  ) -> Teacher:
    """The config's teacher at its start, with `more` arguments than the config has for all kinds of data.

    Raises:
      ValueError: as `teacher_options`, or for options of another type.
    """
    options = teacher_options(config, number)
    name = config.teacher.name
    with fields.refused_types(f"config.teacher.options: the teacher {name!r} cannot be made of {options}"):
        return TEACHERS[name](num_classes, num_features, loss=config.teacher.loss, **more, **options)


def described(config: ml_collections.ConfigDict, teacher: Teacher) -> str:
    return (f"teacher: {config.teacher.name}, {config.teacher.loss} form, "
            f"{sum(int(tf.size(v)) for v in teacher.theta):,} weights")


def compile_trainer(trainer: TeacherTrainer, config: ml_collections.ConfigDict, num_dev: int, steps: int) -> None:
    """Compiles a trainer of `steps` as config.teacher_training says; `truncate` is as much of its run as of the
    config's."""
    outer = config.teacher_training
    # What few dev examples say of a coefficient that hardly matters is noise; Adam would make it as large as the rest.
    epsilon = max(outer.epsilon, outer.damping / num_dev)
    whole = outer.num_steps or config.training.num_steps
    trainer.compile(keras.optimizers.Adam(learning_rate(outer.learning_rate, outer.decay, steps), epsilon=epsilon),
                    objective=outer.objective, penalty=outer.penalty, clip_norm=outer.clip_norm or None,
                    rollouts=outer.rollouts, rollback=outer.rollback if outer.rollback >= 0 else None, hvp=outer.hvp,
                    jit="auto" if outer.xla else False,
                    judge=outer.judge, schedule=outer.schedule, memory_budget=outer.memory_budget or None,
                    strategy=strategy(config), distribute=outer.distribute, max_dropped=outer.max_dropped,
                    adjoint_limit=outer.adjoint_limit or None,
                    truncate=max(1, round(outer.truncate * trainer.num_steps / whole)) if outer.truncate else None)
