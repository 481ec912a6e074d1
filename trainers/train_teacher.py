"""Trains a teacher and exports it.

    python -m trainers.train_teacher --config configs/demo.py --workdir runs/teacher

Writes manifest.json, history.json, tensorboard/, figures/ and the SavedModel teacher/ to the work directory.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable

import keras
import ml_collections
from absl import flags

import tf_l2t
from tf_l2t import plotting
from tf_l2t.features import feature_names
from tf_l2t.teachers import TEACHERS
from tf_l2t.training import TeacherSummaries, TeacherTrainer
from tf_l2t.training.rates import learning_rate
from tf_l2t.training.workdir import check_workdir, create_workdir, write_json
from trainers import command

VERBOSE = flags.DEFINE_integer("verbose", 1, "1 for a progress bar, 0 for silence.")


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Callable[[], None]:
    check_workdir(workdir)
    splits = command.load_splits(config)
    outer = config.teacher_training
    if config.teacher.name not in TEACHERS:
        raise ValueError(f"config.teacher.name must be one of {sorted(TEACHERS)}; received {config.teacher.name!r}.")
    teacher = TEACHERS[config.teacher.name](
        splits.num_classes, len(feature_names(splits.num_classes)), num_keys=config.teacher.num_keys,
        loss=config.teacher.loss, seed=config.teacher.seed)
    trainer = TeacherTrainer(
        command.student_fn(config, splits), teacher, num_steps=config.training.num_steps,
        batch_size=config.training.batch_size, student_optimizer=command.student_optimizer(config),
        refresh_every=config.features.refresh_every, dev_sample_size=config.features.dev_sample_size,
        seed=config.seed)
    trainer.compile(keras.optimizers.Adam(learning_rate(outer.learning_rate, outer.decay, outer.steps),
                                          epsilon=outer.epsilon),
                    objective=outer.objective, clip_norm=outer.clip_norm or None, rollouts=outer.rollouts,
                    hvp=outer.hvp, schedule=outer.schedule,
                    memory_budget=outer.memory_budget or None, truncate=outer.truncate or None)
    trainer.check_data(splits.train, splits.dev)
    trainer.check_steps(outer.steps, outer.validation_freq, outer.validation_rollouts)
    path = create_workdir(workdir, command.command_line(), command.plain(config), command.describe(splits))

    def work() -> None:
        history = keras.callbacks.History()
        try:
            trainer.fit(splits.train, splits.dev, outer.steps, validation_freq=outer.validation_freq,
                        validation_rollouts=outer.validation_rollouts, verbose=VERBOSE.value,
                        callbacks=[TeacherSummaries(path / "tensorboard"), history])
        finally:  # a run that diverged keeps its best teacher, one that was interrupted its newest
            teacher_dir = tf_l2t.export_teacher(teacher, path / "teacher", num_steps=config.training.num_steps,
                                                summary={"data": dict(splits.about)})
            write_history(history.history, path)
        curve = draw_curve(history, outer.validation_freq, path / "figures" / "teacher_curve.png")
        print(f"teacher: {teacher_dir}\nTensorBoard: {path / 'tensorboard'}\ncurve: {curve}")

    return work


def write_history(history: dict[str, list[float]], path: pathlib.Path) -> None:
    """As JSON, which has no NaN: a student that diverged shows as null."""
    write_json(path / "history.json", {name: [value if math.isfinite(value) else None for value in values]
                                       for name, values in history.items()})


def draw_curve(history: keras.callbacks.History, validation_freq: int, path: pathlib.Path) -> pathlib.Path:
    values = {name: [100 * value for value in history.history.get(name, [])]
              for name in ("dev_accuracy", "val_accuracy")}
    validated = [e + 1 for e in history.epoch
                 if validation_freq and ((e + 1) % validation_freq == 0 or e == history.epoch[-1])]
    return plotting.plot_teacher_curve([e + 1 for e in history.epoch], values["dev_accuracy"], path,
                                       (validated, values["val_accuracy"]) if validated else None)


if __name__ == "__main__":
    command.main(prepare)
