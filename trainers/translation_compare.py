"""The part of compare that makes Table 3: translation students by every loss, from the same start."""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_collections
from absl import logging

from tf_l2t import export_teacher
from tf_l2t.garbage import graphs_gone_afterwards
from tf_l2t.report import Section, write_html
from tf_l2t.students import TRANSLATORS
from tf_l2t.training import StudentDivergedError, TeacherDivergedError
from tf_l2t.training.pace import Pace, tell
from tf_l2t.training.results import mean_std
from tf_l2t.training.sequence_student import SEQUENCE_LOSSES
from tf_l2t.training.translation_objectives import check_objective
from tf_l2t.training.workdir import read_sealed, resume_workdir, write_json
from tf_l2t.translation import load_translator
from tf_l2t.translation.token_losses import TOKEN_LOSSES
from trainers import command, diverged, fields, translation, translation_teacher
from trainers.hyperparameters import write_row
from trainers.train_teacher import fitting
from trainers.translation_table import translation_table
from trainers.translator_fit import TAUGHT, beginnings, check_looks, compiled_alone, prepare_translator

START, CONTINUED, UNTAUGHT = "start", "mle", "untaught"
KINDS = {"bleu": "detokenized", "tokenized_lower": "tokenized_lower"}
SWEEP = 4  # a student step of a teacher's training, in steps of a student's: forward, again, and back through both


class Result(NamedTuple):
    """A row of the table: one loss of one student, over the seeds.

    Attributes:
      learning_rate: chosen by dev BLEU, greedy, of the first seed's best weights.
      dev_bleu: of every seed's best weights; the start's are those that losses begin with.
      bleus: test BLEU of these by decoding ("greedy", "beam5"), then by kind (`report_bleus`); "last_greedy" is of the
        last weights.
      signatures: sacrebleu's, by kind.
      tokens_per_second: target tokens in training, the most of all seeds, 0 for the start, which was not trained for
        its row; and in decoding by its name.
      diverged: how many students are left out for that.
    """

    student: str
    loss: str
    learning_rate: float
    dev_bleu: list[float]
    bleus: dict[str, dict[str, list[float]]]
    signatures: dict[str, str]
    tokens_per_second: dict[str, float]
    diverged: int = 0


def prepare_comparison(config: ml_collections.ConfigDict, workdir: str, verbose: int,
                       record: Callable[[list[dict[str, Any]]], None]) -> Callable[[], None]:
    """The work of the whole table: for every student and seed a start by maximum likelihood, and from there every
    loss, for as many steps. What is there is not made again.

    Losses begin with the start's translator config.compare.start, its best or its last, which is the row "start". The
    teacher of the taught loss, one for a student, begins with the first seed's, and its students learn at the largest
    rate; "untaught" is the fixed loss with which it begins. Every loss chooses its rate from the same grid on dev, with
    the first seed. Writes STUDENT/seedN/LOSS/ (`trainers.translator_fit`), STUDENT/teacher/, results.json, table.md,
    tensorboard/ (the rows as hyperparameters) and report.html.
    """
    compare = config.compare
    if min(compare.seeds, compare.num_steps) < 1 or not compare.learning_rates or not compare.losses \
            or not compare.students:
        raise ValueError("config.compare needs students, losses, learning_rates, and seeds and num_steps of at least "
                         f"1; received {command.plain(compare)}.")
    for field in ("changes", "more_losses"):
        students = [student for student, _ in compare[field]]
        if len(set(students)) < len(students):
            raise ValueError(f"config.compare.{field} names a student twice: {students}.")
        if unknown := set(students) - set(TRANSLATORS):
            raise ValueError(f"config.compare.{field} are of students, {sorted(TRANSLATORS)}; received some of "
                             f"{sorted(unknown)}.")
    check_start(config)
    text = translation.load_text(config)
    translation.form_of(config, text)
    for student in compare.students:
        changed = of_student(config, student)
        fields.check(changed)
        check_losses(changed)
    about = translation.describe(text)
    path = resume_workdir(workdir, command.command_line(), command.plain(config), about)

    def work() -> None:
        total = sum(steps_of(of_student(config, student)) for student in compare.students)
        results, rows, progress = [], [], Progress(total, verbose)
        for student in compare.students:
            table = StudentTable(of_student(config, student), path / student, verbose, progress)
            for result in table.run():
                results.append(result)
                rows.append(measured_row(text.name, result, config.decoding.beam_size))
                record(rows[-1:])
                write_json(path / "results.json", [r._asdict() for r in results])
        markdown = translation_table(rows, text.name)
        for row in rows:
            write_row(path / "tensorboard", f"{row['student']}/{row['loss']}",
                      {name: row[name] for name in ("student", "loss", "learning_rate")},
                      {name: row[f"{name}_mean"] for name in ("bleu_dev", "bleu_greedy",
                                                              f"bleu_beam{config.decoding.beam_size}")})
        command.result(f"\n{markdown}\n", rows=rows)
        (path / "table.md").write_text(markdown + "\n", encoding="utf-8")
        said = [f"Quoted, not measured here: {config.quoted}."] if config.quoted else []
        section = Section("Test BLEU", markdown, said, {})
        report = write_html(path / "report.html", f"Translation of {text.name}", [section],
                            json.dumps(command.plain(config), indent=2))
        command.result(f"report: {report}", report=report)

    return work


