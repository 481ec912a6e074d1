"""ShuffleNets for small images: a 1×1 stem of 24 channels without stride, as in RepDistiller.

Sources: Zhang et al., "ShuffleNet", CVPR 2018; Ma et al., "ShuffleNet V2", ECCV 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tf_l2t.students import blocks


def shufflenet_v1(num_classes: int = 100, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu",
                  groups: int = 3, widths: Sequence[int] = (240, 480, 960), repeats: Sequence[int] = (4, 8, 4)
                  ) -> keras.Model:
    """ShuffleNet of three groups: 949,258 trained weights with 100 classes.

    A block is a 1×1 convolution in groups to a quarter of its channels, a shuffle of them, a 3×3 convolution of every
    channel by itself, and a 1×1 one in groups. The first of a stage has stride 2 and appends its input's averages.

    Taps: `stem`, `stage1` … `stage3` (each with `_preact`), `pooled`, `logits`.

    Args:
      num_classes, input_shape, activation: as in `resnet`.
      groups: of the 1×1 convolutions, but for the network's first, which sees 24 channels.
      widths: channels of the stages.
      repeats: blocks of the stages.

    Raises:
      ValueError: if channels are no multiple of the groups, or images are too small.
    """
    if len(widths) != 3 or len(repeats) != 3 or min(repeats) < 1 or groups < 1 \
            or any(width % (4 * groups) for width in widths):
        raise ValueError("widths are three multiples of 4 x groups, repeats three numbers of at least 1; received "
                         f"{widths}, {groups!r}, {repeats}.")
    inputs = blocks.image_input(input_shape)
    x = blocks.activate(blocks.batch_norm(blocks.conv(inputs, 24, 1, "stem_conv"), "stem_preact"), activation, "stem")
    for stage, (width, count) in enumerate(zip(widths, repeats, strict=True), 1):
        for block in range(1, count + 1):
            name, tap, first = f"stage{stage}_block{block}", f"stage{stage}" * (block == count), block == 1
            # The first block's own channels make room for those of its input; a quarter of them is cut down.
            filters = width - x.shape[-1] if first else width
            in_groups = 1 if stage == 1 and first else groups
            y = _in_groups(x, filters // 4, in_groups, f"{name}_a_conv")
            y = blocks.activate(blocks.batch_norm(y, f"{name}_a_bn"), activation, f"{name}_a_act")
            y = blocks.ChannelShuffle(in_groups, name=f"{name}_shuffle")(y)
            y = blocks.depthwise(y, f"{name}_b_conv", 2 if first else 1)
            y = blocks.activate(blocks.batch_norm(y, f"{name}_b_bn"), activation, f"{name}_b_act")
            y = blocks.batch_norm(_in_groups(y, filters, groups, f"{name}_c_conv"), f"{name}_c_bn")
            if first:
                x = keras.layers.ZeroPadding2D(1, name=f"{name}_shortcut_pad")(x)
                x = keras.layers.AveragePooling2D(3, 2, name=f"{name}_shortcut")(x)
                y = keras.layers.Concatenate(name=f"{tap or name}_preact")([y, x])
            else:
                y = keras.layers.Add(name=f"{tap or name}_preact")([y, x])
            x = blocks.activate(y, activation, tap or name)
    return keras.Model(inputs, blocks.classify(x, num_classes), name="shufflenet_v1")


def _in_groups(x: Any, filters: int, groups: int, name: str) -> Any:
    return keras.layers.Conv2D(filters, 1, groups=groups, use_bias=False, kernel_initializer=blocks.he_normal(),
                               name=name)(x)


def shufflenet_v2(num_classes: int = 100, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu",
                  widths: Sequence[int] = (116, 232, 464, 1024), repeats: Sequence[int] = (3, 7, 3)) -> keras.Model:
    """ShuffleNetV2: 1,355,528 trained weights with 100 classes.

    A stage halves the size in a block of two branches, then has `repeats` blocks in which one half of the channels
    passes as it is and the other through 1×1, 3×3 (every channel by itself) and 1×1 convolutions; channels are shuffled
    behind every block.

    Taps: `stem`, `stage1` … `stage3` (shuffled; with `_preact`, before activation and shuffle), `pooled`, `logits`.

    Args:
      num_classes, input_shape, activation: as in `resnet`.
      widths: channels of the stages, and of the 1×1 convolution behind them.
      repeats: blocks of the stages beside the first.

    Raises:
      ValueError: if a stage's channels are odd, or images are too small.
    """
    if len(widths) != 4 or len(repeats) != 3 or min(repeats) < 1 or any(width % 2 or width < 2 for width in widths[:3]):
        raise ValueError("widths are three even numbers and a fourth, repeats three numbers of at least 1; received "
                         f"{widths}, {repeats}.")
    inputs = blocks.image_input(input_shape)
    x = blocks.activate(blocks.batch_norm(blocks.conv(inputs, 24, 1, "stem_conv"), "stem_preact"), activation, "stem")
    for stage, (width, count) in enumerate(zip(widths[:3], repeats, strict=True), 1):
        half, name = width // 2, f"stage{stage}_block0"
        left = blocks.batch_norm(blocks.depthwise(x, f"{name}_left_conv", 2), f"{name}_left_bn")
        left = blocks.conv_bn(left, half, 1, f"{name}_left_b", activation)
        right = _branch(x, half, 2, name, activation)
        right = blocks.activate(right, activation, f"{name}_right_act")
        x = keras.layers.Concatenate(name=f"{name}_joined")([left, right])
        x = blocks.ChannelShuffle(2, name=f"{name}_shuffle")(x)
        for block in range(1, count + 1):
            name, tap = f"stage{stage}_block{block}", f"stage{stage}" * (block == count)
            kept = blocks.ChannelSlice(0, half, name=f"{name}_kept")(x)
            right = _branch(blocks.ChannelSlice(half, width, name=f"{name}_taken")(x), half, 1, name, activation)
            x = keras.layers.Concatenate(name=f"{tap or name}_preact")([kept, right])
            right = blocks.activate(blocks.ChannelSlice(half, width, name=f"{name}_right")(x), activation,
                                    f"{name}_right_act")
            x = keras.layers.Concatenate(name=f"{name}_joined")([kept, right])
            x = blocks.ChannelShuffle(2, name=tap or f"{name}_shuffle")(x)
    x = blocks.conv_bn(x, widths[3], 1, "last", activation)
    return keras.Model(inputs, blocks.classify(x, num_classes), name="shufflenet_v2")


def _branch(x: Any, filters: int, stride: int, name: str, activation: str) -> Any:
    """1×1, 3×3 of every channel by itself, 1×1, not yet activated."""
    y = blocks.conv_bn(x, filters, 1, f"{name}_a", activation)
    y = blocks.batch_norm(blocks.depthwise(y, f"{name}_b_conv", stride), f"{name}_b_bn")
    return blocks.batch_norm(blocks.conv(y, filters, 1, f"{name}_c_conv"), f"{name}_c_bn")
