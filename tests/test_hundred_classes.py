"""Teachers of 100 classes, as CIFAR-100 needs them: Φ of 100 × 100, and 100 precisions in the state."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from tests.commands import run_module
from tests.data import original
from tests.test_trainers import run
from tf_l2t.data import CIFAR100_CLASSES, ArrayPair
from tf_l2t.features import feature_names
from tf_l2t.hypergradient import check_hypergradient, initial_state, sgd
from tf_l2t.losses import taught_form
from tf_l2t.objectives import log_likelihood
from tf_l2t.students import FunctionalStudent
from tf_l2t.teachers import AttentionTeacher
from tf_l2t.training import classification_problem

CLASSES = 100
CELL = "configs/table2.py:resnet8-cifar100"


def _images(count, seed):
    """Images whose class shows in two colours; labels of every class."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(count) % CLASSES)
    x = rng.integers(0, 40, (count, 32, 32, 3))
    x[:, :, :16, 0] += 20 * (y % 10).reshape(-1, 1, 1)
    x[:, :, 16:, 1] += 20 * (y // 10).reshape(-1, 1, 1)
    return x.astype(np.uint8), y


def _student():
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Dense(6, activation="tanh")(inputs)))


@pytest.mark.parametrize("loss", ["mixture", "soft"])
def test_hypergradient_against_differences(loss):
    student = FunctionalStudent(_student, dtype="float64")
    rng = np.random.default_rng(0)
    train, dev = (ArrayPair(rng.standard_normal((count, 4)), np.arange(count) % CLASSES) for count in (200, 100))
    problem = classification_problem(student, train, dev, loss=taught_form(loss).per_example, objective=log_likelihood,
                                     optimizer=sgd(0.1, momentum=0.9), num_steps=8, batch_size=40, refresh_every=3,
                                     dev_sample_size=100)
    names = feature_names(CLASSES)
    assert names[-CLASSES:] == tuple(f"dev_precision_{i}" for i in range(CLASSES))
    teacher = AttentionTeacher(CLASSES, len(names), num_keys=3, loss=loss)
    teacher.values.assign_add(tf.random.stateless_normal(teacher.values.shape, [0, 1], stddev=0.05))
    report = check_hypergradient(problem, teacher, initial_state(problem, *student.init(5)), seed=3,
                                 schedules=("every_k",), dot_product=False, verbose=False)
    assert report.passed, str(report)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return original.archive(tmp_path_factory.mktemp("cifar"), "cifar100",
                            original.files("cifar100", "python", [_images(4_100, 0)], _images(200, 1)))


@pytest.fixture(scope="module")
def table(archive, tmp_path_factory):
    """The quick variant, on the data set's own images; its teacher first sees short runs, then longer ones, in part."""
    workdir = tmp_path_factory.mktemp("runs") / "table"
    done = run("compare", workdir, "--config.quick", "--verbose=0", f"--config.data.path={archive}",
               "--config.teacher_training.curriculum=((15, 1),)",
               "--config.teacher_training.validation_freq=0", config=CELL)  # the last one is kept, better or not
    assert done.returncode == 0, done.stderr
    return workdir, done


@pytest.fixture(scope="module")
def teacher_dir(table):
    return table[0] / "dev500" / "teachers" / "0" / "teacher"


def test_the_quick_variant_makes_a_table(table):
    workdir, done = table
    results = json.loads((workdir / "results.json").read_text())["500"]
    assert [row["row"] for row in results] == ["cross_entropy", "smooth", "taught"]
    assert all(0 < 100 * accuracy < 100 for row in results for accuracy in row["test_accuracy"])
    manifest = json.loads((workdir / "manifest.json").read_text())
    assert manifest["config"]["data"]["recipe"] == "l2t_dlf" and manifest["data"]["500"]["source"] == "cifar100"
    for text in (done.stdout, *((workdir / name).read_text() for name in ("table.md", "report.html"))):
        assert "Quoted, not measured here: Table 2 of the paper, error in %: cross entropy 39.79" in text


def test_its_teacher_is_exported_and_read(teacher_dir):
    teacher = tf_l2t.load_teacher(teacher_dir, CIFAR100_CLASSES)
    with pytest.raises(ValueError, match="in another order"):
        tf_l2t.load_teacher(teacher_dir, sorted(CIFAR100_CLASSES, reverse=True))
    state = np.full((1, CLASSES + 3), 0.2, np.float32)
    start = AttentionTeacher(CLASSES, CLASSES + 3, loss="soft")
    phi, before = np.asarray(teacher(state)), np.asarray(start(state))
    assert phi.shape == before.shape and phi.shape[-2:] == (CLASSES, CLASSES)
    assert 0 < np.abs(phi - before).max() < 1 and np.isfinite(phi).all()
    assert teacher.training["curriculum"] == [{"num_steps": 15, "teacher_steps": 1}]
    assert teacher.training["teacher_steps"] == 2 and teacher.training["data"]["source"] == "cifar100"


def test_figure_4_by_class_name(teacher_dir, archive, tmp_path):
    done = run("draw_coefficients", tmp_path / "figure4", "--config.quick", f"--config.data.path={archive}",
               f"--config.compare.teacher={teacher_dir}", config=CELL)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "figure4" / "figures").iterdir()} == {"coefficients.png", "pairs.png"}
    wrong = run("draw_coefficients", tmp_path / "other", "--config.quick", f"--config.data.path={archive}",
                f"--config.compare.teacher={teacher_dir}", "--config.compare.pairs=(('otter', 'unicorn'),)",
                config=CELL)
    assert wrong.returncode == 2 and "'unicorn'" in wrong.stderr and not (tmp_path / "other").exists()
    assert "otter" in CIFAR100_CLASSES


def test_the_plan_of_a_long_run(archive):
    """The cell itself: of 28,125 steps of ResNet-8 the last fifth is swept, planned without one being run."""
    done = run_module("trainers.train_teacher", f"--config={CELL}", "--dry_run", "--timed_steps=0",
                      f"--config.data.path={archive}", "--config.data.dev_size=500")
    assert done.returncode == 0, done.stderr
    assert "100 classes" in done.stdout and "taught 38.27" in done.stdout
    engine = done.stdout.splitlines()[-1]
    assert engine.startswith("engine: forward_over_reverse, 1 segments of 5625 steps, 1 snapshots: predicted peak")
