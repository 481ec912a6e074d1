"""The L2T-DLF paper's students for MNIST (appendix B.1). Both return logits."""

from __future__ import annotations

import keras


def mlp(num_classes: int = 10, input_shape: tuple[int, ...] = (28, 28, 1), hidden: int = 500,
        activation: str = "relu") -> keras.Model:
    """The paper's MLP, 784-500-10: 397,510 weights at the default sizes.

    The paper names no activation; ReLU is used here.
    """
    inputs = keras.Input(input_shape, name="image")
    x = keras.layers.Flatten(name="flatten")(inputs)
    x = keras.layers.Dense(hidden, activation=activation, name="hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, name="logits")(x), name="mlp")


def lenet(num_classes: int = 10, input_shape: tuple[int, ...] = (28, 28, 1), activation: str = "relu") -> keras.Model:
    """The paper's LeNet: conv 5×5×20, pool, conv 5×5×50, pool, 500, 10; 431,080 weights at the default sizes.

    Valid padding and 2×2 max pooling; the only activation is behind the hidden dense layer, as in the LeNet that
    these layer sizes are known from (that of Caffe's MNIST example); the paper names none.
    """
    inputs = keras.Input(input_shape, name="image")
    x = keras.layers.Conv2D(20, 5, name="conv1")(inputs)
    x = keras.layers.MaxPooling2D(name="pool1")(x)
    x = keras.layers.Conv2D(50, 5, name="conv2")(x)
    x = keras.layers.MaxPooling2D(name="pool2")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(500, activation=activation, name="hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, name="logits")(x), name="lenet")
