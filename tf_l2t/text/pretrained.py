"""BERT encoders from a local directory: a Keras preset, or Hugging Face's config.json, model.safetensors, vocab.txt."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from tf_l2t.students import bert_classifier
from tf_l2t.text.wordpieces import WordPieces

VOCABULARY, CONFIG, WEIGHTS = "vocab.txt", "config.json", "model.safetensors"
# By the name in config.json; keras_nlp's backbone has the approximate form alone.
ACTIVATIONS = {"gelu": False, "gelu_new": True, "gelu_pytorch_tanh": True}


class Encoder(NamedTuple):
    """A `keras_nlp.models.BertBackbone` and the vocabulary of its inputs."""

    backbone: Any
    wordpieces: WordPieces


def load_encoder(path: str | os.PathLike[str]) -> Encoder:
    """The encoder of a directory.

    Hugging Face's format is read by keras_nlp's converter; the feed-forward layers get the activation, and all layers
    the hidden_dropout_prob, that config.json names, which the converter does not read. keras_nlp writes its own format:
    `backbone.save_to_preset`, with the tokenizer's, or with a vocab.txt beside.

    Args:
      path: the directory. Nothing is downloaded.

    Raises:
      ValueError: if it holds neither, another architecture, or weights that are missing or of another shape.
    """
    import keras_nlp

    folder = pathlib.Path(path)
    config = read_config(folder)
    huggingface = "model_type" in config
    if huggingface:
        check_config(folder, config)
    elif "BertBackbone" not in str(config.get("class_name", config.get("registered_name", ""))):
        raise ValueError(f"{str(folder / CONFIG)!r} is not of a BERT encoder: {config.get('class_name')!r}.")
    try:
        dropout = {"dropout": float(config.get("hidden_dropout_prob", 0.1))} if huggingface else {}
        backbone = keras_nlp.models.BertBackbone.from_preset(str(folder), **dropout)
    except Exception as error:  # safetensors, keras and keras_nlp raise half a dozen kinds
        raise ValueError(f"the weights in {str(folder)!r} do not fit its {CONFIG}: {error}") from error
    if huggingface:
        _set_activation(backbone, config["hidden_act"])
    return Encoder(backbone, _wordpieces(folder, backbone.vocabulary_size))


def load_masked_language_model(path: str | os.PathLike[str]) -> tuple[Callable[..., Any], WordPieces]:
    """The masked language model of a directory in Hugging Face's format, and its vocabulary.

    The model takes token ids [batch, length] and places [batch], and returns the logits of the word pieces that stand
    there, [batch, vocabulary]: E · norm(gelu(W h + b)) + c, E the word embeddings.

    Raises:
      ValueError: as `load_encoder`, or for weights without this head.
    """
    import keras
    import tensorflow as tf

    backbone, wordpieces = load_encoder(path)
    folder = pathlib.Path(path)
    stored = read_weights(folder) if (folder / WEIGHTS).is_file() else {}
    names = ["transform.dense.weight", "transform.dense.bias", "transform.LayerNorm.weight", "transform.LayerNorm.bias",
             "bias"]
    missing = [name for name in names if f"cls.predictions.{name}" not in stored]
    if missing:
        raise ValueError(f"{str(folder / WEIGHTS)!r} has no masked language model: cls.predictions lacks {missing}.")
    kernel, bias, gamma, beta, last = (tf.constant(stored[f"cls.predictions.{name}"]) for name in names)
    network = bert_classifier(backbone, dropout=0.0, special=wordpieces.special)
    states = keras.Model(network.inputs, network.get_layer(f"hidden{backbone.num_layers}").output)
    embeddings = tf.convert_to_tensor(backbone.token_embedding.embeddings)
    approximate = ACTIVATIONS[read_config(folder).get("hidden_act", "gelu")]

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None], tf.int32),
                                                   tf.TensorSpec([None], tf.int32)])
    def logits(tokens: Any, places: Any) -> Any:
        found = tf.gather(states([tokens], training=False), places, batch_dims=1)
        inner = tf.nn.gelu(tf.matmul(found, kernel, transpose_b=True) + bias, approximate)
        mean, variance = tf.nn.moments(inner, axes=[-1], keepdims=True)
        normed = tf.nn.batch_normalization(inner, mean, variance, beta, gamma, 1e-12)
        return tf.matmul(normed, embeddings, transpose_b=True) + last

    return logits, wordpieces


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """config.json of an encoder's directory.

    Raises:
      ValueError: if it is not there, or no JSON object.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{str(folder)!r} holds no encoder: {CONFIG}, with {WEIGHTS} and {VOCABULARY}, or a Keras "
                         f"preset: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{str(folder / CONFIG)!r} is no JSON object.")
    return config


def read_weights(folder: pathlib.Path) -> dict[str, Any]:
    """The arrays of model.safetensors by name, norms' scales and shifts as "weight" and "bias": files that were made
    from TensorFlow's have them as "gamma" and "beta"."""
    from safetensors.numpy import load_file

    newer = {"gamma": "weight", "beta": "bias"}
    found = {}
    for name, value in load_file(folder / WEIGHTS).items():
        place, _, last = name.rpartition(".")
        found[f"{place}.{newer.get(last, last)}" if place.endswith("LayerNorm") else name] = value
    return found


def check_config(folder: pathlib.Path, config: dict[str, Any]) -> None:
    """Raises ValueError for a Hugging Face encoder that is not computed as keras_nlp's."""
    if config.get("model_type") != "bert" or not (folder / WEIGHTS).is_file():
        raise ValueError(f"{str(folder)!r} must hold {WEIGHTS} of a model_type 'bert'; received "
                         f"{config.get('model_type')!r}, {sorted(p.name for p in folder.iterdir())}.")
    if config.get("hidden_act", "gelu") not in list(ACTIVATIONS) or config.get("layer_norm_eps", 1e-12) != 1e-12 \
            or config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"{str(folder / CONFIG)!r}: hidden_act must be one of {sorted(ACTIVATIONS)}, layer_norm_eps "
                         "1e-12, positions absolute; received "
                         f"{[config.get(k) for k in ('hidden_act', 'layer_norm_eps', 'position_embedding_type')]}.")
    config.setdefault("hidden_act", "gelu")


def _set_activation(backbone: Any, name: str) -> None:
    import keras

    activation = keras.activations.gelu if not ACTIVATIONS[name] else None
    for layer in backbone.transformer_layers if activation else ():
        layer.activation = activation  # what the layer's config, and a classifier that is saved, says
        layer._feedforward_intermediate_dense.activation = activation


def _read_json(file: pathlib.Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(file)!r} is damaged: {error!r}.") from error


def _wordpieces(folder: pathlib.Path, size: int) -> WordPieces:
    kept: dict[str, Any] = {}
    for file, inner, lowercase in (("tokenizer_config.json", "", "do_lower_case"),
                                   ("tokenizer.json", "config", "lowercase")):  # Hugging Face's, and a preset's
        found: Any = _read_json(folder / file) if (folder / file).is_file() else None
        if inner:
            found = found.get(inner) if isinstance(found, dict) else None
        for name, place in (("lowercase", lowercase), ("strip_accents", "strip_accents")):
            if isinstance(found, dict) and found.get(place) is not None:
                kept[name] = bool(found[place])
    preset = folder / "assets" / "tokenizer" / "vocabulary.txt"
    pieces = WordPieces.read(preset if preset.is_file() else folder / VOCABULARY, **kept)
    if pieces.size != size:
        raise ValueError(f"the vocabulary in {str(folder)!r} has {pieces.size} word pieces, the encoder's embeddings "
                         f"{size}.")
    return pieces
