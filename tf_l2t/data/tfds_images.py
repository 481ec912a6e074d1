"""Image data sets that tensorflow-datasets has prepared on local disk."""

from __future__ import annotations

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]


def read_tfds(name: str, data_dir: str | None, label: str = "label") -> tuple[Arrays, Arrays]:
    """(images uint8 [n, h, w, channels], labels [n]) of the splits "train" and "test".

    Files of either kind are read: records in a row (`tfds.load`) and with random access (`tfds.data_source`). Nothing
    is downloaded.

    Args:
      name: of the data set.
      data_dir: where it was prepared; None for the default of tensorflow-datasets.
      label: the feature that is the label.

    Raises:
      ValueError: if it is not there; the message says which command prepares it.
    """
    import tensorflow_datasets as tfds

    try:
        info = tfds.builder(name, data_dir=data_dir).info
        if info.file_format is tfds.core.FileFormat.ARRAY_RECORD:
            parts = [list(source) for source in tfds.data_source(name, split=["train", "test"], data_dir=data_dir,
                                                                 download=False)]
            stacked = [{key: np.stack([example[key] for example in part]) for key in ("image", label)}
                       for part in parts]
        else:
            stacked = tfds.load(name, split=["train", "test"], batch_size=-1, data_dir=data_dir, download=False)
    except (AssertionError, FileNotFoundError, tfds.core.DatasetNotFoundError) as error:
        where = f" in {data_dir!r}" if data_dir else ""
        option = f" --data_dir={data_dir}" if data_dir else ""
        raise ValueError(f"tensorflow-datasets has no prepared {name}{where}. Prepare it with `tfds build {name}"
                         f"{option}`, or give the path of the original files.") from error
    train, test = ((np.asarray(part["image"]), np.asarray(part[label])) for part in stacked)
    return train, test
