"""What the image students are built of, as the public implementations of both papers have it.

Convolutions have no bias, for batch normalisation follows. A strided one pads evenly on all sides, as PyTorch does,
where Keras's "same" would pad one row and column more at the end. Kernels are drawn by He's rule for what goes out
(normal, variance 2 / (kernel area x filters)), those of dense layers uniformly within 1 / sqrt(inputs); the papers name
none.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-5}
Tensor = Any  # a symbolic one, of Keras


def he_normal() -> keras.initializers.Initializer:
    """Normal, of variance 2 / (kernel area · filters) (He et al., "Delving deep into rectifiers", ICCV 2015, (14))."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def conv(x: Tensor, filters: int, kernel: int, name: str, stride: int = 1, use_bias: bool = False) -> Tensor:
    """A convolution with evenly padded borders: [batch, ⌈h / stride⌉, ⌈w / stride⌉, filters]."""
    if stride > 1 and kernel > 1:
        x = keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    return keras.layers.Conv2D(filters, kernel, stride, padding="same" if stride == 1 else "valid", use_bias=use_bias,
                               kernel_initializer=he_normal(), name=name)(x)


def depthwise(x: Tensor, name: str, stride: int = 1) -> Tensor:
    """A 3×3 convolution of every channel by itself, with evenly padded borders."""
    if stride > 1:
        x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return keras.layers.DepthwiseConv2D(3, stride, padding="same" if stride == 1 else "valid", use_bias=False,
                                        depthwise_initializer=he_normal(), name=name)(x)


def batch_norm(x: Tensor, name: str) -> Tensor:
    """Batch normalisation with ε = 1e-5 and running statistics of momentum 0.9."""
    return keras.layers.BatchNormalization(**BATCH_NORM, name=name)(x)


def activate(x: Tensor, activation: Any, name: str) -> Tensor:
    """The activation as a layer of that name, so that what goes into it can be a tap."""
    return keras.layers.Activation(activation, name=name)(x)


def conv_bn(x: Tensor, filters: int, kernel: int, name: str, activation: Any = None, stride: int = 1) -> Tensor:
    """Convolution, batch normalisation and, if there is one, activation."""
    x = batch_norm(conv(x, filters, kernel, f"{name}_conv", stride), f"{name}_bn")
    return x if activation is None else activate(x, activation, f"{name}_act")


def classify(x: Tensor, num_classes: int) -> Tensor:
    """Logits of the mean over all places: the taps `pooled` and `logits`."""
    x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    bound = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    return keras.layers.Dense(num_classes, kernel_initializer=bound, name="logits")(x)


def image_input(input_shape: tuple[int, ...]) -> Tensor:
    """The input of an image student.

    Raises:
      ValueError: unless the images are [height, width, channels] of at least 32 × 32 pixels.
    """
    if len(input_shape) != 3 or min(input_shape[:2]) < 32:
        raise ValueError("this student takes images [height, width, channels] of at least 32 x 32 pixels; received "
                         f"shape {tuple(input_shape)}. Pad smaller ones.")
    return keras.Input(tuple(input_shape), name="image")


@keras.saving.register_keras_serializable(package="tf_l2t")
class PaddedShortcut(keras.layers.Layer):
    """Every other row and column, and zeros as the channels that are missing, as many before as behind.

    [batch, h, w, c] -> [batch, ⌈h / stride⌉, ⌈w / stride⌉, filters], without weights.

    Source: He et al., "Deep residual learning for image recognition", CVPR 2016, section 3.3, option A.
    """

    def __init__(self, filters: int, stride: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters, self.stride = filters, stride

    def call(self, x: Any) -> Any:
        missing = self.filters - x.shape[-1]
        x = x[:, ::self.stride, ::self.stride]
        return tf.pad(x, [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]])

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        batch, height, width, _ = input_shape
        return batch, -(-height // self.stride), -(-width // self.stride), self.filters

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "stride": self.stride}


@keras.saving.register_keras_serializable(package="tf_l2t")
class ChannelShuffle(keras.layers.Layer):
    """Deals the channels of all groups out in turn: channel i of group g becomes channel i · groups + g.

    Source: Zhang et al., "ShuffleNet", CVPR 2018, section 3.1.
    """

    def __init__(self, groups: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.groups = groups

    def call(self, x: Any) -> Any:
        # Not by a gather, whose gradient comes as IndexedSlices, which a ForwardAccumulator does not take.
        height, width, channels = x.shape[1:]
        x = tf.reshape(x, [-1, height, width, self.groups, channels // self.groups])
        return tf.reshape(tf.transpose(x, [0, 1, 2, 4, 3]), [-1, height, width, channels])

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups}


@keras.saving.register_keras_serializable(package="tf_l2t")
class ChannelSlice(keras.layers.Layer):
    """The channels from `start` to before `stop`."""

    def __init__(self, start: int, stop: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.start, self.stop = start, stop

    def call(self, x: Any) -> Any:
        return x[..., self.start:self.stop]

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*input_shape[:-1], self.stop - self.start)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start, "stop": self.stop}
