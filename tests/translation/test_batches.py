import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.data import batch_dataset
from tf_l2t.translation.batches import (
    EncodedText,
    TokenPair,
    bucketed_batches,
    check_ids,
    encode_pairs,
    eval_batches,
    widths_for,
)
from tf_l2t.translation.subwords import BOS, EOS, PAD, Subwords
from tf_l2t.translation.text import Origin, ParallelText, embedded_help

BATCH = 4


def _encoded(lengths):
    """Pairs of these (source, target) lengths; the first id of a row is 10 + its number, the others are 5."""
    sides = []
    for lengths_of_side in zip(*lengths, strict=True):
        ids = np.full((len(lengths), max(lengths_of_side)), PAD, np.int32)
        for i, length in enumerate(lengths_of_side):
            ids[i, :length] = [10 + i, *[5] * (length - 2), EOS]
        sides += [ids, np.array(lengths_of_side, np.int32)]
    return EncodedText(sides[0], sides[2], sides[1], sides[3], np.arange(len(lengths)))


def _random(count=101, longest=20, seed=0):
    return _encoded([tuple(pair) for pair in np.random.default_rng(seed).integers(2, longest + 1, (count, 2))])


def _rows(batch):
    assert batch.source[:, 0].numpy().tolist() == batch.target[:, 0].numpy().tolist()
    return (batch.source[:, 0].numpy() - 10).tolist()


def _epoch(batches, epoch, seed=3):
    return [batches(seed, epoch * batches.batches_per_epoch + t) for t in range(batches.batches_per_epoch)]


WIDTHS = (5, 10, 15, 20)


