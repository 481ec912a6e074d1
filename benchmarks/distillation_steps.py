"""What a step of every method of a table of distillation costs, measured in turn in one process.

    python -m benchmarks.distillation_steps --config configs/compare_distill_mnist.py --config.data.path=data/mnist.npz
    python -m benchmarks.distillation_steps --config configs/compare_distill_text.py --config.data.path=REVIEWS \\
        --config.encoder=ENCODER

The step of a method's last phase, compiled, on a batch of the table's, with new networks in the place of trained ones;
the fastest of all. The figures are put into the table's rows in docs/measured/distillation.json, as `ms_per_step`, in the place
of those of their runs, which are of different days.
"""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

import ml_collections
from absl import flags

from tf_l2t.distillation import method
from tf_l2t.garbage import graphs_gone_afterwards
from tf_l2t.training.measured import amend, check
from trainers import command, distill_compare
from trainers.distill_table import KEY
from trainers.distillation import new_teachers, planned

ROOT = pathlib.Path(__file__).parent.parent
REPETITIONS = flags.DEFINE_integer("repetitions", 30, "Steps of every method, of which the fastest counts.",
                                   lower_bound=1)
OUTPUT = flags.DEFINE_string("output", str(ROOT / "docs" / "measured" / "distillation.json"), "The rows' file.")


def prepare(config: ml_collections.ConfigDict, output: str, repetitions: int) -> Callable[[], None]:
    """The work that times every cell of the table and puts the figures into the file's rows; everything checked."""
    _, config, _, cells = distill_compare.planned(config)
    check(output, KEY)
    students: dict[str, dict[str, ml_collections.ConfigDict]] = {}
    for student, name, cell in cells:  # of several rates the last: they compute the same
        students.setdefault(student, {})[name] = cell
    about = {"task": config.compare.task, "teacher": config.compare.teacher}
    tuned = dict(config.compare.tuned)

    def work() -> None:
        for student, methods in students.items():
            with graphs_gone_afterwards():
                times = measure(methods, repetitions)
            rows = [{**about, "student": student, "method": name, "ms_per_step": ms, "ms_command":
                     command.command_line()} for name, ms in times.items()]
            command.result("\n".join(f"{student} by {row['method']}: {row['ms_per_step']} ms" for row in rows),
                           rows=rows)
            amend(output, rows, KEY)
            # Such a row is one of the others, under another name.
            amend(output, [row | {"method": name, "chosen": row["method"]} for name, of in tuned.items()
                                 for row in rows if row["method"] in of], (*KEY, "chosen"))

    return work


def measure(methods: dict[str, ml_collections.ConfigDict], repetitions: int) -> dict[str, float]:
    """Milliseconds of a step by every method, whose config is its value, of one student."""
    steps = {name: _step(config) for name, config in methods.items()}
    fastest = dict.fromkeys(methods, math.inf)
    for repetition in range(repetitions + 2):  # the first compile
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repetition > 1:
                fastest[name] = min(fastest[name], 1000 * (time.perf_counter() - start))
    return {name: round(ms, 2) for name, ms in fastest.items()}


def _step(config: ml_collections.ConfigDict) -> Callable[[], Any]:
    import tensorflow as tf

    found = method(config.method.name, **dict(config.method.options))
    trainer, phases, batches = planned(config, new_teachers(config, found))
    trainer.begin(phases[-1].name)
    phases[-1].compile()
    seed, number = tf.constant(config.seed, tf.int64), tf.constant(0, tf.int64)
    batch = tf.nest.map_structure(tf.constant, tf.nest.map_structure(lambda t: t.numpy(), batches(seed, number)))
    compiled = tf.function(trainer.train_step, autograph=False)
    return lambda: tf.nest.map_structure(lambda t: t.numpy(), compiled(batch))


def main() -> None:
    command.main(lambda config, workdir: prepare(config, OUTPUT.value, REPETITIONS.value),
                 ("distillation", "text_distillation"))


if __name__ == "__main__":
    main()
