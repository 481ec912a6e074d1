"""What tells a training from others, as JSON values, as far as that can be told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_l2t.data import arrays_digest
from tf_l2t.hypergradient.state import integer_tensor


def optimizer_identity(optimizer: Any) -> Any:
    """Of a Keras optimizer, its class and its config; of anything else, what functions it is made of is not seen."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return type(optimizer).__name__
    config = json.loads(json.dumps(optimizer.get_config(), default=str))
    return {"class": type(optimizer).__name__, **_without_names(config)}


def fit_identity(model: keras.Model, batch_fn: Callable[..., Any], seed: int) -> dict[str, Any]:
    """Of a compiled model's fit: the seed, the optimizer and the first batch, (seed, step) -> batch."""
    first = batch_fn(integer_tensor(seed), integer_tensor(0))
    return {"seed": seed, "optimizer": optimizer_identity(model.optimizer),
            "first batch": arrays_digest(tf.nest.flatten(first))}


def function_identity(function: Any) -> str:
    """A function's name, that of a partial's function, or an object's class; "" for None."""
    function = getattr(function, "func", function)
    return "" if function is None else getattr(function, "__qualname__", type(function).__name__)


def _without_names(config: Any) -> Any:
    """A config without what Keras called its objects, which counts on through a process."""
    if isinstance(config, dict):
        return {key: _without_names(value) for key, value in config.items() if key != "name"}
    return [_without_names(value) for value in config] if isinstance(config, list) else config
