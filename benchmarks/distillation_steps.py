"""What a step of every method of a table of distillation costs, measured in turn in one process.

    python -m benchmarks.distillation_steps --config configs/compare_distill_mnist.py \\
        --config.data.path=data/mnist.npz
    python -m benchmarks.distillation_steps --config configs/compare_distill_text.py --config.data.path=REVIEWS \\
        --config.encoder=ENCODER

The step of a method's last phase, compiled, on one batch of the table's, with new networks in the place of trained
ones; the fastest of all. The figures are put into the table's rows in docs/measured/distillation.json, as
`ms_per_step`, in the place of those of their runs, which are of different days; `trainers.compare` has made the rows
before, and where it makes one again, the figure is its run's again.
"""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Callable
from typing import Any

import ml_collections
from absl import flags

from benchmarks.distillation import in_turn
from tf_l2t.distillation import method
from tf_l2t.garbage import graphs_gone_afterwards
from tf_l2t.training.measured import amend, read
from trainers import command, distill_compare
from trainers.distill_table import KEY, TEACHER
from trainers.distillation import new_teachers, planned

ROOT = pathlib.Path(__file__).parent.parent


def prepare(config: ml_collections.ConfigDict, output: str, repetitions: int) -> Callable[[], None]:
    """The work that times every cell of the table and puts the figures into the file's rows; everything checked.

    Raises:
      ValueError: as the table, or for a file that lacks one of its rows.
    """
    _, config, of_teacher, cells = distill_compare.planned(config)
    students: dict[str, dict[str, ml_collections.ConfigDict]] = {}
    for student, name, cell in cells:  # of several rates the last: they compute the same
        students.setdefault(student, {})[name] = cell
    about = {"task": config.compare.task, "teacher": config.compare.teacher}
    there = {tuple(row.get(name) for name in KEY) for row in read(output)}
    if (*about.values(), config.compare.teacher, TEACHER) in there:  # a table with a given teacher has none
        students[config.compare.teacher] = {TEACHER: of_teacher}
    missing = [f"{student} by {name}" for student, methods in students.items() for name in methods
               if (*about.values(), student, name) not in there]
    if missing:
        raise ValueError(f"{output!r} lacks rows of {config.compare.task!r}, {missing}: make them by trainers.compare "
                         "with --measured first.")
    tuned = dict(config.compare.tuned)

    def work() -> None:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        for student, methods in students.items():
            with graphs_gone_afterwards():
                times = in_turn({name: _step(cell) for name, cell in methods.items()}, repetitions)
            rows = [{**about, "student": student, "method": name, "ms_per_step": round(min(ms), 2), "ms_date": today,
                     "ms_command": command.command_line()} for name, ms in times.items()]
            command.result("\n".join(f"{student} by {row['method']}: {row['ms_per_step']} ms" for row in rows),
                           rows=rows)
            amend(output, rows, KEY)
            # Such a row is one of the others, under another name.
            amend(output, [row | {"method": name, "chosen": row["method"]} for name, of in tuned.items()
                           for row in rows if row["method"] in of], (*KEY, "chosen"))

    return work


def _step(config: ml_collections.ConfigDict) -> Callable[[], Any]:
    import tensorflow as tf

    found = method(config.method.name, **dict(config.method.options))
    trainer, phases, batches = planned(config, new_teachers(config, found))
    trainer.begin(phases[-1].name)
    phases[-1].compile()
    batch = batches(tf.constant(config.seed, tf.int64), tf.constant(0, tf.int64))
    compiled = tf.function(trainer.train_step, autograph=False)
    return lambda: compiled(batch)


def main() -> None:
    repetitions = flags.DEFINE_integer("repetitions", 30, "Steps of every method, of which the fastest counts.",
                                       lower_bound=1)
    output = flags.DEFINE_string("output", str(ROOT / "docs" / "measured" / "distillation.json"), "The rows' file.")

    def begin(config: ml_collections.ConfigDict, workdir: str) -> Callable[[], None]:
        if workdir:
            raise ValueError("distillation_steps takes --output in place of --workdir.")
        return prepare(config, output.value, repetitions.value)

    command.main(begin, ("distillation", "text_distillation"))


if __name__ == "__main__":
    main()