def test_an_epoch_uses_a_pair_at_most_once_and_leaves_out_other_ones_each_time():
    encoded = _random()
    batches = bucketed_batches(encoded, BATCH, WIDTHS)
    longest = np.maximum(encoded.source_lengths, encoded.target_lengths)
    sizes = np.diff([0, *(int((longest <= width).sum()) for width in WIDTHS)])
    assert batches.buckets == tuple(zip(WIDTHS, sizes, strict=True)) and min(sizes) >= BATCH
    assert batches.batches_per_epoch == sum(n // BATCH for n in sizes)
    assert batches.left_out == sum(n % BATCH for n in sizes) > 0
    left_out = []
    for epoch in range(6):
        rows = [i for batch in _epoch(batches, epoch) for i in _rows(batch)]
        assert len(rows) == len(set(rows)) == 101 - batches.left_out
        missing = set(range(101)) - set(rows)
        for width, (low, size) in zip(WIDTHS, zip([0, *WIDTHS[:-1]], sizes, strict=True), strict=True):
            assert sum(low < longest[i] <= width for i in missing) == size % BATCH
        left_out.append(frozenset(missing))
    assert len(set(left_out)) == 6


def test_batches_hold_their_pairs_whole_and_are_as_wide_as_their_bucket():
    encoded = _random()
    batches = bucketed_batches(encoded, BATCH, WIDTHS)
    for batch in _epoch(batches, 0):
        width = batch.source.shape[1]
        rows = _rows(batch)
        longest = np.maximum(encoded.source_lengths, encoded.target_lengths)[rows]
        assert width in WIDTHS and np.all(longest <= width)
        assert np.all(longest > width - 5)  # the next narrower bucket
        for ids, of_text, lengths in ((batch.source, encoded.source, encoded.source_lengths),
                                      (batch.target, encoded.target, encoded.target_lengths)):
            assert ids.shape == (BATCH, width) and ids.dtype == tf.int32
            for out, row in zip(ids.numpy(), rows, strict=True):
                length = lengths[row]
                np.testing.assert_array_equal(out[:length], of_text[row, :length])
                assert out[length - 1] == EOS and np.all(out[length:] == PAD)


def test_epochs_and_seeds_differ_in_the_pairs_and_in_the_order_of_the_widths():
    batches = bucketed_batches(_random(400), BATCH, WIDTHS)
    runs = [_epoch(batches, epoch, seed) for epoch, seed in ((0, 3), (1, 3), (0, 4))]
    assert len({tuple(batch.source.shape[1] for batch in run) for run in runs}) == 3
    assert len({tuple(i for batch in run for i in _rows(batch)) for run in runs}) == 3
    # The batches of one width hold other pairs, not the same batches in another order.
    wide = [{frozenset(_rows(batch)) for batch in run if batch.source.shape[1] == 20} for run in runs]
    assert all(not a & b for a, b in ((wide[0], wide[1]), (wide[0], wide[2]), (wide[1], wide[2])))
    # Widths are mixed: no long run of one.
    widths = [batch.source.shape[1] for batch in runs[0]]
    assert sum(a != b for a, b in itertools.pairwise(widths)) > len(widths) / 3


def test_every_pair_is_drawn_equally_often():
    encoded = _random(60, 12)
    batches = bucketed_batches(encoded, 8, (12,))
    counts = collections.Counter(i for epoch in range(60) for batch in _epoch(batches, epoch) for i in _rows(batch))
    # 56 of 60 an epoch: 56 expected, with a standard deviation below 2.
    assert len(counts) == 60 and min(counts.values()) >= 48 and max(counts.values()) <= 60


def _numbers(batch):
    """Of any width, something that tells batches apart."""
    place = tf.range(1, 1 + tf.shape(batch.source)[1])
    return tf.stack([tf.reduce_sum(batch.source * place), tf.reduce_sum(batch.target * place),
                     tf.shape(batch.source)[1]])


def test_a_batch_is_a_pure_function_of_seed_and_step_in_graphs_and_loops():
    batches = bucketed_batches(_random(), BATCH, WIDTHS)
    steps = 2 * batches.batches_per_epoch + 3
    expected = np.stack([_numbers(batches(7, t)) for t in range(steps)])
    assert len(np.unique(expected[:, 2])) == 4

    @tf.function
    def one(seed, step):
        return batches(seed, step)

    for t in reversed(range(steps)):
        batch = one(tf.constant(7, tf.int64), tf.constant(t))
        assert isinstance(batch, TokenPair)
        np.testing.assert_array_equal(_numbers(batch), expected[t])
    assert one.experimental_get_tracing_count() == 1

    @tf.function
    def loop(seed, steps):
        found = tf.TensorArray(tf.int32, steps, element_shape=[3])
        return tf.while_loop(lambda t, _: t < steps,
                             lambda t, found: (t + 1, found.write(t, _numbers(batches(seed, t)))),
                             [tf.constant(0), found])[1].stack()

    np.testing.assert_array_equal(loop(tf.constant(7), tf.constant(steps)), expected)
    for batch, numbers in zip(batch_dataset(batches, 7, steps), expected, strict=True):
        np.testing.assert_array_equal(_numbers(batch), numbers)


def test_as_many_traces_as_shapes():
    batches = bucketed_batches(_random(), BATCH, WIDTHS)

    @tf.function(reduce_retracing=False)
    def step(batch):
        return tf.reduce_sum(batch.source)

    for epoch in range(3):
        for batch in _epoch(batches, epoch):
            step(batch)
    assert step.experimental_get_tracing_count() == len(batches.shapes) == 4
    assert batches.shapes == tuple((BATCH, width) for width in WIDTHS)


@pytest.mark.parametrize(("lengths", "expected"), [
    ([3] * 2 + [8] * 4, ((10, 6),)),  # too few narrow ones go up
    ([3] * 4 + [8] * 3, ((10, 7),)),  # too few wide ones are taken in, and the bucket is as wide as they are
    ([3] * 4 + [8] * 4 + [13] * 1, ((5, 4), (15, 5))),
    ([3] * 4 + [8] * 1 + [13] * 1 + [18] * 1, ((20, 7),)),
    ([3] * 3 + [13] * 1 + [18] * 5, ((15, 4), (20, 5))),
    ([3] * 5 + [8] * 1 + [13] * 2, ((15, 8),)),  # no wider than needed
    ([3] * 5, ((5, 5),)),
])
def test_buckets_of_less_than_a_batch_are_merged(lengths, expected):
    batches = bucketed_batches(_encoded([(n, 2) if i % 2 else (2, n) for i, n in enumerate(lengths)]), BATCH, WIDTHS)
    assert batches.buckets == expected
    for batch in _epoch(batches, 0):
        assert batch.source.shape[1] == batch.target.shape[1] in dict(expected)
        assert all((row == EOS).sum() == 1 for side in batch for row in side.numpy())


def test_widths():
    assert widths_for(50) == (8, 12, 16, 20, 24, 28, 32, 36, 40, 45, 50) and widths_for(19) == (8, 12, 16, 19)
    assert widths_for(8) == (8,) and widths_for(3) == (3,) and widths_for(500)[-2:] == (448, 500)
    assert bucketed_batches(_random(), BATCH).shapes == ((4, 8), (4, 12), (4, 16), (4, 20))
    for widths, message in (((), "increase"), ((8, 8, 20), "increase"), ((0, 20), "increase"),
                            ((10, 5, 20), "increase"), ((8, 19), "longest sentence, 20")):
        with pytest.raises(ValueError, match=message):
            bucketed_batches(_random(), BATCH, widths)
        with pytest.raises(ValueError, match=message):
            eval_batches(_random(), BATCH, widths)
    for size in (0, 102):
        with pytest.raises(ValueError, match=f"between 1 and the 101 pairs; received {size}"):
            bucketed_batches(_random(), size)


def test_one_batch_is_a_whole_epoch():
    batches = bucketed_batches(_random(BATCH), BATCH, (20,))
    assert batches.batches_per_epoch == 1 and batches.left_out == 0
    orders = {tuple(_rows(batches(0, t))) for t in range(8)}
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders) and len(orders) > 1
    alone = bucketed_batches(_random(1), 1)
    assert _rows(alone(0, 5)) == [0]


