"""Decoding against loops over teacher forcing, and against the enumeration of all translations."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.students import AttentionLSTM, FunctionalTranslator, Transformer
from tf_l2t.translation.bleu import corpus_bleu, ngram_statistics, report_bleu
from tf_l2t.translation.decoding import NEVER, _drawn, beam_search, greedy, sample
from tf_l2t.translation.subwords import BOS, EOS, PAD

V = 6  # of which the end, unknown, 4 and 5 can stand in a translation
MODELS = {"lstm": lambda: AttentionLSTM(V, units=6, num_layers=2), "transformer": lambda: Transformer(V, 2, 8, 12, 2)}
EACH = pytest.mark.parametrize("name", MODELS)
SOURCE = np.array([[3, 5, EOS, 0, 0], [4, 5, 3, 4, EOS], [EOS, 0, 0, 0, 0], [5, 5, EOS, 0, 0]], np.int32)


def student(name, end=0.0, scale=0.9, seed=2):
    """A float64 student of random weights, with `end` added to the logit of the end of a sentence."""
    functional = FunctionalTranslator(MODELS[name], dtype="float64")
    rng = np.random.default_rng(seed)
    for weight in functional.model.trainable_variables:
        weight.assign(weight.numpy() + scale * rng.standard_normal(weight.shape))
    bias = functional.model.logits_bias
    bias.assign(bias.numpy() + end * (np.arange(V) == EOS))
    return functional


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def next_logits(model, source, prefixes):
    """By teacher forcing, after the last token of equally long prefixes; without the source's padding."""
    source = source[:np.count_nonzero(source)]
    previous = np.array([[BOS, *prefix] for prefix in prefixes], np.int32)
    return model((np.tile(source, [len(previous), 1]), previous)).numpy()[:, -1]


def enumerated(model, source, max_length, temperature=None):
    """{tokens: log p} of all translations, padded; with a temperature, of p^(1/temperature) among allowed tokens."""
    found, live = {}, {(): 0.0}
    for t in range(max_length):
        logits, longer = next_logits(model, source, live), {}
        if temperature is None:
            log_probs = log_softmax(logits)
        else:
            logits[:, [PAD, BOS]] = -np.inf
            log_probs = log_softmax(logits / temperature)
        for (prefix, before), row in zip(live.items(), log_probs, strict=True):
            found[(*prefix, EOS) + (PAD,) * (max_length - t - 1)] = before + row[EOS]
            longer.update({(*prefix, token): before + row[token] for token in range(3, V)})
        live = longer
    return {**found, **live}


def argmax_loop(model, source, max_length):
    prefix = []
    while len(prefix) < max_length and EOS not in prefix:
        logits = next_logits(model, source, [prefix])[0]
        logits[[PAD, BOS]] = -np.inf
        prefix.append(int(np.argmax(logits)))
    return prefix + [PAD] * (max_length - len(prefix))


@pytest.mark.parametrize(("name", "end", "scale", "seed", "max_length"), [
    ("lstm", 0.0, 1.3, 4, 8), ("lstm", 0.0, 1.3, 4, 1), ("transformer", 1.5, 1.3, 2, 6)])
def test_greedy_is_a_loop_of_argmaxes(name, end, scale, seed, max_length):
    model = student(name, end, scale, seed).model
    found = tf.function(greedy, autograph=False)(model, SOURCE, max_length)
    assert found.dtype == tf.int32
    assert found.numpy().tolist() == [argmax_loop(model, row, max_length) for row in SOURCE]
    lengths = np.count_nonzero(found, axis=1)
    assert max_length == 1 or len(set(lengths)) > 1  # some end earlier than others


@EACH
def test_padding_and_start_are_never_chosen(name):
    """Not even where they are likeliest by far; the others keep their order."""
    functional = student(name, end=1.0)
    model = functional.model
    expected = greedy(model, SOURCE, 6).numpy()
    drawn = sample(model, SOURCE, 6, 200, [1, 2]).numpy()
    beams = beam_search(model, SOURCE, 6, 3, 0.0)
    bias = model.logits_bias
    bias.assign(bias.numpy() + 30 * np.isin(np.arange(V), [PAD, BOS]))
    np.testing.assert_array_equal(greedy(model, SOURCE, 6), expected)
    np.testing.assert_array_equal(sample(model, SOURCE, 6, 200, [1, 2]), drawn)
    pushed = beam_search(model, SOURCE, 6, 3, 0.0).tokens
    for tokens in (expected, drawn, beams.tokens.numpy(), pushed.numpy()):
        assert not (tokens == BOS).any()
        rows = tokens.reshape(-1, 6)
        for row in rows:  # padding behind the end only, and nothing else there
            end = row.tolist().index(EOS) if EOS in row else 5
            assert (row[:end] >= 3).all() and (row[end + 1:] == PAD).all() and row[end] != PAD
    assert (pushed[:, 0, 0] != PAD).numpy().all()


