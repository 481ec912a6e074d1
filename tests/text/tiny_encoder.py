"""A BERT encoder of random weights in Hugging Face's format: config.json, model.safetensors, vocab.txt."""

import json
import pathlib

import numpy as np

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghi"),
          "good", "bad", "film", "the", "is", "not", "very", ".", ",", "!", "plot", "fine", "awful", "cast")
CONFIG = {"model_type": "bert", "hidden_act": "gelu", "hidden_size": 12, "intermediate_size": 20,
          "max_position_embeddings": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "type_vocab_size": 2,
          "vocab_size": len(PIECES), "layer_norm_eps": 1e-12, "position_embedding_type": "absolute"}


def weights(config, seed=0, mlm=False):
    """As Hugging Face names them; large enough that activations are not near 0 alone."""
    rng = np.random.default_rng(seed)
    width, inner, size = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    found = {}

    def dense(name, inputs, outputs):
        found[f"{name}.weight"] = rng.normal(0, 0.5, (outputs, inputs))
        found[f"{name}.bias"] = rng.normal(0, 0.5, outputs)

    def norm(name):
        found[f"{name}.weight"], found[f"{name}.bias"] = rng.normal(1, 0.3, width), rng.normal(0, 0.3, width)

    for name, rows in (("word", size), ("position", config["max_position_embeddings"]), ("token_type", 2)):
        found[f"embeddings.{name}_embeddings.weight"] = rng.normal(0, 1, (rows, width))
    norm("embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        for name in ("query", "key", "value"):
            dense(f"encoder.layer.{i}.attention.self.{name}", width, width)
        dense(f"encoder.layer.{i}.attention.output.dense", width, width)
        norm(f"encoder.layer.{i}.attention.output.LayerNorm")
        dense(f"encoder.layer.{i}.intermediate.dense", width, inner)
        dense(f"encoder.layer.{i}.output.dense", inner, width)
        norm(f"encoder.layer.{i}.output.LayerNorm")
    dense("pooler.dense", width, width)
    if mlm:
        dense("cls.predictions.transform.dense", width, width)
        norm("cls.predictions.transform.LayerNorm")
        found["cls.predictions.bias"] = rng.normal(0, 0.5, size)
    return {name: value.astype(np.float32) for name, value in found.items()}


def write(path, mlm=False, prefix="", seed=0, norm=("weight", "bias"), **changes):
    """Makes the directory `path` and returns it; `norm` is what the files call scale and shift."""
    from safetensors.numpy import save_file

    path, config = pathlib.Path(path), CONFIG | changes
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    stored = weights(config, seed, mlm)
    for ours, theirs in zip(("weight", "bias"), norm, strict=True):
        stored = {name.replace(f"LayerNorm.{ours}", f"LayerNorm.{theirs}"): value for name, value in stored.items()}
    save_file({name if name.startswith("cls.") else prefix + name: value for name, value in stored.items()},
              path / "model.safetensors")
    return path
