"""The parametric losses l_Φ that a teacher fills in (L2T-DLF, section 4.1), in four forms.

All take integer labels [batch], logits [batch, classes] and Φ, and return one loss per example, [batch]. Φ is
[classes, classes]: row y weighs the log probabilities of an example with label y; or [classes], its diagonal, where
all other coefficients are zero. The functions are differentiable twice in the logits and in Φ. Φ enters through an
explicit product with `log_softmax`: TensorFlow's fused cross entropy has no mixed derivative with respect to its
labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_l2t.losses import penalties

STABLE_FLOOR = 0.05
STABLE_START = 0.1
MIXTURE_SCALE = 8.0
MIXTURE_START = 0.06
MIXTURE_SPREAD = 0.016
SOFT_SCALE = 25.0
SOFT_START = 0.1
SOFT_SPREAD = 0.0125


def paper_loss(labels: tf.Tensor, logits: tf.Tensor, coefficients: tf.Tensor) -> tf.Tensor:
    """The paper's loss, l = −σ(y'Φ log p).

    Its gradient is y'Φ ∂log p scaled by σ' = σ(1 − σ) of the argument: at Φ = I an example of probability p_y has
    σ' = p_y / (1 + p_y)², so what the student does not know yet hardly teaches it, and a class whose
    probabilities have collapsed does not come back. Negative entries of Φ reward log p_j → −∞ without bound.

    Source: L2T-DLF, section 4.1 and figure 2.
    """
    _, rows = _target_and_rows(labels, logits, coefficients)
    return -tf.sigmoid(tf.reduce_sum(rows * tf.nn.log_softmax(logits), axis=-1))


def stable_loss(labels: tf.Tensor, logits: tf.Tensor, coefficients: tf.Tensor, floor: float = STABLE_FLOOR,
                start: float = STABLE_START) -> tf.Tensor:
    """A form in which a teacher can be trained without breaking students.

        l = −(4 / start) σ(Φ_yy log p_y + Σ_{j≠y} Φ_yj log(p_j + floor))

    The target's term has no floor, so hard examples keep their gradient; the others' do, so that log p_j is bounded
    and an off-diagonal coefficient of either sign stays harmless. At Φ = start · I, σ is nearly linear and, since
    σ'(0) = 1/4, the factor makes the gradient that of cross entropy for p_y near 1: a taught student begins as one
    trained by cross entropy at the same learning rate.

    Args:
      floor: added to the probabilities of the classes that are not the label.
      start: the diagonal value at which the loss is nearly cross entropy.
    """
    target, rows = _target_and_rows(labels, logits, coefficients)
    log_probs = tf.nn.log_softmax(logits)
    floored = tf.math.log(tf.exp(log_probs) + floor)
    argument = tf.reduce_sum(rows * (target * log_probs + (1 - target) * floored), axis=-1)
    return -(4 / start) * tf.sigmoid(argument)


def mixture_loss(labels: tf.Tensor, logits: tf.Tensor, coefficients: tf.Tensor, scale: float = MIXTURE_SCALE
                 ) -> tf.Tensor:
    """A form that can doubt a label.

        l = −(1 − m) log u + m (1 − u),  u = p_y + Σ_{j≠y} N_yj p_j,  N_yj = (κ Φ_yj)²,  m = 1 − exp(−(κ Φ_yy)²)

    Where the other forms go on pulling an example to its label however sure the student is of another class, here the
    pull is divided: class j gets the share N_yj p_j / u, the posterior of class j given label y, if N_yj is how much
    likelier label y comes from class j than from class y. And the whole pull is 1 − m + m u: with m near 1 the label
    loses its hold on an example that the student does not believe at all. It contains cross entropy (Φ = 0), forward
    correction by a noise matrix (m = 0; Patrini et al., CVPR 2017), and symmetric cross entropy divided by α − β A
    (N = 0, m = −β A / (α − β A); Wang et al., ICCV 2019).

    A square leaves a coefficient at 0 without a gradient, which is why teachers start beside it (`TaughtForm`); and a
    Φ_yj that falls reaches 0, and takes the doubt with it.

    Args:
      scale: κ.
    """
    target, rows = _target_and_rows(labels, logits, coefficients)
    log_probs = tf.nn.log_softmax(logits)
    shares = target + (1 - target) * tf.square(scale * rows)
    # log u from its largest term, so that no probability is too small; shares that hardly count set no scale.
    counted = tf.where(shares < 1e-16, tf.zeros_like(shares), shares)
    largest = tf.stop_gradient(tf.reduce_max(log_probs + tf.math.log(counted), axis=-1, keepdims=True))
    mixed = tf.reduce_sum(shares * tf.exp(tf.minimum(log_probs - largest, -math.log(1e-16))), axis=-1)
    log_mixed = tf.math.log(mixed) + largest[:, 0]
    trusted = tf.exp(-tf.square(scale * tf.reduce_sum(target * rows, axis=-1)))
    return -trusted * log_mixed - (1 - trusted) * tf.math.expm1(log_mixed)


def soft_loss(labels: tf.Tensor, logits: tf.Tensor, coefficients: tf.Tensor, prior: tf.Tensor | None = None,
              scale: float = SOFT_SCALE, start: float = SOFT_START) -> tf.Tensor:
    """A form that can soften a label: cross entropy with a target of its own for every class.

        l = −(Φ_yy / start) Σ_j q_yj log p_j,  q_yj = s_yj / Σ_k s_yk,  s_yy = 1,  s_yj = (κ Φ_yj)² π_j

    Where the mixture form lets go of a label that may be wrong, this one holds on to a label that is right and keeps
    the student from being too sure of it. It contains cross entropy (Φ_yj = 0), label smoothing (all Φ_yj alike and
    π = 1 / C; Szegedy et al., CVPR 2016, section 7), logit adjustment with labels smoothed towards π where the logits
    are adjusted (`Teacher`'s class_counts), and targets per class such as online label smoothing estimates from the
    student (Zhang et al., IEEE TIP 2021). Teachers start at label smoothing with ε close to 0.09 (`TaughtForm`); one
    of diagonal Φ softens nothing.

    Φ_yj and −Φ_yj are the same, and at 0 it has no gradient. A Φ_yy below 0 would reward log p_y → −∞ without bound.

    Args:
      prior: π, [C], class frequencies of the train set, which sum to 1; None for 1 / C.
      scale: κ.
      start: the diagonal value at which an example has weight 1.
    """
    target, rows = _target_and_rows(labels, logits, coefficients)
    frequencies = 1 / tf.cast(tf.shape(logits)[-1], logits.dtype) if prior is None else tf.cast(prior, logits.dtype)
    shares = target + (1 - target) * tf.square(scale * rows) * frequencies
    weight = tf.reduce_sum(target * rows, axis=-1) / (start * tf.reduce_sum(shares, axis=-1))
    return -weight * tf.reduce_sum(shares * tf.nn.log_softmax(logits), axis=-1)


def _target_and_rows(labels: tf.Tensor, logits: tf.Tensor, coefficients: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The one-hot labels, and the row of Φ that belongs to every example, [batch, classes] both."""
    target = tf.one_hot(labels, tf.shape(logits)[-1], dtype=logits.dtype)
    if coefficients.shape.rank == 1:
        return target, target * coefficients
    return target, tf.linalg.matmul(target, coefficients)


def _paper_of_target(log_prob: tf.Tensor, coefficient: tf.Tensor) -> tf.Tensor:
    return -tf.sigmoid(coefficient * log_prob)


def _stable_of_target(log_prob: tf.Tensor, coefficient: tf.Tensor) -> tf.Tensor:
    return -(4 / STABLE_START) * tf.sigmoid(coefficient * log_prob)


def _mixture_of_target(log_prob: tf.Tensor, coefficient: tf.Tensor) -> tf.Tensor:
    trusted = tf.exp(-tf.square(MIXTURE_SCALE * coefficient))
    return -trusted * log_prob - (1 - trusted) * tf.math.expm1(log_prob)


def _soft_of_target(log_prob: tf.Tensor, coefficient: tf.Tensor) -> tf.Tensor:
    return -(coefficient / SOFT_START) * log_prob


class TaughtForm(NamedTuple):
    """A parametric loss, where its coefficients start, and what those off the diagonal cost.

    Attributes:
      name: under which configs and exported teachers know it.
      per_example: (labels, logits, coefficients) -> [batch]; with `prior`, (labels, logits, coefficients, π).
      of_target: (log p_y, Φ_yy) -> loss, of any shape: the same of a Φ that is diagonal, where nothing but the label's
        own probability and coefficient counts; for vocabularies.
      start: the diagonal of Φ_0, the coefficients with which teachers start.
      spread: what Φ_0 has off the diagonal.
      prior: whether the loss takes class frequencies, [classes], or None where they count as equal.
      penalty: of the coefficients off the diagonal, [..., classes, classes] -> [...]; see `penalties`.
    """

    name: str
    per_example: Callable[..., tf.Tensor]
    of_target: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    start: float
    spread: float = 0.0
    prior: bool = False
    penalty: Callable[[tf.Tensor], tf.Tensor] = penalties.doubts

    def losses(self, labels: tf.Tensor, logits: tf.Tensor, coefficients: tf.Tensor,
               class_counts: Sequence[float] | None = None) -> tf.Tensor:
        """l_Φ of every example, [batch]; with class counts n_c, [C], of logits + log π, π_c = n_c / Σ n, and π for a
        form that takes it."""
        options: dict[str, Any] = {}
        if class_counts is not None:
            counts = np.asarray(class_counts, np.float64)
            prior = tf.constant(counts / counts.sum(), logits.dtype)
            logits += tf.math.log(prior)
            options = {"prior": prior} if self.prior else {}
        return self.per_example(labels, logits, coefficients, **options)

    def probe(self) -> list[float]:
        """What the form makes of fixed labels, logits, Φ and π, with its start and spread: what tells it from another
        form that once had its name."""
        coefficients = self.start * tf.constant([[0.9, 0.4, -0.2], [0.1, 1.1, 0.3], [-0.5, 0.2, 1.0]], tf.float64)
        logits = tf.constant([[0.3, -0.2, 1.1], [2.0, 0.1, -0.7], [-1.3, 0.6, 0.2]], tf.float64)
        values = self.losses(tf.constant([0, 1, 2]), logits, coefficients, (5, 3, 2))
        return [self.start, self.spread, *(float(value) for value in values)]


TAUGHT_FORMS = {form.name: form for form in (
    TaughtForm("paper", paper_loss, _paper_of_target, start=1.0),
    TaughtForm("stable", stable_loss, _stable_of_target, start=STABLE_START),
    TaughtForm("mixture", mixture_loss, _mixture_of_target, start=MIXTURE_START, spread=MIXTURE_SPREAD),
    TaughtForm("soft", soft_loss, _soft_of_target, start=SOFT_START, spread=SOFT_SPREAD, prior=True,
               penalty=penalties.differences),
)}
"""The forms of the taught loss by name."""


def checked_counts(class_counts: Sequence[float] | None, num_classes: int) -> tuple[int, ...] | None:
    """Class counts as integers; None as it is.

    Raises:
      ValueError: for counts below 1 or of another length.
    """
    if class_counts is None:
        return None
    counts = tuple(map(int, class_counts))
    if len(counts) != num_classes or min(counts) < 1:
        raise ValueError(f"class_counts must be {num_classes} numbers of at least 1; received {class_counts!r}.")
    return counts


def taught_form(name: str) -> TaughtForm:
    """The `TaughtForm` of that name.

    Raises:
      ValueError: if there is none; lists the names.
    """
    if name not in TAUGHT_FORMS:
        raise ValueError(f"no taught loss is called {name!r}; there are {sorted(TAUGHT_FORMS)}.")
    return TAUGHT_FORMS[name]
