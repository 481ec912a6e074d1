"""Trains a teacher and exports it.

    python -m trainers.train_teacher --config configs/demo.py --workdir runs/teacher

Writes manifest.json, checkpoints/, history.json, tensorboard/, figures/ and the SavedModel teacher/ to the work
directory. A run that was stopped, at any moment and by whatever, goes on when the same command is given again. With
--dry_run it writes nothing and needs no directory: it prints what the run would be and, from a few steps timed on this
machine (--timed_steps), how long it would take.

With --config.teacher_training.strategy=multi_worker the same command runs in every process of the cluster that
TF_CONFIG names; the first writes everything, the others nothing. If one is lost, the others end with exit code 75; all
started again, the training goes on.
"""

from __future__ import annotations

import math
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import ml_collections
from absl import logging

import tf_l2t
from tf_l2t import plotting
from tf_l2t.training import TeacherDivergedError, TeacherSummaries, TeacherTrainer
from tf_l2t.training.pace import tell
from tf_l2t.training.replicas import Replicas
from tf_l2t.training.workdir import resume_workdir, write_json
from trainers import cluster, command, image_teacher
from trainers.teacher_plan import TeacherPlan

YLABELS = {"accuracy": "dev accuracy of the student, %", "bleu": "dev BLEU of the student, subwords"}


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Callable[[], None]:
    if command.DRY_RUN.value:
        dry_run(config, planned(config))
        return lambda: None
    cluster.begin(config)
    replicas = Replicas(cluster.strategy(config))

    def checked() -> tuple[TeacherPlan, Callable[[pathlib.Path], tuple[pathlib.Path, pathlib.Path]]]:
        training = planned(config)
        return training, fitting(config, training)

    def claimed() -> pathlib.Path | None:
        return resume_workdir(workdir, command.command_line(), command.plain(config), training.about) \
            if replicas.is_chief else None

    with replicas.lost_workers(lambda: "before the training"):
        training, fit = replicas.together(checked)
        replicas.check_same([command.plain(config), training.about])
        path = replicas.together(claimed)
    if path is None:
        return lambda: fit_stages(config, training, None)

    def work() -> None:
        teacher_dir, curve = fit(path)
        tensorboard = path / "tensorboard"
        command.result(f"teacher: {teacher_dir}\nTensorBoard: {tensorboard}\ncurve: {curve}", teacher=teacher_dir,
                       tensorboard=tensorboard, curve=curve)

    return work


def planned(config: ml_collections.ConfigDict) -> TeacherPlan:
    """The training that a config asks for, checked; of images or of translation."""
    if config.get("task") == "translation":
        from trainers import translation_teacher  # its packages take a second to import

        if not config.training.start:
            logging.warning("students begin with new weights, of which a teacher learns nothing that is of use later: "
                            "set config.training.start to a run by maximum likelihood.")
        return translation_teacher.plan(config)
    return image_teacher.plan(config, command.load_splits(config))


def fitting(config: ml_collections.ConfigDict, plan: TeacherPlan
            ) -> Callable[[pathlib.Path], tuple[pathlib.Path, pathlib.Path]]:
    """The training as a function of the run's directory, a memory budget checked.

    It writes what `train_teacher` does, or goes on where that was stopped, and returns the paths of teacher and curve.

    Raises:
      ValueError: for a budget that is too small, or steps to profile that are none.
    """
    summaries(config, plan, pathlib.Path())  # raises here, rather than when the training begins
    if config.teacher_training.memory_budget:
        for trainer, _ in plan.stages:
            trainer.plan(plan.train, plan.dev)
    last, _ = plan.stages[-1]
    earlier = [{"num_steps": trainer.num_steps, "teacher_steps": count} for trainer, count in plan.stages[:-1]]

    def finish(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
        for partial in path.glob(".teacher-*"):  # of a run that was stopped while it exported
            shutil.rmtree(partial, ignore_errors=True)
        teacher_dir = tf_l2t.export_teacher(plan.teacher, path / "teacher", num_steps=last.num_steps, overwrite=True,
                                            class_names=plan.summaries.get("class_names", ()),
                                            summary={"data": dict(plan.source), "curriculum": earlier})
        write_history(last, path)
        return teacher_dir, draw_curve(last, path / "figures" / "teacher_curve.png")

    def fit(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
        path.mkdir(parents=True, exist_ok=True)
        try:
            fit_stages(config, plan, path)
        except TeacherDivergedError:  # the run keeps its best teacher
            finish(path)
            raise
        return finish(path)

    return fit


def fit_stages(config: ml_collections.ConfigDict, plan: TeacherPlan, path: pathlib.Path | None) -> None:
    """Trains through the curriculum; `path` is the run's directory, None in a process that writes nothing."""
    for number, (trainer, steps) in enumerate(plan.stages):
        last = number == len(plan.stages) - 1
        callbacks = [summaries(config, plan, path)] if path and last else []
        trainer.fit(plan.train, plan.dev, steps, callbacks=callbacks, verbose=command.VERBOSE.value,
                    checkpoint_dir=path / "checkpoints" / str(number) if path else "", **frequency(config))


def summaries(config: ml_collections.ConfigDict, plan: TeacherPlan, path: pathlib.Path) -> TeacherSummaries:
    """What TensorBoard shows of the training.

    Raises:
      ValueError: for steps to profile that are none.
    """
    return TeacherSummaries(path / "tensorboard", config=command.plain(config), **plan.summaries,
                            profile=config.teacher_training.profile)


def dry_run(config: ml_collections.ConfigDict, plan: TeacherPlan) -> None:
    """Prints the plan of the training.

    Raises:
      ValueError: for what the training would refuse.
    """
    if command.TIMED_STEPS.value < 2 and command.TIMED_STEPS.value != 0:
        raise ValueError(f"--timed_steps must be 0 or at least 2; received {command.TIMED_STEPS.value}.")
    quoted = [f"quoted: {config.quoted}"] if config.get("quoted") else []
    command.result("\n".join([*plan.description, *quoted]), plan=[*plan.description, *quoted])
    for trainer, steps in plan.stages:
        timed = command.TIMED_STEPS.value
        if timed:
            tell({"timing": "a student, forward and back", "steps": timed}, command.VERBOSE.value)
        found = trainer.forecast(plan.train, plan.dev, steps, **frequency(config), timed_steps=timed) if timed else \
            trainer.plan(plan.train, plan.dev)
        command.result(f"{steps} teacher steps:\n{found if timed else f'engine: {found}'}", teacher_steps=steps,
                       **(found._asdict() if timed else {"choice": found}))


def frequency(config: ml_collections.ConfigDict) -> dict[str, Any]:
    outer = config.teacher_training
    return {"validation_freq": outer.validation_freq, "validation_rollouts": outer.validation_rollouts}


def write_history(trainer: TeacherTrainer, path: pathlib.Path) -> None:
    """As JSON, which has no NaN: a student that diverged shows as null."""
    plain = {name: [value if math.isfinite(value) else None for value in values]
             for name, values in trainer.history.history.items()}
    write_json(path / "history.json", plain | {"validated": trainer.history.params["validated"]})


def draw_curve(trainer: TeacherTrainer, path: pathlib.Path) -> pathlib.Path:
    history, measure = trainer.history, trainer.measure
    dev, val = ([100 * value for value in history.history.get(f"{part}_{measure}", [])] for part in ("dev", "val"))
    validated = history.params["validated"]
    return plotting.plot_teacher_curve(range(1, len(dev) + 1), dev, path, (validated, val) if validated else None,
                                       YLABELS[measure])


if __name__ == "__main__":
    command.main(prepare, ("", "translation"), dry_run=True)
