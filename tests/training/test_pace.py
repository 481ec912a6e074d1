"""Progress for people and for programs."""

import json
import math
import pathlib
from unittest import mock

import keras
import numpy as np
import pytest

from tests import tiny
from tf_l2t.data import ArrayPair
from tf_l2t.hypergradient import sgd
from tf_l2t.training import TeacherTrainer, pace, stretches, teacher_fit
from tf_l2t.training.checkpoints import Checkpoints
from tf_l2t.training.pace import Pace, duration, every_few_seconds, json_line, tell


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    return now


def test_durations_are_readable():
    assert [duration(s) for s in (2, 89, 91, 5400, 6000, 200_000)] == ["2.0 s", "89.0 s", "1.5 min", "1.5 h", "1.7 h",
                                                                      "2.3 days"]


def test_the_rest_at_the_pace_so_far(clock):
    """Two of eight parts were there before and say nothing: two more took ten seconds, four are left."""
    work = Pace(8, done=2)
    assert math.isnan(work.left(2))
    clock[0] += 10
    assert work.left(4) == pytest.approx(20) and work.left(8) == 0
    assert work.left(5, skipped=1) == pytest.approx(15)


def test_how_far_a_work_is_every_few_seconds(monkeypatch, clock):
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock[0])
    said = []
    progress = every_few_seconds(lambda *heard: said.append(heard), 5.0)
    for done in (500, 1000, 1500, 2000):
        clock[0] += 2
        progress(done, 2000)
    assert said == [(1500, 2000, pytest.approx(2.0))]
    clock[0] += 4
    progress(1900, 2000, 900)  # which came at once
    assert said[1:] == [(1900, 2000, pytest.approx(1.2))]


def test_json_has_nothing_that_is_not_json():
    record = {"path": pathlib.Path("a"), "nan": [math.nan, (1, -math.inf)], "of NumPy": {1: np.float32(0.5)},
              "none": None, "flag": np.bool_(True), "ü": np.int64(2**53), "pair": ArrayPair(1, (math.nan,))}
    line = json_line(record)
    assert json.loads(line, parse_constant=pytest.fail) == {
        "path": "a", "nan": [None, [1, None]], "of NumPy": {"1": 0.5}, "none": None, "flag": True, "ü": 2**53,
        "pair": {"x": 1, "y": [None]}}
    assert "\n" not in line and "ü" in line


def test_a_line(capsys):
    record = {"step": 1200, "loss": 0.123456, "row": "taught", "bad": math.inf}
    with mock.patch("absl.logging.info") as log:
        tell(record, 0, 30.0)
    log.assert_called_once_with("%s", "step 1,200, loss 0.1235, row taught, bad inf, 30.0 s left")
    assert capsys.readouterr().out == ""
    tell(record, 1, 300.0)
    assert capsys.readouterr().out == "step 1,200, loss 0.1235, row taught, bad inf, 5.0 min left\n"
    tell({"step": 1}, 1)
    assert capsys.readouterr().out == "step 1\n"
    tell(record, 2, 30.04)
    assert json.loads(capsys.readouterr().out) == {"step": 1200, "loss": 0.123456, "row": "taught", "bad": None,
                                                   "seconds_left": 30.0}
    tell({"step": 1}, 2)
    assert json.loads(capsys.readouterr().out) == {"step": 1}


def test_every_look_says_how_long_the_rest_takes(tmp_path, capsys, clock):
    def fit(first, stop, heard, again):
        clock[0] += 3
        return {"loss": 1.0}

    stretches.fit_in_stretches(fit, lambda record, before: record, lambda records: None,
                               checkpoints=Checkpoints(tmp_path, (), {}), num_steps=40, every=10, verbose=2)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40]
    assert [line["seconds_left"] for line in lines] == [9, 6, 3, 0]


def test_a_teachers_steps_as_json(capsys):
    trainer = TeacherTrainer(tiny.plain, tiny.teacher(), num_steps=4, batch_size=6, student_optimizer=sgd(0.05))
    trainer.compile(keras.optimizers.Adam(0.01), jit=False)
    history = trainer.fit(tiny.arrays(24, 0), tiny.arrays(15, 1), teacher_steps=3, validation_freq=3, verbose=2,
                          preflight=False).history
    validating, first, engine, *lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert validating == {"validating": "the teacher as it is", "students": 2, "steps": 4}
    assert first == {"compiling": "a rollout and its reverse sweep"} and engine == {"engine": str(trainer.choice)}
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert [line["objective"] for line in lines] == history["objective"]
    assert lines[-1]["seconds_left"] == 0 < lines[0]["seconds_left"] and lines[-1]["val_objective"] is not None


@pytest.mark.parametrize("steps", [3, 50])
def test_the_first_validation_tells_how_far_it_is(capsys, monkeypatch, steps):
    """Students that are followed in parts are the same ones."""
    def first(wrap):
        monkeypatch.setattr(teacher_fit, "every_few_seconds", wrap)
        trainer = TeacherTrainer(tiny.plain, tiny.teacher(), num_steps=steps, batch_size=6, student_optimizer=sgd(0.05))
        trainer.compile(keras.optimizers.Adam(0.01), jit=False)
        history = trainer.fit(tiny.arrays(24, 0), tiny.arrays(15, 1), teacher_steps=1, validation_freq=1, verbose=2,
                              preflight=False)
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return history.params["initial_val_objective"], lines

    whole, lines = first(lambda say: None)
    assert not any("student steps" in line for line in lines)
    value, lines = first(lambda say: lambda done, total: say(done, total, 1.5))
    told = [line for line in lines if "student steps" in line]
    assert value == whole and len(told) == 2 * min(steps, 20)
    assert [line["student steps"] for line in told] == sorted({line["student steps"] for line in told})
    assert told[-1] == {"student steps": 2 * steps, "total": 2 * steps, "seconds_left": 1.5}
