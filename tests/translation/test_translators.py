"""Translation students against their equations in NumPy, in loops over sentences without padding."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.students import AttentionLSTM, FunctionalTranslator, Transformer, lstm1, lstm2, previous_tokens, transformer
from tf_l2t.translation.subwords import BOS, EOS

V = 9
MODELS = {
    "lstm1": lambda **o: AttentionLSTM(V, units=6, **o),
    "lstm2": lambda **o: AttentionLSTM(V, units=6, num_layers=2, **o),
    "lstm2_unrolled": lambda **o: AttentionLSTM(V, units=6, num_layers=2, unroll=True, **o),
    "tied": lambda **o: Transformer(V, 2, 8, 12, 2, **o),
    "untied": lambda **o: Transformer(V, 2, 8, 12, 2, tied=False, **o),
    "tied_first": lambda **o: Transformer(V, 2, 8, 12, 2, normalize_first=True, **o),
    "untied_first": lambda **o: Transformer(V, 2, 8, 12, 2, tied=False, normalize_first=True, **o),
}
ALL = pytest.mark.parametrize("name", MODELS)
FEW = pytest.mark.parametrize("name", ["lstm2", "lstm2_unrolled", "tied", "untied_first"])


def random_weights(name, scale=0.5, dtype="float64", **options):
    """A student whose weights, biases and scales of normalisations too, are all far from what they begin with."""
    student = FunctionalTranslator(lambda: MODELS[name](**options), dtype=dtype)
    rng = np.random.default_rng(1)
    for weight in student.model.trainable_variables:
        weight.assign(weight.numpy() + scale * rng.standard_normal(weight.shape))
    return student


def sentences(lengths, seed=0, width=None):
    rng = np.random.default_rng(seed)
    ids = np.zeros((len(lengths), width or max(lengths)), np.int32)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = [*rng.integers(3, V, length - 1), EOS]
    return ids


SOURCE_LENGTHS, TARGET_LENGTHS = [5, 2, 7, 1], [3, 6, 1, 5]
SOURCE = sentences(SOURCE_LENGTHS)
TARGET = sentences(TARGET_LENGTHS, 1)
PREVIOUS = previous_tokens(tf.constant(TARGET), BOS).numpy()


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_cell(x, h, c, weights):
    z = x @ weights["kernel"].numpy() + h @ weights["recurrent"].numpy() + weights["bias"].numpy()
    n = len(h)
    i, f, g, o = (z[k * n:(k + 1) * n] for k in range(4))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def lstm_logits(model, source, previous):
    """The docstring's equations, one sentence, one token after the other."""
    xs = [model.source_embedding.numpy()[token] for token in source]
    h_all, c_all = [], []
    for layer in model.encoder:
        half = model.units // 2
        outputs = {}
        for way, order in (("forward", range(len(xs))), ("backward", range(len(xs) - 1, -1, -1))):
            h, c = np.zeros(half), np.zeros(half)
            for j in order:
                h, c = lstm_cell(xs[j], h, c, layer[way])
                outputs[way, j] = h
            outputs[way, "last"] = h, c
        xs = [np.concatenate([outputs["forward", j], outputs["backward", j]]) for j in range(len(xs))]
        h_all.append(np.concatenate([outputs["forward", "last"][0], outputs["backward", "last"][0]]))
        c_all.append(np.concatenate([outputs["forward", "last"][1], outputs["backward", "last"][1]]))
    fed, logits = np.zeros(model.units), []
    for token in previous:
        x = np.concatenate([model.target_embedding.numpy()[token], fed])
        for i, layer in enumerate(model.decoder):
            h_all[i], c_all[i] = lstm_cell(x, h_all[i], c_all[i], layer)
            x = h_all[i]
        scores = np.array([model.score.numpy()[:, 0] @ np.tanh(x @ model.query_kernel.numpy()
                                                              + m @ model.key_kernel.numpy()) for m in xs])
        context = sum(a * m for a, m in zip(softmax(scores), xs, strict=True))
        fed = np.tanh(np.concatenate([context, x]) @ model.combine_kernel.numpy())
        logits.append(fed @ model.logits_kernel.numpy() + model.logits_bias.numpy())
    return np.array(logits)


