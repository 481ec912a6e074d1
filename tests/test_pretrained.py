"""The package's teachers: whole, described, and still better for new students than cross entropy."""

import json
import pathlib

import keras
import numpy as np
import pytest

import tf_l2t
from configs import pretrained as configs
from tf_l2t import pretrained
from tf_l2t.teacher_card import teacher_card
from trainers import command

FOLDER = pathlib.Path(pretrained.__file__).parent
SEEDS, RATE = (31, 32), 0.2
BETTER = {"noisy_digits": 0.4, "imbalanced_digits": 0.8, "clean_digits": 0.97}  # measured: 0.24, 0.67, 0.90


def errors(name, taught):
    """Test errors of new students on the data that the teacher's config names."""
    config = configs.get_config(name)
    splits, teacher, found = command.load_splits(config), tf_l2t.pretrained_teacher(name), []
    for seed in SEEDS:
        keras.utils.set_random_seed(seed)
        model = command.student_fn(config, splits)()
        optimizer = keras.optimizers.SGD(keras.optimizers.schedules.PolynomialDecay(RATE, 300, 0.0), momentum=0.9)
        loss = teacher.as_keras_loss() if taught else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"])
        batches = tf_l2t.data.batch_dataset(tf_l2t.data.array_batches(splits.train.x, splits.train.y, 50), seed, 300)
        model.fit(batches, verbose=0,
                  callbacks=[tf_l2t.Teaching(teacher, splits.dev, num_steps=300)] if taught else [])
        found.append(1 - model.evaluate(splits.test.x, splits.test.y, verbose=0)[1])
    return np.mean(found)


@pytest.mark.parametrize("name", sorted(pretrained.TEACHERS))
def test_new_students_are_better_than_by_cross_entropy(name):
    assert errors(name, taught=True) < BETTER[name] * errors(name, taught=False)


@pytest.mark.parametrize("name", sorted(pretrained.TEACHERS))
def test_each_says_where_it_is_from(name):
    """The card and the metadata are of the config's data."""
    about = tf_l2t.pretrained_teacher(name).training
    config = configs.get_config(name)
    assert about["data"] == command.load_splits(config).about
    assert (about["teacher_steps"], about["num_steps"], about["dropped"]) == (config.teacher_training.steps, 300, 0)
    card = (FOLDER / name / "teacher_card.md").read_text()
    assert card == teacher_card(json.loads((FOLDER / name / "tf_l2t.json").read_text()))
    assert f"| validated: accuracy | {about['val_accuracy']:.4g} |" in card and "| students | mlp |" in card
    assert sum(file.stat().st_size for file in (FOLDER / name).rglob("*") if file.is_file()) < 50_000
    assert json.loads((FOLDER / name / "tf_l2t.json").read_text())["loss"] == config.teacher.loss


def test_the_folders_are_the_names():
    assert {path.parent.name for path in FOLDER.glob("*/tf_l2t.json")} == set(pretrained.TEACHERS)
    with pytest.raises(ValueError, match=r"are \['clean_digits', .*received 'digits'"):
        tf_l2t.pretrained_teacher("digits")
    with pytest.raises(ValueError, match="received 'digits'"):
        configs.get_config("digits")