@pytest.fixture(scope="module")
def text():
    return embedded_help().take(range(300))


@pytest.fixture(scope="module")
def subwords(text):
    return Subwords.train([*text.source, *text.target], size=500)


def test_encoded_pairs_are_the_subwords_and_end_in_eos(text, subwords):
    encoded = encode_pairs(subwords, text, 1000, too_long="drop")
    assert encoded.size == text.size and encoded.dropped == encoded.truncated == 0
    for lines, ids, lengths in ((text.source, encoded.source, encoded.source_lengths),
                                (text.target, encoded.target, encoded.target_lengths)):
        assert ids.dtype == lengths.dtype == np.int32 and ids.shape == (300, lengths.max())
        for line, row, length in zip(lines, ids, lengths, strict=True):
            assert row[:length].tolist() == [*subwords.encode(line), EOS] and np.all(row[length:] == PAD)
            assert subwords.decode(row) == line


def test_too_long_pairs_are_dropped_or_truncated(text, subwords):
    ids = [[subwords.encode(line) for line in side] for side in text[:2]]
    needed = np.array([max(len(s), len(t)) + 1 for s, t in zip(*ids, strict=True)])
    limit = int(np.median(needed))
    drop = encode_pairs(subwords, text, limit, too_long="drop")
    np.testing.assert_array_equal(drop.kept, np.flatnonzero(needed <= limit))
    assert 0 < drop.dropped == (needed > limit).sum() and drop.truncated == 0
    assert [subwords.decode(row) for row in drop.target] == [text.target[i] for i in drop.kept]
    assert max(drop.source.shape[1], drop.target.shape[1]) == limit
    cut = encode_pairs(subwords, text, limit, too_long="truncate")
    assert cut.size == 300 and cut.dropped == 0 and cut.truncated == drop.dropped
    for side, rows, lengths in ((ids[0], cut.source, cut.source_lengths), (ids[1], cut.target, cut.target_lengths)):
        for expected, row, length in zip(side, rows, lengths, strict=True):
            assert row[:length].tolist() == [*expected[:limit - 1], EOS]
    with pytest.raises(ValueError, match="none of 300 pairs has at most 2"):
        encode_pairs(subwords, text, 2, too_long="drop")
    assert encode_pairs(subwords, text, 2, too_long="truncate").source.shape == (300, 2)
    with pytest.raises(ValueError, match="at least 2"):
        encode_pairs(subwords, text, 1, too_long="drop")
    with pytest.raises(ValueError, match="'drop' or 'truncate'; received 'cut'"):
        encode_pairs(subwords, text, 9, too_long="cut")


