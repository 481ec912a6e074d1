"""Trains new students by every way of a table, and prints the table.

    python -m trainers.compare --config configs/demo.py --workdir runs/table \\
        --config.compare.teacher=runs/teacher/teacher

Writes manifest.json, results.json, table.md and figures/ to the work directory.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_collections
import tensorflow as tf
from absl import flags

import tf_l2t
from tf_l2t import plotting
from tf_l2t.hypergradient import initial_state, rollout
from tf_l2t.losses import taught_form
from tf_l2t.objectives import accuracy
from tf_l2t.students import FunctionalStudent
from tf_l2t.training import classification_problem, inner_optimizer, measured
from tf_l2t.training.comparison import REPORT_SEED, ROWS, Comparison, RowResult, markdown_table, mean_std, verdicts
from tf_l2t.training.workdir import check_workdir, create_workdir, write_json
from trainers import command

MEASURED = flags.DEFINE_string("measured", None, "Record the results in this file of docs/measured/ too.")


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Callable[[], None]:
    check_workdir(workdir)
    compare = config.compare
    if MEASURED.value and not compare.setting:
        raise ValueError("--measured needs a name for the results: set config.compare.setting.")
    if MEASURED.value:
        measured.read(MEASURED.value)
    teacher = tf_l2t.load_teacher(compare.teacher) if compare.teacher else None
    splits = command.load_splits(config)
    student = FunctionalStudent(command.student_fn(config, splits))
    comparison = Comparison(
        splits, student, teacher, num_steps=config.training.num_steps, batch_size=config.training.batch_size,
        momentum=config.training.momentum, decay=config.training.decay, learning_rates=compare.learning_rates,
        tune_rates=compare.tune_rates, tune_steps=compare.tune_steps, seeds=compare.seeds,
        selection_seeds=compare.selection_seeds, num_folds=compare.num_folds,
        refresh_every=config.features.refresh_every, dev_sample_size=config.features.dev_sample_size,
        evaluate_every=compare.evaluate_every, log=lambda line: print(line, flush=True))
    comparison.check_rows(compare.rows)
    path = create_workdir(workdir, command.command_line(), command.plain(config), command.describe(splits))

    def work() -> None:
        results = comparison.run(compare.rows)
        write_json(path / "results.json", [result._asdict() for result in results])
        table = markdown_table(results)
        (path / "table.md").write_text(table + "\n")
        print("", table, "", *verdicts(results), "", sep="\n")
        pictures = [draw_bars(results, path)]
        if teacher is not None:
            pictures.append(draw_coefficients(config, splits, student, teacher, results, path))
        print("pictures:", *pictures, sep="\n  ")
        if MEASURED.value:
            measured.record(MEASURED.value, [measured_row(config, result) for result in results])

    return work


def measured_row(config: ml_collections.ConfigDict, result: RowResult) -> dict:
    mean, std = mean_std([100 * (1 - a) for a in result.test_accuracy])
    best = mean_std([100 * (1 - a) for a in result.best_test_accuracy]) if result.best_test_accuracy else (None, None)
    return {"setting": config.compare.setting, "student": config.student.name, "loss": result.row,
            "test_error_mean": round(mean, 4), "test_error_std": round(std, 4),
            "best_test_error_mean": best[0] and round(best[0], 4), "best_test_error_std": best[1] and round(best[1], 4),
            "learning_rate": result.learning_rate, "tune_rate": result.tune_rate, "seeds": len(result.test_accuracy),
            "command": command.command_line()}


def draw_bars(results: list[RowResult], workdir):
    stats = {ROWS[r.row].label: mean_std([100 * a for a in r.test_accuracy]) for r in results}
    return plotting.plot_bars({k: m for k, (m, _) in stats.items()}, {k: s for k, (_, s) in stats.items()},
                              workdir / "figures" / "accuracy.png", "test accuracy, % (mean and standard deviation)")


def draw_coefficients(config, splits, student, teacher, results, workdir):
    """Φ_t at the start, middle and end of a new student's run at the taught row's rate."""
    rates = [r.learning_rate for r in results if ROWS[r.row].loss == "taught"] or [config.training.learning_rate]
    steps = config.training.num_steps
    problem = classification_problem(
        student, splits.train, splits.dev, loss=taught_form(teacher.loss).per_example, objective=accuracy,
        optimizer=inner_optimizer(command.student_optimizer(config, rates[0])), num_steps=steps,
        batch_size=config.training.batch_size, refresh_every=config.features.refresh_every,
        dev_sample_size=config.features.dev_sample_size)
    features = rollout(problem, teacher)(initial_state(problem, *student.init(REPORT_SEED)), REPORT_SEED).features
    matrices = {f"Φ at step {t}": teacher(tf.cast(features[t], tf.float32)).numpy() for t in (0, steps // 2, steps - 1)}
    return plotting.plot_coefficients(matrices, workdir / "figures" / "coefficients.png")


if __name__ == "__main__":
    command.main(prepare)
