"""MNIST's idx format, and any data set of images in it."""

from __future__ import annotations

import gzip
import pathlib
import re
import struct
import zlib
from typing import Any

import numpy as np

from tf_l2t.data.splits import ArrayPair, Splits, check_pair, split_pool

# What the names of a part's files say; MNIST calls the test files t10k, EMNIST test.
IDX_PARTS = {"train": ("train",), "test": ("t10k", "test")}
_DTYPES: dict[int, Any] = {0x08: np.uint8, 0x09: np.int8, 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


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
    if len(content) < 4 or len(content) < 4 + 4 * content[3] or content[:2] != b"\0\0" or content[2] not in _DTYPES:
        raise ValueError(f"{path} does not begin as an idx file does.")
    rank = content[3]
    shape = struct.unpack(f">{rank}I", content[4:4 + 4 * rank])
    dtype = np.dtype(_DTYPES[content[2]])
    body = content[4 + 4 * rank:]
    if len(body) != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError(f"{path} should hold {shape} values of {dtype}, but has {len(body)} bytes of them.")
    return np.frombuffer(body, dtype).reshape(shape)


def read_idx_folder(folder: str | pathlib.Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """(images, labels) of "train" or "test" from a directory of the four files, gzip or not.

    The files are called as MNIST's, train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
    t10k-labels-idx1-ubyte, or with "test" in the place of "t10k", and may have something before.

    Raises:
      ValueError: if a file is missing or there are several, or as `read_idx`.
    """
    return _one_file(folder, part, "images"), _one_file(folder, part, "labels")


def _one_file(folder: str | pathlib.Path, part: str, what: str) -> np.ndarray:
    pattern = re.compile(rf"(.*-)?({'|'.join(IDX_PARTS[part])})-{what}-idx\d-ubyte(\.gz)?")
    there = pathlib.Path(folder)
    found = sorted(path for path in there.iterdir() if pattern.fullmatch(path.name)) if there.is_dir() else []
    names = " or ".join(f"{name}-{what}-idx{3 if what == 'images' else 1}-ubyte(.gz)" for name in IDX_PARTS[part])
    if not found:
        raise ValueError(f"{folder} has no file {names}.")
    if len({path.name.removesuffix(".gz") for path in found}) > 1:
        raise ValueError(f"{folder} must have one file {names}; it has {[path.name for path in found]}.")
    return read_idx(found[0])


def idx_images(path: str, dev_size: int = 10_000, seed: int = 0, train_size: int | None = None) -> Splits:
    """A data set of uint8 images in a directory of four idx files, such as Fashion-MNIST, KMNIST, or one's own.

    Images [n, h, w] or [n, h, w, channels] become float32 in [0, 1] with a last axis of channels; the classes are
    0 … the largest label.

    Args:
      path: the directory; its name is the data set's.
      dev_size, seed, train_size: as of `tf_l2t.data.mnist`.

    Raises:
      ValueError: if a file is missing or not what it should be, or a part would be empty.
    """
    parts = {}
    for part in ("train", "test"):
        x, y = read_idx_folder(path, part)
        if x.dtype != np.uint8 or x.ndim not in (3, 4):
            raise ValueError(f"{path} ({part}): images must be uint8 [n, h, w] or [n, h, w, channels]; received "
                             f"{x.dtype} {x.shape}.")
        parts[part] = check_pair((x if x.ndim == 4 else x[..., np.newaxis]).astype(np.float32) / 255, y,
                                 what=f"{path} ({part})")
    train, test = ArrayPair(*parts["train"]), ArrayPair(*parts["test"])
    if train.x.shape[1:] != test.x.shape[1:]:
        raise ValueError(f"{path}: train and test images must have one shape; received {train.x.shape[1:]} and "
                         f"{test.x.shape[1:]}.")
    classes = 1 + int(max(train.y.max(), test.y.max()))
    return split_pool(train, test, dev_size, 0, seed, pathlib.Path(path).resolve().name, classes, train_size)