@EACH
@pytest.mark.parametrize("max_length", [3, 4])
def test_a_beam_of_all_prefixes_finds_the_best_of_all_translations(name, max_length):
    """For every α; and fewer translations than the beam is wide are said to be none. One compilation a beam."""
    model = student(name, end=0.5).model
    everything = 40 if max_length == 3 else 121  # 1 + 3 + 9 that end (+ 27), 27 (81) cut off
    prefixes = 3 ** (max_length - 1)  # those that the last step begins with
    changed_order = set()
    for size, penalty in ((prefixes, 0.0), (prefixes, 0.6), (prefixes, 1.0), (everything + 5, 0.6))[
            :2 if name == "transformer" else 4]:
        beams = tf.function(beam_search, autograph=False)(model, SOURCE[:2], max_length, size, penalty)
        for b in range(2):
            found = enumerated(model, SOURCE[b], max_length)
            assert len(found) == everything
            length = {tokens: np.count_nonzero(tokens) for tokens in found}
            ranked = sorted(found, key=lambda y: found[y] / length[y] ** penalty, reverse=True)
            best = ranked[:size]
            rows = [tuple(row) for row in beams.tokens[b].numpy().tolist()][:len(best)]
            assert rows == best
            np.testing.assert_allclose(beams.log_probs[b, :len(best)], [found[y] for y in best], rtol=1e-11)
            np.testing.assert_allclose(beams.scores[b, :len(best)], [found[y] / length[y] ** penalty for y in best],
                                       rtol=1e-11)
            assert (beams.scores[b, len(best):] <= NEVER / max_length).numpy().all()
            changed_order.add((b, tuple(best[:20])))
    assert len(changed_order) >= 3  # the penalty matters: not one order for all α


@EACH
def test_one_beam_is_greedy_until_that_ends_and_larger_ones_score_no_worse(name):
    model = student(name, end=-0.5).model
    chosen = greedy(model, SOURCE, 6).numpy()
    one = beam_search(model, SOURCE, 6, 1, 0.0)
    assert one.tokens.shape == (4, 1, 6)
    best = {size: beam_search(model, SOURCE, 6, size, 0.0) for size in (2, 4, 81)}
    exact = [max(enumerated(model, row, 6).values()) for row in SOURCE]
    for b in range(4):
        found, path = one.tokens[b, 0].numpy().tolist(), []
        # A beam of one is the loop that goes on without the end, of whose ends, and the cut, the best counts.
        candidates = {}
        for t in range(6):
            log_probs = log_softmax(next_logits(model, SOURCE[b], [path])[0])
            before = sum(log_softmax(next_logits(model, SOURCE[b], [path[:i]])[0])[path[i]] for i in range(t))
            candidates[(*path, EOS) + (PAD,) * (5 - t)] = before + log_probs[EOS]
            allowed = np.where(np.arange(V) < 3, -np.inf, log_probs)
            path.append(int(np.argmax(allowed)))
            if t == 5:
                candidates[tuple(path)] = before + log_probs[path[-1]]
        wanted = max(candidates, key=candidates.get)
        assert tuple(found) == wanted
        assert float(one.log_probs[b, 0]) == pytest.approx(candidates[wanted], rel=1e-11)
        assert tuple(chosen[b]) in candidates
        assert float(best[81].log_probs[b, 0]) == pytest.approx(exact[b], rel=1e-11)
        assert all(float(best[size].log_probs[b, 0]) <= exact[b] + 1e-12 for size in best)


@EACH
def test_scores_are_those_of_teacher_forcing(name):
    """Longer sentences than can be enumerated, with a beam that prunes."""
    model = student(name, end=0.5 if name == "lstm" else 2.0, scale=1.3).model
    beams = tf.function(beam_search, autograph=False)(model, SOURCE, 9, 4, 0.7)
    lengths = []
    for b in range(len(SOURCE)):
        tokens = beams.tokens[b].numpy()
        assert len({tuple(row) for row in tokens}) == 4  # no hypothesis twice
        source = np.tile(SOURCE[b], [4, 1])
        previous = np.concatenate([np.full([4, 1], BOS), tokens[:, :-1]], 1).astype(np.int32)
        log_probs = log_softmax(model((source, previous)).numpy())
        chosen = np.take_along_axis(log_probs, tokens[..., None], 2)[..., 0]
        expected = np.where(tokens == PAD, 0, chosen).sum(1)
        length = np.count_nonzero(tokens, axis=1)
        np.testing.assert_allclose(beams.log_probs[b], expected, rtol=1e-11)
        np.testing.assert_allclose(beams.scores[b], expected / length ** 0.7, rtol=1e-11)
        assert (np.diff(beams.scores[b]) <= 0).all()
        lengths.extend(length)
    assert len(set(lengths)) > 1


