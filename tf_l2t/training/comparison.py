"""One honest table: the same data, steps, grid of rates and seeds for every way of training.

Dev chooses, test reports.

A row that is trained on train data has its learning rate chosen by the dev accuracy of students of separate selection
seeds. A row that is trained on dev data cannot be judged by the same examples: its rate is chosen by cross-validation
within dev. The teacher has seen all of dev, so for the taught rows dev is a little too kind at every rate; what it
chooses is reported on test all the same. Test data is read once, for the reported seeds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_l2t.data import ArrayPair, Splits
from tf_l2t.losses import FIXED_LOSSES, taught_form
from tf_l2t.students import FunctionalStudent
from tf_l2t.teachers import Teacher
from tf_l2t.training.rates import check_decay
from tf_l2t.training.student_runs import StudentRuns, Weights, folds
from tf_l2t.training.taught_student import check_fits

# Seeds that train no teacher and validate none (see `teacher_trainer`).
REPORT_SEED = 2_000_000
SELECTION_SEED = 3_000_000


class Row(NamedTuple):
    """One way of training.

    Attributes:
      label: in the table.
      loss: a fixed loss's name, or "taught".
      data: "train" or "dev": what the student is trained on.
      tuned: whether it is then trained on dev by cross entropy.
    """

    label: str
    loss: str
    data: str = "train"
    tuned: bool = False


ROWS = {
    "cross_entropy": Row("cross entropy on train", "cross_entropy"),
    "dev_only": Row("cross entropy on dev alone", "cross_entropy", data="dev"),
    "train_tuned": Row("cross entropy on train, then tuned on dev", "cross_entropy", tuned=True),
    "taught": Row("taught on train", "taught"),
    "taught_tuned": Row("taught on train, then tuned on dev", "taught", tuned=True),
}


class RowResult(NamedTuple):
    """What a row of the table says; accuracies in [0, 1], one per seed.

    `best_test_accuracy` is that of the weights with the best dev accuracy along the run; None for rows whose last
    training used the dev labels.
    """

    row: str
    label: str
    learning_rate: float
    tune_rate: float | None
    test_accuracy: list[float]
    best_test_accuracy: list[float] | None


class Comparison:
    """Trains the students of a table.

    Args:
      splits: the data.
      student: the architecture.
      teacher: for the taught rows; None if there are none.
      num_steps, batch_size, momentum, decay, refresh_every, dev_sample_size: of every student run.
      learning_rates: the grid for every row.
      tune_rates, tune_steps: the grid and the length of tuning on dev.
      seeds: how many students are reported.
      selection_seeds: how many students choose a rate.
      num_folds: of cross-validation on dev.
      evaluate_every: steps between two dev evaluations of a reported student.
      log: receives a line per decision.

    Raises:
      ValueError: if a grid is empty, a number is out of range, or the teacher was trained on another split of the
        same data, so that its dev examples may be among these test examples.
    """

    def __init__(self, splits: Splits, student: FunctionalStudent, teacher: Teacher | None, *, num_steps: int,
                 batch_size: int, momentum: float, decay: str, learning_rates: Sequence[float],
                 tune_rates: Sequence[float], tune_steps: int, seeds: int, selection_seeds: int = 2,
                 num_folds: int = 5, refresh_every: int = 20, dev_sample_size: int | None = 500,
                 evaluate_every: int = 50, log: Callable[[str], None] = print):
        if not learning_rates or not tune_rates or seeds < 1 or selection_seeds < 1:
            raise ValueError("learning_rates and tune_rates need a value each, seeds and selection_seeds at least 1; "
                             f"received {list(learning_rates)}, {list(tune_rates)}, {seeds!r}, {selection_seeds!r}.")
        if num_steps < 1 or tune_steps < 1 or batch_size < 1 or evaluate_every < 0:
            raise ValueError("num_steps, tune_steps and batch_size must be at least 1, evaluate_every at least 0; "
                             f"received {num_steps!r}, {tune_steps!r}, {batch_size!r}, {evaluate_every!r}.")
        if refresh_every < 1 or (dev_sample_size is not None and dev_sample_size < 1):
            raise ValueError("refresh_every and dev_sample_size must be at least 1; "
                             f"received {refresh_every!r}, {dev_sample_size!r}.")
        if batch_size > splits.train.size:
            raise ValueError(f"batch_size must be at most the {splits.train.size} train examples; received "
                             f"{batch_size!r}.")
        check_decay(decay)
        self._folds = folds(splits.dev, num_folds)
        if teacher is not None:
            check_fits(teacher, student.num_classes)
            check_same_split(teacher, splits)
        self._splits, self._student = splits, student
        self._teacher: Any = teacher
        self._options: dict[str, Any] = {
            "num_steps": num_steps, "batch_size": batch_size, "momentum": momentum, "decay": decay,
            "refresh_every": refresh_every, "dev_sample_size": dev_sample_size, "evaluate_every": evaluate_every}
        self._rates, self._tune_rates, self._tune_steps = tuple(learning_rates), tuple(tune_rates), tune_steps
        self._report = range(REPORT_SEED, REPORT_SEED + seeds)
        self._selection = range(SELECTION_SEED, SELECTION_SEED + selection_seeds)
        self._log = log

    def check_rows(self, rows: Sequence[str]) -> None:
        """Raises ValueError for an unknown row, or a taught row without a teacher."""
        unknown = [name for name in rows if name not in ROWS]
        if unknown:
            raise ValueError(f"no row is called {unknown}; there are {sorted(ROWS)}.")
        taught = [name for name in rows if ROWS[name].loss == "taught"]
        if self._teacher is None and taught:
            raise ValueError(f"the rows {taught} need an exported teacher; set config.compare.teacher.")

    def run(self, rows: Sequence[str]) -> list[RowResult]:
        """The results of the named rows, in that order; raises as `check_rows`."""
        self.check_rows(rows)
        return [self._run_row(name) for name in rows]

    def _run_row(self, name: str) -> RowResult:
        row = ROWS[name]
        rate, runs = self._trained(row.loss, row.data)
        tune_rate = best = None
        final = [run.last for run in runs]
        if row.tuned:
            tune_rate = self._chosen_tune_rate(row.loss, rate)
            tuner = self._tuner(self._splits.dev, self._splits.dev)
            final = [tuner(seed, tune_rate, weights).last
                     for seed, weights in zip(self._report, final, strict=True)]
        elif row.data == "train":
            best = [self._test_accuracy(run.best) for run in runs]
        result = RowResult(name, row.label, rate, tune_rate, [self._test_accuracy(w) for w in final], best)
        self._log(f"{row.label}: test accuracy {100 * np.mean(result.test_accuracy):.2f} % at rate {rate:g}"
                  + (f", tuned at {tune_rate:g}" if row.tuned else ""))
        return result

    def _test_accuracy(self, weights: Weights) -> float:
        return self._student.accuracy(*weights, *self._splits.test)

    def _runs(self, loss: str, train: ArrayPair, dev: ArrayPair, **changes: Any) -> StudentRuns:
        if loss == "taught":
            return StudentRuns(self._student, train, dev, loss=taught_form(self._teacher.loss).per_example,
                               coefficients_fn=self._teacher, **(self._options | changes))
        fixed = FIXED_LOSSES[loss]
        return StudentRuns(self._student, train, dev, loss=lambda labels, logits, _: fixed(labels, logits),
                           coefficients_fn=None, **(self._options | changes))

    @functools.cache  # noqa: B019  (a comparison lives as long as its process)
    def _trained(self, loss: str, data: str) -> tuple[float, list[Any]]:
        """The chosen rate and the reported students; tuned rows start from the students of the row they tune."""
        if data == "train":
            runs = self._on_train(loss)
            scores = {rate: [runs(seed, rate).dev_accuracy for seed in self._selection] for rate in self._rates}
        else:
            runs = self._runs(loss, self._splits.dev, self._splits.dev)
            scores = {rate: [] for rate in self._rates}
            for kept, held_out in self._folds:
                on_fold = self._runs(loss, kept, held_out)
                for rate in self._rates:
                    scores[rate] += [on_fold(seed, rate).dev_accuracy for seed in self._selection]
        rate = self._best(scores, f"{loss} on {data}")
        return rate, [runs(seed, rate) for seed in self._report]

    def _chosen_tune_rate(self, loss: str, rate: float) -> float:
        base = self._on_train(loss)
        starts = {seed: base(seed, rate).last for seed in self._selection}
        scores: dict[float, list[float]] = {tune_rate: [] for tune_rate in self._tune_rates}
        for kept, held_out in self._folds:
            tuner = self._tuner(kept, held_out)
            for tune_rate in self._tune_rates:
                scores[tune_rate] += [tuner(seed, tune_rate, start).dev_accuracy for seed, start in starts.items()]
        return self._best(scores, f"tuning after {loss}")

    @functools.cache  # noqa: B019
    def _on_train(self, loss: str) -> StudentRuns:
        return self._runs(loss, self._splits.train, self._splits.dev)

    def _tuner(self, train: ArrayPair, dev: ArrayPair) -> StudentRuns:
        return self._runs("cross_entropy", train, dev, num_steps=self._tune_steps, evaluate_every=0)

    def _best(self, scores: dict[float, list[float]], what: str) -> float:
        """The rate of the highest mean score; of equals the smallest."""
        means = {rate: float(np.mean(values)) for rate, values in sorted(scores.items())}
        best = max(means, key=means.__getitem__)
        self._log(f"  {what}: " + ", ".join(f"{rate:g} → {100 * mean:.2f}" for rate, mean in means.items())
                  + f" % on dev; chosen {best:g}")
        return best


def check_same_split(teacher: Teacher, splits: Splits) -> None:
    """Raises ValueError if the teacher's notes tell that it was trained on another split of these data."""
    theirs = teacher.training.get("data", {})
    there, here = ({key: about.get(key) for key in ("split_seed", "train", "dev", "test")}
                   for about in (theirs, splits.about))
    if theirs.get("source") == splits.about.get("source") and there != here:
        raise ValueError(f"the teacher was trained on another split of {splits.name}: {there}, here {here}. Its dev "
                         "examples may be among these test examples; use the same split.")


