"""Trains a teacher and exports it.

    python -m trainers.train_teacher --config configs/demo.py --workdir runs/teacher

Writes manifest.json, history.json, tensorboard/, figures/ and the SavedModel teacher/ to the work directory.
"""

from __future__ import annotations

import math

import keras
import ml_collections
from absl import flags

import tf_l2t
from tf_l2t import plotting
from tf_l2t.features import feature_names
from tf_l2t.teachers import TEACHERS
from tf_l2t.training import TeacherSummaries, TeacherTrainer
from tf_l2t.training.workdir import check_workdir, create_workdir, write_json
from trainers import command

VERBOSE = flags.DEFINE_integer("verbose", 1, "1 for a progress bar, 0 for silence.")


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
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
    trainer.compile(keras.optimizers.Adam(command.learning_rate(outer.learning_rate, outer.decay, outer.steps),
                                          epsilon=outer.epsilon),
                    objective=outer.objective, clip_norm=outer.clip_norm or None, rollouts=outer.rollouts,
                    hvp=outer.hvp, schedule=outer.schedule)
    workdir = create_workdir(workdir, command.command_line(), command.plain(config), command.describe(splits))
    history = trainer.fit(splits.train, splits.dev, outer.steps, validation_freq=outer.validation_freq,
                          validation_rollouts=outer.validation_rollouts, verbose=VERBOSE.value,
                          callbacks=[TeacherSummaries(workdir / "tensorboard")])
    teacher_dir = tf_l2t.export_teacher(teacher, workdir / "teacher", summary={"data": dict(splits.about)})
    # JSON has no NaN: a student that diverged shows as null.
    write_json(workdir / "history.json", {name: [value if math.isfinite(value) else None for value in values]
                                          for name, values in history.history.items()})
    figures = workdir / "figures"
    percent = [100 * value for value in history.history["dev_accuracy"]]
    validated = history.history.get("val_accuracy")
    validation = None
    if validated:
        steps = [e + 1 for e in history.epoch if (e + 1) % outer.validation_freq == 0 or e == history.epoch[-1]]
        validation = (steps, [100 * value for value in validated])
    curve = plotting.plot_teacher_curve([e + 1 for e in history.epoch], percent, figures / "teacher_curve.png",
                                        validation)
    print(f"teacher: {teacher_dir}\nTensorBoard: {workdir / 'tensorboard'}\ncurve: {curve}")


if __name__ == "__main__":
    command.main(run)
