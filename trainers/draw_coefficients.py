"""Draws the coefficients that an exported teacher gives a new student, as figure 4 of the L2T-DLF paper does.

    python -m trainers.draw_coefficients --config configs/table2.py:resnet8-cifar100 --workdir runs/figure4 \\
        --config.compare.teacher=runs/resnet8-cifar100/dev5000/teachers/0/teacher

The pairs of classes, by name or number, are those of config.compare.pairs, the epochs those of config.compare.epochs;
without epochs they are drawn as curves along the run. Writes manifest.json and figures/ to the work directory.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_collections

import tf_l2t
from tf_l2t.students import FunctionalStudent
from tf_l2t.training.comparison import check_same_split
from tf_l2t.training.taught_student import check_fits
from tf_l2t.training.workdir import check_workdir, create_workdir
from trainers import command
from trainers.classes import class_pairs
from trainers.compare_report import draw_coefficients, epoch_steps


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Callable[[], None]:
    check_workdir(workdir)
    if not config.compare.teacher:
        raise ValueError("set config.compare.teacher to the directory of an exported teacher.")
    splits = command.load_splits(config)
    teacher = tf_l2t.load_teacher(config.compare.teacher, splits.class_names)
    student = FunctionalStudent(command.student_fn(config, splits))
    check_fits(teacher, student.num_classes)
    check_same_split(teacher, splits)
    class_pairs(config, splits)
    epoch_steps(config, splits)
    path = create_workdir(workdir, command.command_line(), command.plain(config), command.describe(splits))

    def work() -> None:
        for caption, picture in draw_coefficients(config, splits, student, teacher, (), path / "figures").items():
            command.result(f"{caption}: {picture}", caption=caption, picture=picture)

    return work


if __name__ == "__main__":
    command.main(prepare)
