"""Losses of a student under teacher forcing: its logits against the reference, token by token.

All take labels [batch, T], the reference with its EOS, padded with PAD; and logits [batch, T, V], of the student that
has read the labels before each. They return one loss per sentence, [batch]: the sum over its tokens, EOS among them.
What stands at padding changes nothing. They are differentiable twice in the logits, and in the coefficients, in reverse
and in forward mode. `TokenLoss` has them for `compile`; losses of whole sentences need candidates, so that only a
trainer can have those (`sequence_losses`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.losses import taught_form
from tf_l2t.translation.subwords import PAD


def chosen(values: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
    """values[b, t, tokens[b, t]], [batch, T]; for tokens [batch, T, K], [batch, T, K].

    With batch dimensions the gradient of a gather is dense, a segment sum, as second derivatives and a
    ForwardAccumulator need; a product with one-hot tokens would make a second tensor of the logits' size.
    """
    return tf.gather(values, tokens, batch_dims=2)


def log_probs_at(logits: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
    """log softmax(logits)[b, t] of some tokens only, [batch, T] or [batch, T, K], as the tokens.

    Only what is asked for is normalised, which makes a Hessian-vector product cheaper than log_softmax and a gather, or
    TensorFlow's fused cross entropy, do.
    """
    tokens = tf.convert_to_tensor(tokens)
    # Shifted by the largest, which keeps the digits; the sum of its two derivatives is 0.
    largest = tf.stop_gradient(tf.reduce_max(logits, axis=-1, keepdims=True))
    log_sum = tf.math.log(tf.reduce_sum(tf.exp(logits - largest), axis=-1, keepdims=True))
    if tokens.shape.rank == 2:
        largest, log_sum = largest[..., 0], log_sum[..., 0]
    return chosen(logits, tokens) - largest - log_sum


def token_log_probs(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """log p_r(y_r), and 0 at padding; [batch, T]. Its sum over T is the log probability of a sentence."""
    return _without_padding(labels, log_probs_at(logits, labels))


def token_nll(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """−Σ_r log p_r(y_r), [batch]: maximum likelihood."""
    return -tf.reduce_sum(token_log_probs(labels, logits), axis=-1)


def label_smoothed_nll(labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.1) -> tf.Tensor:
    """−Σ_r [(1 − ε) log p_r(y_r) + ε / V Σ_v log p_r(v)], [batch].

    Args:
      smoothing: ε in [0, 1).

    Raises:
      ValueError: for ε out of range.

    Source: Szegedy et al., CVPR 2016, section 7; Vaswani et al., "Attention is all you need", 2017, section 5.4.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must be a number >= 0 and < 1; received {smoothing!r}.")
    log_p_y = log_probs_at(logits, labels)
    # log p(v) = log p(y) + z_v − z_y: the sum over v needs the logits' mean only.
    mean_log_p = log_p_y + tf.reduce_mean(logits, axis=-1) - chosen(logits, labels)
    losses = -(1 - smoothing) * log_p_y - smoothing * mean_log_p
    return tf.reduce_sum(_without_padding(labels, losses), axis=-1)


def taught_token_loss(labels: tf.Tensor, logits: tf.Tensor, coefficients: tf.Tensor, form: str = "paper") -> tf.Tensor:
    """The loss that a teacher fills in, Σ_r l(log p_r(y_r), Φ_{y_r}), [batch]; in the paper's form −Σ_r σ(Φ log p).

    The derivative of the paper's form in log p is Φ σ', and σ saturates: at Φ = 1, a token of probability 1 / 25,000
    teaches 4e-5 of what it does in maximum likelihood, and the student never learns it. The stable form starts at
    Φ = 0.1, in the linear part of σ, and is multiplied by 4 / 0.1: its derivative is there that of maximum likelihood
    at p near 1, and 0.78 of it at p = 1 / 25,000, so that a student begins as if trained by maximum likelihood.

    Args:
      coefficients: Φ, [V], the diagonal of the paper's matrix.
      form: a name in `tf_l2t.losses.TAUGHT_FORMS`.

    Raises:
      ValueError: for an unknown form, or coefficients of another shape.

    Source: L2T-DLF, section 4.2.
    """
    of_target = taught_form(form).of_target
    coefficients = tf.convert_to_tensor(coefficients, logits.dtype)
    size = logits.shape[-1]
    if coefficients.shape.rank != 1 or not coefficients.shape.is_compatible_with([size]):
        raise ValueError(f"coefficients must be one for each of the {size} tokens of the vocabulary; received shape "
                         f"{tuple(coefficients.shape)}.")
    # With a batch dimension, for a dense gradient: see `chosen`.
    weights = tf.reshape(tf.gather(coefficients[None], tf.reshape(labels, [1, -1]), batch_dims=1), tf.shape(labels))
    losses = of_target(log_probs_at(logits, labels), weights)
    return tf.reduce_sum(_without_padding(labels, losses), axis=-1)


