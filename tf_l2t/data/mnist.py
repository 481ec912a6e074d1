"""MNIST: 5,000 embedded digits, or the full set from local files or through tensorflow-datasets."""

from __future__ import annotations

import gzip
import importlib.resources
import pathlib
import zipfile
import zlib

import numpy as np

from tf_l2t.data.idx import IDX_PARTS, read_idx_folder
from tf_l2t.data.splits import ArrayPair, Splits, check_pair, split_pool
from tf_l2t.data.tfds_images import read_tfds

NUM_CLASSES = 10


def scale(images: np.ndarray) -> np.ndarray:
    """uint8 images [n, 28, 28] as float32 [n, 28, 28, 1] in [0, 1]."""
    return (images.astype(np.float32) / 255)[..., np.newaxis]


def embedded_digits() -> ArrayPair:
    """The 5,000 MNIST digits inside the package, 500 a class, sorted by class (see `embedded/NOTICE.md`)."""
    resource = importlib.resources.files("tf_l2t.data") / "embedded" / "mnist_5k.csv.gz"
    with resource.open("rb") as compressed, gzip.open(compressed) as rows:
        table = np.loadtxt(rows, delimiter=",", dtype=np.uint8)
    return ArrayPair(scale(table[:, :784].reshape(-1, 28, 28)), table[:, 784].astype(np.int32))


def mnist_5k(dev_size: int = 500, test_size: int = 1000, seed: int = 0) -> Splits:
    """The embedded digits, split by `seed` into 5,000 − dev − test train, dev and test examples.

    Raises:
      ValueError: if a part would be empty.
    """
    digits = embedded_digits()
    return split_pool(digits, None, dev_size, test_size, seed, "mnist_5k", NUM_CLASSES)


def mnist(path: str | None = None, dev_size: int = 10_000, seed: int = 0, train_size: int | None = None,
          balance: bool = False) -> Splits:
    """Full MNIST: 60,000 − dev_size train digits, dev_size dev digits, the 10,000 test digits.

    With a `train_size`, dev sets of several sizes are nested, and the train digits are the same beside all of them.

    Args:
      path: an `.npz` file with x_train, y_train, x_test, y_test; or a directory of the four idx files (gzip or
        not); or a data directory of tensorflow-datasets with a prepared `mnist`; or None for its default one.
      dev_size: taken after the train digits from a permutation of the 60,000 drawn by `seed`.
      seed: of the split.
      train_size: the number of train digits; all but dev if None.
      balance: give dev and test the same number of digits of every class: dev dev_size / 10, test as many as its
        rarest class has, 892.

    Raises:
      ValueError: if there is nothing readable at `path`, or a part would be empty.
    """
    if path is None or (pathlib.Path(path) / "mnist").is_dir():
        parts, where = [(x[..., 0], y) for x, y in read_tfds("mnist", path)], "tfds mnist"
    elif pathlib.Path(path).is_dir():
        parts, where = [read_idx_folder(path, part) for part in IDX_PARTS], path
    else:
        parts, where = _from_npz(path), path
    train, test = (_images(*arrays, f"{where} ({part})") for arrays, part in zip(parts, IDX_PARTS, strict=True))
    return split_pool(train, test, dev_size, 0, seed, "mnist", NUM_CLASSES, train_size, balance)


def _images(x: np.ndarray, y: np.ndarray, what: str) -> ArrayPair:
    if x.ndim != 3 or x.shape[1:] != (28, 28) or x.dtype != np.uint8:
        raise ValueError(f"{what}: MNIST images must be uint8 [n, 28, 28]; received {x.dtype} {x.shape}.")
    return check_pair(scale(x), y, NUM_CLASSES, what)


def _from_npz(path: str) -> list[tuple[np.ndarray, np.ndarray]]:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise ValueError("it holds one array, as an .npy does")
        with found as arrays:
            x_train, y_train, x_test, y_test = (arrays[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {path!r}. Give an .npz with x_train, y_train, x_test, y_test, or a "
                         "directory with MNIST's four idx files.") from error
    except (KeyError, OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path!r} is no .npz with x_train, y_train, x_test, y_test: {error}") from error
    return [(x_train, y_train), (x_test, y_test)]