def dense(layer, x):
    return x @ layer.kernel.numpy() + layer.bias.numpy()


def normalised(layer, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred ** 2).mean(-1, keepdims=True) + 1e-5) * layer.gamma.numpy() + layer.beta.numpy()


def attended(layer, x, memory, causal):
    out = np.zeros_like(x)
    for head in range(layer._num_heads):
        q, k, v = (values @ part.kernel.numpy()[:, head] + part.bias.numpy()[head] for part, values in (
            (layer._query_dense, x), (layer._key_dense, memory), (layer._value_dense, memory)))
        scores = q @ k.T / np.sqrt(q.shape[1])
        if causal:
            scores = np.where(np.tril(np.ones_like(scores)) > 0, scores, -np.inf)
        out += softmax(scores) @ v @ layer._output_dense.kernel.numpy()[head]
    return out + layer._output_dense.bias.numpy()


def sublayer(x, norm, function, first):
    return x + function(normalised(norm, x)) if first else normalised(norm, x + function(x))


def embedded(model, tokens, table):
    angles = np.arange(len(tokens))[:, None] / 10_000 ** (2 * np.arange(model.width // 2) / model.width)
    return table[tokens] * np.sqrt(model.width) + np.concatenate([np.sin(angles), np.cos(angles)], -1)


def transformer_logits(model, source, previous):
    tables = [table.numpy() for table in model.tables]
    source_table, target_table, kernel = tables if len(tables) == 3 else tables * 3
    first = model.normalize_first

    def feed_forward(layer):
        return lambda x: dense(layer._feedforward_output_dense,
                               np.maximum(dense(layer._feedforward_intermediate_dense, x), 0))

    x = embedded(model, source, source_table)
    for layer in model.encoder:
        x = sublayer(x, layer._self_attention_layer_norm,
                     lambda x, a=layer._self_attention_layer: attended(a, x, x, False), first)
        x = sublayer(x, layer._feedforward_layer_norm, feed_forward(layer), first)
    memory = normalised(model.norms[0], x) if first else x
    x = embedded(model, previous, target_table)
    for layer in model.decoder:
        x = sublayer(x, layer._self_attention_layer_norm,
                     lambda x, a=layer._self_attention_layer: attended(a, x, x, True), first)
        x = sublayer(x, layer._cross_attention_layer_norm,
                     lambda x, a=layer._cross_attention_layer: attended(a, x, memory, False), first)
        x = sublayer(x, layer._feedforward_layer_norm, feed_forward(layer), first)
    x = normalised(model.norms[1], x) if first else x
    return x @ kernel.T + model.logits_bias.numpy()


@ALL
def test_teacher_forcing_is_the_equations_in_loops(name):
    """In float64; a sentence of the batch is as it is by itself, without any padding."""
    model = random_weights(name).model
    logits = model((SOURCE, PREVIOUS)).numpy()
    assert logits.shape == (4, 6, V) and logits.dtype == np.float64
    reference = lstm_logits if isinstance(model, AttentionLSTM) else transformer_logits
    for b, (s, t) in enumerate(zip(SOURCE_LENGTHS, TARGET_LENGTHS, strict=True)):
        np.testing.assert_allclose(logits[b, :t], reference(model, SOURCE[b, :s], PREVIOUS[b, :t]),
                                   rtol=1e-11, atol=1e-11)
    assert logits.std() > 0.3  # so that 1e-11 says something


@FEW
def test_every_source_token_and_every_earlier_token_counts_and_later_ones_do_not(name):
    model = random_weights(name).model
    logits = model((SOURCE[:1], PREVIOUS[1:2])).numpy()[0]
    for j in range(5):
        changed = SOURCE[:1].copy()
        changed[0, j] = 3 + (changed[0, j] - 2) % (V - 3)
        other = model((changed, PREVIOUS[1:2])).numpy()[0]
        assert (np.abs(other - logits).max(-1) > 1e-6).all(), j
    for t in range(6):
        changed = PREVIOUS[1:2].copy()
        changed[0, t] = 3 + (changed[0, t] - 2) % (V - 3)
        other = model((SOURCE[:1], changed)).numpy()[0]
        np.testing.assert_allclose(other[:t], logits[:t], rtol=0, atol=1e-13)
        assert (np.abs(other[t:] - logits[t:]).max(-1) > 1e-6).all(), t


@FEW
@pytest.mark.parametrize("compiled", [False, True])
def test_step_by_step_gives_the_same_log_probabilities(name, compiled):
    """To the rounding of float64; compiled, but for unrolled students, for any batch and length."""
    model = random_weights(name).model

    def by_steps(source, previous, max_length):
        memory = model.encode(source)
        state, logits = model.start(memory, max_length), []
        for t in range(PREVIOUS.shape[1]):
            one, state = model.step(memory, state, previous[:, t], tf.constant(t))
            logits.append(one)
        return tf.nn.log_softmax(tf.stack(logits, 1))

    if compiled:
        width = SOURCE.shape[1] if model.unroll else None
        by_steps = tf.function(by_steps, autograph=False, input_signature=[
            tf.TensorSpec([None, width], tf.int32), tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([], tf.int32)])
    expected = tf.nn.log_softmax(model((SOURCE, PREVIOUS)))
    for max_length in (6, 11):  # what it may become changes nothing
        found = by_steps(tf.constant(SOURCE), tf.constant(PREVIOUS), tf.constant(max_length))
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


@FEW
def test_more_padding_changes_nothing(name):
    model = random_weights(name).model
    logits = model((SOURCE, PREVIOUS)).numpy()
    wider = model((np.pad(SOURCE, [(0, 0), (0, 3)]), np.pad(PREVIOUS, [(0, 0), (0, 4)]))).numpy()
    np.testing.assert_allclose(wider[:, :6], logits, rtol=1e-12, atol=1e-12)
    with_a_row_of_padding = model((np.pad(SOURCE, [(0, 1), (0, 0)]), np.pad(PREVIOUS, [(0, 1), (0, 0)]))).numpy()
    np.testing.assert_allclose(with_a_row_of_padding[:4], logits, rtol=1e-12, atol=1e-12)
    assert np.isfinite(with_a_row_of_padding).all()


LOAD = """
import sys, keras, numpy as np, tf_l2t.students
data = np.load(sys.argv[1] + "/data.npz")
load = lambda name: keras.models.load_model(f"{sys.argv[1]}/{name}.keras")
found = {name: load(name)((data["source"], data["previous"])) for name in sys.argv[2:]}
np.savez(sys.argv[1] + "/found.npz", **found)
"""


def test_a_saved_student_is_the_same_in_another_process(tmp_path):
    models = {name: random_weights(name, dtype="float32", dropout=0.3).model for name in ("lstm2", "untied_first")}
    models["float64"] = random_weights("lstm2").model
    np.savez(tmp_path / "data.npz", source=SOURCE, previous=PREVIOUS)
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")
    subprocess.run([sys.executable, "-c", LOAD, str(tmp_path), *models], check=True)
    found = np.load(tmp_path / "found.npz")
    for name, model in models.items():
        expected = model((SOURCE, PREVIOUS)).numpy()
        assert found[name].dtype == expected.dtype
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-6)


def test_a_copy_from_the_config_has_every_argument():
    for model in (AttentionLSTM(7, 4, 3, 0.25, True), Transformer(7, 1, 12, 5, 3, 0.25, False, True)):
        config = model.get_config()
        copy = type(model).from_config(config)
        assert copy.get_config() == config
        assert [w.shape for w in copy.weights] == [w.shape for w in model.weights]
    assert config["num_heads"] == 3 and config["dropout"] == 0.25 and config["tied"] is False
    assert AttentionLSTM.from_config(AttentionLSTM(7, 4, 3, 0.25, True).get_config()).unroll is True


def test_the_papers_sizes():
    """Parameters by hand: V = 25,000 and 256 units; 6 + 6 layers of width 256 and 1024."""
    v, d = 25_000, 256
    tables = 2 * v * d + d * v + v  # two embeddings, logits
    encoder = 2 * (d * 4 * 128 + 128 * 4 * 128 + 4 * 128)
    attention = d * d + d * d + d + 2 * d * d  # query, keys, score; combination
    first = 2 * d * 4 * d + d * 4 * d + 4 * d  # reads embedding and fed vector
    assert lstm1(v).count_params() == tables + encoder + first + attention == 20_669_096
    assert lstm2(v).count_params() == tables + 2 * encoder + first + d * 4 * d + d * 4 * d + 4 * d + attention
    heads, feed_forward, norm = 4 * (d * d + d), d * 1024 + 1024 + 1024 * d + d, 2 * d
    stacks = 6 * (heads + feed_forward + 2 * norm) + 6 * (2 * heads + feed_forward + 3 * norm)
    model = transformer(v)
    assert model.count_params() == v * d + v + stacks == 17_484_200
    assert {layer._self_attention_layer._num_heads for layer in (*model.encoder, *model.decoder)} == {4}
    assert 0.95 < model.tables[0].numpy().std() * 16 < 1.05  # N(0, 1 / width)
    small = Transformer(7, 1, 8, 5, 2, tied=False, normalize_first=True)  # three tables, two more normalisations
    assert small.count_params() == 3 * 7 * 8 + 7 + 3 * 4 * (64 + 8) + 2 * (8 * 5 + 5 + 5 * 8 + 8) + (5 + 2) * 16


def test_initial_weights():
    model = FunctionalTranslator(lambda: AttentionLSTM(50, units=16, num_layers=2)).new_model(3)
    lstms = [layer[way] for layer in model.encoder for way in ("forward", "backward")] + model.decoder
    for weights in lstms:
        n = weights["recurrent"].shape[0]
        np.testing.assert_array_equal(weights["bias"].numpy(), np.repeat([0, 1, 0, 0], n))
        np.testing.assert_allclose(weights["recurrent"].numpy() @ weights["recurrent"].numpy().T, np.eye(n), atol=1e-6)
        limit = np.sqrt(6 / sum(weights["kernel"].shape))
        largest = np.abs(weights["kernel"].numpy()).max()
        assert 0.97 * limit < largest <= limit
    assert 0.048 < np.abs(model.source_embedding.numpy()).max() <= 0.05
    assert not model.logits_bias.numpy().any()


@pytest.mark.parametrize("name", ["lstm2", "lstm2_unrolled", "untied_first"])
def test_dropout_is_in_training_only_and_drawn_by_the_seeds(name):
    student = random_weights(name, dropout=0.5)
    params = tuple(w.value for w in student.model.trainable_variables)
    plain = random_weights(name).model
    for weight, value in zip(plain.trainable_variables, params, strict=True):
        weight.assign(value)
    inputs = (tf.constant(SOURCE), tf.constant(PREVIOUS))

    @tf.function(autograph=False)
    def logits(non_trainable, training):
        return student.apply(params, non_trainable, inputs, training)[:2]

    (_, seeds), (_, other_seeds) = student.init(1), student.init(2)
    assert any((a.numpy() != b.numpy()).any() for a, b in zip(seeds, other_seeds, strict=True))
    at_rest, unchanged = logits(seeds, False)
    np.testing.assert_allclose(at_rest, plain((SOURCE, PREVIOUS)), rtol=1e-11, atol=1e-13)
    for a, b in zip(seeds, unchanged, strict=True):
        np.testing.assert_array_equal(a, b)
    first, after = logits(seeds, True)
    np.testing.assert_array_equal(logits(seeds, True)[0], first)
    different = [logits(other_seeds, True)[0], logits(after, True)[0], at_rest]
    assert all(np.abs(first - other).max() > 0.1 for other in different)
    if isinstance(student.model, AttentionLSTM):  # where a layer of it is asked for, all of them are
        assert all((a.numpy() != b.numpy()).any() for a, b in zip(seeds, after, strict=True))


def test_dropout_of_the_lstm_between_the_decoders_layers_is_one_mask_a_sentence():
    """With all else at rest: zeros in the mask of the second layer's input are zeros at every step."""
    model = random_weights("lstm2", dropout=0.5).model
    seen = []

    class Seen(keras.layers.Layer):
        def call(self, x, training=False):
            seen.append(x)
            return tf.constant([[0, 2, 0, 2, 2, 0]] * 4, x.dtype) * x if training else x

    class Nothing(keras.layers.Layer):
        def call(self, x, training=False):
            return x

    model.dropouts[:] = [Nothing(dtype="float64") for _ in range(5)]
    model.dropouts[3] = Seen(dtype="float64")
    logits = model((SOURCE, PREVIOUS), training=True).numpy()
    assert len(seen) == 1 and (seen[0].numpy() == 1).all() and seen[0].shape == (4, 6)
    kernel = model.decoder[1]["kernel"]
    kernel.assign(kernel.numpy() * np.array([0, 2, 0, 2, 2, 0])[:, None])
    np.testing.assert_allclose(model((SOURCE, PREVIOUS)), logits, rtol=1e-12)


@pytest.mark.parametrize(("build", "match"), [
    (lambda: AttentionLSTM(4), "at least 5"),
    (lambda: Transformer(4), "at least 5"),
    (lambda: AttentionLSTM(9, units=5), "even"),
    (lambda: AttentionLSTM(9, units=0), "even"),
    (lambda: AttentionLSTM(9, units=4, num_layers=0), "num_layers"),
    (lambda: AttentionLSTM(9, units=4, dropout=1.0), "dropout"),
    (lambda: AttentionLSTM(9, units=4, dropout=-0.1), "dropout"),
    (lambda: Transformer(9, width=6, num_heads=4), "multiple"),
    (lambda: Transformer(9, width=9, num_heads=3), "multiple"),
    (lambda: Transformer(9, num_layers=0), "at least 1"),
    (lambda: Transformer(9, num_layers=1, width=4, num_heads=1, dropout=1.5), "dropout"),
    (lambda: FunctionalTranslator(lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])), "Translator"),
])
def test_bad_arguments(build, match):
    with pytest.raises(ValueError, match=match):
        build()


