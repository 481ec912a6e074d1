"""Which inner tensors of a teacher and a student a method compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_l2t.losses.keras_loss import not_half
from tf_l2t.students import taps

# By name: what the public code calls its features, counted from the stem.
PLACES = {
    "logits": "the outputs",
    "pooled": "the features before the last dense layer",
    "hint": "the second stage",
    "last_stage": "the last stage",
    "stages": "all stages",
    "preactivations": "all stages, before their activation",
    "attentions": "the attention scores of an encoder's layers",
    "hidden": "the embeddings and the states of an encoder's layers",
    "patient": "the states of an encoder's layers but the last",
    "patient_last": "the states of an encoder's layers but the last",
}
"""The tensors of a network that are matched, by the name of a method's place."""


def pairs(at: str, teacher: keras.Model, student: keras.Model) -> list[tuple[str, str]]:
    """Names of the taps (`tf_l2t.students.taps`) of teacher and student that belong together.

    Stages are paired from the first on; those that one of the two has more are left out. Of encoders of N and M layers,
    the student's m-th is paired with the teacher's m · N / M-th; for "patient_last" with the (N − M + m)-th.

    Args:
      at: a name in `PLACES`.

    Raises:
      ValueError: for another name, or a network without such a tap.
    """
    if at not in PLACES:
        raise ValueError(f"the places of a loss are {list(PLACES)}; received {at!r}.")
    if at in ("logits", "pooled"):
        return [(at, at)] if at == "logits" else [(_pooled(teacher), _pooled(student))]
    if at in ("attentions", "hidden", "patient", "patient_last"):
        return _layer_pairs(at, teacher, student)
    ending = "_preact" if at == "preactivations" else ""
    stages = [[name for name in taps(network) if name.startswith("stage") and name.endswith("_preact") == bool(ending)]
              for network in (teacher, student)]
    for network, found in zip((teacher, student), stages, strict=True):
        whole = sum(name.startswith("stage") and not name.endswith("_preact") for name in taps(network))
        if ending and len(found) < whole:
            raise ValueError(f"this method compares {PLACES[at]}; {network.name!r} names that of {len(found)} of its "
                             f"{whole} stages. Name the layers before the activations stage1_preact, stage2_preact, …, "
                             "or choose another method.")
        if len(found) < (2 if at == "hint" else 1):
            raise ValueError(f"this method compares {PLACES[at]}; the network {network.name!r} has the taps "
                             f"{list(taps(network))}. Name its layers stage1, stage2, …, or choose a method of pooled "
                             "features or logits.")
    if at == "hint":
        return [(stages[0][1], stages[1][1])]
    if at == "last_stage":
        return [(stages[0][-1], stages[1][-1])]
    return list(zip(*stages, strict=False))


def _layer_pairs(at: str, teacher: keras.Model, student: keras.Model) -> list[tuple[str, str]]:
    counts = [sum(name.startswith("hidden") for name in taps(network)) for network in (teacher, student)]
    for network, count in zip((teacher, student), counts, strict=True):
        if not count:
            raise ValueError(f"this method compares {PLACES[at]}; the network {network.name!r} has the taps "
                             f"{list(taps(network))}. It needs one of `bert_classifier`.")
    of_teacher, of_student = counts
    if (of_teacher % of_student and at != "patient_last") or of_teacher < of_student:
        raise ValueError("the teacher's layers must be as many as the student's, or a multiple; received "
                         f"{of_teacher}, {of_student}.")
    if at.startswith("patient"):
        if of_student < 2:
            raise ValueError("this method compares all layers but the last: the student must have at least 2; received "
                             "1.")
        step, begin = (of_teacher // of_student, 0) if at == "patient" else (1, of_teacher - of_student)
        return [(f"hidden{begin + step * m}", f"hidden{m}") for m in range(1, of_student)]
    step = of_teacher // of_student
    name = "attention" if at == "attentions" else "hidden"
    layers = [(f"{name}{step * m}", f"{name}{m}") for m in range(1, of_student + 1)]
    return layers if at == "attentions" else [("embeddings", "embeddings"), *layers]


def _pooled(network: keras.Model) -> str:
    if "pooled" not in taps(network):
        raise ValueError(f"this method compares {PLACES['pooled']}; the network {network.name!r} has the taps "
                         f"{list(taps(network))}. Name the layer pooled, or the last dense layer logits.")
    return "pooled"


def tapped_outputs(network: keras.Model, names: Sequence[str]) -> Callable[..., dict[str, Any]]:
    """(x, training) -> the network's logits, and its taps, or other layers' outputs, of these names; in float32 what is
    of 16 bits, in which differences of nearly equal distributions are lost."""
    names = [name for name in dict.fromkeys(names) if name != "logits"]
    if not names:
        return lambda x, training: {"logits": not_half(network(x, training=training))}
    found = taps(network)
    # A Sequential model has outputs, but no output before it is called.
    model = keras.Model(network.inputs, {"logits": network.outputs[0], **{
        name: found[name] if name in found else network.get_layer(name).output for name in names}},
                        name=f"{network.name}_taps")
    return lambda x, training: tf.nest.map_structure(not_half, model(_as_inputs(network, x), training=training))


def _as_inputs(network: keras.Model, x: Any) -> Any:
    """One tensor as the list of one that a model of `network.inputs` expects."""
    return [x] if isinstance(network.inputs, list) and tf.is_tensor(x) else x
