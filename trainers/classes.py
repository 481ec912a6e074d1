"""What reports and TensorBoard show of the classes of a config's data."""

from __future__ import annotations

from typing import Any

import ml_collections

from tf_l2t.data import Splits
from tf_l2t.plotting import labelled_pairs
from tf_l2t.teachers import Teacher


def class_pairs(config: ml_collections.ConfigDict, splits: Splits) -> dict[str, tuple[int, int]]:
    """config.compare.pairs, in both directions, by what pictures call them.

    Raises:
      ValueError: for a class that the data do not have.
    """
    try:
        return labelled_pairs(config.compare.pairs, splits.num_classes, splits.class_names)
    except ValueError as error:
        raise ValueError(f"config.compare.pairs: {error}") from error


def summary_options(config: ml_collections.ConfigDict, splits: Splits, teacher: Teacher) -> dict[str, Any]:
    """The classes as TensorBoard's callbacks take them; no pairs where the teacher has a diagonal alone.

    Raises:
      ValueError: for a class that the data do not have.
    """
    class_pairs(config, splits)
    return {"class_names": splits.class_names,
            "class_pairs": config.compare.pairs if len(teacher.coefficients_shape) == 2 else ()}