def test_an_unrolled_student_asks_for_a_static_length():
    model = MODELS["lstm2_unrolled"]()
    any_length = tf.function(lambda source: model.encode(source), autograph=False)
    with pytest.raises(ValueError, match="one static length"):
        any_length.get_concrete_function(tf.TensorSpec([None, None], tf.int32))


@FEW
def test_using_is_a_model_with_these_weights(name):
    student = random_weights(name)
    params, non_trainable = student.init(5)
    before = [w.numpy() for w in student.model.weights]

    @tf.function(autograph=False)
    def logits(params, non_trainable):
        return student.using(params, non_trainable, lambda model, *inputs: model(inputs), SOURCE, PREVIOUS)

    found = logits(tuple(2 * p for p in params), non_trainable)
    applied = student.apply(tuple(2 * p for p in params), non_trainable, (SOURCE, PREVIOUS), False)[0]
    for weight, value in zip(before, student.model.weights, strict=True):
        np.testing.assert_array_equal(weight, value)
    for weight, value in zip(student.model.trainable_variables, params, strict=True):
        weight.assign(2 * value)
    expected = student.model((SOURCE, PREVIOUS))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(applied, expected, rtol=1e-12, atol=1e-13)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        student.using(params[1:], non_trainable, lambda model: model)


@FEW
def test_a_seed_makes_the_student(name):
    student = FunctionalTranslator(MODELS[name])
    first, again, other = student.new_model(7), student.new_model(7), student.new_model(8)
    assert first is not again
    for a, b in zip(first.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    kernels = [(a.numpy(), b.numpy()) for a, b in zip(first.weights, other.weights, strict=True) if a.numpy().std() > 0
               and "bias" not in a.name]
    assert len(kernels) >= 10 and all((a != b).all() for a, b in kernels)
    flat = np.concatenate([w.numpy().ravel() for w in first.weights if w.numpy().std() > 0 and "bias" not in w.name])
    assert len(np.unique(flat)) > 0.98 * len(flat)  # no two weights were drawn from one seed


def test_what_a_decoder_reads():
    np.testing.assert_array_equal(previous_tokens(tf.constant([[4, 5, EOS], [6, EOS, 0]]), BOS),
                                  [[BOS, 4, 5], [BOS, 6, EOS]])
