"""The part of compare that makes ProKT's tables: students by every method of distillation, from one teacher."""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import ml_collections

from tf_l2t.distillation import METHODS, Term, method
from tf_l2t.garbage import graphs_gone_afterwards
from tf_l2t.plotting import plot_curves
from tf_l2t.report import Section, write_html
from tf_l2t.training import StudentDivergedError
from tf_l2t.training.pace import Pace, tell
from tf_l2t.training.results import mean_std
from tf_l2t.training.workdir import read_sealed, resume_workdir, write_json
from trainers import command, distill, diverged, fields
from trainers.distill_table import TEACHER, distillation_table
from trainers.distillation import (
    NUM_ANCHORS,
    describe_data,
    describe_run,
    labels_of,
    network,
    phase_steps,
    teacher_config,
    teacher_of,
)
from trainers.hyperparameters import write_row

OF_RATE = ("learning_rate", "best_dev_accuracy_mean", "test_accuracy_mean", "test_accuracy_std", "seeds", "diverged")

Planned = tuple[str, str, ml_collections.ConfigDict]  # student, method, config with one of its rates


class Cell(NamedTuple):
    """One student by one method at one rate: the seeds that are there, and those that diverged.

    `place` is where they are, in the table's directory.
    """

    student: str
    method: str
    config: ml_collections.ConfigDict
    place: pathlib.Path
    folders: list[pathlib.Path]
    diverged: list[pathlib.Path]


def prepare_comparison(config: ml_collections.ConfigDict, workdir: str, verbose: int,
                       record: Callable[[list[dict[str, Any]]], None]) -> Callable[[], None]:
    """The work of a whole table: the teacher, with the first seed, and every student by every method and seed.

    With config.teacher.path, the run of a teacher with 4 anchors, none is trained. What is there is not made again; a
    run that was stopped goes on. Seed after seed, so that a table of fewer seeds is whole early; `record` hears of a
    row again when it has a seed more. Of config.compare.learning_rates a row has the one that is best on dev, and says
    what the others gave. A student that diverges is left out of its row, which counts it. Writes teacher/,
    STUDENT/METHOD/seedN/, or STUDENT/METHOD/RATE/seedN/ of several rates (`trainers.distill`), results.json, table.md,
    figures/, tensorboard/ (the rows as hyperparameters) and report.html.
    """
    compare = config.compare
    given, config, of_teacher, cells = planned(config)
    about = describe_data(config)
    if given:
        about["teacher"] = check_teacher(config, given)
    path = resume_workdir(workdir, command.command_line(), command.plain(config), about)

    def work() -> None:
        teacher = pathlib.Path(given) if given else path / "teacher"
        if not given:
            run(of_teacher, teacher, verbose)
            record([row_of(config, Cell(compare.teacher, TEACHER, of_teacher, teacher, [teacher], []))])
        found = groups_of(path, cells)
        seeds = range(config.seed, config.seed + compare.seeds)
        there = sum(is_settled(cell.place / f"seed{seed}") for seed in seeds for group in found for cell in group)
        total, finished = len(seeds) * len(cells), there
        pace = Pace(total, there)
        for seed in seeds:
            for group in found:
                for cell in group:
                    made = not is_settled(cell.place / f"seed{seed}")
                    train(cell, seed, teacher, verbose)
                    if made:
                        finished += 1
                        tell({"student": cell.student, "method": cell.method, "seed": seed,
                              "done": finished, "total": total}, verbose, pace.left(finished))
                if any(cell.folders for cell in group):
                    record([chosen(config, group)[1]])
        lost = [f"{group[0].student} by {group[0].method}" for group in found if not any(c.folders for c in group)]
        kept = [chosen(config, group) for group in found if any(cell.folders for cell in group)]
        if not kept:
            raise StudentDivergedError(f"every student of the table diverged: {lost}.")
        best, rows = [cell for cell, _ in kept], [row for _, row in kept]
        rows += tuned_rows(config, rows)
        record(rows[len(best):])
        write_json(path / "results.json", rows)
        for row in rows:
            write_row(path / "tensorboard", f"{row['student']}/{row['method']}",
                      {name: row[name] for name in ("teacher", "student", "method", "learning_rate")},
                      {name: row[f"{name}_mean"] for name in ("test_accuracy", "best_test_accuracy",
                                                              "best_dev_accuracy")})
        table = distillation_table(rows, compare.task)
        (path / "table.md").write_text(table + "\n", encoding="utf-8")
        command.result(f"\n{table}\n", rows=rows)
        pictures = {**dynamics(path, teacher, config, best), **accuracy_by_lam(path, config, best)}
        quoted = [f"Quoted, not measured here: {config.quoted}."] if config.quoted else []
        accuracy = command.read_json(teacher / "results.json")["last"]["test"]
        said = [f"The teacher's test accuracy is {100 * accuracy:.2f} %.", *quoted]
        if lost:
            said.append(f"Diverged with every seed: {', '.join(lost)}.")
        report = write_html(path / "report.html", f"Distillation, {compare.task}",
                            [Section("Test accuracy, %", table, said, pictures)],
                            json.dumps(command.plain(config), indent=2))
        command.result(f"report: {report}", report=report)

    return work


