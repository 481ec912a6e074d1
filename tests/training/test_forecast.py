"""The forecast of a training: its plan is that of the run, its times are the timed ones multiplied."""

import keras
import numpy as np
import pytest

import tf_l2t
from tests import tiny
from tf_l2t.training import forecast as module

TRAIN, DEV = tiny.arrays(24, 0), tiny.arrays(15, 1)


def trainer(**options):
    made = tf_l2t.TeacherTrainer(tiny.plain, tiny.teacher(), num_steps=40, batch_size=6, refresh_every=5,
                                 dev_sample_size=9, student_optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    made.compile(keras.optimizers.Adam(0.01), rollouts=3, **options)
    return made


@pytest.mark.parametrize("options", [{"truncate": 30}, {"memory_budget": "300MB"}, {"schedule": 9}])
def test_the_plan_is_that_of_the_run(options):
    made = trainer(**options)
    before = made.get_weights()
    found = made.forecast(TRAIN, DEV, teacher_steps=2, timed_steps=3)
    for a, b in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    made.fit(TRAIN, DEV, teacher_steps=1, verbose=0)
    assert found.choice == made.choice
    assert found.num_weights == 72 * 5 + 5 + 5 * 3 + 3
    assert (found.num_steps, found.swept) == (40, options.get("truncate", 40))
    assert found.total_seconds > found.teacher_step_seconds > 0


def test_times_are_multiplied(monkeypatch):
    """A look at the status 2 s, a step 1 s, the objective 5 s, a step of the sweep 4 s."""
    timed = iter([3.0, 10 * 1.0 + 2 * 2.0, 5.0, 100.0, 11 * (1.0 + 4.0) + 3 * 2.0 + 5.0])
    run = module._timed
    monkeypatch.setattr(module, "_timed", lambda function: (next(timed), run(function)[1]))
    found = trainer(truncate=30, schedule="store_all").forecast(
        TRAIN, DEV, teacher_steps=20, validation_freq=8, validation_rollouts=2, timed_steps=10)
    assert found.step_seconds == pytest.approx(1.0) and found.adjoint_seconds == pytest.approx(4.0)
    forward = 40 * 1.0 + 8 * 2.0
    assert found.teacher_step_seconds == pytest.approx(3 * (forward + 30 * 4.0 + 5.0))
    assert found.validation_seconds == pytest.approx(2 * (forward + 5.0))
    assert found.total_seconds == pytest.approx(20 * found.teacher_step_seconds + 4 * found.validation_seconds)
    assert found.compile_seconds == pytest.approx(100 - 66)
    assert "1,000.0 ms a student step, 4,000.0 ms a step of the sweep; 34 s to compile" in str(found)


def test_bad_arguments():
    with pytest.raises(ValueError, match="timed_steps must be"):
        trainer().forecast(TRAIN, DEV, 2, timed_steps=1)
    with pytest.raises(ValueError, match="teacher_steps"):
        trainer().forecast(TRAIN, DEV, 0)
    with pytest.raises(ValueError, match="memory_budget is"):
        trainer(memory_budget="1MB").forecast(TRAIN, DEV, 2)
