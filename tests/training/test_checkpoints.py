"""States on disk: whole or not used, of this training or refused."""

import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.training import UnwritableError, checkpoints
from tf_l2t.training.checkpoints import Checkpoints


def network():
    """Weights, an optimizer's slots and a dropout's seed: whatever a training has."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(2)])
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(model.trainable_variables)
    return [*model.variables, *optimizer.variables, tf.Variable(7, dtype=tf.int64)]


def values(variables):
    return [variable.numpy() for variable in variables]


def change(variables):
    for variable in variables:
        variable.assign(variable + tf.ones((), variable.dtype))


def saved(folder, numbers, identity=None, **options):
    """The variables' values by the numbers of the states."""
    variables = network()
    states, found = Checkpoints(folder, variables, identity or {"seed": 1}, **options), {}
    for number in numbers:
        change(variables)
        states.save(number, {"step": number, "loss": [0.1 * number, float("inf")]})
        found[number] = values(variables)
    return found


def restored(folder, identity=None):
    variables = network()
    record = Checkpoints(folder, variables, identity or {"seed": 1}).restore()
    return record, values(variables)


def assert_state(folder, number, expected):
    record, found = restored(folder)
    assert record == {"step": number, "loss": [0.1 * number, float("inf")]}
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_newest_state_comes_back_and_older_ones_go(tmp_path):
    assert restored(tmp_path / "new")[0] is None
    found = saved(tmp_path / "states", range(1, 6), keep=2)
    assert_state(tmp_path / "states", 5, found[5])
    assert sorted(p.name for p in (tmp_path / "states").iterdir()) == [
        ".lock", "checkpoint",
        *(f"state-{n}.{end}" for n in (4, 5) for end in ("data-00000-of-00001", "index", "json"))]


def test_a_state_of_another_machine_or_version_warns(tmp_path, monkeypatch):
    """Once, and it is used: sums are rounded otherwise there."""
    found = saved(tmp_path, (1, 2))
    monkeypatch.setattr(checkpoints, "environment", lambda: {"machine": "two cores", "versions": {"keras": "9"}})
    differ = "will not end with the same bits: .* then, two cores now; .* then, .*'9'"
    with pytest.warns(UserWarning, match=differ) as told:
        assert_state(tmp_path, 2, found[2])
    assert len(told) == 1


def test_identities_are_of_numbers_that_json_has(tmp_path):
    saved(tmp_path / "states", (1,), {"steps": np.int64(3), "rate": np.float32(0.5)})
    assert restored(tmp_path / "states", {"steps": 3, "rate": 0.5})[0]["step"] == 1
    with pytest.raises(ValueError, match="not JSON compliant"):
        saved(tmp_path / "infinite", (1,), {"limit": float("inf")})


def test_a_variable_that_is_there_twice_is_kept_once(tmp_path):
    variable = tf.Variable([1.0, 2.0])
    states = Checkpoints(tmp_path, [variable, variable], {})
    states.save(1, {})
    variable.assign([0.0, 0.0])
    assert states.restore() == {}
    np.testing.assert_array_equal(variable, [1, 2])
    assert json.loads((tmp_path / "state-1.json").read_text())["identity"]["variables"] == [[2, "float32"]]


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "flipped": lambda p: flip(p / "state-3.data-00000-of-00001"),
    "flipped_index": lambda p: flip(p / "state-3.index"),
    "flipped_digest": lambda p: flip(p / "state-3.json"),
    "truncated": lambda p: (p / "state-3.data-00000-of-00001").write_bytes(b""),
    "torn": lambda p: (p / "state-3.index").unlink(),
    "not_sealed": lambda p: (p / "state-3.json").unlink(),
    "half_a_seal": lambda p: (p / "state-3.json").write_text("{"),
    "a_list": lambda p: (p / "state-3.json").write_text("[]"),
    "foreign_files": lambda p: (p / "state-3.data-00001-of-00002").write_bytes(b"x"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.filterwarnings("ignore:.*state-3.*:UserWarning")
def test_a_damaged_state_is_not_used_and_training_goes_on_from_the_one_before(tmp_path, kind):
    found = saved(tmp_path, (1, 2, 3))
    DAMAGE[kind](tmp_path)
    if kind == "not_sealed":  # as after a kill while it was written: nothing to warn of
        assert_state(tmp_path, 2, found[2])
    else:
        with pytest.warns(UserWarning, match=r"state-3\.json.*the state before it is used"):
            assert_state(tmp_path, 2, found[2])
    for extra in tmp_path.glob("*-of-00002"):
        extra.unlink()
    variables = network()
    states = Checkpoints(tmp_path, variables, {"seed": 1})
    states.restore()
    change(variables)
    states.save(3, {"step": 3, "loss": [0.1 * 3, float("inf")]})  # the same numbers again
    assert_state(tmp_path, 3, values(variables))


LISTS = {"none": None, "empty": b"", "garbage": b"garbage {", "no text": b'model_checkpoint_path: "stat\xe5-3"\n',
         "of one": b'model_checkpoint_path: "state-3"\nall_model_checkpoint_paths: "state-3"\n',
         "of others": b'model_checkpoint_path: "state-3"\n' + b"".join(
             b'all_model_checkpoint_paths: "../precious-%d"\nall_model_checkpoint_timestamps: %d\n' % (n, n)
             for n in (1, 2, 3))}


@pytest.mark.parametrize("content", LISTS.values(), ids=LISTS)
def test_tensorflow_s_list_of_states_is_not_believed(content, tmp_path):
    """It deletes what stands there, wherever that is, and forgets what does not."""
    found = saved(tmp_path / "states", (1, 2, 3))
    for number in (1, 2, 3):
        tf.train.Checkpoint(v=tf.Variable(1.0)).write(str(tmp_path / f"precious-{number}"))
    precious = {file.name: file.read_bytes() for file in tmp_path.glob("precious*")}
    file = tmp_path / "states" / "checkpoint"
    file.unlink(missing_ok=True) if content is None else file.write_bytes(content)
    assert_state(tmp_path / "states", 3, found[3])
    file.unlink(missing_ok=True) if content is None else file.write_bytes(content)
    saved(tmp_path / "states", (4,))
    assert sorted(seal.name for seal in (tmp_path / "states").glob("*.json")) == [
        f"state-{number}.json" for number in (2, 3, 4)]
    assert {file.name: file.read_bytes() for file in tmp_path.glob("precious*")} == precious


@pytest.mark.filterwarnings("ignore:.*state-.*:UserWarning")
def test_behind_states_that_are_all_damaged_it_begins_anew(tmp_path):
    saved(tmp_path, (1, 2, 3))
    for name in ("1", "2", "3"):
        (tmp_path / f"state-{name}.index").unlink()
    assert restored(tmp_path)[0] is None  # from the beginning
    assert_state(tmp_path, 4, saved(tmp_path, (4,))[4])
    assert sorted(p.name for p in tmp_path.glob("state-*")) == [f"state-4.{end}" for end in (
        "data-00000-of-00001", "index", "json")]


def test_states_of_another_training_are_refused_and_left_as_they_are(tmp_path):
    saved(tmp_path, (1,))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="of another rate and seed"):
        restored(tmp_path, {"seed": 2, "rate": 0.1})
    with pytest.raises(ValueError, match="of another variables"):
        Checkpoints(tmp_path, network()[1:], {"seed": 1}).restore()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    with pytest.raises(ValueError, match="keep must be at least 2"):
        Checkpoints(tmp_path, network(), {}, keep=1)


