"""VGG networks for small images.

Source: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, Table
1; with batch normalisation, and the mean over all places and one dense layer in the place of three, as in RepDistiller.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tf_l2t.students import blocks

FILTERS = (64, 128, 256, 512, 512)


def vgg(layers: Sequence[int] = (1, 1, 1, 1, 1), num_classes: int = 100, input_shape: tuple[int, ...] = (32, 32, 3),
        activation: str = "relu", filters: Sequence[int] = FILTERS, name: str = "vgg") -> keras.Model:
    """Five stages of 3×3 convolutions, max pooling behind the first three and, for images of 64 and more, the fourth.

    These convolutions have a bias, as those of the public code.

    Taps: `stem` (the first stage), `stage1` … `stage4` (each with `_preact`), `pooled`, `logits`.

    Args:
      layers: convolutions of every stage.
      num_classes, input_shape, activation: as in `resnet`.
      filters: of every stage.

    Raises:
      ValueError: unless there are five stages of a convolution at least, or for images that are too small.
    """
    if len(layers) != 5 or len(filters) != 5 or min(layers) < 1 or min(filters) < 1:
        raise ValueError("layers and filters are those of five stages, at least 1 each; received "
                         f"{layers}, {filters}.")
    inputs = x = blocks.image_input(input_shape)
    for stage, (count, width) in enumerate(zip(layers, filters, strict=True)):
        tap = f"stage{stage}" if stage else "stem"
        for layer in range(1, count + 1):
            last = layer == count
            x = blocks.conv(x, width, 3, f"{tap}_conv{layer}", use_bias=True)
            x = blocks.batch_norm(x, f"{tap}_preact" if last else f"{tap}_bn{layer}")
            x = blocks.activate(x, activation, tap if last else f"{tap}_act{layer}")
        if stage < 3 or (stage == 3 and min(input_shape[:2]) >= 64):
            x = keras.layers.MaxPooling2D(name=f"{tap}_pool")(x)
    return keras.Model(inputs, blocks.classify(x, num_classes), name=name)


def vgg8(num_classes: int = 100, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu") -> keras.Model:
    """VGG-8: 3,965,028 trained weights with 100 classes."""
    return vgg((1, 1, 1, 1, 1), num_classes, input_shape, activation, name="vgg8")


def vgg13(num_classes: int = 100, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu") -> keras.Model:
    """VGG-13: 9,462,180 trained weights with 100 classes."""
    return vgg((2, 2, 2, 2, 2), num_classes, input_shape, activation, name="vgg13")
