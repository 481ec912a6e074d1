"""Files that GLUE's site takes: one a task, index and class name of every test example."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np


def write_submission(path: str | os.PathLike[str], name: str, predicted: np.ndarray, labels: Sequence[str]
                     ) -> pathlib.Path:
    """Writes NAME.tsv: a header, then for the i-th test example i, tab, the name of its class.

    Args:
      path: a directory; made if it is not there.
      name: of the file, as GLUE's: "SST-2", "MRPC", "QQP", "MNLI-m", "MNLI-mm", "QNLI".
      predicted: classes [examples].
      labels: names of the classes.

    Returns:
      The file.

    Raises:
      ValueError: for a class out of range.

    Source: the submission instructions of gluebenchmark.com.
    """
    predicted = np.asarray(predicted)
    if predicted.ndim != 1 or not np.issubdtype(predicted.dtype, np.integer) or not predicted.size \
            or predicted.min() < 0 or predicted.max() >= len(labels):
        raise ValueError(f"predicted classes are integers in [0, {len(labels)}), [examples]; received "
                         f"{predicted.dtype} {predicted.shape}.")
    file = pathlib.Path(path) / f"{name}.tsv"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ["index\tprediction", *(f"{i}\t{labels[int(label)]}" for i, label in enumerate(predicted))]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file
