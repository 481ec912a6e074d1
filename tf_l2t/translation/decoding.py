"""How a `Translator` translates: greedily, by beam search, or at random. All compile, for any batch and length, but not
by XLA where a student's state grows, as a Transformer's does."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tf_l2t.students.translator import Translator
from tf_l2t.translation.subwords import BOS, EOS, PAD

NEVER = -1e9  # a log probability that no hypothesis has


class Beams(NamedTuple):
    """The hypotheses of a beam search, best first.

    Attributes:
      tokens: int32 [batch, beam_size, max_length]; end in the end token unless cut off, then padding.
      scores: log p(y | x) / |y|^α, [batch, beam_size], by which they are in order; at most NEVER / |y|^α where there
        are fewer hypotheses than beam_size.
      log_probs: log p(y | x), [batch, beam_size].
    """

    tokens: tf.Tensor
    scores: tf.Tensor
    log_probs: tf.Tensor


def length_limits(source: tf.Tensor) -> tf.Tensor:
    """How long translations may become that a student does not end: n + ⌊n / 2⌋ + 10 for n source tokens, and 0 for a
    row of padding, int32 [batch]. They do not depend on what else is in the batch."""
    lengths = tf.math.count_nonzero(tf.not_equal(source, PAD), axis=1, dtype=tf.int32)
    return tf.where(lengths > 0, lengths + lengths // 2 + 10, 0)


def greedy(model: Translator, source: tf.Tensor, max_length: Any) -> tf.Tensor:
    """The likeliest token at every position, int32 [batch, max_length]: up to the end token, then padding.

    Args:
      model: the student.
      source: int [batch, S].
      max_length: of a translation, its end token included: an integer, or [batch], one for each; 0 for rows that are
        not to be translated. The width is that of the longest.
    """
    def choose(logits: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        return tf.argmax(_allowed(logits), axis=-1, output_type=tf.int32)

    return _by_one(model, model.encode(source), _limits(max_length, source), choose)


def sample(model: Translator, source: tf.Tensor, max_length: Any, num_samples: int, seed: tf.Tensor,
           temperature: float = 1.0) -> tf.Tensor:
    """Translations drawn from p(y | x)^(1 / temperature), token by token, int32 [batch, num_samples, max_length].

    Padding and the start token, which a student has no reason to predict, are never drawn, and what probability they
    have is the others'.

    Args:
      max_length: as for `greedy`.
      seed: two integers; the same ones draw the same translations of the same batch.

    Raises:
      ValueError: for fewer than one sample or a temperature that is not above 0.
    """
    if num_samples < 1 or not temperature > 0:
        raise ValueError("num_samples must be at least 1 and temperature above 0; received "
                         f"{num_samples!r}, {temperature!r}.")

    def choose(logits: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        key = tf.random.experimental.stateless_fold_in(tf.cast(seed, tf.int32), position)
        return _drawn(tf.nn.softmax(tf.cast(_allowed(logits), tf.float32) / temperature), key)

    memory = _repeated(model.encode(source), num_samples)
    tokens = _by_one(model, memory, _repeated(_limits(max_length, source), num_samples), choose)
    return tf.reshape(tokens, tf.stack([tf.shape(source)[0], num_samples, tf.shape(tokens)[1]]))  # which may be 0 wide


def beam_search(model: Translator, source: tf.Tensor, max_length: Any, beam_size: int = 5, length_penalty: float = 1.0
                ) -> Beams:
    """The best hypotheses found by keeping `beam_size` prefixes at every length.

    Hypotheses are ordered by log p(y | x) / |y|^α, where |y| counts the end token. A finished one leaves the beam, and
    its place is taken by the next prefix. The search of a sentence ends at its `max_length`, or when no prefix can
    still pass the worst of beam_size finished hypotheses. What is unfinished at `max_length` competes as it is. Padding
    and the start token are never chosen; log p is the student's own.

    Args:
      model: the student.
      source: int [batch, S].
      max_length: as for `greedy`.
      beam_size: K; 1 is greedy decoding, but for ends that come later and score better.
      length_penalty: α; 0 compares plain log probabilities, 1 those per token.

    Raises:
      ValueError: for a beam of less than 1, or a negative penalty.

    Source: length normalisation as in Wu et al., "Google's neural machine translation system", 2016, section 7, of the
    simple form |y|^α.
    """
    size, vocabulary = beam_size, model.vocabulary_size
    if size < 1:
        raise ValueError(f"beam_size must be at least 1; received {size!r}.")
    if not length_penalty >= 0:
        raise ValueError(f"length_penalty must be at least 0; received {length_penalty!r}.")
    memory = _repeated(model.encode(source), size)
    batch, limits = tf.shape(source)[0], _limits(max_length, source)
    longest = tf.reduce_max(limits)
    state = model.start(memory, tf.maximum(longest, 1))  # as in `_by_one`
    dtype = tf.nest.flatten(memory)[0].dtype
    never = tf.constant(NEVER, dtype)
    # Of the prefixes, all empty, one counts.
    first = tf.one_hot(tf.zeros([batch], tf.int32), size, on_value=0.0, off_value=NEVER, dtype=dtype)
    first = tf.where(limits[:, tf.newaxis] > 0, first, never)
    none = tf.zeros(tf.stack([batch, size, longest]), tf.int32) + PAD
    nothing = Beams(none, *[tf.fill(tf.stack([batch, size]), never)] * 2)

    def normalised(log_probs: tf.Tensor, length: Any) -> tf.Tensor:
        return log_probs / tf.cast(tf.maximum(length, 1), dtype) ** length_penalty

    def can_improve(live: tf.Tensor, done: Beams) -> tf.Tensor:
        # Log probabilities only fall, and the longest hypothesis divides by most.
        best = tf.reduce_max(live, axis=1)
        return (best > NEVER / 2) & (normalised(best, limits) > tf.reduce_min(done.scores, axis=1))

    def body(t: tf.Tensor, live: tf.Tensor, prefixes: tf.Tensor, state: Any, done: Beams) -> Any:
        last = tf.reshape(tf.where(t == 0, BOS, prefixes[:, :, tf.maximum(t - 1, 0)]), [-1])
        logits, state = model.step(memory, state, last, t)
        log_probs = tf.reshape(_allowed(tf.nn.log_softmax(logits)), [batch, size, vocabulary]) + live[..., tf.newaxis]
        # 2 K candidates hold K that go on, whichever of them end here: a prefix can end in one way only.
        best, index = tf.math.top_k(tf.reshape(log_probs, [batch, size * vocabulary]), 2 * size)
        beam, token = index // vocabulary, index % vocabulary
        extended = _with_token(tf.gather(prefixes, beam, batch_dims=1), t, token)
        # At its limit a hypothesis is taken as if it had ended, and a sentence beyond it has none.
        ends = (token == EOS) | (t + 1 >= limits[:, tf.newaxis])
        ended = tf.where(ends & (live[:, :1] > NEVER / 2), best, never)
        done = _best(Beams(tf.concat([done.tokens, extended], axis=1),
                           tf.concat([done.scores, normalised(ended, t + 1)], axis=1),
                           tf.concat([done.log_probs, ended], axis=1)), size)
        live, kept = tf.math.top_k(tf.where(ends, never, best), size)
        rows = tf.reshape(tf.range(batch)[:, tf.newaxis] * size + tf.gather(beam, kept, batch_dims=1), [-1])
        return t + 1, live, tf.gather(extended, kept, batch_dims=1), model.picked(state, rows), done

    begin = (first, none, state, nothing)
    return tf.while_loop(lambda t, live, prefixes, state, done: tf.reduce_any(can_improve(live, done)), body,
                         (tf.constant(0), *begin), maximum_iterations=longest,
                         shape_invariants=(tf.TensorShape([]), *_any_batch(begin)))[-1]


def _best(beams: Beams, size: int) -> Beams:
    scores, kept = tf.math.top_k(beams.scores, size)
    return Beams(tf.gather(beams.tokens, kept, batch_dims=1), scores, tf.gather(beams.log_probs, kept, batch_dims=1))


def _limits(max_length: Any, source: tf.Tensor) -> tf.Tensor:
    """`max_length` of every row, int32 [batch]."""
    return tf.broadcast_to(tf.cast(max_length, tf.int32), tf.shape(source)[:1])


def _by_one(model: Translator, memory: Any, limits: tf.Tensor, choose: Any) -> tf.Tensor:
    """Tokens [rows, longest], each `choose`n by (logits [rows, V], position), until every row has ended or is at its
    limit."""
    longest = tf.reduce_max(limits)
    tokens = tf.zeros(tf.stack([tf.shape(limits)[0], longest]), tf.int32) + PAD
    state = model.start(memory, tf.maximum(longest, 1))  # for a cache of that length, and one place at least
    ended = limits <= 0
    last = tf.fill(tf.shape(limits), BOS)

    def body(t: tf.Tensor, last: tf.Tensor, ended: tf.Tensor, tokens: tf.Tensor, state: Any) -> Any:
        logits, state = model.step(memory, state, last, t)
        chosen = tf.where(ended, PAD, choose(logits, t))
        ended |= (chosen == EOS) | (t + 1 >= limits)
        return t + 1, chosen, ended, _with_token(tokens, t, chosen), state

    start = (last, ended, tokens, state)
    return tf.while_loop(lambda t, last, ended, tokens, state: ~tf.reduce_all(ended), body, (tf.constant(0), *start),
                         maximum_iterations=longest,
                         shape_invariants=(tf.TensorShape([]), *_any_batch(start)))[3]


def _drawn(probs: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """A token of every row of `probs` [rows, V], by two integers, int32 [rows].

    Inverts the distribution function, first over blocks of √V tokens, then within the one that was drawn: over all V at
    once the sums took longer than the student's step. tf.random.stateless_categorical draws others on other numbers of
    cores.
    """
    rows, vocabulary = tf.unstack(tf.shape(probs))
    width = tf.cast(tf.math.ceil(tf.sqrt(tf.cast(vocabulary, tf.float64))), tf.int32)
    padded = tf.pad(probs, [[0, 0], [0, -vocabulary % width]])
    blocks = tf.cast(tf.reshape(padded, tf.stack([rows, -1, width])), tf.float64)
    uniform = tf.random.stateless_uniform(tf.stack([2, rows, 1]), key, dtype=tf.float64)

    def inverse(weights: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        up_to = tf.cumsum(weights, axis=-1)
        return tf.reduce_sum(tf.cast(up_to <= uniform * up_to[:, -1:], tf.int32), axis=-1)

    block = inverse(tf.reduce_sum(blocks, axis=-1), uniform[0])
    return block * width + inverse(tf.gather(blocks, block, batch_dims=1), uniform[1])


def _allowed(logits: tf.Tensor) -> tf.Tensor:
    """Padding and the start token stand in no translation."""
    banned = tf.one_hot([PAD, BOS], tf.shape(logits)[-1], on_value=NEVER, off_value=0.0, dtype=logits.dtype)
    return logits + tf.reduce_sum(banned, axis=0)


def _with_token(tokens: tf.Tensor, t: tf.Tensor, token: tf.Tensor) -> tf.Tensor:
    """`tokens` [..., max_length] with `token` [...] at position t."""
    return tf.where(tf.range(tf.shape(tokens)[-1]) == t, token[..., tf.newaxis], tokens)


def _repeated(nest: Any, times: int) -> Any:
    return tf.nest.map_structure(lambda x: tf.repeat(x, times, axis=0), nest)


def _any_batch(nest: Any) -> Any:
    """Shape invariants: the ranks, and the sizes that are certain; what is empty may be about to grow."""
    return tf.nest.map_structure(lambda x: tf.TensorShape([None, *(n or None for n in x.shape[1:])]), nest)
