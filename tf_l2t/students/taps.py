"""The inner tensors of a student by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras

from tf_l2t.students.bert import AttentionScores
from tf_l2t.students.text_inputs import Segments

_ACTIVATIONS = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.PReLU, keras.layers.ELU, keras.layers.Softmax)
_TAP = re.compile(r"(stem|stage\d+|embeddings|hidden\d+|pooled|logits)(_preact)?")


def taps(student: keras.Model) -> dict[str, Any]:
    """The named inner tensors of a student, from input to output, as symbolic Keras tensors.

    `stem`, `stage1` and on: [batch, h, w, channels]; `pooled`: [batch, channels], what the layer `logits` reads where
    no layer has this name; `logits`: [batch, classes]. With `_preact`, stem and stages before their activation; a stage
    that ends without one is its own, one that an activation ends has none unless a layer bears its name. Of
    `bert_classifier`: `embeddings`, `hidden1` and on: [batch, length, width]; `attention1` and on: `AttentionScores`,
    [batch, heads, length, length].

    Args:
      student: any Functional model whose layers bear these names, such as all of `tf_l2t.students` for images and text.
    """
    encoder = any(isinstance(layer, Segments) for layer in student.layers)
    named = {layer.name: layer.output for layer in student.layers if _TAP.fullmatch(layer.name) and (
        encoder or not layer.name.startswith("hidden"))}
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name.removesuffix("_preact") for name in named):
        if name in named and name.startswith("st"):
            before = named.get(f"{name}_preact", None if _activates(student.get_layer(name)) else named[name])
            if before is not None:
                found[f"{name}_preact"] = before
        if name == "logits" and "pooled" not in named:
            found["pooled"] = student.get_layer("logits").input
        if name.startswith("hidden"):
            number = int(name.removeprefix("hidden"))
            below = named[f"hidden{number - 1}"] if number > 1 else named["embeddings"]
            scores = AttentionScores(student.get_layer(f"transformer_layer_{number - 1}"), name=f"attention{number}")
            found[f"attention{number}"] = scores(below, student.get_layer("segments").output[1])
        found |= {name: named[name]} if name in named else {}
    return found


def _activates(layer: keras.layers.Layer) -> bool:
    """Whether what the layer returns is behind an activation."""
    activation = getattr(layer, "activation", None)
    return activation not in (None, keras.activations.linear) or isinstance(layer, _ACTIVATIONS)


def tapped(student: keras.Model, names: Sequence[str]) -> keras.Model:
    """A model of the same layers and weights whose output is a dict of the named taps.

    Raises:
      ValueError: for a name that is not among the student's `taps`.
    """
    found = taps(student)
    unknown = [name for name in names if name not in found]
    if unknown or not names:
        raise ValueError(f"the student {student.name!r} has the taps {list(found)}; received {list(names)}.")
    return keras.Model(student.inputs, {name: found[name] for name in names}, name=f"{student.name}_taps")