def cells_of(config: ml_collections.ConfigDict) -> list[Planned]:
    """(student, method, config) of all cells, once for each rate, checked.

    Raises:
      ValueError: for a name or a rate that is there twice, fields of a wrong kind, or a cell whose networks do not fit
        its method.
    """
    compare, cells = config.compare, []
    changes = dict(compare.changes)
    for names in ([name for name, _ in found] for found in (compare.students, compare.methods, compare.changes)):
        if len(set(names)) < len(names) or TEACHER in names:
            raise ValueError(f"config.compare names a student or a method twice, or calls one {TEACHER!r}: {names}.")
    compared = itertools.product(*([name for name, _ in found] for found in (compare.students, compare.methods)))
    if unknown := {*compare.skipped} - {*compared}:
        raise ValueError("config.compare.skipped names students and methods that are not compared: "
                         f"{sorted(unknown)}. Where a table is made smaller, set it, too.")
    for student, of_student in compare.students:
        for name, of_method in compare.methods:
            if (student, name) in compare.skipped:
                continue
            cell = command.changed(config, [*of_student, *of_method, *changes.get(name, ())])
            fields.check(cell)
            rates = cell.compare.learning_rates
            if rates and (len(set(rates)) < len(rates) or min(rates) <= 0):
                raise ValueError(f"config.compare.learning_rates must be positive, each named once; received {rates}.")
            cells += [(student, name, command.changed(cell, [("training.learning_rate", float(rate))]))
                      for rate in rates or (cell.training.learning_rate,)]
    check_cells(config, [of_cell for _, _, of_cell in cells])
    tuned = {name for _, methods in compare.tuned for name in methods}
    for field, names in (("tuned", tuned), ("changes", {*changes})):
        unknown = names - {name for name, _ in compare.methods}
        if unknown:
            raise ValueError(f"config.compare.{field} names methods that are not compared: {sorted(unknown)}.")
    return cells


def check_cells(config: ml_collections.ConfigDict, cells: Sequence[ml_collections.ConfigDict]) -> None:
    """Raises ValueError unless every cell's student and the teacher fit its method."""
    labels = labels_of(config)
    teacher = network(config, config.teacher, "config.teacher")
    students: dict[str, keras.Model] = {}
    for cell in cells:
        described = str(cell.student)
        if described not in students:
            students[described] = network(cell, cell.student, "config.student")
        found = method(cell.method.name, **dict(cell.method.options))
        for name in dict.fromkeys(name for phase in found.phases for name, _ in phase.terms):
            Term(name, teacher, students[described], found.options, labels)
        phase_steps(cell, found, NUM_ANCHORS if found.teacher == "anchors" else 0)


def check_teacher(config: ml_collections.ConfigDict, path: str) -> list[str]:
    """The digests of a given teacher and its anchors.

    Raises:
      ValueError: if it is no run whose teacher a table can have.
    """
    cell = command.changed(config, [("teacher.path", path)])
    teachers = [teacher_of(cell, method(name)) for name in ("kd", "rco")]
    digests = [digest for teacher in teachers for digest in describe_run(cell, teacher)["teacher"]]
    if len(digests) != 1 + NUM_ANCHORS or not all((pathlib.Path(path) / name).is_file()
                                                  for name in ("history.json", "results.json")):
        raise ValueError(f"config.teacher.path={path!r} must be a finished run of trainers.distill with "
                         f"config.training.anchors={NUM_ANCHORS}.")
    return digests


def planned(config: ml_collections.ConfigDict
            ) -> tuple[str, ml_collections.ConfigDict, ml_collections.ConfigDict, list[Planned]]:
    """The given teacher's path or "", the config without it, that of a teacher that is trained first, and the cells."""
    compare = config.compare
    if compare.seeds < 1 or not compare.methods or not compare.students or not compare.task:
        raise ValueError("config.compare needs students, methods, a name for the task, and seeds of at least 1; "
                         f"received {command.plain(compare)}.")
    given, config = config.teacher.path, command.changed(config, [("teacher.path", "")])
    return given, config, command.changed(teacher_config(config, NUM_ANCHORS), compare.of_teacher), cells_of(config)


