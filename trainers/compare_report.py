"""The report of `trainers.compare`: one HTML file that stands alone, Markdown, and the pictures."""

from __future__ import annotations

import json
import pathlib
from typing import Any, NamedTuple

import ml_collections
import numpy as np
import tensorflow as tf

from tf_l2t import plotting
from tf_l2t.data import Splits
from tf_l2t.hypergradient import initial_state, rollout
from tf_l2t.objectives import accuracy
from tf_l2t.report import Section, write_html
from tf_l2t.students import FunctionalStudent
from tf_l2t.teachers import Teacher
from tf_l2t.training import classification_problem, inner_optimizer
from tf_l2t.training.comparison import REPORT_SEED
from tf_l2t.training.results import RowResult, markdown_table, mean_std, verdicts
from trainers import command


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
    """Writes report.html, table.md and figures/, and prints tables and verdicts; returns the path of the report."""
    sections, tables = [], []
    for part in parts:
        title = f"Dev set of {part.dev_size}"
        table, said = markdown_table(part.results), verdicts(part.results)
        tables.append(f"## {title}\n\n{table}\n\n" + "\n".join(f"- {sentence}" for sentence in said))
        print("", table, "", *said, sep="\n")
        sections.append(Section(title, table, said, draw(part, path / "figures" / f"dev{part.dev_size}")))
    (path / "table.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    print("", "pictures:", *(f"  {picture}" for section in sections for picture in section.pictures.values()), sep="\n")
    about = json.dumps({"command": command.command_line(), "config": command.plain(config)}, indent=2,
                       ensure_ascii=False)
    return write_html(path / "report.html", f"Comparison: {config.compare.setting or config.student.name}", sections,
                      about)


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
        steps, coefficients = followed(part)
        shown = {f"Φ at step {steps[i]}": coefficients[i] for i in (0, len(steps) // 2, -1)}
        pictures["Φ along a new student's run"] = plotting.plot_coefficients(shown, folder / "coefficients.png")
        pairs = [pair for pair in part.config.compare.pairs if max(pair) < part.splits.num_classes]
        if pairs and coefficients[0].ndim == 2:
            lines = {f"Φ({i}, {j})": [(int(t), float(phi[i, j])) for t, phi in zip(steps, coefficients, strict=True)]
                     for a, b in pairs for i, j in ((a, b), (b, a))}
            pictures["Coefficients of pairs of classes along a new student's run (as figure 4 of the paper)"] = \
                plotting.plot_curves(lines, folder / "pairs.png", "student step", "coefficient")
    return pictures


def followed(part: Part) -> tuple[list[int], list[np.ndarray]]:
    """Φ_t of the first teacher at eleven steps of a new student's run, at the taught row's rate."""
    config = part.config
    rates = [r.learning_rate for r in part.results if r.teachers] or [config.training.learning_rate]
    steps = config.training.num_steps
    teacher: Any = part.teacher
    problem = classification_problem(
        part.student, part.splits.train, part.splits.dev, loss=teacher.per_example,
        objective=accuracy, optimizer=inner_optimizer(command.student_optimizer(config, rates[0])), num_steps=steps,
        batch_size=config.training.batch_size, refresh_every=config.features.refresh_every,
        dev_sample_size=config.features.dev_sample_size)
    features = rollout(problem, teacher)(initial_state(problem, *part.student.init(REPORT_SEED)), REPORT_SEED).features
    at = sorted({round(i * (steps - 1) / 10) for i in range(11)})
    return at, [teacher(tf.cast(features[t], tf.float32)).numpy() for t in at]