TOKEN_LOSSES: dict[str, Callable[..., tf.Tensor]] = {
    "mle": token_nll,
    "label_smoothing": label_smoothed_nll,
    "taught": taught_token_loss,
}
PER = ("sentence", "token")


@keras.saving.register_keras_serializable(package="tf_l2t")
class TokenLoss(keras.losses.Loss):
    """A loss of `TOKEN_LOSSES` for `compile`.

        model.compile("adam", loss=tf_l2t.translation.TokenLoss("label_smoothing", smoothing=0.1))

    The model returns logits [batch, T, V]; labels are integers [batch, T], padded with PAD. A Keras mask that the
    logits carry is not used: padding is where the labels have it.

    Args:
      loss: a name in `TOKEN_LOSSES`.
      per: "sentence": the mean over the batch of sums over tokens. "token": the sum over the batch's tokens, divided by
        their number, EOS counted and PAD not.
      reduction: of Keras; `per` means what it says for "sum_over_batch_size".
      **options: of the loss: `smoothing`; `coefficients` [V] and `form`.

    Raises:
      ValueError: for an unknown loss or `per`, an option that the loss does not have, one that it needs and is not
        given, or a value out of range; when called, for shapes that do not fit.
      tf.errors.InvalidArgumentError: when called, for labels out of range.
    """

    def __init__(self, loss: str = "mle", per: str = "sentence", reduction: str = "sum_over_batch_size",
                 name: str | None = None, dtype: Any = None, **options: Any):
        super().__init__(name=name or f"token_{loss}", reduction=reduction, dtype=dtype)
        if loss not in TOKEN_LOSSES:
            raise ValueError(f"no token loss is called {loss!r}; there are {sorted(TOKEN_LOSSES)}.")
        if per not in PER:
            raise ValueError(f"per must be one of {PER}; received {per!r}.")
        _, _, *known = inspect.signature(TOKEN_LOSSES[loss]).parameters.values()
        needed = {p.name for p in known if p.default is p.empty}
        if not needed <= set(options) <= {p.name for p in known}:
            raise ValueError(f"{loss} takes {[p.name for p in known]}" + (f" and needs {sorted(needed)}" if needed
                             else "") + f"; received {sorted(options)}.")
        if "coefficients" in options:
            options["coefficients"] = np.asarray(options["coefficients"], np.float64)
            if options["coefficients"].ndim != 1 or not np.isfinite(options["coefficients"]).all():
                raise ValueError("coefficients must be finite numbers, one for each token of the vocabulary; received "
                                 f"shape {options['coefficients'].shape}.")
        self._loss = loss
        self._per = per
        self._options = options
        size = len(options.get("coefficients", (0, 0)))
        self._losses(tf.zeros([1, 1], tf.int32), tf.zeros([1, 1, size]))  # raises here, rather than in a training step

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        # Keras would apply a mask [batch, T] of the logits to losses [batch]; a copy of the tensor carries none.
        return super().__call__(y_true, tf.identity(y_pred), sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if y_true.shape.rank not in (2, None) or y_pred.shape.rank not in (3, None) or \
                not y_true.shape.is_compatible_with(y_pred.shape[:2]):
            raise ValueError(f"labels must be integers [batch, T] and predictions logits [batch, T, V]; received "
                             f"{tuple(y_true.shape)} and {tuple(y_pred.shape)}.")
        labels = tf.cast(y_true, tf.int32)
        # A vocabulary that does not fit would read other tokens' logits, or none, on some devices.
        check = tf.raw_ops.Assert(condition=tf.reduce_all((labels >= 0) & (labels < tf.shape(y_pred)[-1])), data=[
            "labels must be tokens of the vocabulary, below", tf.shape(y_pred)[-1], "; received", labels])
        with tf.control_dependencies([check] if check is not None else []):
            labels = tf.identity(labels)
        losses = self._losses(labels, y_pred)
        if self._per == "sentence":
            return losses
        tokens = tf.reduce_sum(tf.cast(tf.not_equal(labels, PAD), losses.dtype))
        # Keras divides by the batch.
        return losses * tf.math.divide_no_nan(tf.cast(tf.shape(labels)[0], losses.dtype), tokens)

    def get_config(self) -> dict[str, Any]:
        options = {key: value.tolist() if isinstance(value, np.ndarray) else value
                   for key, value in self._options.items()}
        return {**super().get_config(), "loss": self._loss, "per": self._per, **options}

    def _losses(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        options = dict(self._options)
        if "coefficients" in options:
            options["coefficients"] = tf.constant(options["coefficients"], logits.dtype)
        return TOKEN_LOSSES[self._loss](labels, logits, **options)


def _without_padding(labels: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.equal(labels, PAD), tf.zeros_like(values), values)
