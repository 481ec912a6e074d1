"""From stock Keras optimizers to the engine's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tf_l2t.hypergradient import InnerOptimizer, adam, clip, rmsprop, sgd

# Options of every Keras optimizer that change the update; their counterparts are not built.
_UNSUPPORTED = ("use_ema", "loss_scale_factor", "gradient_accumulation_steps", "_exclude_from_weight_decay",
                "_exclude_from_weight_decay_pattern")
_BOUNDS = {"clipnorm": "norm", "clipvalue": "value", "global_clipnorm": "global_norm"}


def inner_optimizer(optimizer: InnerOptimizer | keras.optimizers.Optimizer) -> InnerOptimizer:
    """The engine's form of a student's optimizer.

    Args:
      optimizer: an `InnerOptimizer`, or a `keras.optimizers.SGD`, `Adam`, `AdamW` or `RMSprop` with any schedule,
        weight decay, clipping and options of its own.

    Raises:
      ValueError: for any other optimizer, subclasses included, or options that have no counterpart (averaging of the
        weights, loss scaling, accumulation of gradients, weights without decay).
    """
    if isinstance(optimizer, InnerOptimizer):
        return optimizer
    if type(optimizer) not in _TRANSLATIONS:
        accepted = ", ".join(f"keras.optimizers.{kind.__name__}" for kind in _TRANSLATIONS)
        raise ValueError(f"the student's optimizer must be one of {accepted}, or a "
                         f"tf_l2t.hypergradient.InnerOptimizer; received {type(optimizer).__name__}.")
    unsupported = [name for name in _UNSUPPORTED if getattr(optimizer, name, None)]
    if unsupported:
        raise ValueError(f"these options of keras.optimizers.{type(optimizer).__name__} are not differentiated "
                         f"through: {unsupported}. Leave them at their defaults.")
    # The rate itself is only to be had as a private attribute: the public one is its value at the current step.
    rate = optimizer._learning_rate
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        if callable(rate):
            raise ValueError("the learning rate must be a number or a LearningRateSchedule; received a function.")
        rate = _through_float32(rate)
    translated = _TRANSLATIONS[type(optimizer)](optimizer, rate, _through_float32(optimizer.weight_decay or 0))
    bounds = {ours: getattr(optimizer, name) for name, ours in _BOUNDS.items()}
    bounds = {name: float(bound) for name, bound in bounds.items() if bound and bound > 0}  # Keras ignores others
    return clip(translated, **bounds) if bounds else translated


def named_optimizer(optimizer: Any) -> Any:
    """The Keras optimizer of a name, such as "adam", with Keras' options; anything else as it is.

    Raises:
      ValueError: for a name that Keras does not know.
    """
    try:
        return keras.optimizers.get(optimizer) if isinstance(optimizer, str) else optimizer
    except ValueError as error:
        raise ValueError(f"Keras has no optimizer of the name {optimizer!r}; it has 'sgd', 'adam', 'adamw', 'rmsprop' "
                         "and others.") from error


def _through_float32(number: Any) -> float:
    """Keras passes the rate, the decay and SGD's momentum through float32, whatever the weights' dtype; so that both
    make the same steps, so must they here. Other numbers it takes as they are."""
    return float(np.float32(number))


def _sgd(optimizer: Any, rate: Any, weight_decay: float) -> InnerOptimizer:
    return sgd(rate, _through_float32(optimizer.momentum), optimizer.nesterov, weight_decay)


def _adam(optimizer: Any, rate: Any, weight_decay: float) -> InnerOptimizer:
    return adam(rate, optimizer.beta_1, optimizer.beta_2, optimizer.epsilon, optimizer.amsgrad, weight_decay)


def _rmsprop(optimizer: Any, rate: Any, weight_decay: float) -> InnerOptimizer:
    return rmsprop(rate, optimizer.rho, optimizer.momentum, optimizer.epsilon, optimizer.centered, weight_decay)


_TRANSLATIONS: dict[type, Callable[[Any, Any, float], InnerOptimizer]] = {
    keras.optimizers.SGD: _sgd, keras.optimizers.Adam: _adam, keras.optimizers.AdamW: _adam,
    keras.optimizers.RMSprop: _rmsprop}