def check_start(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError if the starts' runs would not end with the translator that losses are to begin with."""
    if config.compare.start not in ("best", "last"):
        raise ValueError(f'config.compare.start is "best" or "last"; received {config.compare.start!r}.')
    translation.run_steps(config)


def check_losses(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for whatever a loss or the teacher of the config's student would be refused for, before a start
    has taken its hours."""
    compare = config.compare
    losses = (CONTINUED, *compare.losses)
    known = sorted({*SEQUENCE_LOSSES, *TOKEN_LOSSES})
    if unknown := {loss for loss, _ in compare.loss_options} - set(known):
        raise ValueError(f"config.compare.loss_options are of losses, {known}; received some of {sorted(unknown)}.")
    student = translation.new_student(config, 5)
    check_looks(config)
    if config.training.loss != TAUGHT:
        compiled_alone(config, student)
    for loss, rate in itertools.product(losses, compare.learning_rates):
        changed = command.changed(config, loss_changes(config, loss, rate))
        check_looks(changed)
        if loss in (TAUGHT, UNTAUGHT):
            translation.student_optimizer(changed)
        else:
            compiled_alone(changed, student)
    if {TAUGHT, UNTAUGHT} & set(losses):
        translation_teacher.new_teacher(config, 5)
        check_objective(config.teacher_training.objective)
    if TAUGHT in losses:
        changed = command.changed(config, teacher_changes(config))
        fitting(changed, translation_teacher.plan(changed))


def loss_changes(config: ml_collections.ConfigDict, loss: str, rate: float) -> list[tuple[str, Any]]:
    """What the config of a loss's runs has other values of, beside their start and teacher."""
    compare = config.compare
    return [("training.keep_every", 0), ("training.stop_at", 0),
            ("training.loss", TAUGHT if loss == UNTAUGHT else loss),
            ("training.loss_options", dict(compare.loss_options).get(loss, ())),
            ("training.optimizer", compare.optimizer), ("training.learning_rate", rate),
            ("training.decay", compare.decay), ("training.num_steps", compare.num_steps),
            ("training.evaluate_every", compare.evaluate_every)]


def teacher_changes(config: ml_collections.ConfigDict) -> list[tuple[str, Any]]:
    """The same of the teacher's training, beside its start."""
    compare = config.compare
    return [("training.optimizer", compare.optimizer), ("training.learning_rate", max(compare.learning_rates)),
            ("training.decay", compare.decay)]


def of_student(config: ml_collections.ConfigDict, student: str) -> ml_collections.ConfigDict:
    """The config of one student of the table, with all of its losses, each once."""
    compare = config.compare
    losses = dict.fromkeys((*compare.losses, *dict(compare.more_losses).get(student, ())))
    return command.changed(config, [("student.name", student), ("compare.losses", tuple(losses)),
                                    ("compare.more_losses", ()), *dict(compare.changes).get(student, ())])


def steps_of(config: ml_collections.ConfigDict) -> int:
    """Student steps of all trainings of one student's table."""
    compare = config.compare
    runs = len({CONTINUED, *compare.losses}) * (len(compare.learning_rates) + compare.seeds - 1)
    teacher = teacher_steps(config) if TAUGHT in compare.losses else 0
    return compare.seeds * translation.run_steps(config) + runs * compare.num_steps + teacher


def teacher_steps(config: ml_collections.ConfigDict) -> int:
    """The same of a teacher's training, as many of a student's as take its time."""
    outer = config.teacher_training
    stages = (*outer.curriculum, (outer.num_steps or config.training.num_steps, outer.steps))
    return SWEEP * outer.rollouts * sum(steps * times for steps, times in stages)


class Progress:
    """Tells of every training as it begins, with the time that all that are not there will take.

    Args:
      total: student steps of all.
      verbose: as for `tell`.
    """

    def __init__(self, total: int, verbose: int):
        self._total, self._verbose, self._pace, self._done, self._there = total, verbose, Pace(total), 0, 0

    def begins(self, record: dict[str, Any]) -> None:
        tell({**record, "steps_done": self._done, "total": self._total}, self._verbose,
             self._pace.left(self._done, self._there))

    def ended(self, steps: int, made: bool = True) -> None:
        """That many steps are behind; of a training that was there already if it was not made."""
        self._done += steps
        self._there += 0 if made else steps


class StudentTable:
    """The rows of one student, made in `path` where they are not there."""

    def __init__(self, config: ml_collections.ConfigDict, path: pathlib.Path, verbose: int,
                 progress: Progress | None = None):
        self._config, self._path, self._verbose = config, path, verbose
        self._progress = progress or Progress(steps_of(config), verbose)
        self._counted = False  # the teacher's training, into the progress

    def run(self) -> Iterator[Result]:
        """Row after row, each as soon as it is whole."""
        compare = self._config.compare
        seeds = range(self._config.seed, self._config.seed + compare.seeds)
        for seed in seeds:
            self._run(seed, START, [])
        yield self._result(START, self._config.training.learning_rate, [self._folder(seed, START) for seed in seeds],
                           compare.start)
        for loss in (CONTINUED, *(loss for loss in compare.losses if loss != CONTINUED)):
            first = {rate: folder for rate in compare.learning_rates
                     if (folder := self._from_start(seeds[0], loss, rate))}
            if not first:
                logging.warning("%s by %s diverged at every rate: it has no row", self._config.student.name, loss)
                continue
            rate = max(first, key=lambda rate: best_bleu(first[rate]))
            runs = [first[rate], *(self._from_start(seed, loss, rate) for seed in seeds[1:])]
            yield self._result(loss, rate, [folder for folder in runs if folder])._replace(diverged=runs.count(None))

    def _folder(self, seed: int, name: str) -> pathlib.Path:
        return self._path / f"seed{seed}" / name

    def _start(self, seed: int) -> pathlib.Path:
        """The translator from which every loss begins."""
        return self._folder(seed, START) / self._config.compare.start

    def _from_start(self, seed: int, loss: str, rate: float) -> pathlib.Path | None:
        """The run's directory; None if its student diverged."""
        teacher = {TAUGHT: self._teacher, UNTAUGHT: self._new_teacher}.get(loss, lambda: "")()
        name = f"{loss}-{rate:g}"
        try:
            return self._run(seed, name, [
                *loss_changes(self._config, loss, rate), ("training.start", str(self._start(seed))),
                ("training.teacher", str(teacher))])
        except StudentDivergedError as error:
            diverged.note(self._folder(seed, name), error)
            return None

    def _run(self, seed: int, name: str, changes: list[tuple[str, Any]]) -> pathlib.Path | None:
        """The run's directory; None if its student is known to diverge."""
        folder = self._folder(seed, name)
        config = command.changed(self._config, [("seed", seed), *changes])
        lost = diverged.noted(folder)
        there = lost or read_sealed(folder / "results.json") is not None
        try:
            if there:
                with command.refusals():
                    check_beginnings(config, folder)
            else:
                self._progress.begins({"student": self._config.student.name, "seed": seed, "run": name})
                folder.parent.mkdir(parents=True, exist_ok=True)
                with graphs_gone_afterwards():
                    command.part_of_work(prepare_translator, config, str(folder), self._verbose)()
        finally:  # of a student that diverged nothing is left to do either
            self._progress.ended(translation.run_steps(config), made=not there)
        return None if lost else folder

    def _teacher(self) -> pathlib.Path:
        """The exported teacher, trained, or trained on, if it is not there; it appears when it is whole."""
        done = self._path / "teacher"
        there = done.is_dir()
        if not there:
            self._progress.begins({"student": self._config.student.name, "run": "teacher"})
            config = command.changed(self._config, [
                *teacher_changes(self._config), ("training.start", str(self._start(self._config.seed)))])
            partial = done.with_name("teacher.partial")
            with command.refusals():
                fit = fitting(config, translation_teacher.plan(config))
            try:
                fit(partial)
            except TeacherDivergedError as error:  # it counts all the same, with its best weights
                logging.warning("%s", error)
            partial.rename(done)
        if not self._counted:
            self._progress.ended(teacher_steps(self._config), made=not there)
            self._counted = True
        return done / "teacher"

    def _new_teacher(self) -> pathlib.Path:
        """An exported teacher that was not trained: the fixed loss with which teachers start."""
        path = self._path / "untaught"
        if not path.is_dir():
            subwords = load_translator(self._start(self._config.seed)).subwords
            teacher = translation_teacher.new_teacher(self._config, subwords.size)
            export_teacher(teacher, path, num_steps=self._config.compare.num_steps,
                           summary={"data": {"subwords": subwords.fingerprint}})
        return path

    def _result(self, loss: str, rate: float, folders: list[pathlib.Path], weights: str = "best") -> Result:
        found = [command.read_json(folder / "results.json") for folder in folders]
        beam = f"beam{self._config.decoding.beam_size}"
        names = {"greedy": f"{weights}_greedy", beam: f"{weights}_{beam}", "last_greedy": "last_greedy"}
        kinds = {kind: bleu["signature"] for kind, bleu in found[0]["last_greedy"].items() if isinstance(bleu, dict)}
        bleus = {name: {kind: [r[key][kind]["score"] for r in found] for kind in kinds} for name, key in names.items()}
        speeds = {"training": 0 if loss == START else max(r["tokens_per_second"] or 0 for r in found),
                  **{name: max(r[key]["tokens_per_second"] for r in found) for name, key in names.items()}}
        dev_bleus = [{"best": best_bleu, "last": last_bleu}[weights](folder) for folder in folders]
        return Result(self._config.student.name, loss, rate, dev_bleus, bleus, kinds, speeds)


def check_beginnings(config: ml_collections.ConfigDict, folder: pathlib.Path) -> None:
    """Raises ValueError if a finished run began with another start or teacher than is there now."""
    then = command.read_json(folder / "manifest.json")["data"]
    wrong = [what for what, digest in beginnings(config, translation.start_of(config)).items()
             if then.get(what) != digest]
    if wrong:
        raise ValueError(f"{str(folder)!r} began with another {' and '.join(wrong)} than is there now. Move it away, "
                         "and it is made again.")


def best_bleu(folder: pathlib.Path) -> float:
    """The highest dev BLEU along a run that is through."""
    return command.read_json(folder / "results.json")["dev_bleu"]


def last_bleu(folder: pathlib.Path) -> float:
    """The dev BLEU of its last weights."""
    return command.read_json(folder / "history.json")[-1]["bleu"]


def measured_row(data: str, result: Result, beam_size: int) -> dict[str, Any]:
    """One row of docs/measured/translation.json; `bleu_…` are of plain text, `tokenized_lower_…` of tokens."""
    figures = {f"{prefix}_{name}_{part}": round(value, 3) for prefix, kind in KINDS.items()
               for name, bleus in result.bleus.items()
               for part, value in zip(("mean", "std"), mean_std(bleus[kind]), strict=True)}
    dev = dict(zip(("bleu_dev_mean", "bleu_dev_std"), (round(x, 3) for x in mean_std(result.dev_bleu)), strict=True))
    speeds = dict(result.tokens_per_second)
    return {"data": data, "student": result.student, "loss": result.loss, "learning_rate": result.learning_rate,
            "beam_size": beam_size, **figures, **dev, "seeds": len(result.dev_bleu),
            **({"diverged": result.diverged} if result.diverged else {}), "tokens_per_second": speeds.pop("training"),
            **{f"{name}_tokens_per_second": speed for name, speed in speeds.items()},
            "signatures": result.signatures, "command": command.command_line()}
