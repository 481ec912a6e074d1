"""How a learning rate falls over a run: one set of names for students and teachers."""

from __future__ import annotations

from typing import Any

import keras

DECAYS = ("constant", "linear", "cosine")


def check_decay(decay: str) -> str:
    """`decay`; raises ValueError unless it is one of `DECAYS`."""
    if decay not in DECAYS:
        raise ValueError(f"decay must be one of {DECAYS}; received {decay!r}.")
    return decay


def learning_rate(rate: float, decay: str, num_steps: int) -> Any:
    """`rate` as a number ("constant") or a Keras schedule that reaches 0 after `num_steps` ("linear", "cosine").

    Raises:
      ValueError: for another decay, or fewer than one step.
    """
    if num_steps < 1:
        raise ValueError(f"the number of steps must be at least 1; received {num_steps!r}.")
    if check_decay(decay) == "linear":
        return keras.optimizers.schedules.PolynomialDecay(rate, num_steps, end_learning_rate=0.0)
    if decay == "cosine":
        return keras.optimizers.schedules.CosineDecay(rate, num_steps)
    return rate
