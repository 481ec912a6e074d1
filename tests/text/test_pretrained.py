"""Encoders from disk against a forward pass in NumPy; the same through classifiers, saved and loaded."""

import json
import math

import keras
import keras_nlp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.commands import run_module
from tests.text import tiny_encoder
from tf_l2t.students import bert_classifier, taps
from tf_l2t.text import Examples, check_encoder, load_encoder, load_masked_language_model, numpy_bert

SENTENCES = ("the film is good .", "bad", "not very fine , the plot is awful !")
# Float32 sums of a few dozen terms of size 1 to 10, against float64.
TOLERANCE = {"rtol": 0, "atol": 2e-5}


def encoded(wordpieces, pair):
    second = SENTENCES[::-1] if pair else None
    return wordpieces.encode(Examples(SENTENCES, second, np.zeros(3, np.int32)), 16)


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize(("activation", "prefix", "norm"), [
    ("gelu", "", ("weight", "bias")), ("gelu_new", "bert.", ("gamma", "beta"))])
def test_a_loaded_encoder_is_that_of_numpy(tmp_path, activation, prefix, norm, pair):
    """The activations differ by up to 5e-4, far more than the tolerance; masks and segments are the test's own."""
    path = tiny_encoder.write(tmp_path, prefix=prefix, norm=norm, hidden_act=activation,
                              hidden_dropout_prob=0.25)
    backbone, wordpieces = load_encoder(path)
    assert backbone.dropout == 0.25
    model = bert_classifier(backbone, 3, special=wordpieces.special)
    model.save(tmp_path / "model.keras")
    tokens = encoded(wordpieces, pair)
    mask = (tokens != 0).astype(np.int32)
    separator = np.array([row.tolist().index(wordpieces.special.separator) for row in tokens])
    segments = (np.arange(16) > separator[:, None]) * mask
    assert segments.any() == pair
    expected = numpy_bert.forward(path, tokens, segments, mask)
    for network in (model, keras.models.load_model(tmp_path / "model.keras")):
        inner = taps(network)
        found = keras.Model(network.inputs, [inner[n] for n in ("hidden2", "pooled", "attention1", "attention2")])(
            [tokens])
        real = mask[..., None]
        np.testing.assert_allclose(found[0] * real, expected.states * real, **TOLERANCE)
        np.testing.assert_allclose(found[1], expected.pooled, **TOLERANCE)
        for scores, of_numpy in zip(found[2:], expected.scores, strict=True):
            query = mask[:, None, :, None]
            np.testing.assert_allclose(scores * query, of_numpy * query, rtol=0, atol=1e-4)  # of size 10 and more


def test_one_vector_by_hand(tmp_path):
    """NumPy's forward pass of no layers: the norm of three embeddings."""
    path = tiny_encoder.write(tmp_path, num_hidden_layers=0)
    w = tiny_encoder.weights(tiny_encoder.CONFIG | {"num_hidden_layers": 0})
    found = numpy_bert.forward(path, np.array([[2, 40]]), np.array([[0, 1]]), np.ones((1, 2)))
    x = (w["embeddings.word_embeddings.weight"][40].astype(float) + w["embeddings.position_embeddings.weight"][1]
         + w["embeddings.token_type_embeddings.weight"][1])
    x = (x - x.mean()) / math.sqrt(x.var() + 1e-12)
    x = x * w["embeddings.LayerNorm.weight"] + w["embeddings.LayerNorm.bias"]
    np.testing.assert_allclose(found.states[0, 1], x, rtol=1e-12)


def test_the_first_layers_alone(tmp_path):
    backbone, wordpieces = load_encoder(tiny_encoder.write(tmp_path))
    tokens = encoded(wordpieces, False)
    whole, first = (bert_classifier(backbone, 2, n, special=wordpieces.special) for n in (None, 1))
    states = [keras.Model(m.inputs, taps(m)["hidden1"])([tokens]) for m in (whole, first)]
    np.testing.assert_array_equal(*states)
    assert "hidden2" not in taps(first)
    for wrong in (0, 3):
        with pytest.raises(ValueError, match=f"2 layers; received num_layers={wrong}"):
            bert_classifier(backbone, 2, wrong)


@pytest.mark.parametrize("norm", [("weight", "bias"), ("gamma", "beta")])
def test_a_masked_language_model_is_that_of_numpy(tmp_path, norm):
    path = tiny_encoder.write(tmp_path, mlm=True, norm=norm)
    model, wordpieces = load_masked_language_model(path)
    tokens, places = encoded(wordpieces, False), np.array([3, 1, 2])
    mask = (tokens != 0).astype(np.int32)
    states = numpy_bert.forward(path, tokens, np.zeros_like(tokens), mask).states[np.arange(3), places]
    w = {name.removeprefix("cls.predictions."): value.astype(float)
         for name, value in tiny_encoder.weights(tiny_encoder.CONFIG, mlm=True).items()}
    inner = states @ w["transform.dense.weight"].T + w["transform.dense.bias"]
    inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    inner = (inner - inner.mean(-1, keepdims=True)) / np.sqrt(inner.var(-1, keepdims=True) + 1e-12)
    inner = inner * w["transform.LayerNorm.weight"] + w["transform.LayerNorm.bias"]
    expected = inner @ w["embeddings.word_embeddings.weight"].T + w["bias"]
    np.testing.assert_allclose(model(tokens, places), expected, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="no masked language model"):
        load_masked_language_model(tiny_encoder.write(tmp_path / "without"))


