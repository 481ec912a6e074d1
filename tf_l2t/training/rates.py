"""How a learning rate falls over a run: one set of names for students and teachers."""

from __future__ import annotations

from typing import Any

import keras

DECAYS = ("constant", "linear", "cosine", "cosine:0.1", "drops:0.5,0.75")


def check_decay(decay: str) -> tuple[float, ...]:
    """The parts of a run after which "drops" divides the rate by 10, or in which "cosine" first rises; () for every
    other decay.

    Raises:
      ValueError: unless it is "constant", "linear", "cosine", "cosine:" and one part of the run, or "drops:" and rising
        parts of it.
    """
    name, _, listed = decay.partition(":")
    try:
        drops = tuple(float(part) for part in listed.split(",")) if listed else ()
    except ValueError:
        drops = (0.0,)
    rising = all(0 < drop < 1 for drop in drops) and list(drops) == sorted(set(drops))
    if decay in DECAYS[:3] or (drops and rising and (name == "drops" or (name == "cosine" and len(drops) == 1))):
        return drops
    raise ValueError(f'decay must be one of {DECAYS[:3]}, or such as "drops:0.5,0.75", rising parts of a run between 0 '
                     f'and 1, or "cosine:0.1", one such part; received {decay!r}.')


def learning_rate(rate: float, decay: str, num_steps: int) -> Any:
    """`rate` as a number ("constant") or a Keras schedule of `num_steps` steps.

    "linear" and "cosine" reach 0 at the end; "cosine:0.1" first rises from 0, as a line, for a tenth of the steps;
    "drops:0.5,0.75" divides by 10 after half of the steps, and again after three quarters.

    Raises:
      ValueError: for another decay, fewer than one step, or so few that two drops fall together or no step rises.
    """
    if num_steps < 1:
        raise ValueError(f"the number of steps must be at least 1; received {num_steps!r}.")
    drops = check_decay(decay)
    if decay == "linear":
        return keras.optimizers.schedules.PolynomialDecay(rate, num_steps, end_learning_rate=0.0)
    if decay.startswith("cosine"):
        rising = round(num_steps * sum(drops))
        if bool(rising) != bool(drops) or rising >= num_steps:
            raise ValueError(f"a run of {num_steps} steps is too short for {decay!r}.")
        if not rising:
            return keras.optimizers.schedules.CosineDecay(rate, num_steps)
        return keras.optimizers.schedules.CosineDecay(0.0, num_steps - rising, warmup_target=rate, warmup_steps=rising)
    if not drops:
        return rate
    # Keras's boundaries are the last steps of a value, counted from 0.
    boundaries = [round(drop * num_steps) - 1 for drop in drops]
    if boundaries[0] < 0 or len(set(boundaries)) < len(boundaries):
        raise ValueError(f"a run of {num_steps} steps is too short for {decay!r}.")
    values = [rate / 10 ** i for i in range(len(drops) + 1)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)
