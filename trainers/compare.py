"""Trains new students by every way of a table, the teachers first if need be, and prints the table.

    python -m trainers.compare --config configs/compare_shifted.py --workdir runs/shifted
    python -m trainers.compare --config configs/demo.py --workdir runs/table \\
        --config.compare.teacher=runs/teacher/teacher

The same command goes on with a run that was stopped: teachers and rows that are there are not made again. Writes to the
work directory manifest.json, report.html, table.md, results.json, figures/ and tensorboard/ (the table as TensorBoard's
of hyperparameters), and for every dev size teachers/ and rows/.
"""

from __future__ import annotations

import functools
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
from absl import flags, logging

import tf_l2t
from tf_l2t.students import FunctionalStudent
from tf_l2t.teachers import Teacher
from tf_l2t.training import TeacherDivergedError, measured
from tf_l2t.training.comparison import Comparison
from tf_l2t.training.pace import every_few_seconds, tell
from tf_l2t.training.results import RowResult, mean_std
from tf_l2t.training.rows import ROWS
from tf_l2t.training.workdir import read_sealed, resume_workdir, write_json, write_sealed
from trainers import command, fields, image_teacher
from trainers.classes import class_pairs
from trainers.compare_report import Part, epoch_steps, write_reports
from trainers.digests import teacher_digest
from trainers.train_teacher import fitting

DISTILLATION = ("distillation", "text_distillation")
MEASURED = flags.DEFINE_string("measured", None, "Record the results in this file of docs/measured/ too.")


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Callable[[], None]:
    if command.DRY_RUN.value and config.get("task") not in DISTILLATION:
        raise ValueError("of tables, those of distillation have --dry_run.")
    if config.get("task") == "translation":
        from trainers.translation_compare import prepare_comparison  # its packages take a second to import
        from trainers.translation_table import KEY

        check_measured_file(KEY)
        return prepare_comparison(config, workdir, command.VERBOSE.value, functools.partial(record_rows, key=KEY))
    if config.get("task") in DISTILLATION:
        from trainers import distill_compare, distill_table

        if command.DRY_RUN.value:
            distill_compare.dry_run(config, command.TIMED_STEPS.value)
            return lambda: None
        check_measured_file(distill_table.KEY)
        return distill_compare.prepare_comparison(config, workdir, command.VERBOSE.value,
                                                  functools.partial(record_rows, key=distill_table.KEY))
    compare = config.compare
    check_measured(config)
    if compare.teacher and compare.num_teachers:
        raise ValueError("give config.compare.teacher or num_teachers, not both: "
                         f"{compare.teacher!r}, {compare.num_teachers!r}.")
    if compare.num_teachers < 0 or len(set(compare.dev_sizes)) < len(compare.dev_sizes):
        raise ValueError("config.compare.num_teachers must be at least 0, and dev_sizes must not repeat; received "
                         f"{compare.num_teachers!r}, {compare.dev_sizes!r}.")
    given = [tf_l2t.load_teacher(compare.teacher, command.load_splits(config).class_names)] if compare.teacher else []
    sizes = compare.dev_sizes or (config.data.dev_size,)
    tables = [Table(with_dev_size(config, size), given) for size in sizes]
    about: dict[str, Any] = {str(table.dev_size): command.describe(table.splits) for table in tables}
    if given:  # another teacher at the same place is another run
        about["teacher"] = teacher_digest(given[0])
    path = resume_workdir(workdir, command.command_line(), command.plain(config), about)

    def work() -> None:
        parts = []
        for table in tables:
            parts.append(table.run(path / f"dev{table.dev_size}", record))
        write_json(path / "results.json", {str(p.dev_size): [r._asdict() for r in p.results] for p in parts})
        report = write_reports(path, config, parts)
        command.result(f"report: {report}", report=report)

    return work


def check_measured(config: ml_collections.ConfigDict, key: Sequence[str] = measured.KEY) -> None:
    """Raises ValueError if --measured is given and its results could not be recorded."""
    if MEASURED.value and not config.compare.setting:
        raise ValueError("--measured needs a name for the results: set config.compare.setting.")
    check_measured_file(key)


def check_measured_file(key: Sequence[str]) -> None:
    if MEASURED.value:
        measured.check(MEASURED.value, key)


def record_rows(rows: list[dict[str, Any]], key: Sequence[str]) -> None:
    if MEASURED.value:
        measured.record(MEASURED.value, rows, key)


def record(config: ml_collections.ConfigDict, result: RowResult) -> None:
    """Records a row where --measured says, if it does."""
    if MEASURED.value:
        measured.record(MEASURED.value, [measured_row(config, result)])


def with_dev_size(config: ml_collections.ConfigDict, size: int) -> ml_collections.ConfigDict:
    """The config with dev sets of `size`.

    Raises:
      ValueError: if it is no integer.
    """
    return command.changed(config, [("data.dev_size", size)])


