"""Densely connected networks.

Source: Huang et al., "Densely connected convolutional networks", CVPR 2017, section 3 (DenseNet-BC).
"""

from __future__ import annotations

import keras

from tf_l2t.students import blocks


def densenet_bc(depth: int = 100, growth: int = 12, num_classes: int = 10,
                input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu") -> keras.Model:
    """DenseNet-BC: three blocks whose layers see all layers before them, half the channels between blocks.

    A layer is normalisation, activation, a 1×1 convolution to 4k channels, and the same with 3×3 to k. Published
    trained weights with 10 classes: 0.8 M for depth 100, k = 12, 25.6 M for depth 190, k = 40 (Huang et al., Table 2);
    exactly 769,162 and 25,624,430.

    Taps: `stem`, `stage1` … `stage3` (concatenations; with `_preact`, normalised and not yet activated), `pooled`,
    `logits`.

    Args:
      depth: 6n + 4, such as 40, 100, 190.
      growth: k.
      num_classes, input_shape, activation: as in `resnet`.

    Raises:
      ValueError: for another depth, a growth below 1, or images that are too small.
    """
    n, rest = divmod(depth - 4, 6)
    if n < 1 or rest:
        raise ValueError(f"the depth of a DenseNet-BC is 6n + 4, such as 40, 100, 190; received {depth!r}.")
    if growth < 1:
        raise ValueError(f"growth must be at least 1; received {growth!r}.")
    inputs = blocks.image_input(input_shape)
    x = blocks.conv(inputs, 2 * growth, 3, "stem")
    for stage in (1, 2, 3):
        for layer in range(1, n + 1):
            name = f"stage{stage}_layer{layer}"
            y = blocks.activate(blocks.batch_norm(x, f"{name}_a_bn"), activation, f"{name}_a_act")
            y = blocks.conv(y, 4 * growth, 1, f"{name}_a_conv")
            y = blocks.activate(blocks.batch_norm(y, f"{name}_b_bn"), activation, f"{name}_b_act")
            y = blocks.conv(y, growth, 3, f"{name}_b_conv")
            x = keras.layers.Concatenate(name=f"stage{stage}" if layer == n else name)([x, y])
        y = blocks.activate(blocks.batch_norm(x, f"stage{stage}_preact"), activation, f"stage{stage}_act")
        if stage < 3:
            y = blocks.conv(y, x.shape[-1] // 2, 1, f"stage{stage}_down_conv")
            x = keras.layers.AveragePooling2D(2, name=f"stage{stage}_down")(y)
    return keras.Model(inputs, blocks.classify(y, num_classes), name=f"densenet_bc_{depth}_{growth}")


def densenet_bc_100_12(num_classes: int = 10, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu"
                       ) -> keras.Model:
    """DenseNet-BC of depth 100, k = 12: 769,162 trained weights with 10 classes."""
    return densenet_bc(100, 12, num_classes, input_shape, activation)


def densenet_bc_190_40(num_classes: int = 10, input_shape: tuple[int, ...] = (32, 32, 3), activation: str = "relu"
                       ) -> keras.Model:
    """DenseNet-BC of depth 190, k = 40 (L2T-DLF, Table 2): 25.6 M trained weights with 10 classes."""
    return densenet_bc(190, 40, num_classes, input_shape, activation)