@EACH
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_samples_come_as_often_as_is_likely(name, temperature):
    """χ² over all 40 translations, of two sentences at once; rare ones put together. P(χ² > dof + 4 √(2 dof)) < 1e-3,
    and with the seed fixed it holds or not."""
    model, number = student(name, scale=0.6).model, 6000
    draw = tf.function(sample, autograph=False)
    drawn = draw(model, SOURCE[:2], 3, number, tf.constant([3, 4]), temperature)
    assert drawn.shape == (2, number, 3) and drawn.dtype == tf.int32
    np.testing.assert_array_equal(draw(model, SOURCE[:2], 3, number, tf.constant([3, 4]), temperature), drawn)
    other = sample(model, SOURCE[:2], 3, number, tf.constant([3, 5]), temperature)
    assert (other != drawn).numpy().any(-1).mean() > 0.3
    for b in range(2):
        expected = {y: number * np.exp(p) for y, p in enumerated(model, SOURCE[b], 3, temperature).items()}
        assert sum(expected.values()) == pytest.approx(number, rel=1e-9)
        rows, counts = np.unique(drawn[b], axis=0, return_counts=True)
        found = {tuple(row): int(n) for row, n in zip(rows.tolist(), counts, strict=True)}
        assert set(found) <= set(expected)
        cells = [(found.get(y, 0), e) for y, e in expected.items() if e >= 8]
        cells.append((number - sum(n for n, _ in cells), number - sum(e for _, e in cells)))
        square, dof = sum((n - e) ** 2 / max(e, 1e-9) for n, e in cells if e > 1), len(cells) - 1
        assert dof >= 12 and square < dof + 4 * np.sqrt(2 * dof)
    # The samples of a sentence, and those of equal sentences, are drawn apart.
    twins = sample(model, SOURCE[[0, 0]], 3, 500, tf.constant([3, 4])).numpy()
    assert (twins[0] != twins[1]).any(-1).mean() > 0.3