class Table:
    """The table of one dev size; everything is checked when it is made."""

    def __init__(self, config: ml_collections.ConfigDict, given: list[Teacher]):
        compare = config.compare
        self.config = config
        self.dev_size = config.data.dev_size
        self.splits = command.load_splits(config)
        self.student = FunctionalStudent(command.student_fn(config, self.splits))
        self._given = given
        self._to_train = 0 if given or not any(ROWS[row].needs_teacher for row in compare.rows if row in ROWS) \
            else compare.num_teachers
        comparison = self._comparison(given)
        comparison.check_rows(compare.rows, teachers=bool(given or self._to_train))
        class_pairs(config, self.splits)
        epoch_steps(config, self.splits)
        if self._to_train:
            self._training(self._to_train - 1)

    def _comparison(self, teachers: list[Teacher], states: pathlib.Path | None = None,
                    progress: Callable[[int, int], None] = lambda steps, kept: None) -> Comparison:
        training, compare = self.config.training, self.config.compare
        return Comparison(
            self.splits, self.student, teachers, num_steps=training.num_steps, batch_size=training.batch_size,
            momentum=training.momentum, decay=training.decay, learning_rates=compare.learning_rates,
            tune_rates=compare.tune_rates, tune_steps=compare.tune_steps, seeds=compare.seeds,
            selection_seeds=compare.selection_seeds, num_folds=compare.num_folds,
            refresh_every=self.config.features.refresh_every, dev_sample_size=self.config.features.dev_sample_size,
            evaluate_every=compare.evaluate_every, states_dir=states, log=self._log,
            progress=progress)

    @staticmethod
    def _log(line: str) -> None:
        tell({"note": line}, command.VERBOSE.value)

    def run(self, path: pathlib.Path, done: Callable[[ml_collections.ConfigDict, RowResult], None] | None = None
            ) -> Part:
        """Makes what is not in `path` yet; `done` hears of every row, in order."""
        teacher_dirs = [self._trained(path / "teachers" / str(number), number) for number in range(self._to_train)]
        with command.refusals():
            teachers = self._given or [tf_l2t.load_teacher(folder / "teacher") for folder in teacher_dirs]
        say = every_few_seconds(lambda done, total, left: tell({"row": row, "student steps": done, "total": total},
                                                               command.VERBOSE.value, left))
        comparison = self._comparison(teachers, path / "students", lambda steps, kept: say(steps, total, kept))
        (path / "rows").mkdir(parents=True, exist_ok=True)
        results, rows = [], {name: path / "rows" / f"{name}.json" for name in self.config.compare.rows}
        known = {name: read_sealed(file) for name, file in rows.items()}
        total = comparison.steps_of([name for name, values in known.items() if values is None])
        for number, (row, file) in enumerate(rows.items(), 1):
            values = known[row]
            if values is None:
                write_sealed(file, comparison.run_row(row)._asdict())
                values = read_sealed(file)
                tell({"row": row, "done": number, "total": len(rows)}, command.VERBOSE.value)
            results.append(RowResult(**(values or {})))
            if done:
                done(self.config, results[-1])
        shutil.rmtree(path / "students", ignore_errors=True)  # all that is asked of them stands in the rows
        histories = [command.read_json(folder / "history.json") for folder in teacher_dirs]
        return Part(self.dev_size, results, histories, self.config, self.splits, self.student,
                    teachers[0] if teachers else None)

    def _training(self, number: int) -> Callable[[pathlib.Path], Any]:
        return fitting(self.config, image_teacher.plan(self.config, self.splits, number))

    def _trained(self, path: pathlib.Path, number: int) -> pathlib.Path:
        """The directory of a teacher, trained, or trained on, if it is not there; it appears when it is whole."""
        if not path.is_dir():
            partial = path.with_name(f"{path.name}.partial")
            tell({"teacher": number, "dev size": self.dev_size}, command.VERBOSE.value)
            try:
                self._training(number)(partial)
            except TeacherDivergedError as error:  # it counts all the same, with its best weights
                logging.warning("%s", error)
            partial.rename(path)
        return path


def measured_row(config: ml_collections.ConfigDict, result: RowResult) -> dict[str, Any]:
    mean, std = mean_std(result.errors)
    best = [round(v, 4) for v in mean_std([100 * (1 - a) for a in result.best_test_accuracy])] \
        if result.best_test_accuracy else (None, None)
    worst = result.worst_teacher
    return {"setting": config.compare.setting, "dev_size": config.data.dev_size,
            "student": command.student_label(config), "loss": result.row, "variant": result.variant,
            "test_error_mean": round(mean, 4), "test_error_std": round(std, 4),
            "best_test_error_mean": best[0], "best_test_error_std": best[1], "learning_rate": result.learning_rate,
            "tune_rate": result.tune_rate, "teachers": result.teachers, "worst_teacher": worst and worst[0],
            "worst_teacher_error": worst and round(worst[1], 4), "diverged": result.diverged,
            "seeds": config.compare.seeds,
            "command": command.command_line()}


if __name__ == "__main__":
    command.main(prepare, tuple(fields.TASKS), dry_run=True)
