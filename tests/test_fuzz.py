"""Whatever is put in, what comes out is a result or a ValueError that says what was wrong.

The number of examples is that of hypothesis' profile, in tests/conftest.py: `--hypothesis-profile=soak` tries 50 times
as many.
"""

import contextlib
import gzip
import io
import json
import os
import pathlib
import pickle
import shutil
import struct
import tempfile

import hypothesis
import hypothesis.extra.numpy as numpy_strategies
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import tf_l2t
from tests import tiny
from tests.text import tiny_encoder
from tf_l2t.data import check_pair, cifar, from_arrays, mnist
from tf_l2t.data.idx import read_idx
from tf_l2t.students import load_network
from tf_l2t.text import WordVectors, load_encoder
from tf_l2t.text.tasks import read_tsv_folder
from tf_l2t.training.checkpoints import Checkpoints
from tf_l2t.translation import Subwords, load_translator
from tf_l2t.translation.text import read_parallel, read_splits, read_tsv

ARRAYS = numpy_strategies.arrays(st.one_of(numpy_strategies.scalar_dtypes(), numpy_strategies.unicode_string_dtypes()),
                                 numpy_strategies.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
LABELS = st.one_of(ARRAYS, st.lists(st.one_of(st.integers(-2, 5), st.floats(), st.text(max_size=2)), max_size=4))


@st.composite
def edits(draw):
    """A function that spoils bytes: bits, cuts, repetitions, foreign parts."""
    steps = draw(st.lists(st.tuples(st.sampled_from(("flip", "cut", "drop", "insert", "repeat")), st.floats(0, 1),
                                    st.floats(0, 1), st.binary(max_size=6)), min_size=1, max_size=4))

    def spoil(content):
        for how, at, span, new in steps:
            i = int(at * len(content))
            j = min(len(content), i + 1 + int(span * span * 40))
            if how == "flip" and content[i:i + 1]:
                content = content[:i] + bytes([content[i] ^ (1 << int(7.99 * span))]) + content[i + 1:]
            elif how == "cut":
                content = content[:i]
            elif how == "drop":
                content = content[:i] + content[j:]
            elif how == "insert":
                content = content[:i] + new + content[i:]
            else:
                content = content[:j] + content[i:]
        return content

    return spoil


@contextlib.contextmanager
def refused_or_done():
    """A ValueError with a sentence, or none; nothing else."""
    try:
        yield
    except ValueError as error:
        assert len(str(error)) > 10


@given(ARRAYS, LABELS, st.one_of(st.none(), st.integers(1, 5)))
def test_arrays(x, y, num_classes):
    with refused_or_done():
        pair = check_pair(x, y, num_classes)
        assert pair.y.dtype == np.int32 and len(pair.x) == len(pair.y) > 0 and pair.y.min() >= 0
        assert num_classes is None or pair.y.max() < num_classes
        assert pair.x.astype(np.float32).dtype == np.float32 and np.isrealobj(pair.x)


@given(st.lists(st.tuples(ARRAYS, LABELS), min_size=3, max_size=3))
def test_splits(parts):
    with refused_or_done():
        splits = from_arrays(*parts)
        assert splits.num_classes > max(part.y.max() for part in (splits.train, splits.dev, splits.test))


@pytest.fixture(scope="module")
def folder():
    """A directory for the examples of one test after the other."""
    with tempfile.TemporaryDirectory() as made:
        yield pathlib.Path(made)


IDX = b"\0\0\x08\x03" + struct.pack(">3I", 2, 2, 3) + bytes(range(12))


@given(edits(), st.booleans())
def test_idx_files(folder, spoil, compressed):
    file = folder / "images-idx3-ubyte"
    file.write_bytes(spoil(gzip.compress(IDX) if compressed else IDX))
    with refused_or_done():
        assert read_idx(file).ndim <= 64


def _npz():
    buffer = io.BytesIO()
    np.savez(buffer, x_train=np.zeros((4, 28, 28), np.uint8), y_train=np.arange(4), y_test=np.arange(2),
             x_test=np.zeros((2, 28, 28), np.uint8))
    return buffer.getvalue()


@given(edits())
def test_npz_files(folder, spoil):
    (folder / "mnist.npz").write_bytes(spoil(_npz()))
    with refused_or_done():
        assert mnist(str(folder / "mnist.npz"), dev_size=1).train.size == 3


LINES = "Guten Tag .\nEin Satz mit Ümlauten .\nLetzte Zeile .\n".encode()
PAIRS = b"Guten Tag .\tGood day .\nEin Satz .\tA sentence .\n"


@given(edits(), edits())
def test_parallel_text(folder, spoil, other):
    (folder / "a.de").write_bytes(spoil(LINES))
    (folder / "a.en").write_bytes(other(LINES))
    with refused_or_done():
        text = read_parallel(folder / "a.de", folder / "a.en")
        assert len(text.source) == len(text.target) > 0 and all(line.strip() for line in text.source + text.target)


@given(edits())
def test_tab_separated_pairs(folder, spoil):
    (folder / "a.tsv").write_bytes(spoil(PAIRS))
    with refused_or_done():
        text = read_tsv(folder / "a.tsv")
        assert len(text.source) == len(text.target) > 0


@given(edits(), st.integers(0, 3))
def test_classified_text(folder, spoil, dev_size):
    made = folder / "task"
    made.mkdir(exist_ok=True)
    for name in ("train", "dev", "test"):
        (made / f"{name}.tsv").write_bytes(b"label\tsentence\n1\tgood film\n0\tbad film\n1\ta fine one\n")
    (made / "train.tsv").write_bytes(spoil((made / "train.tsv").read_bytes()))
    with refused_or_done():
        task = read_tsv_folder(made, dev_size)
        assert max(task.train.labels) < len(task.labels)


@given(edits())
def test_word_vectors(folder, spoil):
    (folder / "vectors.txt").write_bytes(spoil(b"good 1 0\ngreat 1 0.1\nfar 0 1\n"))
    with refused_or_done():
        assert len(WordVectors.read(folder / "vectors.txt").words) > 0


@pytest.fixture(scope="module")
def encoder(folder):
    return tiny_encoder.write(folder / "encoder")


@hypothesis.settings(max_examples=hypothesis.settings().max_examples // 4)  # each builds a network
@given(st.sampled_from(("config.json", "model.safetensors", "vocab.txt")), edits())
def test_encoders(encoder, folder, name, spoil):
    path = folder / "spoiled_encoder"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(encoder, path)
    (path / name).write_bytes(spoil((path / name).read_bytes()))
    with refused_or_done(), _no_warnings():
        found = load_encoder(path)
        assert found.backbone.num_layers > 0 and len(found.wordpieces.tokens("a good film")) > 0


@pytest.fixture(scope="module")
def subwords():
    return Subwords.train(["Guten Tag .", "Ein Satz mit Umlauten .", "Letzte Zeile ."], 32).proto


@given(edits())
def test_subword_models(subwords, spoil):
    with refused_or_done():
        found = Subwords(spoil(subwords))
        ids = found.encode("Guten Satz !")
        assert all(0 <= i < found.size for i in ids) and isinstance(found.decode(ids), str)


@given(edits())
def test_folders_of_text(folder, spoil):
    made = folder / "text"
    made.mkdir(exist_ok=True)
    for name in ("train", "valid", "test"):
        for language in ("de", "en"):
            (made / f"{name}.{language}").write_bytes(LINES)
    (made / "valid.en").write_bytes(spoil(LINES))
    with refused_or_done():
        assert read_splits(made).dev.size > 0


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return tf_l2t.export_teacher(tiny.teacher(), tmp_path_factory.mktemp("teacher") / "teacher", num_steps=40)


FILES = ("tf_l2t.json", "saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")


@given(st.sampled_from(FILES), edits(), st.booleans())
def test_exported_teachers(exported, folder, name, spoil, signed):
    """Spoiled; and spoiled by somebody who has written the right SHA-256 into the metadata."""
    path = folder / "teacher"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(exported, path)
    before = (path / name).read_bytes()
    (path / name).write_bytes(spoil(before))
    if signed and name != FILES[0]:
        from tf_l2t.export import _sha256

        metadata = json.loads((path / FILES[0]).read_text())
        metadata["files"][name] = _sha256(path / name)
        (path / FILES[0]).write_text(json.dumps(metadata))
    with refused_or_done():
        teacher = tf_l2t.load_teacher(path)
        assert teacher(np.zeros(6, np.float32)).shape == (3, 3)
    there, known = ({str(p.relative_to(root)) for p in root.rglob("*")} for root in (path, exported))
    assert there == known


def remove(file):
    shutil.rmtree(file) if file.is_dir() else file.unlink()


def replaced_by(make):
    def replace(file):
        remove(file)
        make(file)

    return replace


STRUCTURES = {
    "missing": remove, "a directory": replaced_by(pathlib.Path.mkdir), "a pipe": replaced_by(os.mkfifo),
    "a link to itself": replaced_by(lambda file: file.symlink_to(file.name)),
    "a link to nothing": replaced_by(lambda file: file.symlink_to("nowhere")),
    "a link out of it": replaced_by(lambda file: file.symlink_to("/etc/passwd")),
    "a link within it": replaced_by(lambda file: file.symlink_to("teacher_card.md")),
    "unreadable": lambda file: file.chmod(0), "empty": replaced_by(pathlib.Path.touch),
    "one more": lambda file: file.with_name(f"{file.name}.copy").write_bytes(b"x"),
    "under another name": lambda file: file.rename(file.with_name(f"{file.name} "))}


@given(st.lists(st.tuples(st.sampled_from([*FILES, "variables", "fingerprint.pb", "teacher_card.md", "."]),
                          st.sampled_from(sorted(STRUCTURES))), min_size=1, max_size=3))
def test_exported_teachers_of_other_files(exported, folder, changes):
    """Missing, more, links, pipes and what may not be read, in the place of any of them: no end but a sentence."""
    path = folder / "structures" / "teacher"
    for made_unreadable in (path, path / "variables"):
        with contextlib.suppress(OSError):
            made_unreadable.chmod(0o755)
    shutil.rmtree(path.parent, ignore_errors=True)
    shutil.copytree(exported, path)
    for name, how in changes:
        with contextlib.suppress(OSError):  # of a file that is not there any more
            STRUCTURES[how](path / name)
    there = sorted(str(file) for file in path.parent.rglob("*"))
    for load in (tf_l2t.load_teacher, tf_l2t.load_signatures):
        with refused_or_done():
            load(path)
    assert sorted(str(file) for file in path.parent.rglob("*")) == there


@given(st.sampled_from(FILES[1:]), edits())
def test_graphs_of_exported_teachers(exported, folder, name, spoil):
    path = folder / "graph"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(exported, path)
    (path / name).write_bytes(spoil((path / name).read_bytes()))
    with refused_or_done():
        tf_l2t.load_signatures(path)
    there, known = ({str(p.relative_to(root)) for p in root.rglob("*")} for root in (path, exported))
    assert there == known


CIFAR = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}


@given(edits(), st.sampled_from((0, 2, 4)))
def test_cifars_pickles(folder, spoil, protocol):
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        content = pickle.dumps(CIFAR, protocol)
        (folder / name).write_bytes(spoil(content) if name == "test_batch" else content)
    with refused_or_done():
        assert cifar("cifar10", str(folder), dev_size=1).test.size > 0


@pytest.fixture(scope="module")
def network(folder):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(folder / "whole.keras")
    return (folder / "whole.keras").read_bytes()


@given(edits())
def test_networks(network, folder, spoil):
    (folder / "spoiled.keras").write_bytes(spoil(network))
    with refused_or_done(), _no_warnings():
        assert load_network(folder / "spoiled.keras").count_params() == 15


@given(st.sampled_from(("checkpoint", "state-2.json", "state-2.index", "state-2.data-00000-of-00001")), edits())
def test_states_of_a_training(folder, name, spoil):
    """Whatever becomes of the newest one: it is as it was, or the one before it is used."""
    path = folder / "states"
    shutil.rmtree(path, ignore_errors=True)
    variable = tf.Variable([0.0, 0.0])
    states = Checkpoints(path, [variable], {"seed": 1})
    for number in (1, 2):
        variable.assign([number, -number])
        states.save(number, {"number": number})
    (path / name).write_bytes(spoil((path / name).read_bytes()))
    with _no_warnings():
        try:
            found = Checkpoints(path, [variable], {"seed": 1}).restore()
        except ValueError as error:
            assert "another training" in str(error)
            return
    assert found in ({"number": 1}, {"number": 2})
    np.testing.assert_array_equal(variable, [found["number"], -found["number"]])


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-10**5, 10**5), st.just(2**63), st.just(10**400),
              st.just("x" * 300), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5)


