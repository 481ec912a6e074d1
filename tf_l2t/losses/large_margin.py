"""Large-margin softmax: cross entropy whose own class must win by a factor in the angle (L2T-DLF, section 4.1, loss 3).

Source: Liu et al., "Large-margin softmax loss for convolutional neural networks", ICML 2016.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from tf_l2t.hypergradient.replicas import check_one_machine, gradient_share
from tf_l2t.losses.fixed import cross_entropy
from tf_l2t.losses.keras_loss import integer_labels, masked_weights, not_half, where_labelled

MARGINS = (1, 2, 3, 4)


def large_margin_logits(labels: tf.Tensor, features: tf.Tensor, kernel: tf.Tensor, margin: int,
                        annealing: Any = 0.0) -> tf.Tensor:
    """The logits x'W, [batch, classes], with the label's own made smaller.

        f_y = ‖W_y‖ ‖x‖ (λ cos θ_y + ψ(θ_y)) / (1 + λ),   ψ(θ) = (−1)^k cos(mθ) − 2k  for θ in [kπ/m, (k+1)π/m]

    θ_y is the angle between x and W_y; ψ falls from 1 to 1 − 2m and is at most cos θ. cos(mθ) is the Chebyshev
    polynomial of cos θ, so that no arc cosine, whose derivative is infinite at the ends, is taken. ψ's slope jumps at
    the borders between two k; elsewhere all is twice differentiable.

    Args:
      labels: y, integers [batch].
      features: x, [batch, d].
      kernel: W, [d, classes].
      margin: m, one of 1 (x'W itself), 2, 3, 4.
      annealing: λ ≥ 0; large values give x'W, 0 the full margin.

    Raises:
      ValueError: for another margin.

    Source: section 4.2, equations (5) and (6), and section 5.1 for λ.
    """
    if margin not in MARGINS:
        raise ValueError(f"margin must be one of {MARGINS}; received {margin!r}.")
    logits = tf.linalg.matmul(features, kernel)
    target = tf.one_hot(labels, tf.shape(logits)[-1], dtype=logits.dtype)
    tiny = 1e-12  # the norm of features that a ReLU has all switched off has no derivative
    norms = tf.sqrt(tf.reduce_sum(features ** 2, axis=-1, keepdims=True) + tiny) * tf.sqrt(
        tf.reduce_sum(kernel ** 2, axis=0) + tiny)
    cosine = tf.clip_by_value(logits / norms, -1.0, 1.0)
    multiple = {1: lambda c: c, 2: lambda c: 2 * c ** 2 - 1, 3: lambda c: 4 * c ** 3 - 3 * c,
                4: lambda c: 8 * c ** 4 - 8 * c ** 2 + 1}[margin](cosine)
    k = tf.add_n([tf.zeros_like(cosine), *(tf.cast(cosine < math.cos(i * math.pi / margin), cosine.dtype)
                                           for i in range(1, margin))])
    psi = (1 - 2 * (k % 2)) * multiple - 2 * k
    if tf.is_tensor(annealing):
        annealing = tf.cast(annealing, logits.dtype)
    return logits + target * norms * (psi - cosine) / (1 + annealing)


def annealed(step: Any, base: float = 1000.0, gamma: float = 2.5e-5, power: float = 35.0,
             least: float = 0.0) -> tf.Tensor:
    """λ of a training step, max(least, base (1 + γ step)^−power): from plain softmax to the full margin.

    The defaults bring λ to 1 after 8,700 steps and to 7e-4 after 20,000; for a run of T steps take γ = 0.5 / T.

    Source: the rule, and the defaults, are those of the authors' published code for MNIST, which calls the values
    `base`, `gamma`, `power` and `lambda_min`.
    """
    return tf.maximum(least, base * (1 + gamma * tf.cast(step, tf.float32)) ** -power)


def last_dense(student: keras.Model) -> keras.layers.Dense:
    """The dense layer that a student ends in.

    Raises:
      ValueError: if its last layer is of another kind, or has an activation.
    """
    last = student.layers[-1] if student.layers else None
    if not isinstance(last, keras.layers.Dense) or last.activation is not keras.activations.linear:
        raise ValueError("large-margin softmax needs a student whose last layer is a Dense one without activation; the "
                         f"last layer of {student.name!r} is {last!r}.")
    return last


@keras.saving.register_keras_serializable(package="tf_l2t")
class LargeMarginStudent(keras.Model):
    """A Keras classifier trained by large-margin softmax through ordinary `compile`, `fit`, `evaluate`, `save`.

        student = LargeMarginStudent(tf_l2t.students.lenet(), margin=4, gamma=0.5 / num_steps)
        student.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), metrics=["accuracy"])
        student.fit(x_train, y_train)

    The loss is on the last dense layer of `student`: cross entropy of `large_margin_logits`. That layer's bias, which
    the paper's layer does not have, is added unchanged. λ falls with the steps of this model. `compile` takes no loss;
    `evaluate` reports cross entropy.

    Args:
      student: a built Functional or Sequential model that ends in a Dense layer without activation. Trained in place.
      margin: m, one of 1, 2, 3, 4.
      base, gamma, power, least: of λ, see `annealed`.

    Raises:
      ValueError: for another margin, a negative number, or a student that does not end in such a layer; in `fit` for
        one-hot labels, or a loss given to `compile`.
    """

    def __init__(self, student: keras.Model, margin: int = 4, base: float = 1000.0, gamma: float = 2.5e-5,
                 power: float = 35.0, least: float = 0.0, **kwargs: Any):
        super().__init__(**{"dtype": student.dtype_policy, "autocast": False} | kwargs)  # as `TaughtStudent`
        if margin not in MARGINS:
            raise ValueError(f"margin must be one of {MARGINS}; received {margin!r}.")
        if not (base >= 0 and gamma >= 0 and power >= 0 and least >= 0):
            raise ValueError("base, gamma, power and least must be at least 0; received "
                             f"{base!r}, {gamma!r}, {power!r}, {least!r}.")
        self._dense = last_dense(student)
        self.student = student
        self.margin = margin
        self._annealing = {"base": base, "gamma": gamma, "power": power, "least": least}
        self._to_features = keras.Model(student.inputs, self._dense.input)
        self._step = self.add_weight(name="step", shape=(), dtype="int64", trainable=False, initializer="zeros",
                                     aggregation="only_first_replica")
        self._features: Any = None
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        features = self._to_features(inputs, training=training)
        self._features = features if training else None  # for `compute_loss`, which is traced right after
        return self._dense(features)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`.

        Raises:
          ValueError: if `compile` was given a loss, or under a strategy of several machines.
        """
        if getattr(self, "loss", None) is not None:
            raise ValueError("a LargeMarginStudent has its own loss: call compile without one.")
        check_one_machine(self.distribute_strategy)
        return super().fit(*args, **kwargs)

    def train_step(self, data: Any) -> dict[str, Any]:
        logs = super().train_step(data)
        self._step.assign_add(1)
        return logs

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
                     training: bool = True) -> Any:
        """Large-margin softmax in training, cross entropy for `evaluate`; the mean over the batch, of examples that are
        not masked, of sample_weight times it, plus regularisers."""
        del x
        mask = masked_weights(y_pred, tf.float32)
        labels = integer_labels(y, self._dense.units)
        logits = not_half(y_pred)
        if training:
            features = not_half(self._features)
            logits = large_margin_logits(labels, features, tf.cast(self._dense.kernel, features.dtype), self.margin,
                                         annealed(self._step.value, **self._annealing))
            if self._dense.bias is not None:
                logits += tf.cast(self._dense.bias, logits.dtype)
        losses = where_labelled(labels, cross_entropy(labels, logits))
        for weights in (sample_weight, mask):
            if weights is not None:
                losses *= tf.cast(tf.reshape(weights, [-1]), losses.dtype)
        loss = tf.add_n([tf.reduce_mean(losses), *(tf.cast(extra, losses.dtype) for extra in self.losses)])
        return loss * gradient_share(loss)  # Keras sums over replicas, in `evaluate` too

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "student": keras.saving.serialize_keras_object(self.student), "margin": self.margin,
                **self._annealing}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> LargeMarginStudent:
        config = dict(config)
        student = keras.saving.deserialize_keras_object(config.pop("student"), custom_objects=custom_objects)
        return cls(student, **config)
