"""The one record that every reader returns, and the checks at its door."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_l2t.data.augment import Augment


class ArrayPair(NamedTuple):
    """Inputs x [examples, ...] and integer labels y [examples]."""

    x: np.ndarray
    y: np.ndarray

    @property
    def size(self) -> int:
        """The number of examples."""
        return len(self.x)

    def take(self, indices: np.ndarray) -> ArrayPair:
        """The examples at `indices`, in their order."""
        return ArrayPair(self.x[indices], self.y[indices])


class Splits(NamedTuple):
    """Train, dev and test data of one task.

    Attributes:
      name: of the data set.
      num_classes: C; labels are 0 … C − 1.
      about: what a run's manifest records: source, sizes, seeds, noise.
      true_y: the train labels before they were made wrong, for oracles; None where they are as they came.
      class_names: of the C classes, for pictures; () where they have none but their numbers.
      augment: how train images are changed at every step, for `array_batches`; None for not at all.
    """

    train: ArrayPair
    dev: ArrayPair
    test: ArrayPair
    num_classes: int
    name: str
    about: dict[str, Any]
    true_y: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    augment: Augment | None = None


def two_parts(data: Any, what: str) -> tuple[Any, Any]:
    """(x, y) of `data`.

    Raises:
      ValueError: if it is no pair, or x is several inputs.
    """
    if not isinstance(data, list | tuple) or len(data) != 2:
        raise ValueError(f"{what} must be a pair of arrays, (x, y); received {type(data).__name__}. Of a tf.data "
                         "data set take the arrays: x, y = next(iter(dataset.unbatch().batch(500))).")
    x, y = data
    several = isinstance(x, list | tuple) and len(x) != np.shape(y)[0] and all(
        np.ndim(part) > 1 and len(part) == np.shape(y)[0] for part in x)
    if isinstance(x, dict) or several:
        raise ValueError(f"{what}: x is {type(x).__name__} of several inputs; models of several inputs are not taken. "
                         "Put them into one array, and take it apart in the model.")
    return x, y


def check_class_names(class_names: Sequence[Any], num_classes: int) -> tuple[str, ...]:
    """The names as strings.

    Raises:
      ValueError: if they are not different names of so many classes.
    """
    names = tuple(map(str, class_names))
    if len(names) != num_classes or len(set(names)) < num_classes:
        raise ValueError(f"class_names must be different names of {num_classes} classes; received {names}.")
    return names


def check_pair(x: Any, y: Any, num_classes: int | None = None, what: str = "data") -> ArrayPair:
    """`x` and `y` as arrays, checked.

    Args:
      x: [examples, ...], numbers.
      y: [examples], integers in [0, num_classes).
      num_classes: C; None to leave the labels' upper end unchecked.
      what: the name used in errors, such as "dev".

    Raises:
      ValueError: for unequal lengths, no examples, labels that are no integers or out of range, NaN or infinite
        inputs.
    """
    x, y = np.asarray(x), np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if x.ndim < 2 or y.ndim != 1:
        raise ValueError(f"{what}: x must be [examples, ...] and y [examples] integer labels; received shapes "
                         f"{x.shape} and {y.shape}. One-hot labels: pass np.argmax(y, axis=-1).")
    if len(x) != len(y):
        raise ValueError(f"{what}: x has {len(x)} examples and y has {len(y)}; they must be equally many.")
    if x.size == 0:
        raise ValueError(f"{what}: there is no example in it; received shape {x.shape}.")
    whole = y.dtype.kind in "iu" or (y.dtype.kind == "f" and np.isfinite(y).all() and np.all(y == np.round(y)))
    if not whole:
        raise ValueError(f"{what}: labels must be integers; received dtype {y.dtype}. Only classes, numbered from "
                         "0, have a loss here.")
    low, high = int(y.min()), int(y.max())
    limit = np.iinfo(np.int32).max if num_classes is None else num_classes
    if low < 0 or high >= limit:
        upper = "C - 1" if num_classes is None else str(num_classes - 1)
        base = " Labels that begin with 1: pass y - 1." if low == 1 and high == num_classes else ""
        raise ValueError(f"{what}: labels must be in 0 … {upper}; received labels from {low} to {high}.{base}")
    if x.dtype.kind not in "iuf":
        raise ValueError(f"{what}: x must be real numbers; received dtype {x.dtype}.")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).reshape(len(x), -1).any(axis=1).sum())
        raise ValueError(f"{what}: x holds NaN or infinite values in {bad} of {len(x)} examples; leave those out, or "
                         "put numbers in their place.")
    return ArrayPair(x, y.astype(np.int32))


def check_dev(dev: ArrayPair, what: str = "dev") -> ArrayPair:
    """Raises ValueError for a dev set of one class: no measure on it can guide a teacher."""
    if len(np.unique(dev.y)) < 2:
        raise ValueError(f"{what}: all {dev.size} labels are {int(dev.y[0])}; a dev set needs at least two classes. "
                         "Shuffle before you split.")
    return dev


def from_arrays(train: tuple[Any, Any], dev: tuple[Any, Any], test: tuple[Any, Any],
                num_classes: int | None = None, name: str = "arrays") -> Splits:
    """`Splits` of any pairs of arrays.

    Raises:
      ValueError: as `check_pair` and `check_dev`, or if the three parts' examples differ in shape.
    """
    parts = [check_pair(*pair, num_classes, what) for pair, what in ((train, "train"), (dev, "dev"), (test, "test"))]
    if num_classes is None:
        num_classes = 1 + max(int(part.y.max()) for part in parts)
    shapes = [part.x.shape[1:] for part in parts]
    if len(set(shapes)) > 1:
        raise ValueError(f"train, dev and test examples must have one shape; received {shapes}.")
    check_dev(parts[1])
    return Splits(parts[0], parts[1], parts[2], num_classes, name, {"source": name})


def split_pool(pool: ArrayPair, test: ArrayPair | None, dev_size: int, test_size: int, seed: int, name: str,
               num_classes: int, train_size: int | None = None, balance: bool = False) -> Splits:
    """Train, then dev, then test examples from a permutation of `pool` drawn by `seed`; a `test` set stays as it is.

    Args:
      pool: all examples that may be trained on.
      test: the data set's own test examples; None to take `test_size` of the pool.
      train_size: so many to train on, the same beside dev sets of every size; None for all that the others leave.
      balance: give dev and test the same number of examples of every class.

    Raises:
      ValueError: if a part would be empty, or too few of some class are there to balance dev.
    """
    num_train = pool.size - dev_size - test_size if train_size is None else train_size
    if dev_size < 1 or num_train < 1 or (test is None and test_size < 1) or num_train + dev_size > pool.size:
        raise ValueError(f"{name} has {pool.size} examples to split; dev_size={dev_size} and test_size={test_size} "
                         f"beside {num_train} to train on do not fit. Every part needs at least one.")
    order = np.random.default_rng(seed).permutation(pool.size)
    train, dev, rest = np.split(order, [num_train, num_train + dev_size])
    test = pool.take(rest) if test is None else test
    if balance:
        dev, test = _balanced_dev(pool.y, order[num_train:], dev_size, num_classes), balanced(test, num_classes)
    about = {"source": name, "split_seed": seed, "train": num_train, "dev": dev_size, "test": test.size,
             **({"balanced": True} if balance else {})}
    return Splits(pool.take(train), check_dev(pool.take(dev)), test, num_classes, name, about)


def _balanced_dev(labels: np.ndarray, candidates: np.ndarray, dev_size: int, num_classes: int) -> np.ndarray:
    """The first dev_size / C candidates of every class, in their order."""
    each = dev_size // num_classes
    kept = [np.flatnonzero(labels[candidates] == c)[:each] for c in range(num_classes)]
    if each * num_classes != dev_size or min(len(part) for part in kept) < each:
        raise ValueError(f"a balanced dev set needs dev_size to be a multiple of {num_classes} and enough examples of "
                         f"every class; received {dev_size} of {len(candidates)}.")
    return candidates[np.sort(np.concatenate(kept))]


def balanced(data: ArrayPair, num_classes: int) -> ArrayPair:
    """The first examples of every class, as many as the smallest class has, in their order."""
    least = np.bincount(data.y, minlength=num_classes).min()
    kept = [np.flatnonzero(data.y == c)[:least] for c in range(num_classes)]
    return data.take(np.sort(np.concatenate(kept)))


def fingerprint(splits: Splits) -> str:
    """A SHA-256 of every array, for a run's manifest."""
    return arrays_digest([array for part in (splits.train, splits.dev, splits.test) for array in part])


def arrays_digest(arrays: Iterable[Any]) -> str:
    """A SHA-256 of arrays and numbers, their shapes and dtypes."""
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
