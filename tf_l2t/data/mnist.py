"""MNIST: 5,000 embedded digits, or the full set from local files or through tensorflow-datasets."""

from __future__ import annotations

import gzip
import importlib.resources
import pathlib
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

from tf_l2t.data.noise import balanced
from tf_l2t.data.splits import ArrayPair, Splits, check_dev, check_pair

NUM_CLASSES = 10
IDX_FILES = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
             "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}
_IDX_DTYPES: dict[int, Any] = {0x08: np.uint8, 0x09: np.int8, 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


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
    return _split(digits, None, dev_size, test_size, seed, "mnist_5k")


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
        train, test = _from_tfds(path)
    elif pathlib.Path(path).is_dir():
        train, test = (_from_idx(pathlib.Path(path), part) for part in ("train", "test"))
    else:
        train, test = _from_npz(path)
    return _split(train, test, dev_size, 0, seed, "mnist", train_size, balance)


def _split(pool: ArrayPair, test: ArrayPair | None, dev_size: int, test_size: int, seed: int, name: str,
           train_size: int | None = None, balance: bool = False) -> Splits:
    num_train = pool.size - dev_size - test_size if train_size is None else train_size
    if dev_size < 1 or num_train < 1 or (test is None and test_size < 1) or num_train + dev_size > pool.size:
        raise ValueError(f"{name} has {pool.size} digits to split; dev_size={dev_size} and test_size={test_size} "
                         f"beside {num_train} to train on do not fit. Every part needs at least one.")
    order = np.random.default_rng(seed).permutation(pool.size)
    train, dev, rest = np.split(order, [num_train, num_train + dev_size])
    test = pool.take(rest) if test is None else test
    if balance:
        dev, test = _balanced_dev(pool.y, order[num_train:], dev_size), balanced(test, NUM_CLASSES)
    about = {"source": name, "split_seed": seed, "train": num_train, "dev": dev_size, "test": test.size,
             **({"balanced": True} if balance else {})}
    return Splits(pool.take(train), check_dev(pool.take(dev)), test, NUM_CLASSES, name, about)


def _balanced_dev(labels: np.ndarray, candidates: np.ndarray, dev_size: int) -> np.ndarray:
    """The first dev_size / C candidates of every class, in their order."""
    each = dev_size // NUM_CLASSES
    kept = [np.flatnonzero(labels[candidates] == c)[:each] for c in range(NUM_CLASSES)]
    if each * NUM_CLASSES != dev_size or min(len(part) for part in kept) < each:
        raise ValueError(f"a balanced dev set needs dev_size to be a multiple of {NUM_CLASSES} and enough digits of "
                         f"every class; received {dev_size} of {len(candidates)}.")
    return candidates[np.sort(np.concatenate(kept))]


def _images(x: np.ndarray, y: np.ndarray, what: str) -> ArrayPair:
    if x.ndim != 3 or x.shape[1:] != (28, 28) or x.dtype != np.uint8:
        raise ValueError(f"{what}: MNIST images must be uint8 [n, 28, 28]; received {x.dtype} {x.shape}.")
    return check_pair(scale(x), y, NUM_CLASSES, what)


def _from_npz(path: str) -> tuple[ArrayPair, ArrayPair]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x_train, y_train, x_test, y_test = (arrays[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {path!r}. Give an .npz with x_train, y_train, x_test, y_test, or a "
                         "directory with MNIST's four idx files.") from error
    except (KeyError, OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path!r} is no .npz with x_train, y_train, x_test, y_test: {error}") from error
    return _images(x_train, y_train, f"{path} (train)"), _images(x_test, y_test, f"{path} (test)")


def read_idx(path: str | pathlib.Path) -> np.ndarray:
    """An array from a file in MNIST's idx format, gzip or not.

    Raises:
      ValueError: if the header or the length is not that of an idx file.
    """
    content = pathlib.Path(path).read_bytes()
    try:
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file: {error}") from error
    if len(content) < 4 or len(content) < 4 + 4 * content[3] or content[:2] != b"\0\0" \
            or content[2] not in _IDX_DTYPES:
        raise ValueError(f"{path} does not begin as an idx file does.")
    rank = content[3]
    shape = struct.unpack(f">{rank}I", content[4:4 + 4 * rank])
    dtype = np.dtype(_IDX_DTYPES[content[2]])
    body = content[4 + 4 * rank:]
    if len(body) != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError(f"{path} should hold {shape} values of {dtype}, but has {len(body)} bytes of them.")
    return np.frombuffer(body, dtype).reshape(shape)


def _from_idx(folder: pathlib.Path, part: str) -> ArrayPair:
    arrays = []
    for name in IDX_FILES[part]:
        present = [path for path in (folder / name, folder / f"{name}.gz") if path.exists()]
        if not present:
            raise ValueError(f"{folder} has neither {name} nor {name}.gz.")
        arrays.append(read_idx(present[0]))
    return _images(arrays[0], arrays[1], f"{folder} ({part})")


def _from_tfds(data_dir: str | None) -> tuple[ArrayPair, ArrayPair]:
    import tensorflow_datasets as tfds

    try:
        parts = tfds.load("mnist", split=["train", "test"], batch_size=-1, as_supervised=True,
                          data_dir=data_dir, download=False)
    except (AssertionError, FileNotFoundError, tfds.core.DatasetNotFoundError) as error:
        raise ValueError("tensorflow-datasets has no prepared mnist in its data directory. Prepare it with `tfds build "
                         "mnist`, or give the path of an .npz or of a directory with the idx files.") from error
    train, test = ((np.asarray(x)[..., 0], np.asarray(y)) for x, y in parts)
    return _images(*train, "tfds mnist (train)"), _images(*test, "tfds mnist (test)")
