"""CIFAR's original files and prepared data sets, written here in the original formats, read back as the same arrays."""

import pickle
import warnings

import numpy as np
import pytest
import tensorflow as tf

from tests.data import original
from tf_l2t import data
from tf_l2t.data.tfds_images import read_tfds

SIZES = {"cifar10": (50, 10), "cifar100": (60, 12)}


def _arrays(count, classes, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.permutation(np.arange(count) % classes)


def _parts(name):
    """Train in five pieces or one, and test."""
    train, test = SIZES[name]
    classes = int(name.removeprefix("cifar"))
    x, y = _arrays(train, classes, 0)
    pieces = np.array_split(np.arange(train), 5 if name == "cifar10" else 1)
    return [(x[i], y[i]) for i in pieces], _arrays(test, classes, 1)


def _files(name, version):
    return original.files(name, version, *_parts(name))


def _write(folder, name, version, archived):
    if archived:
        return original.archive(folder, name, _files(name, version))
    (folder / original.FOLDERS[name]).mkdir()
    for file, content in _files(name, version).items():
        (folder / original.FOLDERS[name] / file).write_bytes(content)
    return folder


def _write_tfds(folder, name, file_format):
    import tensorflow_datasets as tfds

    pieces, test = _parts(name)
    train = tuple(np.concatenate(part) for part in zip(*pieces, strict=True))
    label = tfds.features.ClassLabel(num_classes=int(name[5:]))  # the features of tensorflow-datasets' own builders
    features = {"id": tfds.features.Text(), "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
                "label": label}
    coarse = {"coarse_label": tfds.features.ClassLabel(num_classes=20)} if name == "cifar100" else {}
    features = tfds.features.FeaturesDict(features | coarse)
    splits = {split: [(i, {"id": f"{split}_{i}", "image": x, "label": int(y), **dict.fromkeys(coarse, int(y) // 5)})
                      for i, (x, y) in enumerate(zip(*part, strict=True))]
              for split, part in (("train", train), ("test", test))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfds.dataset_builders.store_as_tfds_dataset(name=name, version="3.0.2", features=features,
                                                    split_datasets=splits, data_dir=folder, file_format=file_format,
                                                    disable_shuffling=True)
    return folder


def _check(splits, name):
    pieces, (x_test, y_test) = _parts(name)
    x, y = (np.concatenate(part) for part in zip(*pieces, strict=True))
    order = np.random.default_rng(3).permutation(len(x))
    np.testing.assert_array_equal(splits.train.x, x[order[:-20]].astype(np.float32) / 255)
    np.testing.assert_array_equal(splits.train.y, y[order[:-20]])
    np.testing.assert_array_equal(splits.dev.y, y[order[-20:]])
    np.testing.assert_array_equal(splits.test.x, x_test.astype(np.float32) / 255)
    np.testing.assert_array_equal(splits.test.y, y_test)
    assert splits.num_classes == len(splits.class_names) == int(name[5:])
    assert splits.about == {"source": name, "split_seed": 3, "train": len(x) - 20, "dev": 20, "test": len(x_test)}


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("version", ["python", "binary"])
@pytest.mark.parametrize("name", SIZES)
def test_original_files(name, version, archived, tmp_path):
    path = _write(tmp_path, name, version, archived)
    _check(data.cifar(name, str(path), dev_size=20, seed=3), name)
    _check(data.cifar(name, str(tmp_path), dev_size=20, seed=3), name)  # the folder around it


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
@pytest.mark.parametrize("name", SIZES)
def test_prepared_by_tensorflow_datasets(name, file_format, tmp_path):
    _check(data.cifar(name, str(_write_tfds(tmp_path, name, file_format)), dev_size=20, seed=3), name)


def test_class_names():
    assert data.CIFAR10_CLASSES[3] == "cat"
    assert len(set(data.CIFAR100_CLASSES)) == 100 and list(data.CIFAR100_CLASSES) == sorted(data.CIFAR100_CLASSES)
    assert [data.CIFAR100_CLASSES.index(name) for name in ("baby", "boy", "dolphin", "otter")] == [2, 11, 30, 55]


def test_what_is_missing_or_damaged_is_told(tmp_path):
    with pytest.raises(ValueError, match="tfds build cifar10 --data_dir"):
        data.cifar("cifar10", str(tmp_path))
    with pytest.raises(ValueError, match="there is nothing at"):
        data.cifar("cifar10", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="name must be one of"):
        data.cifar("cifar20")
    (tmp_path / "file.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="no readable tar archive"):
        data.cifar("cifar10", str(tmp_path / "file.tar.gz"))
    (tmp_path / "folder").mkdir()
    wrong = _write(tmp_path / "folder", "cifar100", "binary", True)
    with pytest.raises(ValueError, match="neither the python nor the binary"):
        data.cifar("cifar10", str(wrong))
    for file, content in _files("cifar10", "binary").items():
        (tmp_path / "folder" / file).write_bytes(content)
    (tmp_path / "folder" / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=r"but not \['data_batch_3.bin'\]"):
        data.cifar("cifar10", str(tmp_path / "folder"))
    (tmp_path / "folder" / "data_batch_3.bin").write_bytes(b"1234")
    with pytest.raises(ValueError, match="multiple of 3073 bytes; it has 4"):
        data.cifar("cifar10", str(tmp_path / "folder"))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Harm:
        def __reduce__(self):
            return (tmp_path.joinpath("harmed").mkdir, ())

    for file in _files("cifar10", "python"):
        (tmp_path / file).write_bytes(pickle.dumps({b"data": Harm()}))
    with pytest.raises(ValueError, match="which CIFAR's files do not"):
        data.cifar("cifar10", str(tmp_path))
    assert not (tmp_path / "harmed").exists()


def test_read_tfds_respects_its_directory(tmp_path):
    (tmp_path / "a").mkdir()
    _write_tfds(tmp_path / "a", "cifar10", "tfrecord")
    assert len(read_tfds("cifar10", str(tmp_path / "a"))[0][0]) == 50
    with pytest.raises(ValueError, match="no prepared cifar10"):
        read_tfds("cifar10", str(tmp_path / "b"))


def _splits(channels=3, size=32):
    rng = np.random.default_rng(0)
    parts = [(rng.random((n, size, size, channels), np.float32), np.arange(n) % 3) for n in (30, 9, 9)]
    return data.from_arrays(*parts)


def test_the_papers_recipes():
    splits = _splits()
    ours = data.prepared(splits, "l2t_dlf")
    mean = splits.train.x.mean(axis=0)
    np.testing.assert_allclose(ours.dev.x, splits.dev.x - mean, atol=1e-6)
    np.testing.assert_allclose(ours.train.x.mean(axis=0), 0, atol=1e-6)
    theirs = data.prepared(splits, "prokt")
    np.testing.assert_allclose(theirs.test.x[..., 1], (splits.test.x[..., 1] - 0.4867) / 0.2565, rtol=1e-5, atol=1e-6)
    assert theirs.about["recipe"] == "prokt"
    # Black pixels come in at the border, and as what black has become.
    moved = theirs.augment(tf.constant(theirs.train.x), tf.constant([0, 0], tf.int64)).numpy()
    black = (0 - np.array([0.5071, 0.4867, 0.4408])) / np.array([0.2675, 0.2565, 0.2761])
    border = np.isclose(moved, black, rtol=1e-5).all(axis=-1)
    assert border[:, [0, -1]].any() and not border[:, 4:-4, 4:-4].any()
    with pytest.raises(ValueError, match="3 channels; received 1"):
        data.prepared(_splits(1), "prokt")
    with pytest.raises(ValueError, match="recipe must be one of"):
        data.prepared(splits, "cifar")


def test_like_cifar():
    splits = _splits(1, 28)
    made = data.like_cifar(splits)
    assert made.train.x.shape == (30, 32, 32, 3)
    np.testing.assert_array_equal(made.dev.x[:, 2:30, 2:30, 1], splits.dev.x[..., 0])
    assert made.train.x.sum() == pytest.approx(3 * splits.train.x.sum(), rel=1e-5)
    with pytest.raises(ValueError, match="one channel"):
        data.like_cifar(_splits(3))
