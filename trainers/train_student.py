"""Trains one new student: an image student by an exported teacher, a translation student by any loss.

    python -m trainers.train_student --config configs/demo.py --workdir runs/student \\
        --config.compare.teacher=runs/teacher/teacher
    python -m trainers.train_student --config configs/translation_lstm1.py --config.data.path=DIR --workdir runs/lstm1

Writes manifest.json, results.json, tensorboard/ and the trained network student.keras to the work directory; of a
translation student what `trainers.translator_fit` says, and the same command goes on with a run that was stopped.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_collections

import tf_l2t
from tf_l2t.training import TaughtStudent, TaughtStudentSummaries
from tf_l2t.training.comparison import check_same_split
from trainers import command
from trainers.classes import summary_options
from trainers.digests import teacher_digest
from trainers.fit import prepare_fit


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Callable[[], None]:
    if config.get("task") == "translation":
        from trainers.translator_fit import prepare_translator  # its packages take a second to import

        return prepare_translator(config, workdir, command.VERBOSE.value)
    if not config.compare.teacher:
        raise ValueError("set config.compare.teacher to the directory of an exported teacher.")
    splits = command.load_splits(config)
    teacher = tf_l2t.load_teacher(config.compare.teacher, splits.class_names)
    shown = summary_options(config, splits, teacher)

    def taught(network, splits):
        check_same_split(teacher, splits)
        return TaughtStudent(network, teacher, splits.dev, config.training.num_steps,
                             refresh_every=config.features.refresh_every,
                             dev_sample_size=config.features.dev_sample_size)

    return prepare_fit(config, workdir, taught, None, lambda log_dir: [TaughtStudentSummaries(log_dir, **shown)],
                       {"teacher": teacher_digest(teacher)})  # another one at the same place is another run


if __name__ == "__main__":
    command.main(prepare, ("", "translation"))
