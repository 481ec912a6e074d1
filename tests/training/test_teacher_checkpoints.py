"""A teacher's training that was stopped, at any moment and by whatever, ends as the one that was not."""

import itertools
import json
import os
import signal
import time

import keras
import numpy as np
import pytest

import tf_l2t
from tests import tiny
from tests.commands import start_module
from tests.training.test_teacher_trainer import DEV, noisy_train
from tf_l2t.training import TeacherTrainer
from tf_l2t.training.teacher_progress import Progress

STEPS = 6


class Stop(keras.callbacks.Callback):
    """Ends the process' work after a step, before it is kept, or at the validation before the first."""

    def __init__(self, after):
        super().__init__()
        self._after = after

    def on_epoch_begin(self, epoch, logs=None):
        if epoch > self._after:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self._after:
            raise KeyboardInterrupt


class Enough(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 2


def flipped(images, seed):
    return images[:, :, ::-1]


def fit(folder, *callbacks, student=tiny.plain, teacher_steps=STEPS, run=None, verbose=0, **options):
    """With everything that the steps remember: slots, a falling rate, rollbacks, a penalty, the best weights."""
    made = TeacherTrainer(student, tf_l2t.teachers.AttentionTeacher(3, 6, num_keys=4), **({
        "num_steps": 15, "batch_size": 12, "refresh_every": 5,
        "student_optimizer": keras.optimizers.SGD(0.05, momentum=0.9)} | (run or {})))
    rate = keras.optimizers.schedules.CosineDecay(0.3, STEPS)
    made.compile(keras.optimizers.Adam(rate), **({"rollouts": 2, "rollback": 0.0, "penalty": 0.1} | options))
    history = made.fit(noisy_train(), DEV, teacher_steps, validation_freq=2, verbose=verbose, callbacks=callbacks,
                       checkpoint_dir=folder)
    return made, history


def wider():
    layers = [keras.layers.Flatten(), keras.layers.Dense(6, activation="tanh"), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input(tiny.IMAGE), *layers])


def told(history):
    return ({name: values for name, values in history.history.items() if name != "seconds"},
            history.epoch, {name: value for name, value in history.params.items() if name != "verbose"})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    made, history = fit(tmp_path_factory.mktemp("whole") / "states")
    assert history.history["rollbacks"][-1] > 0 and len(set(history.history["learning_rate"])) == STEPS
    return made, history


def assert_same(made, history, whole):
    for a, b in zip(made.get_weights(), whole[0].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(made.optimizer.variables, whole[0].optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert told(history) == told(whole[1])
    assert made.teacher.training == whole[0].teacher.training


@pytest.mark.parametrize("stops", [(-1,), (0, 3), (5,)])
def test_it_ends_with_the_same_bits(tmp_path, whole, stops):
    for after in stops:
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "states", Stop(after))
    assert_same(*fit(tmp_path / "states"), whole)


def test_it_says_that_it_goes_on(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "states", Stop(1), teacher_steps=3)
    assert "goes on" not in capsys.readouterr().out
    fit(tmp_path / "states", teacher_steps=3, verbose=2)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(line.get("training", "").startswith("goes on in teacher step 1, ") for line in told) == 1


def test_the_record_of_a_long_history_is_small_and_comes_back_as_it_was():
    """It is written after every step, and most of what a step's record costs is what was written before."""
    steps, odd = 1000, [0.1, float("nan"), -float("inf"), 1e-320]
    history = {"objective": np.random.default_rng(0).standard_normal(steps).tolist(), "dropped": list(range(steps)),
               "odd": odd, "none": [], "of a callback": ["a", "b"]}
    progress = Progress(step=steps, epochs=list(range(steps)), validated=[5, 10], initial={"val_objective": -1.5},
                        history=history)
    text = json.dumps(progress.to_record())
    assert len(text) < 3 * 11 * steps + 1000  # three columns, 8 bytes a number in Base64; 20 as decimals
    found = Progress.from_record(json.loads(text))
    assert repr(found) == repr(progress)
    assert all(isinstance(value, int) for value in found.history["dropped"] + found.epochs)
    assert Progress.from_record(json.loads(json.dumps(vars(progress)))).history["objective"] == history["objective"]


def test_a_finished_training_is_not_made_again(tmp_path, whole):
    first = fit(tmp_path / "states")
    again = fit(tmp_path / "states", Stop(-2))  # would be raised by any step
    for found in (first, again):
        assert_same(*found, whole)
    assert again[0].last_result is None


def test_a_training_that_a_callback_ended_has_ended(tmp_path):
    first = fit(tmp_path / "states", Enough())
    again = fit(tmp_path / "states", Stop(-2))
    assert len(first[1].epoch) == 3
    assert_same(*again, first)


@pytest.mark.parametrize(("options", "match"), [
    ({"teacher_steps": 7}, "of another training"), ({"penalty": 0.2}, "of another training"),
    ({"student": wider}, "of another students"), ({"clip_norm": 2.0}, "of another training"),
    ({"run": {"student_optimizer": keras.optimizers.SGD(0.5, momentum=0.9)}}, "of another students"),
    ({"run": {"dev_sample_size": 5}}, "of another students"), ({"run": {"augment": flipped}}, "of another students"),
    ({"truncate": 3}, "of another engine")])
def test_another_training_is_refused(tmp_path, options, match):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "states", Stop(-1))
    before = {file.name: file.read_bytes() for file in (tmp_path / "states").iterdir()}
    with pytest.raises(ValueError, match=match):
        fit(tmp_path / "states", **options)
    assert {file.name: file.read_bytes() for file in (tmp_path / "states").iterdir()} == before


COMMAND = ["trainers.train_teacher", "--config", "configs/demo.py", "--verbose=0",
           "--config.training.num_steps=60", "--config.data.dev_size=60", "--config.data.test_size=200",
           "--config.teacher_training.steps=8", "--config.teacher_training.validation_freq=3",
           "--config.teacher_training.xla=False"]


def start(workdir):
    return start_module(*COMMAND, "--workdir", str(workdir))


def wait_for_state(workdir, number):
    deadline = time.monotonic() + 300
    while not (workdir / f"checkpoints/0/state-{number}.json").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_processes_end_with_the_same_teacher(tmp_path):
    """SIGKILL after a state and in the middle of a step; SIGTERM, which waits for the end of a step."""
    whole = start(tmp_path / "whole")
    states = itertools.count(1)
    for pause, number in ((0.0, signal.SIGKILL), (0.05, signal.SIGKILL), (0.0, signal.SIGTERM)):
        process = start(tmp_path / "run")
        wait_for_state(tmp_path / "run", next(states) + (number == signal.SIGTERM))
        time.sleep(pause)
        process.send_signal(number)
        _, error = process.communicate()
        if number == signal.SIGTERM:
            assert process.returncode == os.EX_TEMPFAIL, error
            assert "the same command goes on" in error and "Traceback" not in error
        else:
            assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "run" / "teacher").exists()
    for process in (whole, None, None):  # at last once more: it is finished
        finished = process or start(tmp_path / "run")
        output, error = finished.communicate()
        assert finished.returncode == 0, error
        assert "teacher:" in output
    found, expected = (tf_l2t.load_teacher(tmp_path / name / "teacher") for name in ("run", "whole"))
    for a, b in zip(found.theta, expected.theta, strict=True):
        np.testing.assert_array_equal(a, b)
    assert found.training == expected.training
