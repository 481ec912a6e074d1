"""Configs of distillation turned into objects: data, networks, optimizers, the trainer and its phases."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import ml_collections
import numpy as np

from tf_l2t.data import ArrayPair, Splits, array_batches
from tf_l2t.distillation import CoupledSGD, DistillationTrainer, Method, check_anchors, method
from tf_l2t.students import FunctionalStudent, load_network
from tf_l2t.students.functional import building
from tf_l2t.training.distillation_fit import ANCHORS, LAST, PhasePlan, check_looks
from tf_l2t.training.rates import learning_rate
from trainers import command
from trainers.digests import network_digest

NUM_ANCHORS = 4  # of a table's teacher, for RCO
TEACHER_SEED = 100_000  # beyond those of students: a teacher that is trained along begins elsewhere


def planned(config: ml_collections.ConfigDict, teacher: Any, first_teacher: Any = None
            ) -> tuple[DistillationTrainer, list[PhasePlan], Callable[..., Any]]:
    """The trainer of config.student by config.method, its phases, and (seed, step) -> a batch; all checked."""
    splits, training = load_data(config).splits, config.training
    found = method(config.method.name, **dict(config.method.options))
    student = network(config, config.student, "config.student", config.seed)
    with building(config.seed, None):  # the weights of its terms, too, are the seed's
        trainer = DistillationTrainer(student, teacher, found, splits.train.y, first_teacher)
    steps = phase_steps(config, found, len(trainer.anchors))
    phases = [PhasePlan(name, count, functools.partial(compile_trainer, trainer, config, count,
                                                       name == found.last.name)) for name, count in steps.items()]
    return trainer, phases, array_batches(splits.train.x, splits.train.y, training.batch_size, splits.augment,
                                          index=True)


def phase_steps(config: ml_collections.ConfigDict, found: Method, anchors: int) -> dict[str, int]:
    """The steps of the method's phases by name.

    Args:
      anchors: of the teacher, each of which is it for as many looks.

    Raises:
      ValueError: for looks, rates or an optimizer that do not fit.
    """
    training = config.training
    steps = {phase.name: training.num_steps if phase is found.last else training.first_steps for phase in found.phases}
    check_anchors(anchors, check_looks(list(steps.values()), training.evaluate_every, training.anchors))
    for name, count in steps.items():
        optimizers(config, count, name == found.last.name)  # raises for what does not fit
    return steps


class Data(NamedTuple):
    """A config's splits; the sets that figures are of, by name; and whether F1 of class 1 is one of them."""

    splits: Splits
    tests: dict[str, ArrayPair]
    f1: bool = False


def is_text(config: ml_collections.ConfigDict) -> bool:
    return config.task == "text_distillation"


def load_data(config: ml_collections.ConfigDict) -> Data:
    if is_text(config):
        from trainers import text  # its packages take a second to import

        found = text.load_text(config)
        return Data(found.splits, found.tests, found.task.f1)
    splits = command.load_splits(config)
    return Data(splits, {"test": splits.test})


