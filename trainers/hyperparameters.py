"""TensorBoard's table of hyperparameters, for every kind of `trainers.compare`."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams


def write_row(folder: pathlib.Path, name: str, chosen: Mapping[str, str | float], measured: Mapping[str, float]
              ) -> None:
    """Writes a row of a table, as a run of TensorBoard.

    Args:
      folder: tensorboard/ of the table.
      name: of the row, a path below it.
      chosen: what it is a row of, and what dev chose.
      measured: what it came to.
    """
    with tf.summary.create_file_writer(str(folder / name)).as_default(step=0):
        hparams.hparams(dict(chosen), trial_id=name)
        for what, value in measured.items():
            tf.summary.scalar(what, value)