@given(st.lists(st.sampled_from(("format", "teacher", "loss", "form", "num_classes", "features", "num_steps", "files",
                                 "training", "class", "config", "num_features", "num_keys")), min_size=1, max_size=3),
       st.lists(VALUES, min_size=3, max_size=3))
def test_metadata_of_exported_teachers(exported, folder, names, values):
    """Any value in the place of any field, those of the teacher's config among them."""
    path = folder / "teacher"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(exported, path)
    metadata = json.loads((path / FILES[0]).read_text())
    for name, value in zip(names, values, strict=False):
        inner = metadata["teacher"] if isinstance(metadata["teacher"], dict) else {}
        target = inner if name in ("class", "config") else inner.get("config") if name.startswith("num_f") or \
            name == "num_keys" else metadata
        if isinstance(target, dict):
            target[name] = value
    (path / FILES[0]).write_text(json.dumps(metadata))
    with refused_or_done(), _no_warnings():
        assert tf_l2t.load_teacher(path)(np.zeros(6, np.float32)).shape == (3, 3)


@contextlib.contextmanager
def _no_warnings():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_a_directory_of_anything_is_no_translator(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"PK\3\4 not a zip")
    with pytest.raises(ValueError, match=r"subwords|translator"):
        load_translator(tmp_path)
