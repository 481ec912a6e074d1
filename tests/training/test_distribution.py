"""A teacher's training on several replicas and in several processes, against one."""

import json
import pathlib
import signal
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from tests import tiny
from tests.clusters import environments
from tests.commands import start_module
from tests.training.test_teacher_checkpoints import Stop
from tests.training.test_teacher_trainer import DEV, noisy_train, trainer
from tf_l2t.training import ClusterRefusedError
from tf_l2t.training.replicas import Replicas


@pytest.fixture(scope="module")
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def fit(steps=3, folder=None, callbacks=(), **options):
    made = trainer(num_steps=12, **({"penalty": 0.01} | options))
    history = made.fit(noisy_train(), DEV, steps, validation_freq=3, validation_rollouts=3, verbose=0,
                       callbacks=callbacks, checkpoint_dir=folder)
    return made, {name: values for name, values in history.history.items() if name != "seconds"}


# float32 sums in another order: 1e-7 of the largest, and Adam's first steps divide by their own size.
def assert_close(a, b):
    (made, history), (other, expected) = a, b
    for x, y in zip(made.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    assert history.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_rollouts_spread_over_replicas_train_the_same_teacher(strategy):
    """Three of them over two replicas: the last round has one, and so have the validations."""
    assert_close(fit(rollouts=3, strategy=strategy), fit(rollouts=3))


def test_a_training_goes_on_with_another_number_of_replicas(strategy, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(rollouts=2, strategy=strategy, folder=tmp_path / "states", callbacks=[Stop(1)])
    assert_close(fit(rollouts=2, folder=tmp_path / "states"), fit(rollouts=2))


def test_a_batch_split_over_replicas_trains_the_same_teacher(strategy):
    assert_close(fit(strategy=strategy, distribute="batch"), fit(jit=False))


def test_what_does_not_fit_a_strategy(strategy):
    with pytest.raises(ValueError, match="strategy must be a tf"):
        trainer(strategy=tf.distribute.OneDeviceStrategy("CPU:0"))
    with pytest.raises(ValueError, match="distribute must be one of"):
        trainer(strategy=strategy, distribute="weights")
    made = tf_l2t.TeacherTrainer(tiny.plain, tiny.teacher(), num_steps=5, batch_size=7,
                                 student_optimizer=keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="multiple of the 2 replicas"):
        made.compile(keras.optimizers.Adam(0.01), strategy=strategy, distribute="batch")
    for option in ({"jit": True}, {"hvp": "saved_residuals"}):
        with pytest.raises(ValueError, match="no XLA and no saved residuals"):
            trainer(strategy=strategy, distribute="batch", **option)
    made = tf_l2t.TeacherTrainer(tiny.synchronized_batchnorm, tiny.teacher(), num_steps=5, batch_size=8,
                                 student_optimizer=keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match=r"\['batch_normalization\w*'\] are synchronised over replicas"):
        made.compile(keras.optimizers.Adam(0.01), strategy=strategy)
    with strategy.scope():
        teacher = tiny.teacher()
    with pytest.raises(ValueError, match="outside of strategy"):
        trainer(teacher, strategy=strategy)


def test_what_another_process_refuses_is_refused(monkeypatch):
    replicas = Replicas(None)
    assert replicas.together(lambda: 3) == 3
    monkeypatch.setattr(replicas, "any", lambda flag: True)
    with pytest.raises(ClusterRefusedError, match="another process of this cluster refuses"):
        replicas.together(lambda: 3)
    with pytest.raises(OSError, match="mine"):
        replicas.together(pathlib.Path("/nowhere/mine").read_bytes)


def test_replicas_take_turns(strategy):
    replicas = Replicas(strategy)
    seen = []

    def double(items):
        seen.append(items)
        return [2 * item for item in items]

    assert replicas.run(double, [1, 2, 3]) == [(0, 2), (1, 4), (2, 6)]
    assert seen == [[1, 2], [3, 3]]
    assert (replicas.count, replicas.num_processes, replicas.process) == (2, 1, 0)


class Cluster:
    """Two processes on this machine, one core's worth of work each."""

    def __init__(self, folder, way="rollouts", seeds=(0, 0), states=True, student="plain", stop=0):
        self.folder, self.states = folder, folder / "states" if states else ""
        self.logs = [folder / f"log{index}" for index in range(2)]
        for log in self.logs:
            log.write_text("")
        self.processes = [
            start_module("tests.training.worker", str(folder / f"out{index}.json"), str(self.states), way,
                         str(seeds[index]), student, str(stop), env=env, log=log)
            for index, (env, log) in enumerate(zip(environments(), self.logs, strict=True))]

    def wait(self):
        """Exit codes, and what the processes have written."""
        codes = [process.wait(timeout=300) for process in self.processes]
        outs = [self.folder / f"out{index}.json" for index in range(2)]
        return codes, [json.loads(out.read_text()) if out.is_file() else None for out in outs]

    def until(self, index, text):
        end = time.monotonic() + 200
        while text not in self.logs[index].read_text():
            assert time.monotonic() < end and self.processes[index].poll() is None, self.logs[index].read_text()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Nothing happens to these."""
    folder = tmp_path_factory.mktemp("whole")
    codes, outs = Cluster(folder).wait()
    assert codes == [0, 0], [log.read_text() for log in folder.glob("log*")]
    return outs


def test_two_processes_train_the_teacher_of_one(whole):
    first, second = whole
    assert first["weights"] == second["weights"] and first["history"] == second["history"]  # to the bit
    made, history = fit(6, rollouts=3)
    for a, b in zip(first["weights"], made.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for name, values in first["history"].items():
        np.testing.assert_allclose(values, history[name], rtol=1e-4, atol=1e-6, err_msg=name)
    # dθ is 38 float32 numbers; seven figures of each of 3 rollouts are float64.
    size = sum(np.size(w) for w in first["weights"])
    assert 6 * (4 * size + 8 * 3 * 7) < first["bytes"] < 6 * (4 * size + 8 * 3 * 7) + 20_000


def test_a_callback_of_one_process_stops_all(tmp_path):
    codes, (first, second) = Cluster(tmp_path, states=False, stop=2).wait()
    assert codes == [0, 0] and first["weights"] == second["weights"]
    assert len(first["history"]["objective"]) == len(second["history"]["objective"]) == 2


@pytest.mark.parametrize(("student", "whole_student"), [
    ("plain", "plain"), ("synchronized_batchnorm", "dense_batchnorm")])
def test_a_batch_split_over_two_processes(tmp_path, student, whole_student):
    codes, (first, second) = Cluster(tmp_path, "batch", states=False, student=student).wait()
    assert codes == [0, 0] and first["weights"] == second["weights"]
    made, _ = fit(6, jit=False, student=getattr(tiny, whole_student))
    for a, b in zip(first["weights"], made.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_processes_that_die_and_come_back(tmp_path, whole):
    """The other one ends with a sentence; all started again, they end with the bits of a run that was left alone.

    And SIGTERM to one ends both, behind the same step.
    """
    for index, step, sent in ((1, 1, signal.SIGKILL), (0, 2, signal.SIGKILL), (1, 3, signal.SIGTERM)):
        cluster = Cluster(tmp_path)
        cluster.until(index, f"step {step}")
        cluster.processes[index].send_signal(sent)
        codes, outs = cluster.wait()
        logs = [log.read_text() for log in cluster.logs]
        assert outs == [None, None] and codes[1 - index] == 75
        if sent == signal.SIGTERM:
            assert codes[index] == 75 and all("TerminatedError: told to end" in log for log in logs), logs
        else:
            assert codes[index] == -sent
            assert f"WorkerLostError: process {1 - index} has lost the others in teacher step" in logs[1 - index]
    again = Cluster(tmp_path)
    codes, outs = again.wait()
    assert codes == [0, 0] and "step 2" not in again.logs[0].read_text()
    for out, expected in zip(outs, whole, strict=True):
        assert (out["weights"], out["history"]) == (expected["weights"], expected["history"])


def test_processes_at_different_trainings_are_refused(tmp_path):
    cluster = Cluster(tmp_path, seeds=(0, 1))
    codes, outs = cluster.wait()
    assert codes == [75, 75] and outs == [None, None]
    assert all("ValueError: the processes of this cluster are at different trainings" in log.read_text()
               for log in cluster.logs)
    assert not cluster.states.exists()
