import gzip
import struct
import warnings

import numpy as np
import pytest
import tensorflow as tf

from tf_l2t import data


def test_embedded_digits_are_the_distributed_ones():
    digits = data.embedded_digits()
    assert digits.x.shape == (5000, 28, 28, 1) and digits.x.dtype == np.float32
    assert digits.x.min() == 0 and digits.x.max() == 1
    np.testing.assert_array_equal(np.bincount(digits.y), [500] * 10)
    # The first row of the file: its first inked pixels are 51, 159, 253.
    np.testing.assert_allclose(digits.x[0].ravel()[np.flatnonzero(digits.x[0])[:3]] * 255, [51, 159, 253], rtol=1e-6)


def test_the_split_is_a_partition_by_seed():
    splits = data.mnist_5k(seed=3)
    assert [part.size for part in (splits.train, splits.dev, splits.test)] == [3500, 500, 1000]
    rows = np.concatenate([part.x.reshape(part.size, -1) for part in (splits.train, splits.dev, splits.test)])
    pool = data.embedded_digits().x.reshape(5000, -1)
    np.testing.assert_array_equal(np.sort(rows.sum(axis=1)), np.sort(pool.sum(axis=1)))
    assert data.fingerprint(splits) == data.fingerprint(data.mnist_5k(seed=3)) != data.fingerprint(data.mnist_5k())
    with pytest.raises(ValueError, match="do not fit"):
        data.mnist_5k(dev_size=4500)


def _images(count, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), (np.arange(count) % 10).astype(np.uint8)


def _idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def _write_npz(path, train, test):
    np.savez(path / "mnist.npz", x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])
    return path / "mnist.npz"


def _write_idx(path, train, test, compress):
    names = [("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
             ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")]
    for files, arrays in zip(names, (train, test), strict=True):
        for name, array in zip(files, arrays, strict=True):
            content = gzip.compress(_idx(array)) if compress else _idx(array)
            (path / (name + ".gz" * compress)).write_bytes(content)
    return path


def _write_tfds(path, train, test):
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                                           "label": tfds.features.ClassLabel(num_classes=10)})
    split = {name: [(i, {"image": x[..., None], "label": int(y)}) for i, (x, y) in enumerate(zip(*part, strict=True))]
             for name, part in (("train", train), ("test", test))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfds.dataset_builders.store_as_tfds_dataset(
            name="mnist", version="3.0.1", features=features, split_datasets=split, data_dir=path,
            file_format="tfrecord", disable_shuffling=True)
    return path


@pytest.mark.parametrize("kind", ["npz", "idx", "idx_gz", "tfds"])
def test_full_mnist_readers_give_the_same_arrays(kind, tmp_path):
    train, test = _images(60, 0), _images(20, 1)
    path = {"npz": _write_npz, "tfds": _write_tfds, "idx": lambda *a: _write_idx(*a, False),
            "idx_gz": lambda *a: _write_idx(*a, True)}[kind](tmp_path, train, test)
    splits = data.mnist(str(path), dev_size=15, seed=2)
    order = np.random.default_rng(2).permutation(60)
    np.testing.assert_array_equal(splits.train.x, train[0][order[:45], ..., None].astype(np.float32) / 255)
    np.testing.assert_array_equal(splits.dev.y, train[1][order[45:]])
    np.testing.assert_array_equal(splits.test.x[..., 0], test[0].astype(np.float32) / 255)
    assert splits.about == {"source": "mnist", "split_seed": 2, "train": 45, "dev": 15, "test": 20}


def test_dev_sets_of_one_train_set_are_nested_and_balanced_on_demand(tmp_path):
    path = str(_write_npz(tmp_path, _images(300, 0), _images(25, 1)))
    small, large = (data.mnist(path, dev_size=n, seed=2, train_size=100) for n in (40, 120))
    np.testing.assert_array_equal(small.train.x, large.train.x)
    np.testing.assert_array_equal(small.dev.x, large.dev.x[:40])
    even = data.mnist(path, dev_size=40, seed=2, train_size=100, balance=True)
    np.testing.assert_array_equal(even.train.x, small.train.x)
    np.testing.assert_array_equal(np.bincount(even.dev.y), [4] * 10)
    np.testing.assert_array_equal(np.bincount(even.test.y), [2] * 10)  # of 25 digits the rarest class has 2
    dev, train = ({row.tobytes() for row in part.x} for part in (even.dev, even.train))
    assert even.about["balanced"] and not dev & train
    with pytest.raises(ValueError, match="do not fit"):
        data.mnist(path, dev_size=201, train_size=100)
    for size in (45, 200):
        with pytest.raises(ValueError, match="balanced dev set"):
            data.mnist(path, dev_size=size, train_size=100, balance=True)


def test_missing_and_damaged_sources_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="no file"):
        data.mnist(str(tmp_path / "none.npz"))
    (tmp_path / "bad.npz").write_bytes(b"not a zip")
    with pytest.raises(ValueError, match=r"no \.npz"):
        data.mnist(str(tmp_path / "bad.npz"))
    np.save(tmp_path / "one.npy", np.zeros((4, 28, 28), np.uint8))
    with pytest.raises(ValueError, match=r"no \.npz with x_train.*: it holds one array, as an \.npy does"):
        data.mnist(str(tmp_path / "one.npy"))
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(ValueError, match="x_train"):
        data.mnist(str(tmp_path / "other.npz"))
    with pytest.raises(ValueError, match="has no file train-images"):
        data.mnist(str(tmp_path))
    (tmp_path / "mnist").mkdir()
    with pytest.raises(ValueError, match="tfds build"):
        data.mnist(str(tmp_path))
    for content in (b"", b"\1\2\3\4", _idx(_images(2, 0)[0])[:-5], _idx(_images(2, 0)[0])[:6],
                    gzip.compress(_idx(_images(2, 0)[0]))[:-20]):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ValueError, match=r"idx file|should hold|damaged gzip"):
            data.read_idx(tmp_path / "file")


