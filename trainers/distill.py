"""Trains a student by a method of distillation; with the method "none" a teacher, or a student by itself.

    python -m trainers.distill --config configs/distill_mnist.py \\
        --config.data.path=data/mnist.npz --workdir runs/teacher \\
        --config.method.name=none --config.student.name=resnet20 --config.training.anchors=4
    python -m trainers.distill --config configs/distill_mnist.py \\
        --config.data.path=data/mnist.npz --workdir runs/kd \\
        --config.method.name=kd --config.teacher.path=runs/teacher
    python -m trainers.distill --config configs/distill_mnist.py \\
        --config.data.path=data/mnist.npz --workdir runs/prokt \\
        --config.method.name=prokt
    python -m trainers.distill --config configs/distill_text.py \\
        --config.data.path=DIR --config.encoder=ENCODER --workdir runs/bilstm

Writes manifest.json, history.json, checkpoints/ (to go on from), best.keras and student.keras (by dev accuracy
and after the last step), teacher.keras (of a teacher that was trained along), anchors/, tensorboard/ and results.json.
The same command goes on with a run that was stopped.
With --dry_run it writes nothing: it prints what the run would be and, from a few timed steps, how long it would take.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ml_collections

from tf_l2t.data import batch_dataset
from tf_l2t.distillation import method
from tf_l2t.files import write_whole
from tf_l2t.students import load_network
from tf_l2t.training.distillation_fit import BEST, LAST, fit_distillation
from tf_l2t.training.workdir import resume_workdir, write_sealed
from trainers import command
from trainers.distillation import (
    describe_run,
    figures,
    first_teacher_of,
    load_data,
    new_teachers,
    planned,
    teacher_of,
)


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Callable[[], None]:
    if command.DRY_RUN.value:
        dry_run(config, command.TIMED_STEPS.value)
        return lambda: None
    return prepare_distillation(config, workdir, command.VERBOSE.value)


def prepare_distillation(config: ml_collections.ConfigDict, workdir: str, verbose: int) -> Callable[[], None]:
    """The work that trains config.student by config.method and evaluates it, everything checked."""
    data, training = load_data(config), config.training
    splits = data.splits
    found = method(config.method.name, **dict(config.method.options))
    teachers = teacher_of(config, found), first_teacher_of(config, found)
    trainer, phases, batches = planned(config, *teachers)
    path = resume_workdir(workdir, command.command_line(), command.plain(config), describe_run(config, *teachers))

    def work() -> None:
        history = fit_distillation(
            trainer, phases, batches, seed=config.seed, evaluate_every=training.evaluate_every, dev=splits.dev,
            path=path, anchors=training.anchors, verbose=verbose)
        times = [record["ms_per_step"] for record in history if record["phase"] == found.last.name]
        results: dict[str, Any] = {"ms_per_step": min(times)}
        for name, file in (("last", LAST), ("best", BEST)):
            results[name] = parts = figures(load_network(path / file), data)
            command.result(f"{name} weights: test accuracy {100 * parts['test']:.2f} %, dev {100 * parts['dev']:.2f} %",
                           weights=name, **parts)
        if found.teacher == "trained":
            write_whole(path / "teacher.keras", trainer.teacher.save)
            results["teacher"] = figures(trainer.teacher, data)
        write_sealed(path / "results.json", results)
        student, tensorboard = path / LAST, path / "tensorboard"
        command.result(f"student: {student}\nTensorBoard: {tensorboard}", student=student, tensorboard=tensorboard)

    return work


def dry_run(config: ml_collections.ConfigDict, timed_steps: int) -> float:
    """Prints what the run would be, and from a few timed steps of every phase how many hours it would take.

    A teacher that is not trained yet is a new one here, and four anchors are.

    Raises:
      ValueError: as the run.
    """
    if timed_steps < 1:
        raise ValueError(f"--timed_steps must be at least 1; received {timed_steps}.")
    found = method(config.method.name, **dict(config.method.options))
    trainer, phases, batches = planned(config, (teacher_of if config.teacher.path else new_teachers)(config, found),
                                       first_teacher_of(config, found))
    data = load_data(config)
    parts = {"student": trainer.student, **({} if trainer.teacher is None else {"teacher": trainer.teacher})}
    networks = ", ".join(f"{part} {net.name} of {net.count_params():,} weights" for part, net in parts.items())
    plan = [f"method {found.name}: {networks}",
            f"{data.splits.name}: {data.splits.train.size} train, {data.splits.dev.size} dev examples",
            *([f"quoted: {config.quoted}"] if config.quoted else [])]
    command.result("\n".join(plan), plan=plan)
    total = 0.0
    for phase in phases:
        trainer.begin(phase.name)
        phase.compile()
        once: dict[str, Any] = {"total_epochs": max(len(trainer.anchors), 1), "verbose": 0, "shuffle": False}
        trainer.fit(batch_dataset(batches, config.seed, 1, 0), **once)
        started = time.perf_counter()
        trainer.fit(batch_dataset(batches, config.seed, 1 + timed_steps, 1), **once)
        seconds = (time.perf_counter() - started) / timed_steps
        total += phase.num_steps * seconds
        command.result(f"phase {phase.name}: {phase.num_steps:,} steps of {1000 * seconds:.0f} ms", phase=phase.name,
                       num_steps=phase.num_steps, step_seconds=seconds)
    size = min(500, data.splits.dev.size)
    trainer.evaluate(data.splits.dev.x[:size], data.splits.dev.y[:size], batch_size=500, verbose=0)
    started = time.perf_counter()
    trainer.evaluate(data.splits.dev.x[:size], data.splits.dev.y[:size], batch_size=500, verbose=0)
    look = (time.perf_counter() - started) * data.splits.dev.size / size
    looks = sum(-(-phase.num_steps // config.training.evaluate_every) for phase in phases)
    hours = (total + looks * look) / 3600
    command.result(f"{looks} looks at dev of {look:.1f} s\npredicted: {hours:.2f} hours on this machine", looks=looks,
                   look_seconds=look, predicted_hours=hours)
    return hours


if __name__ == "__main__":
    command.main(prepare, ("distillation", "text_distillation"), dry_run=True)
