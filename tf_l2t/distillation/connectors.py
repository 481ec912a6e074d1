"""Losses with weights of their own, which are trained with the student: Keras layers from two feature maps to a loss.

All are called with the teacher's tensor and the student's, in this order, and return a scalar. They are built for the
two shapes; a pair that a method cannot connect is refused then. As in the public code, kernels and biases are drawn
uniformly within 1 / sqrt(inputs of a unit), and batch normalisation has ε = 1e-5 and momentum 0.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.distillation.maps import attention_map, check_variant, flat, normalised, same_size
from tf_l2t.distillation.relations import check_congruence, correlation_congruence

Shape = tuple[Any, ...]
BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-5}
LEAK = 0.1  # of factor transfer's activations


def uniform(fan_in: int) -> dict[str, Any]:
    """Initializers of kernel and bias: uniform within 1 / sqrt(inputs of a unit)."""
    bound = fan_in ** -0.5
    return {f"{part}_initializer": keras.initializers.RandomUniform(-bound, bound) for part in ("kernel", "bias")}


def conv(filters: int, kernel: Any, inputs: int, name: str, transposed: bool = False, **options: Any
         ) -> keras.layers.Layer:
    """A convolution with the initial weights of the public code."""
    kind = keras.layers.Conv2DTranspose if transposed else keras.layers.Conv2D
    # What PyTorch counts as the inputs of a transposed convolution's unit are its outputs times the kernel's area.
    fan_in = (filters if transposed else inputs) * int(np.prod(np.broadcast_to(kernel, 2)))
    return kind(filters, kernel, name=name, **uniform(fan_in), **options)


@keras.saving.register_keras_serializable(package="tf_l2t")
class Regressor(keras.layers.Layer):
    """FitNet's: a convolution from the student's map to the size and channels of the teacher's, batch norm, ReLU.

    Twice the teacher's height: 3×3, stride 2. Half of it: 4×4 transposed, stride 2. Larger or equal: without padding,
    with a kernel of 1 + the difference.

    Args:
      activation: of the output; None for none.

    Raises:
      ValueError: when built, for a map smaller than the teacher's otherwise, or no maps.
    """

    def __init__(self, activation: str | None = "relu", **kwargs: Any):
        super().__init__(**kwargs)
        self.activation = activation

    def build(self, teacher_shape: Shape, student_shape: Shape) -> None:
        check_maps(teacher_shape, student_shape)
        (rows, columns), (s_rows, s_columns) = teacher_shape[1:3], student_shape[1:3]
        filters, inputs = teacher_shape[-1], student_shape[-1]
        self._pad = None
        if (s_rows, s_columns) == (2 * rows, 2 * columns):
            self._pad = keras.layers.ZeroPadding2D(1, name="pad", dtype=self.dtype_policy)
            self._conv = conv(filters, 3, inputs, "conv", strides=2, dtype=self.dtype_policy)
        elif (2 * s_rows, 2 * s_columns) == (rows, columns):
            self._conv = conv(filters, 4, inputs, "conv", transposed=True, strides=2, padding="same",
                              dtype=self.dtype_policy)
        elif s_rows >= rows and s_columns >= columns:
            self._conv = conv(filters, (1 + s_rows - rows, 1 + s_columns - columns), inputs, "conv",
                              dtype=self.dtype_policy)
        else:
            raise ValueError("a student's map is connected to one of the teacher's that is not larger, or twice as "
                             f"large; received {s_rows} x {s_columns} and {rows} x {columns}.")
        self._norm = keras.layers.BatchNormalization(**BATCH_NORM, name="bn", dtype=self.dtype_policy)
        padded = (None, s_rows + 2, s_columns + 2, inputs) if self._pad else student_shape
        self._conv.build(padded)
        self._norm.build((None, rows, columns, filters))

    def call(self, teacher: tf.Tensor, student: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The connected map of the student, of the shape of the teacher's."""
        x = self._conv(student if self._pad is None else self._pad(student))
        return keras.activations.get(self.activation)(self._norm(x, training=training))


