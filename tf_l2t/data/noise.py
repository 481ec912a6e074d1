"""Wrong labels and missing examples, made on purpose and recorded."""

from __future__ import annotations

import numpy as np

from tf_l2t.data.splits import Splits

NOISES = ("shift", "uniform")


def corrupt_labels(splits: Splits, kind: str, fraction: float, seed: int = 0) -> Splits:
    """The same splits with a fraction of the TRAIN labels made wrong.

    "shift" moves a label to the next class, y → (y + 1) mod C; "uniform" replaces it by another class, each of the
    C − 1 as likely. Dev and test stay clean. Exactly round(fraction · n) labels, drawn by `seed`, are changed.

    Raises:
      ValueError: for another kind, or a fraction that is not in [0, 1].
    """
    _check_noise(kind, fraction)
    labels = splits.train.y.copy()
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(labels))[:round(fraction * len(labels))]
    step = 1 if kind == "shift" else rng.integers(1, splits.num_classes, len(chosen), dtype=labels.dtype)
    labels[chosen] = (labels[chosen] + step) % splits.num_classes
    about = {**splits.about, "noise": kind, "noise_fraction": fraction, "noise_seed": seed}
    true_y = splits.train.y if splits.true_y is None else splits.true_y
    return splits._replace(train=splits.train._replace(y=labels), about=about, true_y=true_y)


def noise_matrix(kind: str, fraction: float, num_classes: int) -> np.ndarray:
    """The true N of `corrupt_labels`, [C, C]: N_ij is the probability that an example of class i carries label j.

    Raises:
      ValueError: as `corrupt_labels`.
    """
    _check_noise(kind, fraction)
    wrong = np.roll(np.eye(num_classes), 1, axis=1) if kind == "shift" else \
        (1 - np.eye(num_classes)) / (num_classes - 1)
    return (1 - fraction) * np.eye(num_classes) + fraction * wrong


def _check_noise(kind: str, fraction: float) -> None:
    if kind not in NOISES:
        raise ValueError(f"the kind of label noise must be one of {NOISES}; received {kind!r}.")
    if not 0 <= fraction <= 1:
        raise ValueError(f"the fraction of wrong labels must be in [0, 1]; received {fraction!r}.")


def long_tail(splits: Splits, ratio: float, seed: int = 0) -> Splits:
    """The same splits with fewer and fewer TRAIN examples from class 0 to class C − 1.

    Class c keeps floor(n · ratio^(−c / (C − 1))) examples, drawn by `seed`, where n is the size of the smallest class
    before: sizes fall geometrically, ratio:1 from the first to the last. Dev and test stay as they are.

    Raises:
      ValueError: for a ratio below 1, or if the last class would be left without an example.

    Source: the exponential profile of Cui et al., "Class-balanced loss based on effective number of samples", CVPR
    2019, section 5.1.
    """
    counts = np.bincount(splits.train.y, minlength=splits.num_classes)
    if not ratio >= 1 or counts.min() < ratio:
        raise ValueError("the ratio of a long tail must be at least 1, and at most the size of the smallest class, "
                         f"{counts.min()}; received {ratio!r}.")
    rng = np.random.default_rng(seed)
    sizes = [int(counts.min() * ratio ** (-c / (splits.num_classes - 1))) for c in range(splits.num_classes)]
    keep = [rng.permutation(np.flatnonzero(splits.train.y == c))[:size] for c, size in enumerate(sizes)]
    order = rng.permutation(np.concatenate(keep))
    train = splits.train.take(order)
    about = {**splits.about, "long_tail": ratio, "long_tail_seed": seed, "train": train.size}
    return splits._replace(train=train, about=about, true_y=None if splits.true_y is None else splits.true_y[order])
