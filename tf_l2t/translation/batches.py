"""Subword ids of sentence pairs, and mini-batches of like lengths as a pure function of (seed, step)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from tf_l2t.translation.subwords import BOS, EOS, PAD, Subwords
from tf_l2t.translation.text import Origin, ParallelText, place

# Widths of batches, up to that of the longest sentence. Each is a shape of its own where shapes are static.
WIDTHS = (8, 12, 16, 20, 24, 28, 32, 36, 40, 45, 50, 64, 80, 112, 160, 224, 320, 448)


class TokenPair(NamedTuple):
    """Source and target ids of a batch, int32 [batch, width] each: they end in EOS, then PAD."""

    source: tf.Tensor
    target: tf.Tensor


class EncodedText(NamedTuple):
    """Sentence pairs as ids.

    Attributes:
      source, target: int32 [n, longest]; every row ends in EOS, then PAD.
      source_lengths, target_lengths: int32 [n], EOS included.
      kept: int64 [n], the pairs' positions in the text that was encoded.
      dropped, truncated: how many pairs were longer than allowed, and were left out or cut.
      origin: where that text was read, for messages; None if nobody knows.
    """

    source: np.ndarray
    target: np.ndarray
    source_lengths: np.ndarray
    target_lengths: np.ndarray
    kept: np.ndarray
    dropped: int = 0
    truncated: int = 0
    origin: Origin | None = None

    @property
    def size(self) -> int:
        """The number of pairs."""
        return len(self.source)

    def place(self, side: str, row: int, what: str = "text") -> str:
        """Where a row's "source" or "target" was read, as messages say it: in `what`, if no file is known."""
        return place(self.origin, what, side, int(self.kept[row]))


def encode_pairs(subwords: Subwords, text: ParallelText, max_length: int, *,
                 too_long: Literal["drop", "truncate"]) -> EncodedText:
    """The pairs as ids that end in EOS.

    Args:
      max_length: of either side in subwords, EOS included.
      too_long: what happens to longer pairs. "drop", for training, leaves them out; "truncate", for evaluation, keeps
        the first max_length − 1 subwords of a side and EOS, so that every pair is still there.

    Raises:
      ValueError: for a `max_length` below 2, another `too_long`, or if no pair is short enough; as `check_ids`.
    """
    if max_length < 2:
        raise ValueError(f"max_length must be at least 2, a subword and the end of the sentence; received "
                         f"{max_length!r}.")
    if too_long not in ("drop", "truncate"):
        raise ValueError(f"too_long must be 'drop' or 'truncate'; received {too_long!r}.")
    sides = [subwords.encode_lines(lines) for lines in (text.source, text.target)]
    long = np.array([max(len(source), len(target)) + 1 > max_length for source, target in zip(*sides, strict=True)],
                    bool)
    kept = np.flatnonzero(~long) if too_long == "drop" else np.arange(len(long))
    if not len(kept):
        raise ValueError(f"{text.name}: none of {len(long)} pairs has at most {max_length} subwords a side. Give a "
                         "larger max_length.")
    (source, source_lengths), (target, target_lengths) = (
        _padded([ids[i][:max_length - 1] for i in kept]) for ids in sides)
    encoded = EncodedText(source, target, source_lengths, target_lengths, kept.astype(np.int64),
                          dropped=len(long) - len(kept), truncated=int(long[kept].sum()), origin=text.origin)
    check_ids(encoded, subwords.size, text.name)
    return encoded