@pytest.mark.parametrize("vocabulary", [5, 64, 1003])
def test_tokens_are_drawn_from_their_distribution(vocabulary):
    """χ² of 10,000 draws, tokens that would come less than 8 times put together, bounded as above; what has no
    probability is never drawn, first and last tokens included, and a certain one always is."""
    probs, number = np.random.default_rng(0).dirichlet(np.full(vocabulary, 0.3)), 10_000
    probs[[0, vocabulary // 2, -1]] = 0
    probs = (probs / probs.sum()).astype(np.float32)
    drawn = _drawn(tf.constant(np.tile(probs, [number, 1])), tf.constant([1, 2])).numpy()
    counts = np.bincount(drawn, minlength=vocabulary)
    assert counts.shape == probs.shape and not counts[probs == 0].any()
    often = number * probs >= 8
    found = np.append(counts[often], counts[~often].sum())
    expected = number * np.append(probs[often], probs[~often].sum())
    square, dof = np.sum((found - expected) ** 2 / np.maximum(expected, 1e-9)), len(found) - 1
    assert square < dof + 4 * np.sqrt(2 * dof)
    certain = np.eye(vocabulary, dtype=np.float32)
    np.testing.assert_array_equal(_drawn(tf.constant(certain), tf.constant([1, 2])), np.arange(vocabulary))


@EACH
def test_empty_translations_crash_nothing(name):
    model = student(name, end=60.0).model
    assert sample(model, SOURCE, 0, 3, tf.constant([1, 2])).shape == (4, 3, 0)
    assert greedy(model, SOURCE, 0).shape == (4, 0) and beam_search(model, SOURCE, 0, 3).tokens.shape == (4, 3, 0)
    nothing = np.zeros([4, 5], np.int32)
    nothing[:, 0] = EOS
    np.testing.assert_array_equal(greedy(model, SOURCE, 5), nothing)
    np.testing.assert_array_equal(sample(model, SOURCE, 5, 3, [0, 0]), np.repeat(nothing[:, None], 3, 1))
    beams = beam_search(model, SOURCE, 5, 3, 1.0)
    np.testing.assert_array_equal(beams.tokens[:, 0], nothing)
    np.testing.assert_allclose(beams.log_probs[:, 0], 0, atol=1e-12)
    assert float(corpus_bleu(ngram_statistics(tf.constant(nothing), tf.constant(SOURCE)))) == 0
    assert report_bleu([""] * 4, ["a b"] * 4).score == 0


@EACH
def test_a_sentence_is_translated_as_it_is_alone(name):
    """Whatever stands beside it, and however wide the batch: greedy, by beam, and every score."""
    model = student(name, end=-0.5).model
    together = greedy(model, SOURCE, 8), beam_search(model, SOURCE, 8, 3, 1.0)
    wide = np.pad(SOURCE, [(0, 2), (0, 4)])  # with rows of padding, as evaluation has them
    padded = greedy(model, wide, 8), beam_search(model, wide, 8, 3, 1.0)
    for b in range(len(SOURCE)):
        own = SOURCE[b:b + 1, :np.count_nonzero(SOURCE[b])]
        alone = greedy(model, own, 8), beam_search(model, own, 8, 3, 1.0)
        for tokens, beams in (together, padded):
            np.testing.assert_array_equal(tokens[b], alone[0][0])
            np.testing.assert_array_equal(beams.tokens[b], alone[1].tokens[0])
            np.testing.assert_allclose(beams.scores[b], alone[1].scores[0], rtol=1e-11)


@EACH
def test_weights_of_a_state_decode_inside_a_compiled_function(name):
    functional = student(name, end=-0.5)
    params, non_trainable = functional.init(4)
    moved = tuple(p + 0.7 * w.value for p, w in zip(params, functional.model.trainable_variables, strict=True))

    @tf.function(autograph=False, input_signature=[
        tuple(tf.TensorSpec(p.shape, p.dtype) for p in params), tf.TensorSpec([None, None], tf.int32)])
    def decode(params, source):
        return (functional.using(params, non_trainable, greedy, source, 6),
                functional.using(params, non_trainable, beam_search, source, 6, 3).tokens,
                functional.using(params, non_trainable, sample, source, 6, 4, tf.constant([1, 2])))

    found = [tensor.numpy() for tensor in decode(moved, SOURCE)]
    before = greedy(functional.model, SOURCE, 6)
    for weight, value in zip(functional.model.trainable_variables, moved, strict=True):
        weight.assign(value)
    expected = (greedy(functional.model, SOURCE, 6), beam_search(functional.model, SOURCE, 6, 3).tokens,
                sample(functional.model, SOURCE, 6, 4, tf.constant([1, 2])))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (found[0] != before).numpy().any()


def test_decoding_stops_when_all_have_ended():
    """Steps are counted by a student that says what it is asked: the longest translation's, not max_length."""
    model, steps = student("lstm", end=0.5, scale=1.3).model, []
    one = model.step

    def counted(*arguments):
        steps.append(int(arguments[-1]))
        return one(*arguments)

    model.step = counted
    lengths = np.count_nonzero(greedy(model, SOURCE, 40), axis=1)
    assert len(set(lengths)) > 1 and max(lengths) < 40
    assert steps == list(range(max(lengths)))
    steps.clear()
    tokens = beam_search(model, SOURCE, 40, 2, 0.0).tokens
    assert steps == list(range(len(steps))) and np.count_nonzero(tokens, axis=-1).max() <= len(steps) < 40


@pytest.mark.parametrize(("decode", "match"), [
    (lambda m: beam_search(m, SOURCE, 3, 0), "beam_size"),
    (lambda m: beam_search(m, SOURCE, 3, 2, -0.1), "length_penalty"),
    (lambda m: beam_search(m, SOURCE, 3, 2, float("nan")), "length_penalty"),
    (lambda m: sample(m, SOURCE, 3, 0, [0, 0]), "num_samples"),
    (lambda m: sample(m, SOURCE, 3, 2, [0, 0], 0.0), "temperature"),
])
def test_bad_arguments(decode, match):
    with pytest.raises(ValueError, match=match):
        decode(MODELS["lstm"]())


def test_enumeration_is_complete():
    """The reference itself: probabilities of all translations, and of the banned tokens' branches, sum to 1."""
    model = student("lstm").model
    for temperature in (1.0, 0.5):
        assert sum(map(np.exp, enumerated(model, SOURCE[1], 3, temperature).values())) == pytest.approx(1, rel=1e-12)
    whole = sum(map(np.exp, enumerated(model, SOURCE[1], 3).values()))
    assert 0 < whole < 1
    assert set(enumerated(model, SOURCE[1], 2)) == {
        (EOS, PAD), *((a, EOS) for a in (3, 4, 5)), *itertools.product((3, 4, 5), repeat=2)}