def test_a_keras_preset(tmp_path):
    keras.utils.set_random_seed(0)
    backbone = keras_nlp.models.BertBackbone(len(tiny_encoder.PIECES), 1, 2, 8, 16, max_sequence_length=20)
    backbone.save_to_preset(str(tmp_path))
    (tmp_path / "vocab.txt").write_text("\n".join(tiny_encoder.PIECES))
    found, wordpieces = load_encoder(tmp_path)
    tokens = encoded(wordpieces, True)
    models = [bert_classifier(b, special=wordpieces.special) for b in (backbone, found)]
    np.testing.assert_array_equal(*(keras.Model(m.inputs, taps(m)["pooled"])([tokens]) for m in models))
    for lowercase in (True, False):
        (tmp_path / "tokenizer.json").write_text(json.dumps({"config": {"lowercase": lowercase}}))
        assert load_encoder(tmp_path)[1].lowercase == lowercase
        assert load_encoder(tmp_path)[1].strip_accents == lowercase
    (tmp_path / "tokenizer.json").write_text(json.dumps({"config": {"lowercase": True, "strip_accents": False}}))
    assert not load_encoder(tmp_path)[1].strip_accents
    with pytest.raises(ValueError, match="model_type 'bert'; received None"):
        check_encoder(tmp_path)


def test_the_command(tmp_path):
    path = tiny_encoder.write(tmp_path, max_position_embeddings=48)
    assert max(check_encoder(path).values()) < 1e-4
    done = run_module("trainers.check_encoder", "--encoder", str(path), "--tolerance=1e-12")
    assert done.returncode == 1 and "attention scores: largest difference" in done.stdout
    stored = load_file(path / "model.safetensors")
    stored["pooler.dense.bias"][0] = np.nan
    save_file(stored, path / "model.safetensors")
    assert np.isnan(check_encoder(path)["pooled"]) and check_encoder(path)["states"] < 1e-4
    done = run_module("trainers.check_encoder", "--encoder", str(path))
    assert done.returncode == 1 and "pooled: largest difference nan" in done.stdout


def test_how_text_is_cut_stands_in_the_tokenizers_config(tmp_path):
    """As Hugging Face's files say; accents go where case goes, unless they say otherwise."""
    path = tiny_encoder.write(tmp_path)
    for config, expected in (({}, (True, True)), ({"do_lower_case": False, "strip_accents": None}, (False, False)),
                             ({"do_lower_case": True, "strip_accents": False}, (True, False))):
        (path / "tokenizer_config.json").write_text(json.dumps(config))
        (path / "tokenizer.json").write_text(json.dumps({"normalizer": {"lowercase": None}}))
        found = load_encoder(path).wordpieces
        assert (found.lowercase, found.strip_accents) == expected


def test_damaged_tokenizer_files_are_named(tmp_path):
    path = tiny_encoder.write(tmp_path)
    for name in ("tokenizer_config.json", "tokenizer.json"):
        for content in ("{", "[" * 100_000):
            (path / name).write_text(content)
            with pytest.raises(ValueError, match=f"{name}' is damaged"):
                load_encoder(path)
        (path / name).unlink()


def damaged(tmp_path, name, value):
    path = tiny_encoder.write(tmp_path)
    config = json.loads((path / "config.json").read_text()) | {name: value}
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(("name", "value", "match"), [
    ("model_type", "roberta", "model_type 'bert'"), ("hidden_act", "relu", "hidden_act"),
    ("hidden_act", ["gelu"], "hidden_act"),
    ("layer_norm_eps", 1e-5, "layer_norm_eps"), ("position_embedding_type", "relative_key", "relative_key"),
    ("num_hidden_layers", 3, "do not fit its config.json"), ("hidden_size", 24, "do not fit its config.json"),
])
def test_encoders_that_cannot_be_loaded(tmp_path, name, value, match):
    with pytest.raises(ValueError, match=match):
        load_encoder(damaged(tmp_path, name, value))


def test_directories_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="holds no encoder"):
        load_encoder(tmp_path)
    path = tiny_encoder.write(tmp_path / "a")
    (path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"must hold model\.safetensors"):
        load_encoder(path)
    path = tiny_encoder.write(tmp_path / "b")
    (path / "vocab.txt").write_text("\n".join(tiny_encoder.PIECES[:-1]))
    with pytest.raises(ValueError, match=rf"{len(tiny_encoder.PIECES) - 1} word pieces"):
        load_encoder(path)