def groups_of(path: pathlib.Path, cells: Sequence[Planned]) -> list[list[Cell]]:
    """The cells of each student and method, one for each rate."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for student, name, config in cells:
        place = path / student / name
        if len(config.compare.learning_rates) > 1:
            place /= str(config.training.learning_rate)
        groups.setdefault((student, name), []).append(Cell(student, name, config, place, [], []))
    return list(groups.values())


def train(cell: Cell, seed: int, teacher: pathlib.Path, verbose: int) -> None:
    """Makes the run of one seed where it is not there, and adds it to the cell."""
    changes: list[tuple[str, Any]] = [("seed", seed)]
    if METHODS[cell.config.method.name].teacher in ("fixed", "anchors"):
        changes.append(("teacher.path", str(teacher)))
    if METHODS[cell.config.method.name].has_first_teacher:
        changes.append(("teacher.first_path", str(teacher)))
    folder = cell.place / f"seed{seed}"
    if diverged.noted(folder):
        cell.diverged.append(folder)
        return
    try:
        run(command.changed(cell.config, changes), folder, verbose)
        cell.folders.append(folder)
    except StudentDivergedError as error:
        diverged.note(folder, error)
        cell.diverged.append(folder)


def dry_run(config: ml_collections.ConfigDict, timed_steps: int) -> None:
    """Prints what every run of the table would be, and how long all would take.

    Raises:
      ValueError: as the table.
    """
    given, config, of_teacher, cells = planned(config)
    hours = 0.0 if given else predicted("the teacher", of_teacher, timed_steps)
    for group in groups_of(pathlib.Path(), cells):  # of several rates one is timed
        hours += config.compare.seeds * len(group) * predicted(f"{group[0].student} by {group[0].method}",
                                                               group[0].config, timed_steps)
    command.result(f"predicted, with {config.compare.seeds} seeds: {hours:.1f} hours on this machine",
                   predicted_hours=hours, seeds=config.compare.seeds)


def predicted(name: str, config: ml_collections.ConfigDict, steps: int) -> float:
    command.result(f"{name}:", run=name)
    return distill.dry_run(config, steps)


def run(config: ml_collections.ConfigDict, folder: pathlib.Path, verbose: int) -> None:
    if not is_there(folder):
        tell({"run": str(folder)}, verbose)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with graphs_gone_afterwards():
            command.part_of_work(distill.prepare_distillation, config, str(folder), verbose)()


def is_there(folder: pathlib.Path) -> bool:
    return read_sealed(folder / "results.json") is not None


def is_settled(folder: pathlib.Path) -> bool:
    """Whether nothing is left to do there: the run has its results, or its student is known to diverge."""
    return is_there(folder) or (folder / diverged.FILE).is_file()


def row_of(config: ml_collections.ConfigDict, cell: Cell) -> dict[str, Any]:
    """A row of docs/measured/distillation.json; accuracies in %."""
    results = [command.read_json(folder / "results.json") for folder in cell.folders]
    row: dict[str, Any] = {"task": config.compare.task, "teacher": config.compare.teacher, "student": cell.student,
                           "method": cell.method}
    for name, kind, part in (("test_accuracy", "last", "test"), ("best_test_accuracy", "best", "test"),
                             ("best_dev_accuracy", "best", "dev")):
        mean, std = mean_std([100 * result[kind][part] for result in results])
        row |= {f"{name}_mean": round(mean, 4), f"{name}_std": round(std, 4)}
    if "teacher" in results[0]:  # trained along
        mean, std = mean_std([100 * result["teacher"]["test"] for result in results])
        row |= {"teacher_test_accuracy_mean": round(mean, 4), "teacher_test_accuracy_std": round(std, 4)}
    further = {}  # F1, and the accuracy on other tests
    for name in results[0]["last"]:
        if name not in ("dev", "test", "dev_f1"):
            mean, std = mean_std([100 * result["last"][name] for result in results])
            further[name] = {"mean": round(mean, 4), "std": round(std, 4)}
    if further:
        row["further"] = further
    if cell.diverged:
        row["diverged"] = len(cell.diverged)
    row["test_accuracies"] = [round(100 * result["last"]["test"], 4) for result in results]  # seed by seed
    return {**row, "seeds": len(results), "ms_per_step": min(result["ms_per_step"] for result in results),
            "learning_rate": cell.config.training.learning_rate, "steps": student_steps(cell.config),
            "command": command.command_line()}


def student_steps(config: ml_collections.ConfigDict) -> int:
    """Of all phases in which the student is trained."""
    found = method(config.method.name, **dict(config.method.options))
    steps = phase_steps(config, found, 0)
    return sum(steps[phase.name] for phase in found.phases if not phase.prepares)


def chosen(config: ml_collections.ConfigDict, group: Sequence[Cell]) -> tuple[Cell, dict[str, Any]]:
    """Of a student, a method and all its rates, the cell whose best weights have the highest mean dev accuracy, of
    those of which the fewest students diverged, and its row; `by_rate` says what every rate gave, where there are
    several."""
    rows = [(cell, row_of(config, cell)) for cell in group if cell.folders]
    best, row = max(rows, key=lambda found: merit(found[1]))
    if len(group) > 1:
        lost = [{"learning_rate": cell.config.training.learning_rate, "seeds": 0, "diverged": len(cell.diverged)}
                for cell in group if not cell.folders]
        fastest = min(other["ms_per_step"] for _, other in rows)  # they compute the same
        seen = [{name: other[name] for name in OF_RATE if name in other} for _, other in rows]
        row = {**row, "ms_per_step": fastest, "by_rate": seen + lost}
    return best, row


def merit(row: dict[str, Any]) -> tuple[float, float]:
    """What is chosen by: the fewest students that diverged, then dev."""
    return -row.get("diverged", 0), row["best_dev_accuracy_mean"]


def tuned_rows(config: ml_collections.ConfigDict, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For every student and entry of config.compare.tuned, the row of the method that is best by `merit`, under the
    entry's name; `chosen` says which it is."""
    found = []
    for name, methods in config.compare.tuned:
        for student in dict.fromkeys(row["student"] for row in rows):
            candidates = [row for row in rows if row["student"] == student and row["method"] in methods]
            if len(candidates) > 1:
                best = max(candidates, key=merit)
                found.append({**best, "method": name, "chosen": best["method"]})
    return found