def test_ids_that_a_model_has_no_class_for(text, subwords):
    encoded = encode_pairs(subwords, text, 40, too_long="drop")
    check_ids(encoded, 500)
    first = next(i for i in range(encoded.size) if encoded.source[i].max() >= 450)
    line = encoded.kept[first] + 1
    for origin, place in ((None, rf"help, line {line} \(source\)"),
                          (text.origin, rf"\.tsv\.gz \(source\), line {line}"),
                          (Origin("a.de", "a.en").take(range(5, 400)), rf"^a\.de, line {line + 5}")):
        with pytest.raises(ValueError, match=rf"{place}: id \d+ is not in 0 … 449"):
            check_ids(encoded._replace(origin=origin), 450, "help")
    negative = encoded._replace(target=encoded.target.copy())
    negative.target[5, 1] = -1
    with pytest.raises(ValueError, match=rf"\(target\), line {encoded.kept[5] + 1}: id -1"):
        check_ids(negative, 500)

    class Broken:
        size = 10

        def encode_lines(self, lines):
            return [np.array([4, 10], np.int32) for _ in lines]

    with pytest.raises(ValueError, match=r"id 10 is not in 0 … 9"):
        encode_pairs(Broken(), ParallelText(("a",), ("b",), "t"), 5, too_long="drop")


@pytest.mark.parametrize(("row", "length", "match"), [
    ([5, PAD, 5, EOS, PAD], 4, "padding, 0; received"), ([BOS, 5, 5, EOS, PAD], 4, "no special"),
    ([5, EOS, 5, EOS, PAD], 4, "no special"), ([5, 5, 5, 5, PAD], 4, "its length"), ([5, 5, 5, EOS, 5], 4, "padding"),
    ([5, 5, 5, EOS, PAD], 3, "its length"), ([5, 5, 5, EOS, PAD], 0, "of length 0"), ([5] * 5, 6, "of length 6"),
])
def test_what_is_no_sentence_is_refused(row, length, match):
    encoded = _encoded([(5, 4), (3, 5), (4, 2)])
    encoded.target[1], encoded.target_lengths[1] = row, length
    for check in (lambda: check_ids(encoded, 100), lambda: bucketed_batches(encoded, 2)):
        with pytest.raises(ValueError, match=rf"text, line 2 \(target\).*{match}"):
            check()


@pytest.mark.parametrize("change", [
    {"source": np.zeros((0, 3), np.int32)}, {"target_lengths": np.ones(2, np.int32)}, {"kept": np.zeros(0, np.int64)},
    {"source": np.full((3, 5), 2.0)}, {"target": np.full((2, 5), 2)},
])
def test_arrays_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match="as encode_pairs makes them"):
        bucketed_batches(_encoded([(5, 4), (3, 5), (4, 2)])._replace(**change), 2)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 200])
def test_eval_batches_hold_every_pair_once_and_restore_the_order(batch_size):
    encoded = _random(101)
    outputs = np.full((101, 2), -1)
    batches = list(eval_batches(encoded, batch_size, WIDTHS))
    assert [batch.real for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    for batch in batches:
        assert {len(side) for side in batch.tokens} == {batch_size} and len(batch.indices) == batch.real
        for side in batch.tokens:
            assert side.shape[1] in WIDTHS and not np.any(side[batch.real:])
            assert np.all((side.numpy() == EOS).sum(axis=1)[:batch.real] == 1)
        of_batch = np.stack([side[:, 0] for side in batch.tokens], axis=1)
        outputs[batch.indices] = of_batch[:batch.real]
    np.testing.assert_array_equal(outputs, 10 + np.arange(101)[:, None] * [1, 1])
    lengths = np.concatenate([encoded.source_lengths[batch.indices] for batch in batches])
    assert np.all(np.diff(lengths) >= 0)
    assert len({tuple(side.shape[1] for side in batch.tokens) for batch in batches}) <= len(WIDTHS)


def test_a_target_has_no_say_in_its_sources_batch():
    lengths = [(3 + i % 9, 4) for i in range(30)]
    short, long = (_encoded(pairs) for pairs in (lengths, [(n, 20) for n, _ in lengths]))
    for a, b in zip(eval_batches(short, 4, WIDTHS), eval_batches(long, 4, WIDTHS), strict=True):
        np.testing.assert_array_equal(a.tokens.source, b.tokens.source)
        np.testing.assert_array_equal(a.indices, b.indices)
        assert a.tokens.target.shape[1] == 5 and b.tokens.target.shape[1] == 20
    with pytest.raises(ValueError, match="at least 1; received 0"):
        eval_batches(short, 0)
