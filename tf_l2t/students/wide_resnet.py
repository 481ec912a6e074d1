"""Wide residual networks.

Source: Zagoruyko and Komodakis, "Wide residual networks", BMVC 2016, section 2; the shortcuts of blocks that change the
size start behind the block's first activation, as in their code and RepDistiller's.
"""

from __future__ import annotations

import keras

from tf_l2t.students import blocks


def wide_resnet(depth: int = 40, width: int = 2, num_classes: int = 10, input_shape: tuple[int, ...] = (32, 32, 3),
                activation: str = "relu") -> keras.Model:
    """WRN-depth-width: activations before convolutions, 16, 32 and 64 filters times `width`.

    Published trained weights: WRN-40-1 0.6 M, WRN-40-2 2.2 M (Zagoruyko and Komodakis, Table 2), WRN-40-10 55.8 M with
    10 classes; exactly 563,930, 2,243,546 and 55,841,754.

    Taps: `stem`, `stage1` … `stage3` (sums, before normalisation; with `_preact`, normalised and not yet activated),
    `pooled`, `logits`.

    Args:
      depth: 6n + 4, such as 16, 40.
      width: the factor of all filters but the stem's.
      num_classes, input_shape, activation: as in `resnet`.

    Raises:
      ValueError: for another depth, a width below 1, or images that are too small.
    """
    n, rest = divmod(depth - 4, 6)
    if n < 1 or rest:
        raise ValueError(f"the depth of a wide ResNet is 6n + 4, such as 10, 16, 40; received {depth!r}.")
    if width < 1:
        raise ValueError(f"width must be at least 1; received {width!r}.")
    inputs = blocks.image_input(input_shape)
    x = blocks.conv(inputs, 16, 3, "stem")
    before = "stem_preact"  # the normalisation of what a stage takes in is the tap before it
    for stage in (1, 2, 3):
        filters = 16 * width * 2 ** (stage - 1)
        for block in range(1, n + 1):
            name, stride = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
            y = blocks.activate(blocks.batch_norm(x, before if block == 1 else f"{name}_a_bn"), activation,
                                f"{name}_a_act")
            if x.shape[-1] != filters:
                x = blocks.conv(y, filters, 1, f"{name}_shortcut", stride)
            y = blocks.conv(y, filters, 3, f"{name}_a_conv", stride)
            y = blocks.activate(blocks.batch_norm(y, f"{name}_b_bn"), activation, f"{name}_b_act")
            y = blocks.conv(y, filters, 3, f"{name}_b_conv")
            x = keras.layers.Add(name=f"stage{stage}" if block == n else name)([x, y])
        before = f"stage{stage}_preact"
    x = blocks.activate(blocks.batch_norm(x, before), activation, "last_act")
    return keras.Model(inputs, blocks.classify(x, num_classes), name=f"wrn_{depth}_{width}")


def wrn_40_10(num_classes: int = 10, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu"
              ) -> keras.Model:
    """WRN-40-10 (L2T-DLF, Table 2): 55,841,754 trained weights with 10 classes."""
    return wide_resnet(40, 10, num_classes, input_shape, activation)


def wrn_40_2(num_classes: int = 100, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu"
             ) -> keras.Model:
    """WRN-40-2: 2,255,156 trained weights with 100 classes."""
    return wide_resnet(40, 2, num_classes, input_shape, activation)


def wrn_40_1(num_classes: int = 100, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu"
             ) -> keras.Model:
    """WRN-40-1: 569,780 trained weights with 100 classes."""
    return wide_resnet(40, 1, num_classes, input_shape, activation)


def wrn_16_2(num_classes: int = 100, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu"
             ) -> keras.Model:
    """WRN-16-2: 703,284 trained weights with 100 classes."""
    return wide_resnet(16, 2, num_classes, input_shape, activation)