def dynamics(path: pathlib.Path, teacher: pathlib.Path, config: ml_collections.ConfigDict, cells: Sequence[Cell]
             ) -> dict[str, pathlib.Path]:
    """Figure 2 of the paper, for every student by ProKT: its divergence from its target beside that by RCO, and its
    teacher's accuracy beside that of the teacher trained alone; the first seed's, of train batches."""
    pictures = {}
    alone = [(record["step"], 100 * record["accuracy"]) for record in command.read_json(teacher / "history.json")]
    for cell in cells:
        if cell.method != "prokt":
            continue
        rivals = [c for c in cells if c.student == cell.student and (
            c.method == "prokt" or METHODS[c.config.method.name].teacher == "anchors")]
        histories = {c.method: command.read_json(c.folders[0] / "history.json") for c in rivals}
        own = [(record["step"], 100 * record["teacher_accuracy"]) for record in histories["prokt"]]
        name = f"{cell.student} by {config.compare.teacher}"
        pictures[f"{name}: divergence from its target"] = plot_curves(
            {method: [(record["step"], record["divergence"]) for record in history]
             for method, history in histories.items()},
            path / "figures" / f"divergence_{cell.student}.png", "step", "KL(teacher ‖ student), train batches")
        pictures[f"{name}: the teacher's accuracy"] = plot_curves(
            {"alone": alone, "with its student (prokt)": own}, path / "figures" / f"teacher_{cell.student}.png", "step",
            "accuracy of the teacher, train batches, %")
    return pictures


def accuracy_by_lam(path: pathlib.Path, config: ml_collections.ConfigDict, cells: Sequence[Cell]
                    ) -> dict[str, pathlib.Path]:
    """Figure 3 of the paper: dev accuracy of student and teacher against ProKT's λ, the mean over seeds."""
    pictures = {}
    for student in dict.fromkeys(cell.student for cell in cells):
        points = []
        for cell in cells:
            options = dict(cell.config.method.options)
            if cell.student == student and cell.config.method.name == "prokt" and set(options) <= {"lam"}:
                lam = options.get("lam", METHODS["prokt"].lam)
                found = [command.read_json(folder / "results.json") for folder in cell.folders]
                points.append((lam, *(100 * mean_std([f[name]["dev"] for f in found])[0]
                                      for name in ("last", "teacher"))))
        if len(points) > 1:
            points.sort()
            pictures[f"{student} by {config.compare.teacher}: accuracy against λ"] = plot_curves(
                {"student": [(lam, own) for lam, own, _ in points],
                 "teacher": [(lam, other) for lam, _, other in points]},
                path / "figures" / f"lam_{student}.png", "λ", "dev accuracy, %")
    return pictures