@keras.saving.register_keras_serializable(package="tf_l2t")
class FitNet(keras.layers.Layer):
    """The mean of (r(f_s) − f_t)² over all entries, r a `Regressor`.

    Source: Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, equation (3).
    """

    def build(self, teacher_shape: Shape, student_shape: Shape) -> None:
        self._regressor = Regressor(name="regressor", dtype=self.dtype_policy)
        self._regressor.build(teacher_shape, student_shape)

    def call(self, teacher: tf.Tensor, student: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return tf.reduce_mean(tf.square(self._regressor(teacher, student, training=training) - teacher))


@keras.saving.register_keras_serializable(package="tf_l2t")
class ActivationBoundaries(keras.layers.Layer):
    """AB: 3 / 1000 Σ [(s + m)² for s > −m, t ≤ 0; (s − m)² for s ≤ m, t > 0] / batch, before activations.

    s is the student's map behind a connector, a `Regressor` without activation, or the map itself where it has the
    teacher's height and channels.

    Args:
      margin: m > 0.

    Source: Heo et al., "Knowledge transfer via distillation of activation boundaries formed by hidden neurons", AAAI
    2019, equation (4); the factor as in its authors' code.
    """

    def __init__(self, margin: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        if not margin > 0:
            raise ValueError(f"margin must be above 0; received {margin!r}.")
        self.margin = margin

    def build(self, teacher_shape: Shape, student_shape: Shape) -> None:
        check_maps(teacher_shape, student_shape)
        self._connector = None
        if teacher_shape[1:] != student_shape[1:]:
            self._connector = Regressor(activation=None, name="connector", dtype=self.dtype_policy)
            self._connector.build(teacher_shape, student_shape)

    def call(self, teacher: tf.Tensor, student: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if self._connector is not None:
            student = self._connector(teacher, student, training=training)
        below = tf.where((student > -self.margin) & (teacher <= 0), tf.square(student + self.margin), 0)
        above = tf.where((student <= self.margin) & (teacher > 0), tf.square(student - self.margin), 0)
        batch = tf.cast(tf.shape(student)[0], student.dtype)
        return tf.reduce_sum(below + above) / batch * (3 / 1000)


@keras.saving.register_keras_serializable(package="tf_l2t")
class VariationalInformation(keras.layers.Layer):
    """VID: the mean of ½ [(μ(f_s) − f_t)² / σ_c² + log σ_c²] over all entries.

    μ: three 1×1 convolutions without bias, of the teacher's channels, ReLU between them; σ_c² = softplus(ρ_c) + 1e-5, a
    weight for every channel of the teacher. The larger map is averaged down to the smaller.

    Args:
      variance: σ² at the start.

    Source: Ahn et al., "Variational information distillation for knowledge transfer", CVPR 2019, section 3.
    """

    EPSILON = 1e-5

    def __init__(self, variance: float = 5.0, **kwargs: Any):
        super().__init__(**kwargs)
        if not variance > self.EPSILON:
            raise ValueError(f"variance must be above {self.EPSILON}; received {variance!r}.")
        self.variance = variance

    def build(self, teacher_shape: Shape, student_shape: Shape) -> None:
        check_maps(teacher_shape, student_shape)
        filters, inputs = teacher_shape[-1], student_shape[-1]
        self._mean = [conv(filters, 1, width, f"mean{i}", use_bias=False, dtype=self.dtype_policy) for i, width in
                      enumerate((inputs, filters, filters))]
        for layer, width in zip(self._mean, (inputs, filters, filters), strict=True):
            layer.build((None, *teacher_shape[1:3], width))
        variance = self.variance - self.EPSILON
        start = variance + np.log(-np.expm1(-variance))  # softplus' inverse, which does not overflow
        self._rho = self.add_weight(shape=(filters,), initializer=keras.initializers.Constant(start), name="rho")

    def call(self, teacher: tf.Tensor, student: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        teacher, x = same_size(teacher, student)
        for layer in self._mean[:-1]:
            x = tf.nn.relu(layer(x))
        mean = self._mean[-1](x)
        variance = tf.nn.softplus(self._rho.value) + self.EPSILON
        return tf.reduce_mean(tf.square(mean - teacher) / variance + tf.math.log(variance)) / 2


@keras.saving.register_keras_serializable(package="tf_l2t")
class CorrelationCongruence(keras.layers.Layer):
    """CC: `tf_l2t.distillation.correlation_congruence` of two linear maps to one width.

    Args:
      width: of the embeddings.
      variant, gamma, order: as there.
    """

    def __init__(self, width: int = 128, variant: str = "repdistiller", gamma: float = 0.4, order: int = 2,
                 **kwargs: Any):
        super().__init__(**kwargs)
        check_congruence(variant, gamma, order)
        if width < 1:
            raise ValueError(f"width must be at least 1; received {width!r}.")
        self.width = width
        self._options: dict[str, Any] = {"variant": variant, "gamma": gamma, "order": order}

    def build(self, teacher_shape: Shape, student_shape: Shape) -> None:
        self._embeddings = [embedding(shape, self.width, name, self.dtype_policy) for shape, name in
                            ((teacher_shape, "teacher"), (student_shape, "student"))]

    def call(self, teacher: tf.Tensor, student: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        e_t, e_s = (layer(flat(x)) for layer, x in zip(self._embeddings, (teacher, student), strict=True))
        return correlation_congruence(e_t, e_s, **self._options)


@keras.saving.register_keras_serializable(package="tf_l2t")
class FactorTransfer(keras.layers.Layer):
    """FT: the distance of the student's factors, a translator's, to the teacher's, a paraphraser's.

    "repdistiller": the mean of |Q_s − Q_t|, Q = mean_c F² flattened and divided by its norm. "paper": the batch's mean
    of Σ |F_s / ‖F_s‖ − F_t / ‖F_t‖|, its equation (3) with p = 1. The translator: three 3×3 convolutions, batch norm,
    leaky ReLU of 0.1. The paraphraser: the same without batch norm, and three transposed ones back to the teacher's
    map; it is trained before the student, to reconstruct (`reconstruction`), and then stays as it is.

    Args:
      rate: k, factors per channel of the teacher.
      variant: of `tf_l2t.distillation.maps.VARIANTS`.

    Source: Kim et al., "Paraphrasing complex network: network compression via factor transfer", NeurIPS 2018,
    section 3.
    """

    def __init__(self, rate: float = 0.5, variant: str = "repdistiller", **kwargs: Any):
        super().__init__(**kwargs)
        check_variant(variant)
        if not rate > 0:
            raise ValueError(f"rate must be above 0; received {rate!r}.")
        self.rate, self.variant = rate, variant

    def build(self, teacher_shape: Shape, student_shape: Shape) -> None:
        check_maps(teacher_shape, student_shape)
        channels, inputs = teacher_shape[-1], student_shape[-1]
        factors = int(self.rate * channels)
        if factors < 1:
            raise ValueError(f"a rate of {self.rate:g} leaves no factor of the teacher's {channels} channels.")
        down, up = (channels, factors, factors), (factors, channels, channels)
        about: dict[str, Any] = {"dtype": self.dtype_policy}
        self.paraphraser = convolutions(channels, down, teacher_shape, "paraphraser", **about)
        self.decoder = convolutions(factors, up, teacher_shape, "decoder", transposed=True, **about)
        self._translator = convolutions(inputs, (inputs, factors, factors), student_shape, "translator", norms=True,
                                        **about)

    def call(self, teacher: tf.Tensor, student: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        f_t = tf.stop_gradient(self.paraphraser(teacher, training=False))
        f_t, f_s = same_size(f_t, self._translator(student, training=training))
        if self.variant == "paper":
            difference = normalised(flat(f_s)) - normalised(flat(f_t))
            return tf.reduce_mean(tf.reduce_sum(tf.abs(difference), axis=-1))
        return tf.reduce_mean(tf.abs(attention_map(f_s, 2) - attention_map(f_t, 2)))

    def reconstruction(self, teacher: tf.Tensor) -> tf.Tensor:
        """The mean squared error of the decoded factors, which trains the paraphraser and the decoder."""
        return tf.reduce_mean(tf.square(self.decoder(self.paraphraser(teacher)) - teacher))


def convolutions(inputs: int, filters: Sequence[int], shape: Shape, name: str, norms: bool = False,
                 transposed: bool = False, dtype: Any = None) -> keras.Sequential:
    """3×3 convolutions that keep the size, each with batch norm if `norms`, and a leaky ReLU."""
    layers: list[keras.layers.Layer] = []
    for i, (before, width) in enumerate(zip((inputs, *filters[:-1]), filters, strict=True)):
        layers.append(conv(width, 3, before, f"conv{i}", transposed, padding="same", dtype=dtype))
        if norms:
            layers.append(keras.layers.BatchNormalization(**BATCH_NORM, name=f"bn{i}", dtype=dtype))
        layers.append(keras.layers.LeakyReLU(LEAK, name=f"leaky{i}", dtype=dtype))
    model = keras.Sequential(layers, name=name)
    model.build((None, *shape[1:3], inputs))
    return model


def embedding(shape: Shape, width: int, name: str, dtype: Any) -> keras.layers.Layer:
    """A linear map of flattened features."""
    inputs = int(np.prod(shape[1:]))
    layer = keras.layers.Dense(width, name=name, dtype=dtype, **uniform(inputs))
    layer.build((None, inputs))
    return layer


def check_maps(*shapes: Shape) -> None:
    """Raises ValueError unless all shapes are of feature maps whose size is known."""
    for shape in shapes:
        if len(shape) != 4 or None in shape[1:]:
            raise ValueError("this method connects feature maps [batch, height, width, channels] of known size; "
                             f"received shape {tuple(shape)}.")
