"""Inner optimizers that scale each weight's step by its past gradients: Adam, AdamW, AMSGrad, RMSprop."""

from __future__ import annotations

import tensorflow as tf

from tf_l2t.hypergradient.optimizers import (
    InnerOptimizer,
    LearningRate,
    Tensors,
    check_fraction,
    weight_by_weight,
)


def safe_sqrt(x: tf.Tensor) -> tf.Tensor:
    """√x for x ≥ 0, with derivative 0 where x = 0."""
    positive = x > 0
    # Masked before and after: a mask behind the root alone would leave 0 · ∞ in the derivative.
    return tf.where(positive, tf.sqrt(tf.where(positive, x, tf.ones_like(x))), tf.zeros_like(x))


def adam(learning_rate: LearningRate = 0.001, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7,
         amsgrad: bool = False, weight_decay: float = 0.0) -> InnerOptimizer:
    """Adam, step for step that of `keras.optimizers.Adam`; with a decay, that of `keras.optimizers.AdamW`.

    With g_t the gradient, η_t the learning rate and λ the weight decay:

        ω       ← ω_t − η_t λ ω_t
        m_{t+1} = m_t + (1 − β₁)(g_t − m_t)
        v_{t+1} = v_t + (1 − β₂)(g_t² − v_t)
        α_t     = η_t √(1 − β₂^{t+1}) / (1 − β₁^{t+1})
        ω_{t+1} = ω − α_t m_{t+1} / (√v_{t+1} + ε)

    and with AMSGrad √ŝ_{t+1} in place of √v_{t+1}, where ŝ_{t+1} = max(ŝ_t, v_{t+1}).

    √v has infinite slope at v = 0, where a weight is whose gradients have all been exactly zero, such as those at an
    input that is always 0. Its derivative is taken as 0 there. This is exact for the run's gradient: v = 0 implies
    m = 0 (for β₂ > 0), so ω_{t+1} moves with g_t as −(1 − β₁) α_t g_t / ε to first order, all of it through m. (Only
    the derivative by v_t itself does not exist there; it comes out as 0.)

    ω_{t+1} bends with g_t on the scale of ε / √(1 − β₂), 3e-6 at the defaults: weights whose gradients are of that
    size have derivatives by g_t up to (1 − β₁) α_t / ε. A larger ε makes a run's gradient smaller and smoother.

    Args:
      learning_rate: η, a number or a function of the step.
      beta_1, beta_2: in [0, 1).
      epsilon: ε, above 0.
      amsgrad: divide by the largest second moment so far.
      weight_decay: λ, decoupled.

    Raises:
      ValueError: for a negative rate or decay, a β outside [0, 1), or an ε that is not positive.
    """
    check_fraction("beta_1", beta_1)
    check_fraction("beta_2", beta_2)
    _check_epsilon(epsilon)

    def rule(grad: tf.Tensor, param: tf.Tensor, rate: tf.Tensor, step: tf.Tensor, mean: tf.Tensor,
             square: tf.Tensor, *peak: tf.Tensor) -> Tensors:
        count = tf.cast(step + 1, param.dtype)
        # tf.cast rounds the Python numbers to float32, whatever the dtype: as Keras does here, and only here.
        power_1, power_2 = (tf.cast(beta, param.dtype) ** count for beta in (beta_1, beta_2))
        alpha = rate * tf.sqrt(1 - power_2) / (1 - power_1)
        mean = mean + (grad - mean) * (1 - beta_1)
        square = square + (tf.square(grad) - square) * (1 - beta_2)
        peak = tuple(tf.maximum(p, square) for p in peak)
        root = safe_sqrt(peak[0] if amsgrad else square)
        return param - mean * alpha / (root + epsilon), mean, square, *peak

    return weight_by_weight(rule, 3 if amsgrad else 2, learning_rate, weight_decay)


def rmsprop(learning_rate: LearningRate = 0.001, rho: float = 0.9, momentum: float = 0.0, epsilon: float = 1e-7,
            centered: bool = False, weight_decay: float = 0.0) -> InnerOptimizer:
    """RMSprop, step for step that of `keras.optimizers.RMSprop`.

    With g_t the gradient, η_t the learning rate and λ the weight decay:

        ω       ← ω_t − η_t λ ω_t
        v_{t+1} = ρ v_t + (1 − ρ) g_t²
        a_{t+1} = ρ a_t + (1 − ρ) g_t             (centered; else a = 0)
        b_{t+1} = m b_t + η_t g_t / √(v_{t+1} − a_{t+1}² + ε)
        ω_{t+1} = ω − b_{t+1}

    ε stands under the root, so its slope is finite everywhere.

    Args:
      learning_rate: η, a number or a function of the step.
      rho: ρ in [0, 1).
      momentum: m in [0, 1).
      epsilon: ε, above 0.
      centered: divide by the deviation of the gradients instead of their root mean square.
      weight_decay: λ, decoupled.

    Raises:
      ValueError: for a negative rate or decay, a ρ or momentum outside [0, 1), or an ε that is not positive.
    """
    check_fraction("rho", rho)
    check_fraction("momentum", momentum)
    _check_epsilon(epsilon)

    def rule(grad: tf.Tensor, param: tf.Tensor, rate: tf.Tensor, step: tf.Tensor, square: tf.Tensor,
             *others: tf.Tensor) -> Tensors:
        square = rho * square + (1 - rho) * tf.square(grad)
        slots, variance = [square], square
        if centered:
            mean = rho * others[0] + (1 - rho) * grad
            slots.append(mean)
            variance = square - tf.square(mean)
        increment = rate * grad / tf.sqrt(variance + epsilon)
        if momentum:
            increment = momentum * others[-1] + increment
            slots.append(increment)
        return param - increment, *slots

    return weight_by_weight(rule, 1 + bool(centered) + bool(momentum), learning_rate, weight_decay)


def _check_epsilon(epsilon: float) -> None:
    if not epsilon > 0:
        raise ValueError("epsilon must be above 0, or a weight without a gradient would be divided by zero; "
                         f"received {epsilon!r}.")
