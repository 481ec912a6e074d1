"""Candidate translations of a batch, which the student finds itself, and their log probabilities."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tf_l2t.students.translator import Translator, previous_tokens
from tf_l2t.translation.bleu import ngram_statistics, sentence_bleu
from tf_l2t.translation.decoding import NEVER, beam_search, sample
from tf_l2t.translation.sequence_losses import unique_candidates
from tf_l2t.translation.subwords import BOS, PAD
from tf_l2t.translation.token_losses import log_probs_at

KINDS = ("samples", "beam")


class Candidates(NamedTuple):
    """What a loss over candidates compares.

    Attributes:
      tokens: int32 [batch, 1 + K, T]: the reference, then K translations; T is what the longest of them needs, or the
        reference's width.
      counted: bool [batch, 1 + K]: which of them the loss is about.
      rewards: sentence BLEU, float32 [batch, 1 + K].
    """

    tokens: tf.Tensor
    counted: tf.Tensor
    rewards: tf.Tensor


def find_candidates(student: Translator, source: tf.Tensor, target: tf.Tensor, kind: str, size: int, *,
                    max_length: Any, seed: tf.Tensor, include_reference: bool = False, unique: bool = True,
                    smoothing: str = "add_one") -> Candidates:
    """Translations of `source` [batch, S] by the student as it is, behind the reference `target` [batch, R].

    Args:
      kind: "samples" of p(y | x), drawn by `seed`, or the n-best of a "beam" search.
      size: K.
      max_length: of a translation, its end included.
      seed: two integers.
      include_reference: whether the reference is a candidate, too.
      unique: whether equal candidates count once; the reference is the first.
      smoothing: of `sentence_bleu`.

    Raises:
      ValueError: for an unknown kind, a size below 1, or an unknown smoothing.
    """
    if kind not in KINDS:
        raise ValueError(f"candidates must be one of {KINDS}; received {kind!r}.")
    if kind == "beam":
        beams = beam_search(student, source, max_length, size)
        found, exist = beams.tokens, beams.log_probs > NEVER / 2  # a small vocabulary may not have so many
    else:
        found = sample(student, source, max_length, size, seed)
        exist = tf.ones(tf.shape(found)[:2], tf.bool)
    found, target = _of_one_width(found, tf.cast(target, tf.int32))
    tokens = tf.stop_gradient(tf.concat([target[:, tf.newaxis], found], axis=1))
    if unique:  # a search has what does not exist behind all that does: nothing real is a copy of it
        exist &= unique_candidates(tokens)[:, 1:] if include_reference else unique_candidates(found)
    counted = tf.concat([tf.fill([tf.shape(exist)[0], 1], include_reference), exist], axis=1)
    return Candidates(tokens, counted, sentence_rewards(tokens, target, smoothing))


def sentence_rewards(tokens: tf.Tensor, target: tf.Tensor, smoothing: str = "add_one") -> tf.Tensor:
    """Sentence BLEU of candidates [batch, K, T] against references [batch, R], float32 [batch, K]."""
    batch, size, length = tf.unstack(tf.shape(tokens))
    statistics = ngram_statistics(tf.reshape(tokens, [-1, length]), tf.repeat(target, size, axis=0))
    return tf.reshape(sentence_bleu(statistics, smoothing), [batch, size])


def candidate_log_probs(student: Translator, source: tf.Tensor, tokens: tf.Tensor, wanted: tf.Tensor | None = None,
                        training: bool = False) -> tf.Tensor:
    """log p of every token of candidates [batch, K, T], and 0 at padding, [batch, K, T].

    Sources are encoded once, and all candidates are read in one call, by teacher forcing. Logits are made of tokens
    only, not of padding: they are most of the cost.

    Args:
      source: [batch, S].
      tokens: [batch, K, T].
      wanted: bool [batch, K], or None for all: the candidates that others need not be read for; theirs are 0.
      training: whether the student's dropout is on; a sentence's candidates share that of the encoder.
    """
    batch, size, length = tf.unstack(tf.shape(tokens))
    memory = tf.nest.map_structure(lambda x: tf.repeat(x, size, axis=0), student.encode(source, training))
    labels = tf.reshape(tokens, [-1, length])
    hidden = student.last_hidden(memory, previous_tokens(labels, BOS), training)
    real = tf.not_equal(labels, PAD)
    if wanted is not None:
        real &= tf.reshape(wanted, [-1, 1])
    places = tf.where(real)
    logits = student.logits(tf.gather_nd(hidden, places))
    log_probs = log_probs_at(logits[tf.newaxis], tf.gather_nd(labels, places)[tf.newaxis])[0]
    return tf.reshape(tf.scatter_nd(places, log_probs, tf.shape(labels, tf.int64)), [batch, size, length])


def sampled_after(student: Translator, source: tf.Tensor, target: tf.Tensor, count: Any, *, max_length: Any,
                  seed: tf.Tensor) -> tf.Tensor:
    """Samples that go on from the reference's first `count` tokens, int32 [batch, T].

    A reference that ends among its first `count` tokens is the sample. T is what the longest sample needs.

    Args:
      target: [batch, R].
      count: an integer, or a scalar of one.
      max_length, seed: as for `find_candidates`.
    """
    forced: Any = _Forced(student, tf.cast(target, tf.int32), count)
    return trimmed(sample(forced, source, max_length, 1, seed))[:, 0]


def trimmed(tokens: tf.Tensor) -> tf.Tensor:
    """Tokens [..., T] up to what the longest sequence needs."""
    lengths = tf.math.count_nonzero(tf.not_equal(tokens, PAD), axis=-1, dtype=tf.int32)
    return tokens[..., :tf.reduce_max(lengths)]


class _Forced:
    """A student for which the first tokens of a translation are certain to be the reference's."""

    def __init__(self, student: Translator, target: tf.Tensor, count: Any):
        self._student, self._target, self._count = student, target, count
        self.encode, self.start = student.encode, student.start

    def step(self, memory: Any, state: Any, tokens: Any, position: Any) -> tuple[Any, Any]:
        logits, state = self._student.step(memory, state, tokens, position)
        last = tf.shape(self._target)[1] - 1
        token = tf.gather(self._target, tf.minimum(position, last), axis=1)
        certain = tf.one_hot(token, tf.shape(logits)[-1], on_value=0.0, off_value=NEVER, dtype=logits.dtype)
        return tf.where((position < self._count) & (position <= last), certain, logits), state


def _of_one_width(found: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[batch, K, T] and [batch, R], trimmed both, then padded to one width."""
    found, target = trimmed(found), trimmed(target)
    width = tf.maximum(tf.shape(found)[2], tf.shape(target)[1])
    return (tf.pad(found, [[0, 0], [0, 0], [0, width - tf.shape(found)[2]]], constant_values=PAD),
            tf.pad(target, [[0, 0], [0, width - tf.shape(target)[1]]], constant_values=PAD))
