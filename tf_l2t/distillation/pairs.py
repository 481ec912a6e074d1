"""Which inner tensors of a teacher and a student a method compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_l2t.students import taps

# By name: what the public code calls its features, counted from the stem.
PLACES = {
    "logits": "the outputs",
    "pooled": "the features before the last dense layer",
    "hint": "the second stage",
    "last_stage": "the last stage",
    "stages": "all stages",
    "preactivations": "all stages, before their activation",
}


def pairs(at: str, teacher: keras.Model, student: keras.Model) -> list[tuple[str, str]]:
    """Names of the taps (`tf_l2t.students.taps`) of teacher and student that belong together.

    Stages are paired from the first on; those that one of the two has more are left out.

    Args:
      at: a name in `PLACES`.

    Raises:
      ValueError: for another name, or a network without such a tap.
    """
    if at not in PLACES:
        raise ValueError(f"the places of a loss are {list(PLACES)}; received {at!r}.")
    if at in ("logits", "pooled"):
        return [(at, at)] if at == "logits" else [(_pooled(teacher), _pooled(student))]
    ending = "_preact" if at == "preactivations" else ""
    stages = [[name for name in taps(network) if name.startswith("stage") and name.endswith("_preact") == bool(ending)]
              for network in (teacher, student)]
    for network, found in zip((teacher, student), stages, strict=True):
        if len(found) < (2 if at == "hint" else 1):
            raise ValueError(f"this method compares {PLACES[at]}; the network {network.name!r} has the taps "
                             f"{list(taps(network))}. Name its layers stage1, stage2, …, or choose a method of pooled "
                             "features or logits.")
    if at == "hint":
        return [(stages[0][1], stages[1][1])]
    if at == "last_stage":
        return [(stages[0][-1], stages[1][-1])]
    return list(zip(*stages, strict=False))


def _pooled(network: keras.Model) -> str:
    if "pooled" not in taps(network):
        raise ValueError(f"this method compares {PLACES['pooled']}; the network {network.name!r} has the taps "
                         f"{list(taps(network))}. Name the layer pooled, or the last dense layer logits.")
    return "pooled"


def tapped_outputs(network: keras.Model, names: Sequence[str]) -> Callable[..., dict[str, Any]]:
    """(x, training) -> the network's logits, and its taps of these names."""
    names = [name for name in dict.fromkeys(names) if name != "logits"]
    if not names:
        return lambda x, training: {"logits": network(x, training=training)}
    found = taps(network)
    model = keras.Model(network.inputs, {"logits": network.output, **{name: found[name] for name in names}},
                        name=f"{network.name}_taps")
    return lambda x, training: model(_as_inputs(network, x), training=training)


def _as_inputs(network: keras.Model, x: Any) -> Any:
    """One tensor as the list of one that a model of `network.inputs` expects."""
    return [x] if isinstance(network.inputs, list) and tf.is_tensor(x) else x
