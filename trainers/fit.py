"""What train_student and train_baseline share: the same data, batches, rate and seed through Keras `fit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import ml_collections

from tf_l2t.data import Splits, array_batches, batch_dataset
from tf_l2t.students import FunctionalStudent
from tf_l2t.training.comparison import REPORT_SEED
from tf_l2t.training.workdir import check_workdir, create_workdir, write_json
from trainers import command


def prepare_fit(config: ml_collections.ConfigDict, workdir: str, wrap: Callable[[keras.Model, Splits], keras.Model],
                loss: Any, callbacks: Callable[[str], list[Any]]) -> Callable[[], None]:
    """The work that fits `wrap(network, splits)` for config.training.num_steps steps, evaluates it and saves it."""
    check_workdir(workdir)
    splits = command.load_splits(config)
    seed = REPORT_SEED + config.seed
    network = FunctionalStudent(command.student_fn(config, splits)).new_model(seed)
    model = wrap(network, splits)
    model.compile(optimizer=command.student_optimizer(config), loss=loss, metrics=["accuracy"])
    batches = batch_dataset(array_batches(splits.train.x, splits.train.y, config.training.batch_size,
                                          splits.augment), seed, config.training.num_steps)
    path = create_workdir(workdir, command.command_line(), command.plain(config), command.describe(splits))

    def work() -> None:
        model.fit(batches, validation_data=splits.dev, verbose=command.VERBOSE.value,
                  callbacks=callbacks(str(path / "tensorboard")))
        results = {f"{name}_{key}": float(value) for name, part in (("dev", splits.dev), ("test", splits.test))
                   for key, value in model.evaluate(*part, verbose=0, return_dict=True).items()}
        write_json(path / "results.json", results)
        network.save(path / "student.keras")
        print(f"test accuracy {100 * results['test_accuracy']:.2f} %, "
              f"dev accuracy {100 * results['dev_accuracy']:.2f} %\n"
              f"student: {path / 'student.keras'}\nTensorBoard: {path / 'tensorboard'}")

    return work