def describe_data(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Of the config's data, what a manifest says."""
    return command.describe(load_data(config).splits)


def describe_run(config: ml_collections.ConfigDict, teacher: Any, first_teacher: Any = None) -> dict[str, Any]:
    """Of the config's data and of its teachers that were trained before: a run goes on with the same ones only."""
    networks = (teacher if isinstance(teacher, list) else [teacher]) if config.teacher.path else []
    networks = [*networks, *([] if first_teacher is None else [first_teacher])]
    return describe_data(config) | ({"teacher": list(map(network_digest, networks))} if networks else {})


def labels_of(config: ml_collections.ConfigDict) -> np.ndarray:
    """The train labels."""
    return load_data(config).splits.train.y


def network(config: ml_collections.ConfigDict, part: ml_collections.ConfigDict, where: str, seed: int = 0
            ) -> keras.Model:
    """A new network, which the config names at `where`, its `part`."""
    if is_text(config):
        from trainers import text

        return text.network(config, part, where, seed)
    return FunctionalStudent(command.network_fn(part, command.load_splits(config), where)).new_model(seed)


def teacher_config(config: ml_collections.ConfigDict, anchors: int) -> ml_collections.ConfigDict:
    """The config of the run that trains config.teacher by itself, as a student is trained."""
    network = [(f"student.{name}", value) for name, value in config.teacher.items() if not name.endswith("path")]
    return command.changed(config, [*network, ("method.name", "none"), ("method.options", ()), ("teacher.path", ""),
                                    ("teacher.first_path", ""), ("training.anchors", anchors)])


def teacher_of(config: ml_collections.ConfigDict, found: Method) -> Any:
    """What the method takes as teacher: a trained network, its anchors, a new one, or none.

    Raises:
      ValueError: for a path that is missing, or where there is no such network, or one of another vocabulary.
    """
    if found.teacher == "none":
        if config.teacher.path:
            raise ValueError(f"the method {found.name!r} has no teacher: leave out config.teacher.path.")
        return None
    if not config.teacher.path:
        if found.teacher != "trained":
            raise ValueError(f"the method {found.name!r} needs a trained teacher: set config.teacher.path to the "
                             "directory of a run with config.method.name=none.")
        return network(config, config.teacher, "config.teacher", TEACHER_SEED + config.seed)
    networks = trained(config, "path", found.teacher == "anchors")
    return networks if found.teacher == "anchors" else networks[0]


def new_teachers(config: ml_collections.ConfigDict, found: Method) -> Any:
    """As `teacher_of`, with new networks in the place of trained ones: for what only takes the time of steps."""
    if found.teacher == "anchors":
        return [network(config, config.teacher, "config.teacher", seed) for seed in range(NUM_ANCHORS)]
    return network(config, config.teacher, "config.teacher") if found.teacher == "fixed" else teacher_of(config, found)


def first_teacher_of(config: ml_collections.ConfigDict, found: Method) -> keras.Model | None:
    """The network of config.teacher.first_path, from which the method's student learns before its teacher is trained.

    Raises:
      ValueError: as `teacher_of`, or for a method that has no such phase.
    """
    if not config.teacher.first_path:
        return None
    if not found.has_first_teacher:
        raise ValueError(f"the method {found.name!r} has no first phase with a teacher of its own: leave out "
                         "config.teacher.first_path.")
    return trained(config, "first_path")[0]


def trained(config: ml_collections.ConfigDict, field: str, anchors: bool = False) -> list[keras.Model]:
    """The network of the run that config.teacher names in this field, after its last step; or its anchors.

    Raises:
      ValueError: if there is none, for a damaged file, or a run of another vocabulary.
    """
    path = config.teacher[field]
    folder = pathlib.Path(path)
    files = sorted((folder / ANCHORS).glob("*.keras"), key=lambda p: int(p.stem)) if anchors else [folder / LAST]
    if not files or not files[0].is_file():
        what = "anchors: train it with config.training.anchors=4" if anchors else "network"
        raise ValueError(f"config.teacher.{field}={path!r} holds no {what}.")
    if is_text(config):
        from trainers import text

        text.check_wordpieces(config, folder, "the teacher")
    return [load_network(file) for file in files]


def compile_trainer(trainer: DistillationTrainer, config: ml_collections.ConfigDict, steps: int, last: bool) -> None:
    own, teachers = optimizers(config, steps, last)
    trainer.compile(own, teachers if trainer.teaches else None, metrics=["accuracy"])


def optimizers(config: ml_collections.ConfigDict, steps: int, last: bool) -> list[keras.optimizers.Optimizer]:
    """Student's and teacher's, over a phase of so many steps, the last one or one before."""
    training, of_teacher = config.training, config.teacher_training.learning_rate
    if last:
        return [optimizer(training, rate, training.decay, steps) for rate in (training.learning_rate, of_teacher)]
    # RepDistiller's and TinyBERT's rates do not fall in the phase before.
    return [optimizer(training, rate, "constant", steps)
            for rate in (training.first_learning_rate or training.learning_rate, of_teacher)]


def optimizer(training: ml_collections.ConfigDict, rate: float, decay: str, steps: int) -> keras.optimizers.Optimizer:
    """The config's optimizer over so many steps.

    Raises:
      ValueError: for an unknown one.
    """
    schedule = learning_rate(rate, decay, steps)
    clip: dict[str, Any] = {"global_clipnorm": training.clip_norm} if training.clip_norm else {}
    if training.optimizer == "coupled_sgd":
        return CoupledSGD(schedule, training.momentum, training.weight_decay, **clip)
    if training.optimizer == "adam":
        return keras.optimizers.AdamW(schedule, weight_decay=training.weight_decay, **clip)
    raise ValueError(f"config.training.optimizer must be 'coupled_sgd' or 'adam'; received {training.optimizer!r}.")


def figures(network: keras.Model, data: Data) -> dict[str, float]:
    """Accuracy on "dev" and on the first test as "test", on further ones by their names; with "_f1", F1 of class 1."""
    first, *others = data.tests
    found = {}
    for name, part in {"dev": data.splits.dev, "test": data.tests[first], **{n: data.tests[n] for n in others}}.items():
        predicted = network.predict(part.x, batch_size=500, verbose=0).argmax(axis=-1)
        found[name] = float((predicted == part.y).mean())
        if data.f1:
            hits = np.sum((predicted == 1) & (part.y == 1))
            found[f"{name}_f1"] = float(2 * hits / max(np.sum(predicted == 1) + np.sum(part.y == 1), 1))
    return found
