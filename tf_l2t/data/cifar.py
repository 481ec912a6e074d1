"""CIFAR-10 and CIFAR-100, from their original files or through tensorflow-datasets."""

from __future__ import annotations

import codecs
import functools
import io
import pathlib
import pickle
import tarfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tf_l2t.data.splits import ArrayPair, Splits, check_pair, split_pool
from tf_l2t.data.tfds_images import Arrays, read_tfds

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The names of CIFAR-10's classes, in order."""
CIFAR100_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl",
    "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee",
    "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant",
    "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower",
    "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate",
    "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark",
    "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower",
    "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor", "train", "trout", "tulip",
    "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm")
"""The names of CIFAR-100's fine classes, in order."""
_BYTES = 3072  # of an image: 32 × 32 of red, then of green, then of blue


class _Files(NamedTuple):
    """Where a data set's arrays stand in its original files.

    Attributes:
      train, test: of the python version, without extension those of the binary one with ".bin".
      label: its key there.
      bytes_before: labels before every image of the binary version; the last is the label.
      classes: names.
    """

    train: tuple[str, ...]
    test: str
    label: bytes
    bytes_before: int
    classes: tuple[str, ...]


_FILES = {
    "cifar10": _Files(tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", b"labels", 1, CIFAR10_CLASSES),
    "cifar100": _Files(("train",), "test", b"fine_labels", 2, CIFAR100_CLASSES),
}


def cifar(name: str = "cifar10", path: str | None = None, dev_size: int = 5_000, seed: int = 0,
            train_size: int | None = None) -> Splits:
    """CIFAR-10 or CIFAR-100: 50,000 − dev_size train, dev_size dev, the 10,000 test images.

    Images are float32 [32, 32, 3] in [0, 1]; `prepared` normalises them and adds a paper's augmentation.

    Args:
      name: "cifar10" or "cifar100" (the fine labels).
      path: a .tar.gz archive of the original python or binary version; a directory with such an archive or with its
        files; a data directory of tensorflow-datasets; or None for its default one.
      dev_size, seed, train_size: as of `tf_l2t.data.mnist`.

    Raises:
      ValueError: for another name, if there is nothing readable at `path`, or a part would be empty.
    """
    if name not in _FILES:
        raise ValueError(f"name must be one of {sorted(_FILES)}; received {name!r}.")
    files = _FILES[name]
    original = None if path is None else _original(path, files)
    train, test = original or read_tfds(name, path)
    pool, held_out = (_images(x, y, files, f"{name} ({part})") for (x, y), part in ((train, "train"), (test, "test")))
    splits = split_pool(pool, held_out, dev_size, 0, seed, name, len(files.classes), train_size)
    return splits._replace(class_names=files.classes)


def _images(x: np.ndarray, y: np.ndarray, files: _Files, what: str) -> ArrayPair:
    if x.shape[1:] != (32, 32, 3) or x.dtype != np.uint8:
        raise ValueError(f"{what}: images must be uint8 [n, 32, 32, 3]; received {x.dtype} {x.shape}.")
    return check_pair(x.astype(np.float32) / 255, y, len(files.classes), what)


def _original(path: str, files: _Files) -> tuple[Arrays, Arrays] | None:
    """The arrays of the original files at `path`; None if it is a directory without them."""
    there = pathlib.Path(path)
    if not there.exists():
        raise ValueError(f"there is nothing at {path!r}. Give an archive of the original files, a directory with them, "
                         "or a data directory of tensorflow-datasets.")
    if there.is_file():
        found = _extracted(there, files)
        if found is None:
            raise ValueError(f"{path!r} has neither the python nor the binary version's files: {files.train[0]}, …")
        return found
    for folder in (there, *sorted(p for p in there.iterdir() if p.is_dir())):
        if (found := _read(functools.partial(_file, folder), files, str(folder))) is not None:
            return found
    for archive in sorted(there.glob("*.tar.gz")):
        if (found := _extracted(archive, files)) is not None:
            return found
    return None


def _file(folder: pathlib.Path, name: str) -> bytes | None:
    return (folder / name).read_bytes() if (folder / name).is_file() else None


def _extracted(archive: pathlib.Path, files: _Files) -> tuple[Arrays, Arrays] | None:
    """From an archive, whatever its folder is called."""
    wanted = {f"{file}{ending}" for file in (*files.train, files.test) for ending in ("", ".bin")}
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as members:
            for member in members:
                base = pathlib.PurePosixPath(member.name).name
                if member.isfile() and base in wanted:
                    extracted = members.extractfile(member)
                    contents[base] = extracted.read() if extracted else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{archive} is no readable tar archive: {error}") from error
    return _read(contents.get, files, str(archive))


def _read(read: Callable[[str], bytes | None], files: _Files, where: str) -> tuple[Arrays, Arrays] | None:
    """Train and test arrays of the python version, or else the binary one; None if there is neither."""
    for ending, decode in (("", _from_pickle), (".bin", _from_binary)):
        contents = {file: read(f"{file}{ending}") for file in (*files.train, files.test)}
        if contents[files.train[0]] is None:
            continue
        missing = [f"{file}{ending}" for file, content in contents.items() if content is None]
        if missing:
            raise ValueError(f"{where} has {files.train[0]}{ending}, but not {missing}.")
        parts = {file: decode(content, files, f"{where}: {file}{ending}") for file, content in contents.items()
                 if content is not None}
        train = [parts[file] for file in files.train]
        return (np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train])), parts[files.test]
    return None


def _planes(flat: np.ndarray) -> np.ndarray:
    """uint8 [n, 3072] of whole colours, as images [n, 32, 32, 3]."""
    return flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _from_binary(content: bytes, files: _Files, where: str) -> Arrays:
    size = files.bytes_before + _BYTES
    if not content or len(content) % size:
        raise ValueError(f"{where} should be a multiple of {size} bytes; it has {len(content)}.")
    rows = np.frombuffer(content, np.uint8).reshape(-1, size)
    return _planes(rows[:, files.bytes_before:]), rows[:, files.bytes_before - 1].astype(np.int64)


def _no_array_yet(kind: Any, shape: Any, dtype: Any) -> np.ndarray:
    """What NumPy's pickles begin an array with; its shape and bytes, which have to fit, come after."""
    del kind, shape, dtype
    return np.ndarray((0,), np.uint8)


_ALLOWED = {("numpy", "ndarray"): None, ("numpy", "dtype"): np.dtype, ("_codecs", "encode"): codecs.encode,
            **{(f"numpy.{core}.multiarray", "_reconstruct"): _no_array_yet for core in ("core", "_core")}}


class _ArraysOnly(pickle._Unpickler):  # in Python: that in C gives a spoiled file any memory it asks for
    """A pickle may run any code; these need nothing but NumPy's arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it calls for {module}.{name}, which CIFAR's files do not")
        return _ALLOWED[module, name]


def _from_pickle(content: bytes, files: _Files, where: str) -> Arrays:
    try:
        record = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        flat, labels = np.asarray(record[b"data"]), np.asarray(record[files.label])
    except Exception as error:  # of any kind: a pickle is a program
        raise ValueError(f"{where} is no file of CIFAR's python version: {error}") from error
    if flat.ndim != 2 or flat.shape[1] != _BYTES or flat.dtype != np.uint8 or len(flat) != len(labels):
        raise ValueError(f"{where} should hold uint8 [n, {_BYTES}] and as many labels; received {flat.dtype} "
                         f"{flat.shape} and {len(labels)}.")
    return _planes(flat), labels.astype(np.int64)