@pytest.mark.parametrize("foreign", [1, 3])
@pytest.mark.filterwarnings("ignore:.*state-.*:UserWarning")
def test_a_foreign_state_among_those_of_a_training_is_passed_over(foreign, tmp_path):
    """Newer than its own, or older; it is left as it is until one of the same number is written."""
    found = saved(tmp_path / "states", (2,))
    saved(tmp_path / "other", (foreign,), {"seed": 2})
    for file in (tmp_path / "other").glob("state-*"):
        shutil.copy(file, tmp_path / "states")
    copied = {file.name: file.read_bytes() for file in (tmp_path / "other").glob("state-*")}
    variables = network()
    states = Checkpoints(tmp_path / "states", variables, {"seed": 1})
    if foreign == 3:
        with pytest.warns(UserWarning, match=r"state-3\.json.* of another training, of another seed; the state before"):
            states.restore()
    else:
        assert states.restore()["step"] == 2
    for a, b in zip(values(variables), found[2], strict=True):
        np.testing.assert_array_equal(a, b)
    for number in (3, 4, 5, 6):
        states.save(number, {"step": number})
    assert states.restore()["step"] == 6
    there = {file.name: file.read_bytes() for file in (tmp_path / "states").glob("state-1.*")}
    assert there == (copied if foreign == 1 else {})
    assert len([*(tmp_path / "states").glob("state-*.json")]) == 3 + (foreign == 1)


FULL = """
import resource, sys
sys.path.insert(0, ".")
from tests.training.test_checkpoints import *
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))  # to a process, as a full disk
variables = network()
states = Checkpoints(sys.argv[1], variables, {"seed": 1})
print(states.restore()["step"])
try:
    states.save(4, {})
except UnwritableError as error:
    print(error)
"""


def test_a_full_disk_says_so_and_harms_nothing(tmp_path):
    found = saved(tmp_path / "used", (1, 2, 3))
    shutil.copytree(tmp_path / "used", tmp_path / "states")
    ends = []
    for name in ("used", "states"):
        ends.append(subprocess.run([sys.executable, "-c", FULL, str(tmp_path / name)], capture_output=True, text=True,
                                   check=False))
    assert "another process works in" in ends[0].stderr  # this one
    assert ends[1].returncode == 0, ends[1].stderr
    first, said = ends[1].stdout.splitlines()[:2]
    assert first == "3" and "state 4 could not be written to" in said
    assert_state(tmp_path / "states", 3, found[3])


WITHIN = """
import resource, sys
import tensorflow as tf
from tf_l2t.training import UnwritableError
from tf_l2t.training.checkpoints import Checkpoints
weights = tf.Variable(tf.ones(3000))
states = Checkpoints(sys.argv[1], [weights], {})
for number in (1, 2):
    states.save(number, {"step": number})
weights.assign(tf.zeros(3000))
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # less than a state, more than TensorFlow's list of them
try:
    states.save(3, {"step": 3})
except UnwritableError as error:
    print(error)
print(states.restore(), float(tf.reduce_min(weights)))
"""


def test_a_disk_that_is_full_amid_a_state(tmp_path):
    done = subprocess.run([sys.executable, "-c", WITHIN, str(tmp_path)], capture_output=True, text=True, check=True)
    said, then = done.stdout.splitlines()[-2:]
    assert "state 3 could not be written to" in said and "File too large" in done.stdout
    assert then == "{'step': 2} 1.0" and not (tmp_path / "state-3.json").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableError, match="cannot be made"):
        Checkpoints(tmp_path / "file" / "states", [], {})
