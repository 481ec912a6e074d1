"""How images are prepared for a student: normalised, and changed at random along the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tf_l2t.data.augment import flip_and_crop
from tf_l2t.data.splits import ArrayPair, Splits


class Recipe(NamedTuple):
    """How images are prepared.

    Attributes:
      statistics: train images in [0, 1] -> (mean, std), by which all images are normalised.
      mode: how `flip_and_crop` pads, by 4 pixels; "constant" is with black.
      flip: whether it flips.
    """

    statistics: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    mode: str
    flip: bool = True


def _pixel_means(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L2T-DLF, appendix B.2: the mean of every pixel is subtracted."""
    return x.mean(axis=0, dtype=np.float64).astype(np.float32), np.ones(x.shape[-1], np.float32)


def _channel_constants(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of CIFAR-100's channels, as in the code of RepDistiller, whose protocol ProKT follows."""
    return np.array([0.5071, 0.4867, 0.4408], np.float32), np.array([0.2675, 0.2565, 0.2761], np.float32)


RECIPES = {"l2t_dlf": Recipe(_pixel_means, "reflect"), "prokt": Recipe(_channel_constants, "constant"),
           "digits": Recipe(_pixel_means, "reflect", flip=False)}
"""How images are prepared and augmented, by the paper whose recipe it is."""


def prepared(splits: Splits, recipe: str) -> Splits:
    """Splits of images in [0, 1], normalised and with the train images' augmentation.

    Args:
      recipe: "l2t_dlf", "prokt", or "digits", which is the first without flips.

    Raises:
      ValueError: for another recipe, or one for three channels where images have another number.
    """
    if recipe not in RECIPES:
        raise ValueError(f"recipe must be one of {sorted(RECIPES)}; received {recipe!r}.")
    statistics, mode, flip = RECIPES[recipe]
    mean, std = statistics(splits.train.x)
    if std.shape[-1] != splits.train.x.shape[-1]:
        raise ValueError(f"the recipe {recipe!r} is for images of {std.shape[-1]} channels; received "
                         f"{splits.train.x.shape[-1]}.")
    train, dev, test = (part._replace(x=(part.x - mean) / std) for part in (splits.train, splits.dev, splits.test))
    augment = flip_and_crop(4, mode, (-mean / std).tolist() if mean.ndim == 1 else 0.0, flip)
    return splits._replace(train=train, dev=dev, test=test, about={**splits.about, "recipe": recipe}, augment=augment)


def like_cifar(splits: Splits) -> Splits:
    """Splits of images with one channel and at most 32 × 32 pixels as 32 × 32 × 3: black around them, three alike.

    Raises:
      ValueError: for images of another kind.
    """
    height, width, channels = splits.train.x.shape[1:]
    if channels != 1 or max(height, width) > 32:
        raise ValueError("only images of one channel and at most 32 x 32 pixels can be made like CIFAR's; received "
                         f"{splits.train.x.shape[1:]}.")
    borders = [(0, 0), *(((32 - side) // 2, 32 - side - (32 - side) // 2) for side in (height, width)), (0, 0)]

    def padded(part: ArrayPair) -> ArrayPair:
        return part._replace(x=np.repeat(np.pad(part.x, borders), 3, axis=-1))

    return splits._replace(train=padded(splits.train), dev=padded(splits.dev), test=padded(splits.test),
                           about={**splits.about, "like_cifar": True})