@pytest.mark.parametrize(("shape", "before"), [((9, 7), "emnist-letters-"), ((9, 7, 3), "")])
def test_any_data_set_in_the_idx_format(shape, before, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 30), ("test", 12)):
        arrays[part] = rng.integers(0, 256, (count, *shape), np.uint8), rng.permutation(np.arange(count) % 4)
        for what, array in zip(("images", "labels"), arrays[part], strict=True):
            content = _idx(array.astype(np.uint8))
            name = f"{before}{part}-{what}-idx{array.ndim}-ubyte"
            (tmp_path / (name + ".gz" * (what == "images"))).write_bytes(
                gzip.compress(content) if what == "images" else content)
    splits = data.idx_images(str(tmp_path), dev_size=10, seed=1)
    order = np.random.default_rng(1).permutation(30)
    x = arrays["train"][0].reshape(30, 9, 7, -1).astype(np.float32) / 255
    np.testing.assert_array_equal(splits.train.x, x[order[:20]])
    np.testing.assert_array_equal(splits.dev.y, arrays["train"][1][order[20:]])
    np.testing.assert_array_equal(splits.test.y, arrays["test"][1])
    assert splits.num_classes == 4 and splits.name == tmp_path.name
    (tmp_path / "other-train-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(ValueError, match="must have one file"):
        data.idx_images(str(tmp_path), dev_size=10)
    with pytest.raises(ValueError, match="has no file"):
        data.idx_images(str(tmp_path / "nowhere"), dev_size=10)


@pytest.mark.parametrize("kind", ["shift", "uniform"])
def test_corrupted_labels(kind):
    splits = data.mnist_5k()
    noisy = data.corrupt_labels(splits, kind, 0.4, seed=1)
    moved = noisy.train.y != splits.train.y
    assert moved.sum() == 1400
    steps = (noisy.train.y - splits.train.y)[moved] % 10
    np.testing.assert_array_equal(np.unique(steps), [1] if kind == "shift" else np.arange(1, 10))
    np.testing.assert_array_equal(noisy.dev.y, splits.dev.y)
    np.testing.assert_array_equal(noisy.test.y, splits.test.y)
    np.testing.assert_array_equal(noisy.true_y, splits.train.y)
    np.testing.assert_array_equal(data.corrupt_labels(noisy, kind, 0.4, seed=2).true_y, splits.train.y)
    assert noisy.about["noise"] == kind and noisy.about["noise_fraction"] == 0.4 and "noise" not in splits.about
    counted = np.zeros((10, 10))
    np.add.at(counted, (splits.train.y, noisy.train.y), 1)
    counted /= counted.sum(axis=1, keepdims=True)
    # 350 digits a class: a share of 0.4 has a standard error of 0.026.
    np.testing.assert_allclose(data.noise_matrix(kind, 0.4, 10), counted, atol=0.08)
    np.testing.assert_allclose(data.noise_matrix(kind, 0.4, 10).sum(axis=1), 1)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        data.corrupt_labels(splits, kind, 1.5)
    with pytest.raises(ValueError, match="'shift', 'uniform'"):
        data.corrupt_labels(splits, "salt", 0.4)


def test_long_tail():
    splits = data.mnist_5k(500, 1000)
    tail = data.long_tail(splits, 100.0)
    least = np.bincount(splits.train.y).min()
    np.testing.assert_array_equal(np.bincount(tail.train.y), [int(least * 100 ** (-c / 9)) for c in range(10)])
    assert tail.train.size == tail.about["train"] and tail.dev is splits.dev
    rows = {row.tobytes() for row in splits.train.x[splits.train.y == 9]}
    assert all(row.tobytes() in rows for row in tail.train.x[tail.train.y == 9])
    assert len(np.unique(tail.train.y[:30])) > 3  # not sorted by class
    thinned = data.long_tail(splits._replace(true_y=9 - splits.train.y), 100.0)
    np.testing.assert_array_equal(thinned.true_y, 9 - thinned.train.y)
    for ratio in (0.5, 1e4):
        with pytest.raises(ValueError, match="long tail"):
            data.long_tail(splits, ratio)


def test_balanced():
    y = np.array([0, 1, 1, 2, 0, 1, 2, 2])
    part = data.balanced(data.ArrayPair(np.arange(8.0)[:, None], y), 3)
    np.testing.assert_array_equal(part.x[:, 0], [0, 1, 2, 3, 4, 6])


@pytest.mark.parametrize(("count", "batch"), [(10, 3), (7, 7), (64, 10)])
def test_every_epoch_uses_every_example_once(count, batch):
    epochs = 5
    steps = -(-epochs * count // batch)
    drawn = np.concatenate([data.batch_indices(tf.constant(4, tf.int64), tf.constant(t), batch, count)
                            for t in range(steps)])[:epochs * count].reshape(epochs, count)
    for epoch in drawn:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(count))
    assert len({tuple(epoch) for epoch in drawn}) == epochs
    other = data.batch_indices(tf.constant(5, tf.int64), tf.constant(0), batch, count)
    assert not np.array_equal(other, drawn[0][:batch])


def test_a_dataset_gives_the_same_batches_as_the_function():
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20)
    batch_fn = data.array_batches(x, y, 6, augment=lambda x, seed: x + tf.random.stateless_uniform(
        tf.shape(x), seed, dtype=x.dtype))
    batches = list(data.batch_dataset(batch_fn, 3, 9))
    assert len(batches) == 9
    for step, (bx, by) in enumerate(batches):
        expected = batch_fn(tf.constant(3, tf.int64), tf.constant(step))
        np.testing.assert_array_equal(bx, expected[0])
        np.testing.assert_array_equal(by, expected[1])
        assert 0 < float(tf.reduce_max(bx[:, 0] - 2.0 * tf.cast(by, tf.float64))) < 1


