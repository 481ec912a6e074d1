"""One honest table: the same data, steps, grid of rates and seeds for every way of training.

Dev chooses, test reports.

A row that is trained on train data has its learning rate chosen by the dev accuracy of students of separate selection
seeds. A row that is trained on dev data cannot be judged by the same examples: its rate is chosen by cross-validation
within dev. The teachers have seen all of dev, so for the taught rows dev is a little too kind at every rate; what it
chooses is reported on test all the same. Test data is read once, for the reported seeds.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_l2t.data import ArrayPair, Splits, arrays_digest, fingerprint
from tf_l2t.losses import cross_entropy
from tf_l2t.students import FunctionalStudent
from tf_l2t.teachers import Teacher
from tf_l2t.training.kept_students import KeptStudents
from tf_l2t.training.rates import check_decay
from tf_l2t.training.results import RowResult, mean_std
from tf_l2t.training.rows import ROWS, WAYS, Kitchen
from tf_l2t.training.student_runs import StudentRun, StudentRuns, Weights, folds
from tf_l2t.training.taught_student import check_fits
from tf_l2t.training.under_way import UnderWay

# Seeds that train no teacher and validate none (see `teacher_trainer`).
REPORT_SEED = 2_000_000
SELECTION_SEED = 3_000_000

Make = Callable[[UnderWay | None], Any]  # what trains a student, or goes on with one


class Choice(NamedTuple):
    """What dev chose for a way of training.

    Attributes:
      variant: index into the way's variants.
      learning_rate: of the grid.
    """

    variant: int
    learning_rate: float


class Comparison:
    """Trains the students of a table.

    Args:
      splits: the data.
      student: the architecture.
      teachers: for the taught rows, trained independently of each other and equal in class and options, and for
        "untaught", which takes their start; none if there are no such rows.
      num_steps, batch_size, momentum, decay, refresh_every, dev_sample_size: of every student run.
      learning_rates: the grid for every row.
      tune_rates, tune_steps: the grid and the length of tuning on dev.
      seeds: how many students are reported, of every teacher in taught rows.
      selection_seeds: how many students choose a rate; of taught rows one of each teacher in turn.
      num_folds: of cross-validation on dev.
      evaluate_every: steps between two dev evaluations of a reported student.
      states_dir: where every student is kept as soon as it is trained, so that a comparison that was stopped at any
        moment goes on with the next one: the same `run` gives the same results. None keeps nothing.
      log: receives a line per decision.
      progress: hears, after every student, of how many student steps students are there by now (see `steps_of`), and of
        how many of these students were kept from before.

    Raises:
      ValueError: if a grid is empty, a number is out of range, teachers differ, or a teacher was trained on another
        split of the same data, so that its dev examples may be among these test examples. `run` raises it for a
        `states_dir` of another comparison, as far as data, layers, first weights, teachers and numbers tell.
      TerminatedError, UnwritableError: from `run`, with a `states_dir`: after SIGTERM, or where nothing can be written.
    """

    def __init__(self, splits: Splits, student: FunctionalStudent, teachers: Sequence[Teacher] = (), *, num_steps: int,
                 batch_size: int, momentum: float, decay: str, learning_rates: Sequence[float],
                 tune_rates: Sequence[float], tune_steps: int, seeds: int, selection_seeds: int = 2,
                 num_folds: int = 5, refresh_every: int = 20, dev_sample_size: int | None = 500,
                 evaluate_every: int = 50, states_dir: str | os.PathLike[str] | None = None,
                 log: Callable[[str], None] = print, progress: Callable[[int, int], None] = lambda steps, kept: None):
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
        for teacher in teachers:
            check_fits(teacher, student.num_classes)
            check_same_split(teacher, splits)
        specs = [(type(t).__name__, {**t.get_config(), "seed": None}) for t in teachers]
        if any(spec != specs[0] for spec in specs):
            raise ValueError("the teachers of a table must be of one class, with the same options but for the seed; "
                             f"received {[t.spec() for t in teachers]}.")
        self._splits, self._student = splits, student
        self._thetas = [[v.numpy() for v in teacher.theta] for teacher in teachers]
        # One teacher that takes the weights of each in turn, so that students are compiled once.
        self._teacher = Teacher.from_spec(teachers[0].spec()) if teachers else None
        self._kitchen = Kitchen(splits.train, splits.true_y, splits.num_classes, splits.about, student, num_steps,
                                self._teacher, self._noisy_probabilities)
        self._options: dict[str, Any] = {
            "num_steps": num_steps, "batch_size": batch_size, "momentum": momentum, "decay": decay,
            "refresh_every": refresh_every, "dev_sample_size": dev_sample_size, "evaluate_every": evaluate_every,
            "augment": splits.augment}
        self._rates, self._tune_rates, self._tune_steps = tuple(learning_rates), tuple(tune_rates), tune_steps
        self._report = range(REPORT_SEED, REPORT_SEED + seeds)
        self._selection = range(SELECTION_SEED, SELECTION_SEED + selection_seeds)
        self._log, self._progress = log, progress
        self._steps = self._kept_steps = 0
        self._states_dir = states_dir
        # What several rows share is made once, and goes with this comparison.
        self._whole: Callable[[str, int], StudentRuns] = functools.cache(self._make_whole)
        self._choice: Callable[[str], Choice] = functools.cache(self._choose)
        self._reported: Callable[[str], list[StudentRun]] = functools.cache(self._report_students)
        self._noisy_student: Callable[[], Weights] = functools.cache(self._train_noisy_student)
        self._kept: Callable[[str], KeptStudents] = functools.cache(self._keep)
        self._held: Callable[[], list[tf.Variable]] = functools.cache(self._make_held)
        self._identity: Callable[[], dict[str, Any]] = functools.cache(self._identify)

    def check_rows(self, rows: Sequence[str], teachers: bool | None = None) -> None:
        """Raises ValueError for no row, an unknown or repeated one, one that does not go with data or student, or one
        that needs a teacher where there is, or (`teachers`) will be, none."""
        if not rows or len(set(rows)) < len(rows):
            raise ValueError(f"rows must name at least one row, and none twice; received {list(rows)}.")
        unknown = [name for name in rows if name not in ROWS]
        if unknown:
            raise ValueError(f"no row is called {unknown}; there are {sorted(ROWS)}.")
        by_teacher = [name for name in rows if ROWS[name].needs_teacher]
        if by_teacher and not (bool(self._thetas) if teachers is None else teachers):
            raise ValueError(f"the rows {by_teacher} need an exported teacher; set config.compare.teacher or "
                             "config.compare.num_teachers.")
        classes = self._splits.num_classes
        blank = self._kitchen._replace(noisy_probabilities=lambda x: np.full((len(x), classes), 1 / classes))
        for way in dict.fromkeys(ROWS[name].way for name in rows if not ROWS[name].needs_teacher):
            for variant in WAYS[way].variants:
                try:
                    WAYS[way].build(blank, self._splits.dev, **variant)
                except ValueError as error:
                    raise ValueError(f"the row {way!r} does not go with these data or this student: {error}") from error

    def steps_of(self, rows: Sequence[str]) -> int:
        """The student steps of all that rows choose by, report and tune; students that rows share count once."""
        steps, chosen_by = self._options["num_steps"], {way: len(self._folds) if WAYS[way].sees_dev else
                                                        len(self._selection) for way in WAYS}
        total = 0
        for way in {ROWS[name].way for name in rows}:
            students = len(WAYS[way].variants) * len(self._rates) * chosen_by[way]
            total += steps * (students + self._count(way) * len(self._report))
        for way in (ROWS[name].way for name in rows if ROWS[name].tuned):
            starts = len(self._folds) if WAYS[way].sees_dev else len(self._selection)
            tried = len(self._tune_rates) * (starts if WAYS[way].sees_dev else len(self._folds) * starts)
            total += steps * starts + self._tune_steps * (tried + self._count(way) * len(self._report))
        return total

    def run(self, rows: Sequence[str]) -> list[RowResult]:
        """The results of the named rows, in that order; raises as `check_rows`."""
        self.check_rows(rows)
        return [self.run_row(name) for name in rows]

    def run_row(self, name: str) -> RowResult:
        """The result of one row. Reported students that several rows share are trained once."""
        row = ROWS[name]
        choice = self._choice(row.way)
        runs = self._reported(row.way)
        tune_rate, best, curve = None, None, []
        if row.tuned:
            tune_rate = self._chosen_tune_rate(row.way, choice)
            final = self._tuned(row.way, tune_rate, runs)
        else:
            final = [(self._test_accuracy(run.last), _finite(run.last)) for run in runs]
        if not row.sees_dev:
            best = [self._test_accuracy(run.best) for run in runs]
            curve = [(points[0][0], float(np.mean([value for _, value in points])))
                     for points in zip(*(run.curve for run in runs), strict=True)]
        result = RowResult(name, row.label, choice.learning_rate, dict(WAYS[row.way].variants[choice.variant]),
                           tune_rate, [accuracy for accuracy, _ in final], best,
                           len(self._thetas) if row.taught else 0, curve,
                           choice.learning_rate in (min(self._rates), max(self._rates)),
                           sum(not finite for _, finite in final))
        mean, std = mean_std(result.errors)
        self._log(f"{row.label}: test error {mean:.2f} ± {std:.2f} % at rate {choice.learning_rate:g}"
                  + (f", tuned at {tune_rate:g}" if row.tuned else "")
                  + "".join(f", {key} {value}" for key, value in result.variant.items()))
        return result

    def _test_accuracy(self, weights: Weights) -> float:
        return self._student.accuracy(*weights, *self._splits.test)

    def _count(self, way: str) -> int:
        """How many sets of students a way has: one of each teacher."""
        return len(self._thetas) if way == "taught" else 1

    def _teach_by(self, index: int) -> None:
        if self._teacher is not None:
            for variable, value in zip(self._teacher.theta, self._thetas[index], strict=True):
                variable.assign(value)

    def _runs(self, way: str, variant: int, clean: ArrayPair, held_out: ArrayPair) -> StudentRuns:
        recipe = WAYS[way].build(self._kitchen, clean, **WAYS[way].variants[variant])
        return StudentRuns(self._student, recipe.train, held_out, loss=recipe.loss,
                           coefficients_fn=recipe.coefficients_fn, **self._options)

    def _make_whole(self, way: str, variant: int) -> StudentRuns:
        """Of all data, for reported students, and for selection where dev is not trained on."""
        return self._runs(way, variant, self._splits.dev, self._splits.dev)

    def _keep(self, way: str) -> KeptStudents:
        if self._states_dir is None:
            return KeptStudents(None, (), 0, {}, 0)
        return KeptStudents(pathlib.Path(self._states_dir) / way, self._held(),
                            len(self._student.model.trainable_variables), self._identity() | {"way": way},
                            self._count(way) * len(self._report))

    def _make_held(self) -> list[tf.Variable]:
        model = self._student.model
        return [tf.Variable(tf.zeros(weight.shape, weight.dtype), trainable=False)
                for weight in 2 * [*model.trainable_variables, *model.non_trainable_variables]]

    def _identify(self) -> dict[str, Any]:
        """What makes this comparison this one, as JSON values, as far as they tell: not what a function computes."""
        options = {name: value for name, value in self._options.items() if name != "augment"}
        layers = [[type(layer).__name__, getattr(getattr(layer, "activation", None), "__name__", "")]
                  for layer in self._student.model._flatten_layers(include_self=False)]
        return {"data": fingerprint(self._splits), "students": options | {
                    "layers": layers, "first": arrays_digest(tf.nest.flatten(self._student.init(REPORT_SEED)))},
                "teachers": [self._teacher.spec() if self._teacher else {}, arrays_digest(
                    [value for theta in self._thetas for value in theta])],
                "grid": [self._rates, self._tune_rates, self._tune_steps, len(self._report), len(self._selection),
                         len(self._folds)]}

    def _judged(self, way: str, what: Sequence[Any], runs: Callable[[], StudentRuns], seed: int, rate: float,
                start: Callable[[], Weights] | None = None) -> float:
        """The dev accuracy of a student that chooses; `what` tells it from others of the way."""
        def accuracy(under_way: UnderWay | None) -> float:
            weights = start() if start else None  # whom a stop costs: of each row as many as it has selection seeds
            return runs()(seed, rate, weights, under_way).dev_accuracy

        return self._counted(self._tune_steps if start else self._options["num_steps"],
                             functools.partial(self._kept(way).value, json.dumps(what)), accuracy)

    def _counted(self, steps: int, get: Callable[[Make], Any], make: Make) -> Any:
        """What `get(make)` gives of a student of so many steps, who is counted."""
        kept = True

        def made(under_way: UnderWay | None) -> Any:
            nonlocal kept
            kept = False
            return make(under_way)

        value = get(made)
        self._add(steps, kept)
        return value

    def _add(self, steps: int, kept: bool) -> None:
        """Counts a student, who was there already or was not, and tells of it."""
        self._steps, self._kept_steps = self._steps + steps, self._kept_steps + kept * steps
        self._progress(self._steps, self._kept_steps)

    def _choose(self, way: str) -> Choice:
        scores: dict[Choice, list[float]] = {}
        for variant in range(len(WAYS[way].variants)):
            for rate in self._rates:
                scores[Choice(variant, rate)] = []
            if not WAYS[way].sees_dev:
                for number, seed in enumerate(self._selection):
                    self._teach_by(number % self._count(way))  # as many students as other ways have, of all teachers
                    for rate in self._rates:
                        scores[Choice(variant, rate)].append(self._judged(
                            way, ["rate", variant, number, rate], functools.partial(self._whole, way, variant), seed,
                            rate))
                continue
            for number, (kept, held_out) in enumerate(self._folds):
                runs = functools.cache(functools.partial(self._runs, way, variant, kept, held_out))
                for rate in self._rates:
                    scores[Choice(variant, rate)].append(self._judged(
                        way, ["rate", variant, number, rate], runs, self._fold_seed(number), rate))
        return self._best(scores, WAYS[way].label)

    def _fold_seed(self, number: int) -> int:
        return self._selection[number % len(self._selection)]

    def _report_students(self, way: str) -> list[StudentRun]:
        """The reported students at the chosen rate; tuned rows start from those of the row that they tune."""
        choice, kept = self._choice(way), self._kept(way)

        def trained(index: int, seed: int, under_way: UnderWay | None) -> StudentRun:
            self._teach_by(index)
            return self._whole(way, choice.variant)(seed, choice.learning_rate, None, under_way)

        students = [(index, seed) for index in range(self._count(way)) for seed in self._report]
        return [self._counted(self._options["num_steps"], functools.partial(kept.run, number),
                              functools.partial(trained, *student)) for number, student in enumerate(students)]

    def _chosen_tune_rate(self, way: str, choice: Choice) -> float:
        """By cross-validation: students that have not been trained on the fold on which they are judged."""
        scores: dict[float, list[float]] = {tune_rate: [] for tune_rate in self._tune_rates}
        steps, made, sees_dev = self._options["num_steps"], 0, WAYS[way].sees_dev

        def once(start: Callable[[], Weights]) -> Callable[[], Weights]:
            """The start, made where it is asked for first, and counted."""
            @functools.cache
            def weights() -> Weights:
                nonlocal made
                found, made = start(), made + 1
                self._add(steps, kept=False)
                return found

            return weights

        starts = [] if sees_dev else [once(functools.partial(self._start, way, choice, number))
                                      for number in range(len(self._selection))]
        for number, (kept, held_out) in enumerate(self._folds):
            tuner = functools.cache(functools.partial(self._tuner, kept, held_out))
            if sees_dev:
                starts = [once(functools.partial(self._start_without, way, choice, number))]
            for tune_rate in self._tune_rates:
                scores[tune_rate] += [
                    self._judged(way, ["tune", number, tune_rate, index], tuner, self._fold_seed(number), tune_rate,
                                 start) for index, start in enumerate(starts)]
        self._add(steps * (len(self._folds if sees_dev else self._selection) - made), kept=True)
        return self._best(scores, f"tuning after {WAYS[way].label}")

    def _start(self, way: str, choice: Choice, number: int) -> Weights:
        """Of a selection seed, at the chosen rate: what is tuned to choose the rate of tuning."""
        self._teach_by(number % self._count(way))
        return self._whole(way, choice.variant)(self._selection[number], choice.learning_rate).last

    def _start_without(self, way: str, choice: Choice, number: int) -> Weights:
        """The same without a fold of dev, for ways that are trained on dev."""
        kept, held_out = self._folds[number]
        return self._runs(way, choice.variant, kept, held_out)(self._fold_seed(number), choice.learning_rate).last

    def _tuned(self, way: str, tune_rate: float, runs: Sequence[StudentRun]) -> list[tuple[float, bool]]:
        """Of every reported student, tuned on all of dev: its test accuracy, and whether its weights are finite."""
        tuner = functools.cache(functools.partial(self._tuner, self._splits.dev, self._splits.dev))
        seeds = [*self._report] * self._count(way)

        def tested(seed: int, run: StudentRun, under_way: UnderWay | None) -> tuple[float, bool]:
            weights = tuner()(seed, tune_rate, run.last, under_way).last
            return self._test_accuracy(weights), _finite(weights)

        return [self._counted(self._tune_steps, functools.partial(self._kept(way).value, json.dumps(["tuned", number])),
                              functools.partial(tested, seed, run))
                for number, (seed, run) in enumerate(zip(seeds, runs, strict=True))]

    def _train_noisy_student(self) -> Weights:
        return self._whole("cross_entropy", 0)(self._selection[0], self._choice("cross_entropy").learning_rate).last

    def _noisy_probabilities(self, x: np.ndarray) -> np.ndarray:
        logits = self._student.apply(*self._noisy_student(), tf.convert_to_tensor(x), training=False)[0]
        return tf.nn.softmax(logits).numpy()

    def _tuner(self, train: ArrayPair, dev: ArrayPair) -> StudentRuns:
        options = self._options | {"num_steps": self._tune_steps, "evaluate_every": 0}
        return StudentRuns(self._student, train, dev, loss=lambda labels, logits, _: cross_entropy(labels, logits),
                           coefficients_fn=None, **options)

    def _best(self, scores: dict[Any, list[float]], what: str) -> Any:
        """The key of the highest mean score; of equals the smallest."""
        means = {key: float(np.mean(values)) for key, values in sorted(scores.items())}
        best = max(means, key=means.__getitem__)
        self._log(f"  {what}: " + ", ".join(f"{_show(key)} → {100 * mean:.2f}" for key, mean in means.items())
                  + f" % on dev; chosen {_show(best)}")
        return best


def _finite(weights: Weights) -> bool:
    return all(bool(np.isfinite(value).all()) for value in weights.params)


def _show(key: Any) -> str:
    if isinstance(key, Choice):
        return f"{key.learning_rate:g}" + (f" (variant {key.variant})" if key.variant else "")
    return f"{key:g}"


def check_same_split(teacher: Teacher, splits: Splits) -> None:
    """Raises ValueError if the teacher's notes tell that it was trained on another split of these data; warns if it was
    trained and they do not tell on what."""
    theirs = teacher.training.get("data", {})
    if not theirs and teacher.training.get("teacher_steps"):
        warnings.warn("the teacher does not say on which data it was trained: see to it that none of its dev examples "
                      "is among these test examples. export_teacher(..., summary={\"data\": splits.about}) has it say "
                      "so.", stacklevel=3)
    there, here = ({key: about.get(key) for key in ("split_seed", "train", "dev", "test")}
                   for about in (theirs, splits.about))
    if theirs.get("source") == splits.about.get("source") and there != here:
        raise ValueError(f"the teacher was trained on another split of {splits.name}: {there}, here {here}. Its dev "
                         "examples may be among these test examples; use the same split.")
