"""Relaxed BLEU: against sacrebleu where distributions are sure, against all sequences of a tiny vocabulary, against
samples, and against differences."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from sacrebleu.metrics import BLEU

from tests.translation.test_bleu import CORPORA, sides, text, tokens
from tf_l2t.translation.bleu import ngram_statistics, sentence_bleu
from tf_l2t.translation.expected_bleu import (
    expected_clipped_count,
    expected_corpus_bleu,
    expected_ngram_statistics,
    expected_sentence_bleu,
    relaxed_corpus_bleu,
)
from tf_l2t.translation.subwords import EOS, PAD

POSITIVE = ["random", "few words", "real", "longer than the reference"]  # matches of every order
RNG = np.random.default_rng(0)
REFERENCES = np.array([[4, 5, 4, EOS, PAD], [5, 5, 4, 5, EOS], [4, EOS, PAD, PAD, PAD]], np.int32)
# A student that is right more often than not.
LOGITS = 1.5 * RNG.standard_normal((3, 6, 7)) + 2 * np.eye(7)[np.pad(REFERENCES, [(0, 0), (0, 1)])]


def sure(rows, dtype=tf.float64):
    """Logits of distributions with all their mass on these tokens."""
    return tf.math.log(tf.one_hot(rows, int(np.max(rows)) + 40, dtype=dtype))


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def gradient(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)


@pytest.mark.parametrize("name", CORPORA)
def test_sure_distributions_have_the_statistics_of_their_tokens(name):
    """Whether hypotheses end with EOS and padding, or with padding alone."""
    hypotheses, references = (tokens(side) for side in sides(CORPORA[name]))
    expected = ngram_statistics(hypotheses, references, tf.float64)
    for rows in (hypotheses, np.where(hypotheses == EOS, PAD, hypotheses)):
        got = expected_ngram_statistics(sure(rows), references).numpy()
        np.testing.assert_allclose(got[:, :10], expected, rtol=1e-12)
        np.testing.assert_allclose(got[:, 10], 0, atol=1e-12)


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32])
@pytest.mark.parametrize("name", POSITIVE)
def test_sure_distributions_have_sacrebleus_score(name, dtype):
    hypotheses, references = sides(CORPORA[name])
    metric = BLEU(tokenize="none", force=True, smooth_method="none")
    expected = metric.corpus_score([text(row) for row in hypotheses], [[text(row) for row in references]]).score / 100
    assert expected > 0.05
    arguments = sure(tokens(hypotheses), dtype), tokens(references)
    # ε = 1e-6 beside a whole number of matches, and √1e-12 / 2 in the smooth brevity penalty; float32 on top.
    off = 1.5e-6 if dtype == tf.float64 else 1e-5
    np.testing.assert_allclose(expected_corpus_bleu(*arguments), expected, rtol=off)
    np.testing.assert_allclose(expected_corpus_bleu(*arguments, log=True), np.log(expected), atol=off)
    assert np.isfinite(gradient(lambda z: expected_corpus_bleu(z, arguments[1], log=True), arguments[0])).all()


@pytest.mark.parametrize("name", ["no 4-gram right", "only tokens right", "no matches", "shorter than 4", "all empty"])
def test_sure_distributions_without_a_score_are_close_to_0(name):
    """ε to the power of 1/4 is the most that an order without a match lets through."""
    hypotheses, references = (tokens(side) for side in sides(CORPORA[name]))
    assert 0 <= float(expected_corpus_bleu(sure(hypotheses), references)) < 1e-6 ** 0.25


@pytest.mark.parametrize("smoothing", ["add_one", "add_one_all"])
def test_sure_distributions_have_the_mean_of_sentence_bleus(smoothing):
    pairs = [pair for pair in CORPORA["random"] + CORPORA["real"] + CORPORA["few words"] if set(pair[0]) & set(pair[1])]
    hypotheses, references = (tokens(side) for side in sides(pairs))
    expected = np.mean(sentence_bleu(ngram_statistics(hypotheses, references, tf.float64), smoothing))
    np.testing.assert_allclose(expected_sentence_bleu(sure(hypotheses), references, smoothing=smoothing), expected,
                               rtol=1e-6)


def drawn(probs):
    """Every sequence of T tokens and its probability: [V^T, T], [V^T]."""
    length, size = probs.shape
    every = np.array(list(itertools.product(range(size), repeat=length)), np.int32)
    return every, np.prod([probs[t][every[:, t]] for t in range(length)], axis=0)


def test_expectations_against_all_sequences():
    """Totals, length and its variance are exact; matches are where an n-gram can occur once only: of 4-grams here."""
    logits, reference = 1.5 * RNG.standard_normal((5, 6)), [4, 5, 4, 4, EOS]
    every, probs = drawn(softmax(logits))
    statistics = ngram_statistics(every, np.tile(np.array(reference, np.int32), (len(every), 1)), tf.float64).numpy()
    exact = probs @ statistics
    variance = probs @ statistics[:, 8] ** 2 - exact[8] ** 2
    got = expected_ngram_statistics(tf.constant(logits[None]), np.array([reference], np.int32)).numpy()[0]
    assert variance > 0.5 and (exact > 1e-4).all()
    np.testing.assert_allclose(got[4:], [*exact[4:], variance], rtol=1e-12)
    once = ngram_statistics(every[:, :4], np.tile(np.array(reference, np.int32), (len(every), 1)), tf.float64).numpy()
    got = expected_ngram_statistics(tf.constant(logits[None, :4]), np.array([reference], np.int32)).numpy()[0]
    np.testing.assert_allclose(got[3], probs @ once[:, 3], rtol=1e-12)


def test_how_far_the_plug_in_is_from_the_expectation():
    """Of E[min(N, r)] of one token, n = 1: −23 % … +12 %, about 2 % on average where distributions are peaked.

    The worst is a mass that is spread thinly, over 50 or more positions: N is close to a Poisson number, and it is too
    large where r − 1 others are expected, at the kink.
    """
    def off(probs, r):
        others = probs.sum(axis=1, keepdims=True) - probs
        plug_in = np.sum(probs * np.minimum(1, r / (1 + others)), axis=1)
        return plug_in / expected_clipped_count(tf.constant(probs), r).numpy() - 1

    thin = np.repeat(np.arange(0.25, 6, 0.25)[:, None] / 50, 50, axis=1)
    once, more = off(thin, 1), np.concatenate([off(thin, 2), off(thin, 3)])
    assert once.max() < 0 and -0.23 < once.min() < -0.22
    assert 0.1 < more.max() < 0.12 and more.min() > -0.2
    at_kinks = [float(off(np.full([1, count], 2 / (count - 1)), 3)[0]) for count in (50, 500)]
    assert 0.12 < at_kinks[0] < at_kinks[1] < 0.123
    rng = np.random.default_rng(0)
    peaked = rng.beta(0.05, 0.2, (600, 20)) * (np.arange(20) < rng.integers(2, 20, (600, 1)))
    peaked = np.concatenate([off(peaked, r) for r in (1, 2, 3)])
    assert 0.01 < np.mean(np.abs(peaked)) < 0.03
    assert -0.2 < peaked.min() < -0.05 and 0.03 < peaked.max() < 0.12


def test_the_matches_are_the_plug_in():
    """Against the formula in loops, with repeated n-grams and EOS, for every order."""
    probs = softmax(LOGITS)
    got = expected_ngram_statistics(tf.constant(LOGITS), REFERENCES).numpy()
    for b in range(3):
        reference = [int(token) for token in REFERENCES[b] if token not in (EOS, PAD)]
        p = probs[b]
        for n in range(1, 5):
            expected = 0.0
            grams = [tuple(reference[j:j + n]) for j in range(len(reference) - n + 1)]
            for gram in set(grams):
                q = [np.prod([1 - p[s, EOS] - p[s, PAD] for s in range(i)])
                     * np.prod([p[i + k, gram[k]] for k in range(n)]) for i in range(6 - n + 1)]
                expected += sum(q[i] * min(1, grams.count(gram) / (1 + sum(q) - q[i])) for i in range(len(q)))
            np.testing.assert_allclose(got[b, n - 1], expected, rtol=1e-12)
            assert (expected > 0) == (len(reference) >= n)


def test_expected_clipped_count_against_all_outcomes():
    probs = RNG.uniform(size=(2, 3, 5))
    outcomes = np.array(list(itertools.product([0, 1], repeat=5)))
    weights = np.prod(np.where(outcomes[:, None, None], probs, 1 - probs), axis=-1)
    for clip in (1, 2, 4, 5, 7):
        expected = np.einsum("oab,o->ab", weights, np.minimum(outcomes.sum(axis=1), clip))
        np.testing.assert_allclose(expected_clipped_count(tf.constant(probs), clip), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="clip must be"):
        expected_clipped_count(tf.constant(probs), 0)


def test_expectations_against_samples():
    """4,000 samples: lengths and totals within 4 standard errors; matches within these and 3 % for the plug-in."""
    probs, count = softmax(LOGITS), 4000
    for b in range(3):
        rng = np.random.default_rng(b)
        sampled = np.stack([rng.choice(7, count, p=probs[b, t]) for t in range(6)], axis=1).astype(np.int32)
        found = ngram_statistics(sampled, np.tile(REFERENCES[b], (count, 1)), tf.float64).numpy()
        got = expected_ngram_statistics(tf.constant(LOGITS[b:b + 1]), REFERENCES[b:b + 1]).numpy()[0, :10]
        mean = found.mean(axis=0)
        error = np.sqrt(np.maximum(found.var(axis=0), got * (found.var(axis=0) == 0)) / count)  # if none was drawn
        assert (np.abs(got - mean)[4:] <= 4 * error[4:]).all() and (error[4:9] > 0).all()
        assert (np.abs(got - mean)[:4] <= 4 * error[:4] + 0.03 * mean[:4]).all()


OBJECTIVES = {
    "corpus": expected_corpus_bleu,
    "log": lambda z, y, mask=None: expected_corpus_bleu(z, y, mask, log=True),
    "sentence": expected_sentence_bleu,
    "sentence, all": lambda z, y, mask=None: expected_sentence_bleu(z, y, mask, "add_one_all"),
    "statistics": lambda z, y, mask=None: tf.reduce_sum(
        expected_ngram_statistics(z, y, mask) * tf.range(1.0, 12.0, dtype=z.dtype)),
    "clipped counts": lambda z, y, mask=None: tf.reduce_sum(expected_clipped_count(tf.nn.softmax(z)[..., 4], 2)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_derivatives_against_differences(name):
    """Of every logit, and the second ones along a direction; with unknown shapes as well."""
    logits = tf.constant(LOGITS)
    direction, h = tf.constant(RNG.standard_normal(LOGITS.shape)), 1e-5

    @tf.function(input_signature=[tf.TensorSpec([None, None, 7], tf.float64)])
    def slope(logits):
        return gradient(lambda z: OBJECTIVES[name](z, REFERENCES), logits)

    @tf.function(input_signature=[tf.TensorSpec([None, 7], tf.float64)])
    def value(row):
        return OBJECTIVES[name](tf.concat([row[None, :6], logits[1:]], axis=0), REFERENCES)

    found = slope(logits).numpy()
    for t, v in itertools.product(range(6), range(7)):
        step = np.zeros((6, 7))
        step[t, v] = h
        np.testing.assert_allclose(found[0, t, v], (value(LOGITS[0] + step) - value(LOGITS[0] - step)) / (2 * h),
                                   rtol=1e-6, atol=1e-9)
    assert np.abs(found).max() > 1e-3
    second = gradient(lambda z: tf.reduce_sum(slope(z) * direction), logits)
    difference = (slope(logits + h * direction) - slope(logits - h * direction)) / (2 * h)
    np.testing.assert_allclose(second, difference, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(gradient(lambda z: OBJECTIVES[name](z, REFERENCES), tf.nn.log_softmax(logits)), found,
                               rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["log", "sentence", "statistics"])
def test_a_mask_ends_sentences(name):
    mask = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]], bool)
    ended = np.where(mask[..., None], LOGITS, np.where(np.arange(7) == EOS, 0.0, -1e3))
    garbage = np.where(mask[..., None], LOGITS, 30 * RNG.standard_normal(LOGITS.shape))
    expected = OBJECTIVES[name](tf.constant(ended), REFERENCES)
    np.testing.assert_allclose(OBJECTIVES[name](tf.constant(garbage), REFERENCES, mask), expected, rtol=1e-12)
    assert abs(float(OBJECTIVES[name](tf.constant(garbage), REFERENCES)) / float(expected) - 1) > 1e-3
    found = gradient(lambda z: OBJECTIVES[name](z, REFERENCES, tf.constant(mask)), tf.constant(garbage)).numpy()
    assert (found[~mask] == 0).all() and (found[mask] != 0).any()


def test_statistics_of_batches_may_be_put_together():
    parts = [expected_ngram_statistics(tf.constant(LOGITS[b:b + 1]), REFERENCES[b:b + 1]) for b in range(3)]
    np.testing.assert_allclose(relaxed_corpus_bleu(tf.concat(parts, axis=0)),
                               expected_corpus_bleu(tf.constant(LOGITS), REFERENCES), rtol=1e-13)


def test_the_brevity_penalty_is_smooth_by_as_much_as_the_length_is_uncertain():
    """At c = r it is the mean of max(0, r / c − 1) for c of a normal distribution; far from it, it is not smoothed."""
    def penalty(length, reference, deviation):
        row = [50.0, 40, 30, 20, 50, 40, 30, 20, length, reference, deviation ** 2]
        return -float(relaxed_corpus_bleu(tf.constant([row], tf.float64), log=True, epsilon=1e-12))

    draws = np.random.default_rng(0).normal(100, 2, 1_000_000)
    assert penalty(100, 100, 2) == pytest.approx(np.mean(np.maximum(0, 100 / draws - 1)), rel=0.03)
    assert penalty(100, 100, 0) == pytest.approx(0, abs=1e-6)
    assert penalty(80, 100, 0) == pytest.approx(0.25, abs=1e-9)
    assert penalty(80, 100, 2) == pytest.approx(0.25, abs=1e-3)
    assert penalty(120, 100, 2) == pytest.approx(0, abs=5e-4)


def test_nothing_larger_than_the_logits_is_made():
    """References twice as long as V allows for a tensor [batch, T, R, V]."""
    batch, length, size, references = 2, 16, 64, 16
    traced = tf.function(lambda z, y: gradient(lambda z: expected_corpus_bleu(z, y), z)).get_concrete_function(
        tf.TensorSpec([batch, length, size]), tf.TensorSpec([batch, references], tf.int32))
    made = [tensor.shape.num_elements() for op in traced.graph.get_operations() for tensor in op.outputs]
    assert max(n for n in made if n) <= batch * length * size


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_sequences(length):
    value = expected_corpus_bleu(tf.constant(LOGITS[:, :length], tf.float32), REFERENCES)
    assert 0 <= float(value) < 1


def test_unknown_smoothing():
    with pytest.raises(ValueError, match=r"add_one_all.*'exp'"):
        expected_sentence_bleu(tf.constant(LOGITS), REFERENCES, smoothing="exp")
