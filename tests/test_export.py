"""Teachers through the file system: out, in another process, and damaged."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from tests import tiny
from tf_l2t.losses import TAUGHT_FORMS, stable_loss
from tf_l2t.teachers import AttentionTeacher

IN_A_NEW_PROCESS = """
import json, sys
import numpy as np, tensorflow as tf
raw = tf.saved_model.load(sys.argv[1])
f, y, z = (np.array(v) for v in json.loads(sys.argv[2]))
f, z = f.astype("float32"), z.astype("float32")
named = raw.signatures["loss"](features=tf.constant(f), labels=tf.constant(y, tf.int32), logits=tf.constant(z))["loss"]
plain = raw.signatures["coefficients"](features=tf.constant(f))["coefficients"]
import tf_l2t
loaded = tf_l2t.load_teacher(sys.argv[1])
print(json.dumps([named.numpy().tolist(), plain.numpy().tolist(), loaded(f).numpy().tolist(), loaded.training]))
"""


@pytest.fixture
def exported(tmp_path):
    teacher = tiny.teacher()
    path = tf_l2t.export_teacher(teacher, tmp_path / "teacher", num_steps=40, summary={"val_accuracy": 0.9})
    return teacher, path


def test_a_new_process_sees_the_same_teacher(exported):
    teacher, path = exported
    rng = np.random.default_rng(0)
    f, y, z = rng.uniform(size=6), np.array([0, 2, 1, 1]), rng.standard_normal((4, 3))
    given = json.dumps([v.tolist() for v in (f, y, z)])
    out = subprocess.run([sys.executable, "-c", IN_A_NEW_PROCESS, str(path), given], check=True,
                         capture_output=True, text=True).stdout
    loss, coefficients, rebuilt, training = json.loads(out.splitlines()[-1])
    phi = teacher(f.astype(np.float32))
    np.testing.assert_allclose(coefficients, phi, rtol=1e-6)
    np.testing.assert_array_equal(rebuilt, phi)
    np.testing.assert_allclose(loss, stable_loss(y, tf.constant(z, tf.float32), phi), rtol=1e-6)
    assert training == {"val_accuracy": 0.9, "num_steps": 40}


def test_metadata(exported):
    _, path = exported
    metadata = json.loads((path / "tf_l2t.json").read_text())
    assert metadata["features"] == ["progress", "train_accuracy", "dev_accuracy", "dev_precision_0", "dev_precision_1",
                                    "dev_precision_2"]
    assert (metadata["num_classes"], metadata["num_steps"], metadata["loss"]) == (3, 40, "stable")
    assert metadata["versions"]["tensorflow"] == tf.__version__
    assert metadata["teacher"]["class"] == "AttentionTeacher"
    assert "saved_model.pb" in metadata["files"]


def test_the_card(exported, tmp_path):
    """Says what the metadata say; people may write in it, and what trainers note stands there too."""
    teacher, path = exported
    card = path / "teacher_card.md"
    rows = dict(re.findall(r"^\| ([^|]+?) \| (.+) \|$", card.read_text(), flags=re.MULTILINE))
    assert rows["class"] == "AttentionTeacher" and rows["classes"] == "3" and rows["horizon"] == "40 steps"
    assert rows["features, in order"].split(", ") == json.loads((path / "tf_l2t.json").read_text())["features"]
    assert rows["validated: accuracy"] == "0.9" and f"tensorflow {tf.__version__}" in rows["versions"]
    assert "num_steps=40" in card.read_text() and "students" not in rows  # nobody has noted any
    assert "as_keras_loss" in card.read_text() and "class sizes" not in card.read_text()
    imbalanced = AttentionTeacher(3, 6, loss="soft", class_counts=[9, 3, 1], ignored=[2])
    untrained = (tf_l2t.export_teacher(imbalanced, tmp_path / "untrained") / "teacher_card.md").read_text()
    assert "It was not trained, as far as is known" in untrained and "labels that are right" not in untrained
    imbalanced.note_training({"teacher_steps": 60})
    said = (tf_l2t.export_teacher(imbalanced, tmp_path / "imbalanced") / "teacher_card.md").read_text()
    assert json.loads((tmp_path / "imbalanced" / "tf_l2t.json").read_text())["intended_use"] in said
    assert "| class sizes that it corrects for | 9, 3, 1 |" in said and "labels that are right" in said
    assert "| features that it does not see | 2 |" in said and "of these proportions" in said
    card.write_text(card.read_text() + "Trained for the spring term.")
    tf_l2t.load_teacher(path)
    unknown = tf_l2t.export_teacher(tiny.teacher(), tmp_path / "unknown") / "teacher_card.md"
    assert "None" not in unknown.read_text() and "num_steps=...)" in unknown.read_text()
    noted = {"student": "mlp", "student_weights": 12_345, "train": 3500, "dev": 500, "seed": 4, "teacher_steps": 60}
    teacher.note_training(noted)
    again = tf_l2t.export_teacher(teacher, tmp_path / "again", num_steps=40) / "teacher_card.md"
    rows = dict(re.findall(r"^\| ([^|]+?) \| (.+) \|$", again.read_text(), flags=re.MULTILINE))
    assert (rows["students"], rows["their weights"]) == ("mlp", "12,345")
    assert (rows["dev examples"], rows["seed"]) == ("500", "4")


def test_classes_by_name(exported, tmp_path):
    """They are on the card, stay through loading and exporting, and another order is refused."""
    teacher, unnamed = exported
    names = ("cat", "cow", "dog")
    path = tf_l2t.export_teacher(teacher, tmp_path / "named", class_names=names)
    assert "| classes | 3: cat, cow, dog |" in (path / "teacher_card.md").read_text()
    loaded = tf_l2t.load_teacher(path, class_names=names)
    again = tf_l2t.export_teacher(loaded, tmp_path / "again")
    assert tf_l2t.load_teacher(again, np.array(names)).training["class_names"] == list(names)
    tf_l2t.load_teacher(again)
    with pytest.raises(ValueError, match=r"them in another order: \['dog'.*Number the labels as the teacher's"):
        tf_l2t.load_teacher(path, ("dog", "cow", "cat"))
    with pytest.raises(ValueError, match=r"for the classes \['cat', 'cow', 'dog'\]; received other ones"):
        tf_l2t.load_teacher(path, ("cat", "cow", "car"))
    with pytest.warns(UserWarning, match="does not say what its classes are called"):
        tf_l2t.load_teacher(unnamed, names)
    metadata = json.loads((path / "tf_l2t.json").read_text())
    for damaged in (5, [1, 2, 3], ["cat", "cow"], ["cat", "cat", "dog"], {"cat": 1}):
        metadata["training"]["class_names"] = damaged
        (path / "tf_l2t.json").write_text(json.dumps(metadata))
        with pytest.raises(ValueError, match=r"tf_l2t.json is damaged: class_names .* of 3 classes"):
            tf_l2t.load_teacher(path)
    for wrong in (names[:2], ("cat", "cat", "dog")):
        with pytest.raises(ValueError, match="different names of 3 classes"):
            tf_l2t.load_teacher(again, wrong)
        with pytest.raises(ValueError, match="different names of 3 classes"):
            tf_l2t.export_teacher(teacher, tmp_path / "wrong", class_names=wrong)
    assert not (tmp_path / "wrong").exists()


def test_a_restored_signature_is_differentiable(exported):
    teacher, path = exported
    restored = tf.saved_model.load(str(path))
    s = tf.constant(np.linspace(0, 1, 6), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(s)
        live = tf.reduce_sum(teacher(s) ** 2)
        loaded = tf.reduce_sum(restored.coefficients(s)["coefficients"] ** 2)
    np.testing.assert_allclose(tape.gradient(loaded, s), tape.gradient(live, s), rtol=1e-5)


def test_a_loaded_teacher_can_be_exported_and_trained_again(exported, tmp_path):
    teacher, path = exported
    loaded = tf_l2t.load_teacher(path)
    second = tf_l2t.load_teacher(tf_l2t.export_teacher(loaded, tmp_path / "second"))
    for a, b in zip(teacher.theta, second.theta, strict=True):
        np.testing.assert_array_equal(a, b)
    assert second.training["num_steps"] == 40
    loaded.values.assign_add(tf.ones_like(loaded.values))


def test_nothing_is_overwritten(exported, tmp_path):
    teacher, path = exported
    before = (path / "tf_l2t.json").read_bytes()
    with pytest.raises(ValueError, match="exists"):
        tf_l2t.export_teacher(teacher, path)
    assert (path / "tf_l2t.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="exists"):
        tf_l2t.export_teacher(teacher, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    tf_l2t.export_teacher(teacher, path, overwrite=True)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        tf_l2t.export_teacher(teacher, path, overwrite=True)
    assert (path / "notes.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "teacher"]  # no staging directory is left


@pytest.mark.parametrize("metadata", ["{", "[]", '{"format": 1}'])
def test_a_damaged_teacher_is_replaced_and_nothing_else_with_it(metadata, exported, tmp_path):
    teacher, path = exported
    (path / "tf_l2t.json").write_text(metadata)
    (path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"thesis\.txt"):
        tf_l2t.export_teacher(teacher, path, overwrite=True)
    (path / "thesis.txt").unlink()
    loaded = tf_l2t.load_teacher(tf_l2t.export_teacher(teacher, path, overwrite=True))
    np.testing.assert_array_equal(loaded.theta[0], teacher.theta[0])


def test_a_process_that_is_told_to_end_keeps_the_old_teacher(exported, monkeypatch):
    """At the worst moment, between the two renames."""
    teacher, path = exported
    before, rename = (path / "tf_l2t.json").read_bytes(), pathlib.Path.rename

    def stopped(self, target):
        if target == path and not self.name.endswith("-old"):
            raise SystemExit
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", stopped)
    with pytest.raises(SystemExit):
        tf_l2t.export_teacher(teacher, path, overwrite=True, num_steps=7)
    assert (path / "tf_l2t.json").read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["teacher"]


def test_names_and_numbers_that_cannot_be(exported):
    """Whatever the metadata say, it is a ValueError."""
    _, path = exported
    whole = json.loads((path / "tf_l2t.json").read_text())
    (path / "loop").symlink_to("loop")
    for name in ("x" * 300, "loop", "a\0b"):
        damaged = whole | {"files": whole["files"] | {name: "0"}}
        (path / "tf_l2t.json").write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match="is damaged"):
            tf_l2t.load_teacher(path)
    (path / "tf_l2t.json").write_text(json.dumps(whole | {"form": [10**400, *whole["form"][1:]]}))
    with pytest.raises(ValueError, match="was another function"):
        tf_l2t.load_teacher(path)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "graph": (lambda p: _flip(p / "saved_model.pb"), "saved_model.pb is not the file"),
    "variables": (lambda p: _flip(p / "variables" / "variables.data-00000-of-00001"), "is not the file"),
    "missing": (lambda p: (p / "variables" / "variables.index").unlink(), "variables.index is missing"),
    "no_metadata": (lambda p: (p / "tf_l2t.json").unlink(), "not of a teacher"),
    "bad_json": (lambda p: (p / "tf_l2t.json").write_text("{"), "damaged"),
    "no_fields": (lambda p: (p / "tf_l2t.json").write_text("{}"), "damaged"),
    "a_list": (lambda p: (p / "tf_l2t.json").write_text("[]"), "damaged"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_teachers(exported, kind):
    _, path = exported
    spoil, message = DAMAGE[kind]
    spoil(path)
    with pytest.raises(ValueError, match=message):
        tf_l2t.load_teacher(path)


@pytest.mark.parametrize(("change", "message"), [
    ({"format": 99}, "format 99"), ({"teacher": {"class": "Stranger", "config": {}}}, "no teacher class"),
    ({"num_classes": 4}, "contradicts"), ({"loss": "soft"}, "contradicts itself: the loss 'soft'"),
    ({"features": ["dev_accuracy", "progress", "train_accuracy", "dev_precision_0", "dev_precision_1",
                   "dev_precision_2"]}, r"trained on the features \['dev_accuracy', .*in this order"),
    ({"features": 6}, "trained on the features 6"), ({"versions": None}, "'versions'"),
    ({"files": {}}, "'files'"), ({"files": []}, "'files'"),
    ({"teacher": "AttentionTeacher"}, "'teacher'"), ({"training": None}, "'training'"), ({"num_steps": "1"}, "'num_st"),
    ({"teacher": {"class": "AttentionTeacher"}}, "no teacher class"),
    ({"teacher": {"class": "AttentionTeacher", "config": {"num_classes": 3, "num_features": 5, "loss": "stable"}}},
     "trained on the features"),
    ({"teacher": {"class": "AttentionTeacher", "config": {"num_classes": 3, "num_features": 6, "num_keys": 9}}},
     "variables"),
])
def test_metadata_that_does_not_fit(exported, change, message):
    _, path = exported
    metadata = json.loads((path / "tf_l2t.json").read_text())
    (path / "tf_l2t.json").write_text(json.dumps(metadata | change))
    with pytest.raises(ValueError, match=message):
        tf_l2t.load_teacher(path)


def test_a_teacher_of_a_loss_that_was_another_function(exported, monkeypatch):
    teacher, path = exported
    old = TAUGHT_FORMS["stable"]
    monkeypatch.setitem(TAUGHT_FORMS, "stable", old._replace(per_example=lambda *inputs: 1.001 * stable_loss(*inputs)))
    with pytest.raises(ValueError, match="another function"):
        tf_l2t.load_teacher(path)
    monkeypatch.setitem(TAUGHT_FORMS, "stable", old._replace(spread=0.01))
    with pytest.raises(ValueError, match="another function"):
        tf_l2t.load_teacher(path)
    monkeypatch.setitem(TAUGHT_FORMS, "stable", old)
    metadata = json.loads((path / "tf_l2t.json").read_text())
    (path / "tf_l2t.json").write_text(json.dumps(metadata | {"form": ["x"]}))
    with pytest.raises(ValueError, match="another function"):
        tf_l2t.load_teacher(path)
    del metadata["form"]
    (path / "tf_l2t.json").write_text(json.dumps(metadata))
    with pytest.warns(UserWarning, match="does not tell which form"):
        np.testing.assert_array_equal(tf_l2t.load_teacher(path).values, teacher.values)


def test_files_outside_the_directory_are_not_read(exported):
    _, path = exported
    metadata = json.loads((path / "tf_l2t.json").read_text())
    metadata["files"]["../outside"] = "0"
    (path / "tf_l2t.json").write_text(json.dumps(metadata))
    (path.parent / "outside").write_text("")
    with pytest.raises(ValueError, match="outside is missing"):
        tf_l2t.load_teacher(path)


def test_foreign_saved_models_and_missing_directories(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "foreign"))
    with pytest.raises(ValueError, match="not of a teacher"):
        tf_l2t.load_teacher(tmp_path / "foreign")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no SavedModel"):
        tf_l2t.load_teacher(tmp_path / "empty")
    with pytest.raises(ValueError, match="no directory"):
        tf_l2t.load_teacher(tmp_path / "nowhere")


def test_a_teacher_with_other_features_exports_their_number(tmp_path):
    path = tf_l2t.export_teacher(AttentionTeacher(3, 2), tmp_path / "t")
    assert json.loads((path / "tf_l2t.json").read_text())["features"] == 2
    assert tf_l2t.load_teacher(path).num_features == 2
