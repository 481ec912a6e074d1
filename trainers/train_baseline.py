"""Trains one new student by cross entropy, through Keras `fit`: what a taught student is held against.

    python -m trainers.train_baseline --config configs/demo.py --workdir runs/baseline

Writes manifest.json, results.json, tensorboard/ and the trained network student.keras to the work directory.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import ml_collections

from trainers import command
from trainers.fit import prepare_fit


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Callable[[], None]:
    return prepare_fit(config, workdir, lambda network, splits: network,
                       keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                       lambda log_dir: [keras.callbacks.TensorBoard(log_dir)])


if __name__ == "__main__":
    command.main(prepare)