def verdicts(results: Sequence[RowResult]) -> list[str]:
    """What the table says of the taught rows, computed: their errors against cross entropy's and the best rival's."""
    errors = {r.row: 100 * (1 - mean_std(r.test_accuracy)[0]) for r in results}
    rivals = {row: error for row, error in errors.items() if ROWS[row].loss != "taught"}
    sentences = []
    if "taught" in errors and "cross_entropy" in errors:
        factor = errors["cross_entropy"] / max(errors["taught"], 1e-9)
        sentences.append(f"taught on train: {errors['taught']:.2f} % test error, {errors['cross_entropy']:.2f} % by "
                         f"cross entropy on train: a factor of {factor:.2f}.")
    if "taught_tuned" in errors and rivals:
        best = min(rivals, key=rivals.__getitem__)
        verb = "beats" if errors["taught_tuned"] < rivals[best] else "does not beat"
        sentences.append(f"taught, then tuned {verb} the best row without a teacher ({ROWS[best].label}): "
                         f"{errors['taught_tuned']:.2f} against {rivals[best]:.2f} % test error.")
    return sentences


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n − 1; 0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def markdown_table(results: Sequence[RowResult]) -> str:
    """The table as Markdown: test accuracy in %, mean ± standard deviation over seeds, last and best-on-dev weights."""
    lines = ["| training | rate | tuned at | test accuracy, % | of the best-on-dev weights, % |",
             "|---|---|---|---|---|"]
    for r in results:
        last = "{:.2f} ± {:.2f}".format(*(100 * v for v in mean_std(r.test_accuracy)))
        best = "–" if r.best_test_accuracy is None else "{:.2f} ± {:.2f}".format(
            *(100 * v for v in mean_std(r.best_test_accuracy)))
        tuned = "–" if r.tune_rate is None else f"{r.tune_rate:g}"
        lines.append(f"| {r.label} | {r.learning_rate:g} | {tuned} | {last} | {best} |")
    return "\n".join(lines)
