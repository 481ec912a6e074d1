"""Residual networks for small images.

Source: He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2; with shortcuts by convolution
and ResNet-50 as in the public code of RepDistiller, whose protocol ProKT's Tables 1 and 3 follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tf_l2t.students import blocks

SHORTCUTS = ("identity", "conv")


def resnet(depth: int = 8, num_classes: int = 10, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu",
           shortcut: str = "identity", widths: Sequence[int] = (16, 16, 32, 64), model_name: str = ""
           ) -> keras.Model:
    """A residual network of 6n + 2 layers: a 3×3 convolution, three stages of n blocks of two, and a dense layer.

    Taps: `stem`, `stage1` … `stage3` (each with `_preact`), `pooled`, `logits`.

    Args:
      depth: 6n + 2, such as 8, 20, 32.
      num_classes: C.
      input_shape: [height, width, channels], at least 32 × 32.
      activation: of all layers.
      shortcut: where the size changes, "identity" (every other place, zeros for new channels: the L2T-DLF paper's) or
        "conv" (a 1×1 convolution with batch normalisation: ProKT's).
      widths: filters of the stem and the stages.

    Raises:
      ValueError: for another depth, shortcut or number of widths, or images that are too small.
    """
    n, rest = divmod(depth - 2, 6)
    if n < 1 or rest:
        raise ValueError(f"the depth of a ResNet is 6n + 2, such as 8, 20, 32; received {depth!r}.")
    if shortcut not in SHORTCUTS:
        raise ValueError(f"shortcut must be one of {SHORTCUTS}; received {shortcut!r}.")
    if len(widths) != 4 or list(widths) != sorted(widths):
        raise ValueError("widths are four, of the stem and three stages, none below the one before; received "
                         f"{widths}.")
    inputs = blocks.image_input(input_shape)
    x = blocks.batch_norm(blocks.conv(inputs, widths[0], 3, "stem_conv"), "stem_preact")
    x = blocks.activate(x, activation, "stem")
    for stage, filters in enumerate(widths[1:], 1):
        for block in range(1, n + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            y = blocks.conv_bn(x, filters, 3, f"{name}_a", activation, stride)
            y = blocks.conv_bn(y, filters, 3, f"{name}_b")
            x = _joined(x, y, stride, shortcut, name, f"stage{stage}" * (block == n), activation)
    return keras.Model(inputs, blocks.classify(x, num_classes), name=model_name or f"resnet{depth}")


def _joined(x: Any, y: Any, stride: int, shortcut: str, name: str, tap: str, activation: str) -> Any:
    """Shortcut of x plus y, activated; the last block of a stage bears the stage's name."""
    filters = y.shape[-1]
    if stride > 1 or x.shape[-1] != filters:
        x = blocks.conv_bn(x, filters, 1, f"{name}_shortcut", stride=stride) if shortcut == "conv" else \
            blocks.PaddedShortcut(filters, stride, name=f"{name}_shortcut")(x)
    y = keras.layers.Add(name=f"{tap or name}_preact")([x, y])
    return blocks.activate(y, activation, tap or name)


def resnet8(num_classes: int = 10, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu",
            shortcut: str = "identity") -> keras.Model:
    """ResNet-8: 75,290 trained weights with 10 classes; 83,892 with 100 and shortcuts by convolution."""
    return resnet(8, num_classes, input_shape, activation, shortcut)


def resnet20(num_classes: int = 10, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu",
             shortcut: str = "identity") -> keras.Model:
    """ResNet-20: 269,722 trained weights with 10 classes (published: 0.27 M, He et al., Table 6)."""
    return resnet(20, num_classes, input_shape, activation, shortcut)


def resnet32(num_classes: int = 10, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu",
             shortcut: str = "identity") -> keras.Model:
    """ResNet-32: 464,154 trained weights with 10 classes (published: 0.46 M, He et al., Table 6)."""
    return resnet(32, num_classes, input_shape, activation, shortcut)


def resnet32x4(num_classes: int = 100, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu"
               ) -> keras.Model:
    """ResNet-32 of widths 32, 64, 128, 256, with shortcuts by convolution: 7,433,860 trained weights."""
    return resnet(32, num_classes, input_shape, activation, "conv", (32, 64, 128, 256), "resnet32x4")


def resnet50(num_classes: int = 100, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu",
             repeats: Sequence[int] = (3, 4, 6, 3), filters: int = 64) -> keras.Model:
    """ResNet-50 for small images: a 3×3 stem without stride, no max pooling; 23,705,252 trained weights.

    Published: 23.7 M with 100 classes, RepDistiller's networks. Blocks of 1×1, 3×3 (which has the stride) and 1×1
    convolutions, four stages of 64, 128, 256 and 512 filters, times four at the end of a block.

    Taps: `stem`, `stage1` … `stage4` (each with `_preact`), `pooled`, `logits`.

    Args:
      num_classes, input_shape, activation: as in `resnet`.
      repeats: blocks of the four stages; fewer make a small network of the same kind.
      filters: of the stem and the first stage.

    Raises:
      ValueError: unless there are four stages of a block at least and a filter, or for images that are too small.
    """
    if len(repeats) != 4 or min(repeats) < 1 or filters < 1:
        raise ValueError("repeats are the blocks of four stages, at least 1 each, and filters at least 1; received "
                         f"{repeats}, {filters!r}.")
    inputs = blocks.image_input(input_shape)
    x = blocks.batch_norm(blocks.conv(inputs, filters, 3, "stem_conv"), "stem_preact")
    x = blocks.activate(x, activation, "stem")
    for stage, count in enumerate(repeats, 1):
        for block in range(1, count + 1):
            width, stride = filters * 2 ** (stage - 1), 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            y = blocks.conv_bn(x, width, 1, f"{name}_a", activation)
            y = blocks.conv_bn(y, width, 3, f"{name}_b", activation, stride)
            y = blocks.conv_bn(y, 4 * width, 1, f"{name}_c")
            x = _joined(x, y, stride, "conv", name, f"stage{stage}" * (block == count), activation)
    return keras.Model(inputs, blocks.classify(x, num_classes), name="resnet50")