def _padded(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """int32 [n, longest] with EOS after every row, and lengths [n] with EOS."""
    lengths = np.array([len(row) + 1 for row in rows], np.int32)
    padded = np.full((len(rows), lengths.max()), PAD, np.int32)
    for out, row in zip(padded, rows, strict=True):
        out[:len(row)] = row
        out[len(row)] = EOS
    return padded, lengths


def check_sentences(encoded: EncodedText, what: str = "text") -> None:
    """Checks that every row is a sentence: ids, one EOS at its length, and PAD behind.

    Raises:
      ValueError: for arrays of shapes that do not fit, or no pair; naming the first pair with something else.
    """
    size = encoded.size
    sides = (("source", encoded.source, encoded.source_lengths), ("target", encoded.target, encoded.target_lengths))
    for side, ids, lengths in sides:
        ids, lengths = np.asarray(ids), np.asarray(lengths)
        if ids.ndim != 2 or not size or len(ids) != size or lengths.shape != (size,) or len(encoded.kept) != size \
                or not all(np.issubdtype(values.dtype, np.integer) for values in (ids, lengths)):
            raise ValueError(f"{what} ({side}): ids must be integers [pairs, longest], with a length and a place for "
                             f"every pair, as encode_pairs makes them; received {ids.dtype} {ids.shape}, lengths "
                             f"{lengths.dtype} {lengths.shape}, {len(encoded.kept)} places, for {size} pairs.")
        behind_end = np.arange(ids.shape[1]) - (lengths[:, np.newaxis] - 1)
        bad = (lengths < 1) | (lengths > ids.shape[1])
        bad |= np.where(behind_end < 0, (ids == PAD) | (ids == BOS) | (ids == EOS),
                        ids != np.where(behind_end == 0, EOS, PAD)).any(axis=1)
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(f"{encoded.place(side, row, what)}: a sentence must be ids that are no special ones, "
                             f"then its end, {EOS}, at its length, then padding, {PAD}; received "
                             f"{ids[row].tolist()} of length {lengths[row]}.")


def check_ids(encoded: EncodedText, vocabulary_size: int, what: str = "text") -> None:
    """Checks that a model of `vocabulary_size` classes can take these ids.

    Args:
      what: the text's name, for messages about pairs of which no file is known.

    Raises:
      ValueError: naming the first pair with an id outside 0 … vocabulary_size − 1; as `check_sentences`.
    """
    check_sentences(encoded, what)
    for side, ids in (("source", encoded.source), ("target", encoded.target)):
        bad = np.argwhere((ids < 0) | (ids >= vocabulary_size))
        if len(bad):
            row, column = bad[0]
            raise ValueError(f"{encoded.place(side, row, what)}: id {ids[row, column]} is not in 0 … "
                             f"{vocabulary_size - 1}. The model's vocabulary size must be that of the subwords.")


def widths_for(longest: int, widths: Sequence[int] | None = None) -> tuple[int, ...]:
    """The widths of batches whose longest sentence has `longest` subwords: `WIDTHS` below that, and `longest`.

    Args:
      widths: to use instead; increasing, the last at least `longest`.

    Raises:
      ValueError: for widths that do not increase from 1 or more, or are too narrow.
    """
    if widths is None:
        return (*(width for width in WIDTHS if width < longest), longest)
    widths = tuple(widths)
    if not widths or widths[0] < 1 or any(a >= b for a, b in itertools.pairwise(widths)):
        raise ValueError(f"widths must be positive and increase; received {widths}.")
    if widths[-1] < longest:
        raise ValueError(f"the widest of widths={widths} must hold the longest sentence, {longest} subwords with its "
                         "end. Add a wider one, or encode with a smaller max_length.")
    return widths


class BucketedBatches:
    """A function (seed, step) -> `TokenPair` over pairs held in memory; see `bucketed_batches`.

    Attributes:
      batch_size: pairs a batch.
      buckets: (width, pairs) of every bucket, from narrow to wide.
      batches_per_epoch: whole batches of all buckets.
      left_out: pairs that an epoch does not use, fewer than a batch for every bucket; other ones in each epoch.
      shapes: (batch, width) of the batches that occur, one for every bucket; source and target have the same.
    """

    def __init__(self, encoded: EncodedText, batch_size: int, widths: Sequence[int] | None = None) -> None:
        check_sentences(encoded)
        if not 1 <= batch_size <= encoded.size:
            raise ValueError(f"batch_size must be between 1 and the {encoded.size} pairs; received {batch_size!r}.")
        longest = np.maximum(encoded.source_lengths, encoded.target_lengths)
        members = _buckets(longest, batch_size, widths_for(int(longest.max()), widths))
        sizes = np.array([len(rows) for _, rows in members], np.int64)
        counts = sizes // batch_size
        self.batch_size = batch_size
        self.buckets = tuple((width, len(rows)) for width, rows in members)
        self.batches_per_epoch = int(counts.sum())
        self.left_out = encoded.size - self.batches_per_epoch * batch_size
        self.shapes = tuple((batch_size, width) for width, _ in members)
        # Pairs of a bucket stand in a row, so that a bucket is an offset and a size.
        order, widest = np.concatenate([rows for _, rows in members]), members[-1][0]
        self._source, self._target = (tf.constant(_widened(ids[order], widest))
                                      for ids in (encoded.source, encoded.target))
        self._sizes, self._starts = tf.constant(sizes), tf.constant(np.cumsum(sizes) - sizes)
        self._batch_ends, self._batch_starts = tf.constant(np.cumsum(counts)), tf.constant(np.cumsum(counts) - counts)
        self._widths = tf.constant([width for width, _ in members], tf.int64)

    def __call__(self, seed: tf.Tensor | int, step: tf.Tensor | int) -> TokenPair:
        seed, step = tf.cast(seed, tf.int64), tf.cast(step, tf.int64)
        epoch, turn = step // self.batches_per_epoch, step % self.batches_per_epoch
        # The third number tells the batches' order and the buckets apart; tf_l2t.data's batches use 0.
        number = _shuffled(turn, self.batches_per_epoch, tf.stack([seed, epoch, tf.ones_like(seed)]))
        bucket = tf.reduce_sum(tf.cast(self._batch_ends <= number, tf.int64))
        places = ((number - self._batch_starts[bucket]) * self.batch_size + tf.range(self.batch_size, dtype=tf.int64))
        keys = tf.tile(tf.stack([seed, epoch, bucket + 2])[tf.newaxis], [self.batch_size, 1])
        rows = self._starts[bucket] + _shuffled(places, self._sizes[bucket], keys)
        width = self._widths[bucket]
        return TokenPair(tf.gather(self._source, rows)[:, :width], tf.gather(self._target, rows)[:, :width])


def bucketed_batches(encoded: EncodedText, batch_size: int, widths: Sequence[int] | None = None) -> BucketedBatches:
    """A pure function (seed, step) -> `TokenPair` of pairs of like lengths, for graphs as for eager code.

    A pair belongs to the narrowest bucket that holds both its sides; a batch is of one bucket, and as wide. In every
    epoch each bucket is shuffled by a keyed bijection of its own and cut into whole batches, and so are the batches of
    all buckets among each other: nothing is stored, and a step costs the same whatever the number of pairs. An epoch
    uses a pair at most once. Buckets of fewer pairs than a batch are merged into the next wider one; the widest takes
    the next narrower one in.

    Args:
      batch_size: at most the number of pairs.
      widths: of the buckets; None for those of `widths_for`.

    Returns:
      The function; it knows its `batches_per_epoch`, `shapes`, `buckets` and `left_out`. In a graph that takes the step
      as a tensor the width is not static.

    Raises:
      ValueError: if `batch_size` is below 1 or above the number of pairs; as `widths_for` and `check_sentences`.
    """
    return BucketedBatches(encoded, batch_size, widths)


def _shuffled(index: tf.Tensor, size: tf.Tensor | int, key: tf.Tensor) -> tf.Tensor:
    """Where a permutation of 0 … size − 1 drawn by `key`, int64 [..., 3], takes `index`, int64 [...]."""
    return tf.raw_ops.RandomIndexShuffle(index=index, seed=key, max_index=tf.cast(size, tf.int64) - 1)


def _buckets(longest: np.ndarray, batch_size: int, widths: tuple[int, ...]) -> list[tuple[int, np.ndarray]]:
    """(width, rows) of the buckets, each of at least a batch, from narrow to wide."""
    narrowest = np.searchsorted(widths, longest)
    found: list[tuple[int, np.ndarray]] = []
    waiting = np.zeros(0, np.int64)
    for i, width in enumerate(widths):
        waiting = np.concatenate([waiting, np.flatnonzero(narrowest == i)])
        if len(waiting) >= batch_size:
            found.append((width, waiting))
            waiting = waiting[:0]
    if len(waiting):
        _, rows = found.pop()
        rows = np.concatenate([rows, waiting])
        found.append((int(widths[int(narrowest[rows].max())]), rows))
    return found


def _widened(ids: np.ndarray, width: int) -> np.ndarray:
    """int32 [n, width]: columns of PAD added, or dropped."""
    out = np.full((len(ids), width), PAD, np.int32)
    common = min(width, ids.shape[1])
    out[:, :common] = ids[:, :common]
    return out


class EvalBatch(NamedTuple):
    """A batch to evaluate.

    Attributes:
      tokens: `TokenPair`; rows from `real` on are nothing but PAD.
      indices: int64 [real], the rows' positions in the encoded text: `outputs[batch.indices] = of_batch[:batch.real]`
        restores the order.
      real: the number of pairs in it.
    """

    tokens: TokenPair
    indices: np.ndarray
    real: int


def eval_batches(encoded: EncodedText, batch_size: int, widths: Sequence[int] | None = None) -> Iterator[EvalBatch]:
    """Every pair once, sorted by the source's length, in batches of `batch_size` rows.

    At most as many shapes as widths occur: a batch's source is as wide as its longest source needs, which no target
    has a say in, and all batches of one source width have one target width.

    Raises:
      ValueError: if `batch_size` is below 1; as `widths_for`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; received {batch_size!r}.")
    widths = widths_for(int(max(encoded.source_lengths.max(), encoded.target_lengths.max())), widths)
    return _eval_batches(encoded, batch_size, widths)


def _eval_batches(encoded: EncodedText, batch_size: int, widths: tuple[int, ...]) -> Iterator[EvalBatch]:
    order = np.argsort(encoded.source_lengths, kind="stable")
    parts = [order[i:i + batch_size] for i in range(0, len(order), batch_size)]
    narrowest = [int(np.searchsorted(widths, encoded.source_lengths[part].max())) for part in parts]
    needed = [int(encoded.target_lengths[part].max()) for part in parts]
    target_width = {i: widths[int(np.searchsorted(widths, max(n for n, j in zip(needed, narrowest, strict=True)
                                                              if j == i)))] for i in set(narrowest)}
    for part, i in zip(parts, narrowest, strict=True):
        sides = []
        for ids, width in ((encoded.source, widths[i]), (encoded.target, target_width[i])):
            rows = np.full((batch_size, width), PAD, np.int32)
            rows[:len(part)] = _widened(ids[part], width)
            sides.append(tf.constant(rows))
        yield EvalBatch(TokenPair(*sides), part.astype(np.int64), len(part))