X, Y = np.zeros((6, 2)), np.array([0, 1, 2, 0, 1, 2])
BAD = {
    "shapes": ((X, Y[:, None] * np.ones(3, int)), "One-hot"), "lengths": ((X, Y[:4]), "6 examples and y has 4"),
    "empty": ((X[:0], Y[:0]), "no example"), "fractions": ((X, Y + 0.5), "integers"),
    "infinite": ((X, Y + np.inf), "integers"),
    "range": ((X, Y + 1), "from 1 to 3"),
    "negative": ((X, Y - 1), "from -1"), "nan": ((np.where(np.eye(6, 2) > 0, np.nan, X), Y), "2 of 6"),
    "text": ((X.astype(str), Y), "numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays(case):
    (x, y), message = BAD[case]
    with pytest.raises(ValueError, match=message):
        data.check_pair(x, y, 3, "train")


def test_from_arrays():
    splits = data.from_arrays((X, Y), (X, Y), (X, Y))
    assert splits.num_classes == 3 and splits.train.y.dtype == np.int32
    with pytest.raises(ValueError, match="at least two classes"):
        data.from_arrays((X, Y), (X, 0 * Y), (X, Y))
    with pytest.raises(ValueError, match="one shape"):
        data.from_arrays((X, Y), (X[:, :1], Y), (X, Y))
    with pytest.raises(ValueError, match="batch_size"):
        data.array_batches(X, Y, 7)
