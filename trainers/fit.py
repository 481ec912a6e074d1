"""What train_student and train_baseline share: the same data, batches, rate and seed through Keras `fit`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import ml_collections

from tf_l2t.data import Splits, array_batches, batch_dataset
from tf_l2t.files import write_whole
from tf_l2t.students import FunctionalStudent
from tf_l2t.training.checkpoints import Checkpoints
from tf_l2t.training.comparison import REPORT_SEED
from tf_l2t.training.identity import fit_identity
from tf_l2t.training.stretches import BestWeights, Record, everything, fit_in_stretches
from tf_l2t.training.workdir import resume_workdir, write_json
from trainers import command


def prepare_fit(config: ml_collections.ConfigDict, workdir: str, wrap: Callable[[keras.Model, Splits], keras.Model],
                loss: Any, callbacks: Callable[[str], list[Any]], about: dict[str, Any] | None = None
                ) -> Callable[[], None]:
    """The work that fits `wrap(network, splits)` for config.training.num_steps steps, evaluates it and saves it.

    It is looked at, and kept, every config.compare.evaluate_every steps. Writes manifest.json, checkpoints/,
    history.json, tensorboard/, student.keras and best.keras, after the last step and at its best on dev, and
    results.json of both; a run that was stopped goes on, if the manifest tells of the same data and the same `about`.
    """
    splits = command.load_splits(config)
    seed, num_steps = REPORT_SEED + config.seed, config.training.num_steps
    every = config.compare.evaluate_every or num_steps
    network = FunctionalStudent(command.student_fn(config, splits)).new_model(seed)
    model = wrap(network, splits)
    model.compile(optimizer=command.student_optimizer(config), loss=loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    batches = array_batches(splits.train.x, splits.train.y, config.training.batch_size, splits.augment)
    path = resume_workdir(workdir, command.command_line(), command.plain(config),
                          {**command.describe(splits), **(about or {})})

    def fit(first: int, stop: int, heard: list[Any], again: bool) -> Record:
        epoch = first // every
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="this fit makes")  # it is one of several
            fitted = model.fit(batch_dataset(batches, seed, stop, first), initial_epoch=epoch, epochs=epoch + 1,
                               verbose=0, shuffle=False, validation_data=None if again else splits.dev,
                               callbacks=[*([] if again else callbacks(str(path / "tensorboard"))), *heard])
        return {name: float(values[-1]) for name, values in fitted.history.items()}

    held = BestWeights(network)
    student, best, tensorboard = (path / name for name in ("student.keras", "best.keras", "tensorboard"))

    def look(record: Record, before: list[Record]) -> Record:
        if record["val_accuracy"] > max((known["val_accuracy"] for known in before), default=-1.0):
            held.keep()
            write_whole(best, network.save)
        return record

    def evaluated(prefix: str = "") -> dict[str, float]:
        return {f"{prefix}{name}_{key}": float(value) for name, part in (("dev", splits.dev), ("test", splits.test))
                for key, value in model.evaluate(*part, verbose=0, return_dict=True).items()}

    def work() -> None:
        fit_in_stretches(fit, look, lambda records: write_json(path / "history.json", records),
                         checkpoints=Checkpoints(path / "checkpoints", [*everything(model), *held.variables],
                                                  fit_identity(model, batches, seed)),
                         num_steps=num_steps, every=every, verbose=command.VERBOSE.value)
        write_whole(student, network.save)
        results = evaluated()
        held.write(best)
        with held.worn():
            results |= evaluated("best_")
        write_json(path / "results.json", results)
        accuracies = [f"{which}test accuracy {100 * results[f'{prefix}test_accuracy']:.2f} %, dev accuracy "
                      f"{100 * results[f'{prefix}dev_accuracy']:.2f} %"
                      for which, prefix in (("", ""), ("at its best on dev: ", "best_"))]
        command.result("\n".join([*accuracies, f"student: {student}", f"TensorBoard: {tensorboard}"]), **results,
                       student=student, best=best, tensorboard=tensorboard)

    return work
