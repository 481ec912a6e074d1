"""MobileNetV2 for small images.

Source: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018, Table 2; strides, ReLU and
rounding as in the code of route-constrained optimization and RepDistiller.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tf_l2t.students import blocks

# Expansion (None: that of the network), channels, repeats, stride of the first.
GROUPS = ((1, 16, 1, 1), (None, 24, 2, 1), (None, 32, 3, 2), (None, 64, 4, 2), (None, 96, 3, 1), (None, 160, 3, 2),
          (None, 320, 1, 1))
TAPS = {2: "stage1", 3: "stage2", 5: "stage3", 7: "stage4"}  # behind these groups, counted from 1


def mobilenet_v2(num_classes: int = 100, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu",
                 width: float = 0.5, expansion: int = 6, repeats: Sequence[int] | None = None) -> keras.Model:
    """MobileNetV2, of half the width by default: 812,836 trained weights with 100 classes.

    A block is a 1×1 convolution to `expansion` times its channels, a 3×3 one of every channel by itself, and a 1×1 one
    without activation; blocks that keep the size add their input. Channels are cut down, int(c · width); those before
    the dense layer stay at 1,280 for widths below 1. The stem has stride 2.

    Taps: `stem`, `stage1` … `stage4` (of no activation: they are their own tensors before one), `pooled`, `logits`.

    Args:
      num_classes, input_shape, activation: as in `resnet`.
      width: the factor of all channels.
      expansion: T.
      repeats: blocks of the seven groups, for a smaller network of the same kind; None for the paper's.

    Raises:
      ValueError: for a number out of range, or images that are too small.
    """
    repeats = [group[2] for group in GROUPS] if repeats is None else list(repeats)
    if int(16 * width) < 1 or expansion < 1 or len(repeats) != len(GROUPS) or min(repeats) < 1:
        raise ValueError("width must leave a channel of 16, expansion be at least 1, and repeats seven numbers of at "
                         f"least 1; received {width!r}, {expansion!r}, {repeats}.")
    inputs = blocks.image_input(input_shape)
    x = blocks.batch_norm(blocks.conv(inputs, int(32 * width), 3, "stem_conv", stride=2), "stem_preact")
    x = blocks.activate(x, activation, "stem")
    for number, (factor, channels, _, first_stride) in enumerate(GROUPS, 1):
        filters, count = int(channels * width), repeats[number - 1]
        for block in range(1, count + 1):
            name, stride = f"group{number}_block{block}", first_stride if block == 1 else 1
            tap = TAPS.get(number, "") * (block == count)
            y = blocks.conv_bn(x, x.shape[-1] * (factor or expansion), 1, f"{name}_a", activation)
            y = blocks.activate(blocks.batch_norm(blocks.depthwise(y, f"{name}_b_conv", stride), f"{name}_b_bn"),
                                activation, f"{name}_b_act")
            y = blocks.conv(y, filters, 1, f"{name}_c_conv")
            adds = stride == 1 and x.shape[-1] == filters
            y = blocks.batch_norm(y, f"{name}_c_bn" if adds else tap or f"{name}_c_bn")
            x = keras.layers.Add(name=tap or name)([x, y]) if adds else y
    x = blocks.conv_bn(x, max(1280, int(1280 * width)), 1, "last", activation)
    return keras.Model(inputs, blocks.classify(x, num_classes), name="mobilenet_v2")
