"""Callbacks of a teacher's training: stock ones, and what TensorBoard shows, read back."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from tests.event_files import tags
from tests.training.test_teacher_trainer import DEV, noisy_train, trainer
from tf_l2t.teachers import DiagonalTeacher
from tf_l2t.training import TeacherSummaries


def test_stock_callbacks_and_event_files(tmp_path):
    made = trainer()
    history = made.fit(noisy_train(), DEV, teacher_steps=4, validation_freq=2, verbose=0, callbacks=[
        keras.callbacks.TensorBoard(tmp_path / "stock"), keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.EarlyStopping("objective", mode="max", patience=99),
        keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), monitor="objective", mode="max"),
        TeacherSummaries(tmp_path / "ours", images_every=3, config={"rate": 0.5}, profile=(1, 2),
                         class_pairs=[("cat", "dog")], class_names=["cat", "cow", "dog"])])
    assert history.epoch == [0, 1, 2, 3]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 5
    kept = tf_l2t.load_teacher(tmp_path / "best.keras")
    assert (kept.num_classes, kept.training["teacher_steps"]) == (3, 4)
    assert kept.training["student"] == "Flatten, Dense, Dense"
    assert kept.training["student_optimizer"] == "SGD, learning rate 0.05, momentum 0.9"
    assert kept.training["val_objective"] == history.history["val_objective"][-1]
    assert "It was not trained" not in (tmp_path / "best.keras" / "teacher_card.md").read_text()
    shown = tags(tmp_path / "ours")
    for name in ("objective", "dev_accuracy", "gradient_norm", "adjoint_norm", "dropped"):
        written = [float(shown[f"teacher/{name}"][step]) for step in range(4)]
        np.testing.assert_allclose(written, history.history[name], rtol=1e-6)
    assert sorted(shown["teacher/val_objective"]) == [1, 3]
    assert '    "rate": 0.5' in shown["config"][0].item().decode()
    for moment in ("start", "middle", "end"):
        assert sorted(shown[f"coefficients/{moment}"]) == [0, 3]
        assert tf.io.decode_png(shown[f"coefficients/{moment}"][0][2]).shape[-1] == 3
        assert shown[f"coefficients/{moment}/values"][0][:, 2].sum() == 9  # every coefficient is in one bin
    assert sorted(shown["coefficients/pairs_by_step"]) == [0, 3]
    newest = made.last_result.rollout.trace["coefficients"][-1].numpy()
    for label, pair in (("Φ(cat, dog)", (0, 2)), ("Φ(dog, cat)", (2, 0))):
        written = shown[f"coefficients_of_pairs/{label}"]
        assert sorted(written) == [0, 1, 2, 3] and float(written[3]) == pytest.approx(newest[pair], rel=1e-6)
    (profile,) = (tmp_path / "ours" / "plugins" / "profile").rglob("*.xplane.pb")
    assert profile.stat().st_size > 0
    assert any(file.stat().st_size > 0 for file in (tmp_path / "stock").rglob("events*"))


def test_weights_are_saved_and_loaded(tmp_path):
    made, path = trainer(), str(tmp_path / "kept.weights.h5")
    made.fit(noisy_train(), DEV, teacher_steps=1, validation_freq=0, verbose=0, callbacks=[
        keras.callbacks.ModelCheckpoint(path, save_weights_only=True)])
    kept = made.get_weights()
    made.set_weights([value + 1 for value in kept])
    made.load_weights(path)
    for a, b in zip(made.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(a, b)
    for there in (tmp_path / "none", tmp_path):
        with pytest.raises(ValueError, match="does not hold the weights of a"):
            made.load_weights(str(there))


def test_what_a_teacher_s_training_is_not_kept_by(tmp_path):
    made = trainer()
    with pytest.raises(ValueError, match="leave it out, and give fit checkpoint_dir"):
        made.fit(noisy_train(), DEV, 1, callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")])
    assert not made.teacher.training


@pytest.mark.parametrize(("options", "message"), [
    ({"class_pairs": [(0, 3)]}, r"names \[3\]; there are classes 0 … 2"),
    ({"class_pairs": [(0, 1, 2)]}, "of two each"), ({"class_pairs": (0, 1)}, r"such as \[\(0, 1\)"),
    ({"class_pairs": ("cat", "dog"), "class_names": ["cat", "cow", "dog"]}, "of two each"),
    ({"class_names": ["cat", "cat", "dog"]}, "different names"), ({"images_every": 0}, "at least 1; received 0"),
    ({"class_pairs": [(0, "ape")], "class_names": ["cat", "cow", "dog"]}, r"names \['ape'\]"),
    ({"class_names": ["cat"]}, r"names of 3 classes; received \('cat',\)"),
    ({"profile": (3, 2)}, r"received \(3, 2\)"), ({"profile": (1,)}, "first and the last")])
def test_what_the_summaries_cannot_show(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        trainer().fit(noisy_train(), DEV, teacher_steps=1, validation_freq=0, verbose=0,
                      callbacks=[TeacherSummaries(tmp_path, **options)])
    assert not list(tmp_path.iterdir())


def test_a_diagonal_has_no_pairs(tmp_path):
    with pytest.raises(ValueError, match="has no coefficient for a pair"):
        trainer(DiagonalTeacher(3, 6, num_keys=2)).fit(
            noisy_train(), DEV, teacher_steps=1, validation_freq=0, verbose=0,
            callbacks=[TeacherSummaries(tmp_path, class_pairs=[(0, 1)])])
