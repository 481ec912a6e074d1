"""The report of `trainers.compare`: one HTML file that stands alone, Markdown, and the pictures."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
import tensorflow as tf

from tf_l2t import plotting
from tf_l2t.data import Splits
from tf_l2t.hypergradient import advance, initial_state
from tf_l2t.objectives import accuracy
from tf_l2t.report import Section, write_html
from tf_l2t.students import FunctionalStudent
from tf_l2t.teachers import Teacher
from tf_l2t.training import classification_problem, inner_optimizer
from tf_l2t.training.comparison import REPORT_SEED
from tf_l2t.training.pace import every_few_seconds, tell
from tf_l2t.training.results import RowResult, markdown_table, mean_std, verdicts
from trainers import command
from trainers.classes import class_pairs
from trainers.hyperparameters import write_row


class Part(NamedTuple):
    """What there is to say of one dev size: results, the teachers' histories, and what a taught student is made of."""

    dev_size: int
    results: list[RowResult]
    histories: list[dict[str, list[Any]]]
    config: ml_collections.ConfigDict
    splits: Splits
    student: FunctionalStudent
    teacher: Teacher | None


def write_reports(path: pathlib.Path, config: ml_collections.ConfigDict, parts: list[Part]) -> pathlib.Path:
    """Writes report.html, table.md, figures/, tensorboard/; prints tables and verdicts; returns the report's path."""
    sections, tables = [], []
    for part in parts:
        title = f"Dev set of {part.dev_size}"
        table, said = markdown_table(part.results), verdicts(part.results)
        if config.quoted:
            said.append(f"Quoted, not measured here: {config.quoted}.")
        tables.append(f"## {title}\n\n{table}\n\n" + "\n".join(f"- {sentence}" for sentence in said))
        command.result("\n".join(["", table, "", *said]), dev_size=part.dev_size, verdicts=said,
                       rows=[result._asdict() for result in part.results])
        write_hparams(path / "tensorboard", part)
        sections.append(Section(title, table, said, draw(part, path / "figures" / f"dev{part.dev_size}")))
    (path / "table.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    pictures = [str(picture) for section in sections for picture in section.pictures.values()]
    command.result("\n".join(["", "pictures:", *(f"  {picture}" for picture in pictures)]), pictures=pictures)
    about = json.dumps({"command": command.command_line(), "config": command.plain(config)}, indent=2,
                       ensure_ascii=False)
    return write_html(path / "report.html", f"Comparison: {config.compare.setting or config.student.name}", sections,
                      about)


def write_hparams(folder: pathlib.Path, part: Part) -> None:
    """TensorBoard's table of hyperparameters: a row of the part is a run, with what dev chose and its test error, %."""
    for result in part.results:
        tuned = {} if result.tune_rate is None else {"tune_rate": result.tune_rate}
        write_row(folder, f"dev{part.dev_size}/{result.row}", {
            "row": result.row, "dev_size": part.dev_size, "learning_rate": result.learning_rate, **tuned,
            **{name: str(value) for name, value in result.variant.items()}},
            {"test_error": mean_std(result.errors)[0]})


def draw(part: Part, folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The pictures of a part, by caption."""
    stats = {r.label: mean_std(r.errors) for r in part.results}
    pictures = {"Test errors: mean and standard deviation over students": plotting.plot_errors(
        stats, folder / "errors.png", "test error, % (mean and standard deviation)")}
    curves = {r.label: [(step, 100 * value) for step, value in r.curve] for r in part.results if r.curve}
    if any(len(curve) > 1 for curve in curves.values()):
        pictures["Dev accuracy along the students' runs, mean over students"] = plotting.plot_curves(
            curves, folder / "curves.png", "student step", "dev accuracy, %")
    if part.histories:
        validated = {f"teacher {i}": [(step, 100 * value) for step, value in
                                      zip(h.get("validated", []), h.get("val_accuracy", []), strict=True)
                                      if value is not None] for i, h in enumerate(part.histories)}
        pictures["Dev accuracy of students that no teacher was trained on, along the teachers' optimization (as figure "
                 "3 of the L2T-DLF paper)"] = plotting.plot_curves(
            validated, folder / "teachers.png", "teacher optimization step", "dev accuracy, %")
    if part.teacher is not None:
        rates = [r.learning_rate for r in part.results if r.teachers]
        pictures |= draw_coefficients(part.config, part.splits, part.student, part.teacher, rates, folder)
    return pictures


def draw_coefficients(config: ml_collections.ConfigDict, splits: Splits, student: FunctionalStudent, teacher: Teacher,
                      rates: Sequence[float], folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Φ_t of a teacher along a new student's run, by caption.

    Matrices at its start, middle and end; and for the pairs of config.compare.pairs, in both directions, curves along
    the run, or with config.compare.epochs a table of colours at those epochs' ends, as figure 4 of the L2T-DLF paper.

    Args:
      rates: the student's learning rate first; config.training.learning_rate if there is none.
    """
    count = config.training.num_steps
    even = sorted({round(i * (count - 1) / 10) for i in range(11)})
    at_epochs = epoch_steps(config, splits)
    wanted = sorted({*even, *at_epochs})
    found = dict(zip(wanted, followed(config, splits, student, teacher, rates, wanted), strict=True))
    shown = {f"Φ at step {t}": found[t] for t in (even[0], even[len(even) // 2], even[-1])}
    pictures = {"Φ along a new student's run": plotting.plot_coefficients(
        shown, folder / "coefficients.png", splits.class_names or None)}
    pairs = class_pairs(config, splits)
    if not pairs or found[0].ndim != 2:
        return pictures
    caption = "Coefficients of pairs of classes along a new student's run (as figure 4 of the paper)"
    if at_epochs:
        values = np.array([[found[t][pair] for pair in pairs.values()] for t in at_epochs])
        pictures[caption] = plotting.plot_pairs(values, list(map(str, config.compare.epochs)), list(pairs),
                                                folder / "pairs.png")
    else:
        lines = {label: [(t, float(found[t][pair])) for t in even] for label, pair in pairs.items()}
        pictures[caption] = plotting.plot_curves(lines, folder / "pairs.png", "student step", "coefficient")
    return pictures


def epoch_steps(config: ml_collections.ConfigDict, splits: Splits) -> list[int]:
    """The last steps of config.compare.epochs, epochs of the train examples counted from 1.

    Raises:
      ValueError: for epochs that do not rise, or beyond the run.
    """
    epochs, count = list(config.compare.epochs), config.training.num_steps
    steps = [math.ceil(epoch * splits.train.size / config.training.batch_size) - 1 for epoch in epochs]
    if epochs != sorted(set(epochs)) or (epochs and not (epochs[0] > 0 and steps[-1] < count)):
        raise ValueError(f"config.compare.epochs must rise and lie within the run, {count} steps or "
                         f"{count * config.training.batch_size / splits.train.size:.3g} epochs; received {epochs}.")
    return steps


def followed(config: ml_collections.ConfigDict, splits: Splits, student: FunctionalStudent, teacher: Teacher,
             rates: Sequence[float], at: Sequence[int]) -> list[np.ndarray]:
    """Φ_t at some steps of a new student's run, from the first to the last of them."""
    optimizer = inner_optimizer(command.student_optimizer(config, rates[0] if rates else None))
    problem = classification_problem(
        student, splits.train, splits.dev, loss=teacher.per_example, objective=accuracy, optimizer=optimizer,
        num_steps=config.training.num_steps, batch_size=config.training.batch_size,
        refresh_every=config.features.refresh_every, dev_sample_size=config.features.dev_sample_size,
        augment=splits.augment)
    say = every_few_seconds(lambda done, total, left: tell({
        "drawing": "Φ along a new student's run", "student steps": done, "total": total}, command.VERBOSE.value, left))
    run, state, found = advance(problem, teacher), initial_state(problem, *student.init(REPORT_SEED)), []
    for step in at:  # a run in stretches is the same run
        state = run(state, REPORT_SEED, step + 1)
        found.append(teacher(tf.cast(state.status.features, tf.float32)).numpy())
        say(step + 1, config.training.num_steps)
    return found
