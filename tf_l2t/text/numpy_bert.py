"""BERT's forward pass in NumPy, from Hugging Face's files alone: what loaded encoders are checked against."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tf_l2t.text.pretrained import check_config, read_config, read_weights


class Outputs(NamedTuple):
    """States [batch, length, width]; pooled [batch, width]; scores of every layer, [batch, heads, length, length]."""

    states: np.ndarray
    pooled: np.ndarray
    scores: list[np.ndarray]


def forward(path: str | os.PathLike[str], tokens: np.ndarray, segments: np.ndarray, mask: np.ndarray) -> Outputs:
    """The encoder of a directory, without dropout, in float64. It shares no computation with `load_encoder`.

    Args:
      path: a directory with config.json and model.safetensors.
      tokens, segments: ids [batch, length].
      mask: 1 for tokens, 0 for padding.

    Raises:
      ValueError: as `load_encoder`, for the files.

    Source: Devlin et al., "BERT", 2019, section 3; Vaswani et al., "Attention is all you need", 2017, section 3.
    """
    folder = pathlib.Path(path)
    config = read_config(folder)
    check_config(folder, config)
    stored = {name.removeprefix("bert."): value.astype(np.float64) for name, value in read_weights(folder).items()}
    return _forward(config, stored, tokens, segments, mask)


def _forward(config: Mapping[str, int | str], w: Mapping[str, np.ndarray], tokens: np.ndarray, segments: np.ndarray,
             mask: np.ndarray) -> Outputs:
    exact = config["hidden_act"] == "gelu"

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        mean, var = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(x: np.ndarray) -> np.ndarray:
        if exact:
            return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))

    x = w["embeddings.word_embeddings.weight"][tokens] + w["embeddings.token_type_embeddings.weight"][segments]
    x = norm(x + w["embeddings.position_embeddings.weight"][:tokens.shape[1]], "embeddings.LayerNorm")
    heads, scores = int(config["num_attention_heads"]), []
    for number in range(int(config["num_hidden_layers"])):
        layer = f"encoder.layer.{number}"
        query, key, value = (np.reshape(dense(x, f"{layer}.attention.self.{name}"), (*x.shape[:2], heads, -1))
                             for name in ("query", "key", "value"))
        score = np.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1])
        scores.append(score * mask[:, None, None, :])
        score = np.where(mask[:, None, None, :] == 1, score, -np.inf)
        weight = np.exp(score - score.max(axis=-1, keepdims=True))
        mixed = np.einsum("bhqk,bkhd->bqhd", weight / weight.sum(axis=-1, keepdims=True), value)
        x = norm(x + dense(mixed.reshape(x.shape), f"{layer}.attention.output.dense"),
                 f"{layer}.attention.output.LayerNorm")
        inner = gelu(dense(x, f"{layer}.intermediate.dense"))
        x = norm(x + dense(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return Outputs(x, np.tanh(dense(x[:, 0], "pooler.dense")), scores)
