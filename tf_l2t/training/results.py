"""What a table says: results of its rows, sentences about them, and the table itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_l2t.training.rows import ORACLES, ROWS


class RowResult(NamedTuple):
    """What a row of the table says; accuracies in [0, 1], one per student.

    Attributes:
      row: its name.
      label: in the table.
      learning_rate: chosen on dev.
      variant: options of the way chosen on dev beside the rate.
      tune_rate: None for rows that are not tuned.
      test_accuracy: of the last weights; for taught rows the students of the first teacher, then of the second, ….
      best_test_accuracy: of the weights with the best dev accuracy along the run; None for rows whose training used the
        dev labels.
      teachers: how many teachers the students are of; 0 for rows without one.
      curve: (step, mean dev accuracy of the students at it); empty for rows whose training used the dev labels.
      at_edge: whether the rate is the smallest or largest of the grid, so that a better one may lie beyond.
      diverged: how many students have weights that are not finite; they count with what they then say.
    """

    row: str
    label: str
    learning_rate: float
    variant: dict[str, Any]
    tune_rate: float | None
    test_accuracy: list[float]
    best_test_accuracy: list[float] | None
    teachers: int
    curve: list[tuple[int, float]]
    at_edge: bool = False
    diverged: int = 0

    @property
    def errors(self) -> list[float]:
        """Test errors in %."""
        return [100 * (1 - accuracy) for accuracy in self.test_accuracy]

    @property
    def worst_teacher(self) -> tuple[int, float] | None:
        """The teacher whose students have the highest mean test error, and that error in %."""
        if not self.teachers:
            return None
        means = np.reshape(self.errors, [self.teachers, -1]).mean(axis=1)
        return int(np.argmax(means)), float(np.max(means))


def verdicts(results: Sequence[RowResult]) -> list[str]:
    """What the table says of the taught rows, computed: their errors against cross entropy, the best fixed loss, the
    best rival that sees dev, and the oracles."""
    errors = {r.row: mean_std(r.errors)[0] for r in results}
    groups = {
        "cross entropy": [row for row in errors if row == "cross_entropy"],
        "the best fixed loss on train": [row for row in errors if not ROWS[row].taught and not ROWS[row].sees_dev],
        "the best rival that sees dev": [row for row in errors if ROWS[row].sees_dev and not ROWS[row].taught
                                         and not ROWS[row].oracle],
        **{f"the oracle of the {known}": [row for row in errors if ROWS[row].oracle == known] for known in ORACLES}}
    sentences = []
    seeing = list(groups)[2:]  # tuned students have trained on dev, so what they are measured by has too
    for taught, against in (("taught", list(groups)), ("taught_tuned", seeing)):
        for name in against:
            if taught in errors and groups[name]:
                rival = min(groups[name], key=errors.__getitem__)
                sentences.append(f"{ROWS[taught].label}: {errors[taught]:.2f} % test error, "
                                 f"{errors[taught] / max(errors[rival], 1e-9):.2f} times that of {name} "
                                 f"({ROWS[rival].label}, {errors[rival]:.2f} %).")
    edge = [result.label for result in results if result.at_edge]
    if edge:
        sentences.append(f"At an end of the grid of rates: {', '.join(edge)}.")
    diverged = [f"{result.label}, {result.diverged} of {len(result.errors)}" for result in results if result.diverged]
    if diverged:
        sentences.append(f"Students that diverged: {'; '.join(diverged)}.")
    for result in results:
        if result.worst_teacher and result.teachers > 1:
            index, error = result.worst_teacher
            sentences.append(f"{result.label}: the worst of {result.teachers} teachers is number {index}, "
                             f"{error:.2f} %.")
    return sentences


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n − 1; 0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def plus_minus(mean: float, std: float, seeds: int) -> str:
    """As a table has it: of a single seed without a spread, which it does not have."""
    return f"{mean:.2f}" + (f" ± {std:.2f}" if seeds > 1 else "")


def markdown_table(results: Sequence[RowResult]) -> str:
    """The table as Markdown: test error in %, mean ± standard deviation over students, last and best-on-dev weights."""
    lines = ["| training | dev labels | rate | tuned at | test error, % | of the best-on-dev weights, % | "
             "worst teacher, % |", "|---|---|---|---|---|---|---|"]
    for r in results:
        last = "{:.2f} ± {:.2f}".format(*mean_std(r.errors))
        best = "–" if r.best_test_accuracy is None else "{:.2f} ± {:.2f}".format(
            *mean_std([100 * (1 - a) for a in r.best_test_accuracy]))
        tuned = "–" if r.tune_rate is None else f"{r.tune_rate:g}"
        worst = "–" if r.worst_teacher is None else f"{r.worst_teacher[1]:.2f}"
        variant = "".join(f", {key} {value}" for key, value in r.variant.items())
        row = ROWS[r.row]
        sees = " and ".join(["by its teacher"] * row.taught + ["trained on"] * row.sees_dev) or "choose the rate"
        lines.append(f"| {r.label}{variant} | {sees} | {r.learning_rate:g} | {tuned} | {last} | {best} | {worst} |")
    return "\n".join(lines)
