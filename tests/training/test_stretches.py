"""Training in stretches: what is kept when, and what a stop costs."""

import json
import os
import signal
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.commands import run_code
from tf_l2t.data import batch_dataset
from tf_l2t.training import StudentDivergedError, TerminatedError, stretches
from tf_l2t.training.checkpoints import Checkpoints
from tf_l2t.training.stretches import BestWeights, everything, fit_in_stretches
from tf_l2t.training.termination import deferred_termination


class Training:
    """Counts its steps in a variable; `at` says what happens in the stretch that begins with a step, or in its look."""

    def __init__(self, folder, **at):
        self.total = tf.Variable(0, dtype=tf.int64)
        self.fitted, self.seen, self.heard, self._at = [], [], [], at
        self._checkpoints = Checkpoints(folder, [self.total], {})

    def __call__(self, num_steps=7, **options):
        return fit_in_stretches(self._fit, self._look, self.heard.append, checkpoints=self._checkpoints,
                                num_steps=num_steps, every=3, verbose=0, **options)

    def _fit(self, first, stop, heard=(), again=False):
        self.fitted.append((first, stop))
        self.total.assign_add(stop - first)
        return {"total": int(self.total), "loss": self._at.get(f"fit_{first}", lambda: 0.5)()}

    def _look(self, record, before):
        self.seen.append((record["step"], [known["step"] for known in before]))
        return {**record, "accuracy": self._at.get(f"look_{record['step']}", lambda: 0.1)()}


def stop():
    raise KeyboardInterrupt


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
    return 0.5


def plain(records):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


EXPECTED = [{"step": step, "total": step, "loss": 0.5, "accuracy": 0.1} for step in (3, 6, 7)]


def test_stretches_and_their_records(tmp_path):
    training = Training(tmp_path)
    records = training()
    assert plain(records) == EXPECTED and all(record["seconds"] >= 0 for record in records)
    assert training.fitted == [(0, 3), (3, 6), (6, 7)]
    assert training.seen == [(3, []), (6, [3]), (7, [3, 6])]
    assert training.heard == [records] * 3  # the same list, as it grows
    again = Training(tmp_path)
    assert again() == records and not again.fitted and again.heard == [records] and int(again.total) == 7


@pytest.mark.parametrize("where", ["fit_3", "look_6"])
def test_a_stop_costs_the_stretch_that_it_is_in(tmp_path, where):
    with pytest.raises(KeyboardInterrupt):
        Training(tmp_path, **{where: stop})()
    training = Training(tmp_path)
    assert plain(training()) == EXPECTED and training.fitted == [(3, 6), (6, 7)]


def test_sigterm_in_a_last_step_waits_for_the_look(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    training = Training(tmp_path, fit_3=terminate)
    with pytest.raises(TerminatedError, match="the same command goes on"):
        training()
    assert training.fitted == [(0, 3), (3, 6)] and signal.getsignal(signal.SIGTERM) == before
    training = Training(tmp_path)
    assert plain(training()) == EXPECTED and training.fitted == [(6, 7)]


class TerminatedAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == self.step:
            terminate()


class Silent(keras.Sequential):
    """Logs less than it measures."""

    def train_step(self, data):
        return {"loss": super().train_step(data)["loss"]}


def fitted(folder, *callbacks, kind=keras.Sequential, num_steps=9, every=4, verbose=0):
    """Everything that seven steps leave, of a model with dropout and a mean of its own."""
    model = kind([keras.Input((6,)), keras.layers.Dense(8, "tanh"), keras.layers.Dropout(0.3, seed=1),
                              keras.layers.Dense(3)])
    keras.utils.set_random_seed(3)
    model.set_weights([np.random.default_rng(0).normal(0, 0.5, weight.shape) for weight in model.weights])
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=["accuracy"], jit_compile=False)
    model.optimizer.build(model.trainable_variables)

    def batch(seed, step):
        x = tf.random.stateless_normal([8, 6], [seed, step])
        return x, tf.cast(x[:, 0] > 0, tf.int32)

    def fit(first, stop, heard, again):
        history = model.fit(batch_dataset(batch, 5, stop, first), verbose=0, shuffle=False,
                            callbacks=[*callbacks, *heard])
        return {name: values[-1] for name, values in history.history.items()}

    records = fit_in_stretches(fit, lambda record, before: record, lambda records: None, num_steps=num_steps,
                               every=every, verbose=verbose, checkpoints=Checkpoints(folder, everything(model), {}))
    return records, [variable.numpy() for variable in everything(model)]


def test_a_long_stretch_tells_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stretches, "SECONDS", -1.0)
    fitted(tmp_path, verbose=2)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("student steps") for line in lines] == [1, 2, 3, None, 5, 6, 7, None, None]
    assert [line["step"] for line in lines if "step" in line] == [4, 8, 9]
    assert all(line["total"] == 9 and line["seconds_left"] > 0 for line in lines if "student steps" in line)


@pytest.mark.parametrize("kind", [keras.Sequential, Silent])
@pytest.mark.parametrize("stops", [{1: 1, 6: 6, 7: 8, 9: 9}, {2: 2, 3: 4}])
def test_sigterm_waits_for_the_end_of_a_step(tmp_path, stops, kind):
    """Nothing is lost: weights, and the means of a stretch that was ended in the middle, are to the bit those of a
    training that was left alone. One step of a stretch is not left."""
    expected, weights = fitted(tmp_path / "alone", kind=kind)
    for step, kept in stops.items():
        with pytest.raises(TerminatedError):
            fitted(tmp_path / "told", TerminatedAt(step), kind=kind)
        numbers = [int(file.stem.removeprefix("state-")) for file in (tmp_path / "told").glob("state-*.json")]
        assert max(numbers) == kept
    records, found = fitted(tmp_path / "told", kind=kind)
    assert plain(records) == plain(expected) and [record["step"] for record in records] == [4, 8, 9]
    for a, b in zip(found, weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_stretch_that_was_ended_is_gone_to_its_end_first(tmp_path):
    """Where it goes on in shorter ones, or to another end; a training that is longer than asked for is refused."""
    _, weights = fitted(tmp_path / "alone")
    with pytest.raises(TerminatedError):
        fitted(tmp_path / "told", TerminatedAt(6))
    with pytest.raises(ValueError, match="has 6 steps already; num_steps=6 is fewer"):
        fitted(tmp_path / "told", num_steps=6)
    records, found = fitted(tmp_path / "told", every=3)
    assert [record["step"] for record in records] == [4, 8, 9]
    for a, b in zip(found, weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("where", ["fit_3", "look_6"])
def test_what_is_not_finite_is_not_kept(tmp_path, where):
    training = Training(tmp_path, **{where: lambda: float("nan")})
    with pytest.raises(StudentDivergedError, match=r"steps 4 to 6.* from step 3"):
        training()
    assert (3, 6) in training.fitted and training.seen[-1][0] == (3 if where == "fit_3" else 6)
    assert plain(Training(tmp_path)()) == EXPECTED


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("begins", "stretch"), [(2, (0, 3)), (4, (3, 6))])
def test_the_step_where_a_loss_is_not_finite_for_the_first_time(tmp_path, begins, stretch, whole):
    """The stretch is gone through again from the state before it, if that is whole."""
    first, stop = stretch
    training, again = Training(tmp_path), []
    fit = training._fit

    def diverges(begin, end, heard, once_more):
        if once_more:
            again.append((begin, end, int(training.total)))
        record = fit(begin, end)
        for callback in heard:
            for step in range(begin, end):
                callback.on_train_batch_end(step - begin, {"loss": float("nan") if step + 1 >= begins else 0.5})
        if begin == first and not once_more and not whole:
            next((tmp_path).glob(f"state-{first}.data*")).write_bytes(b"")
        return record | {"loss": float("nan")} if training.total >= begins else record

    training._fit = diverges
    said = f", from step {begins} on" if whole else ""
    with pytest.raises(StudentDivergedError, match=rf"steps {first + 1} to {stop}{said}: .* from step {first}\."):
        if whole:
            training()
        else:
            with pytest.warns(UserWarning, match="what it holds is made again"):
                training()
    assert again == ([(first, stop, first)] if whole else [])


def test_weights_that_are_not_finite_behind_the_last_loss(tmp_path):
    """They are not kept, though every loss was finite."""
    weight = tf.Variable(1.0)

    def fit(first, stop, heard, again):
        weight.assign(float("inf") if stop == 6 else 1.0)
        return {"loss": 0.5}

    heard = []
    with pytest.raises(StudentDivergedError, match=r"weights are not finite in the steps 4 to 6: .* from step 3\."):
        fit_in_stretches(fit, lambda record, before: record, heard.append, num_steps=7, every=3, verbose=0,
                         checkpoints=Checkpoints(tmp_path, [weight], {}))
    assert [record["step"] for record in heard[-1]] == [3]


def test_a_state_of_the_beginning_is_not_written_anew(tmp_path):
    """Where it is the only one: a stop while it is written would leave none."""
    with pytest.raises(KeyboardInterrupt):
        Training(tmp_path, fit_0=stop)()
    first = (tmp_path / "state-0.json").stat().st_mtime_ns
    with pytest.raises(KeyboardInterrupt):
        Training(tmp_path, fit_0=stop)()
    assert (tmp_path / "state-0.json").stat().st_mtime_ns == first


def test_a_training_that_is_longer_than_asked_for(tmp_path):
    Training(tmp_path)()
    with pytest.raises(ValueError, match="has 7 steps already; num_steps=5"):
        Training(tmp_path)(num_steps=5)


OTHERWISE = """
import os, signal, sys
from tf_l2t.training.termination import deferred_termination
signal.signal(signal.SIGTERM, lambda number, frame: (print("heard", flush=True), sys.exit(75)))
try:
    with deferred_termination() as end_if_told:
        os.kill(os.getpid(), signal.SIGTERM)
        if len(sys.argv) > 1:
            raise ValueError("a student diverged")
except ValueError:
    pass
print("goes on", flush=True)
"""


@pytest.mark.parametrize("how", [(), ("raises",)])
def test_sigterm_is_not_forgotten_where_there_is_another_end(how):
    """Behind the last step, or where a student diverged and others would come."""
    done = run_code(OTHERWISE, *how)
    assert (done.stdout, done.returncode) == ("heard\n", 75)


TWICE = """
import os, signal
from tf_l2t.training.termination import deferred_termination
with deferred_termination():
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("never", flush=True)
"""


def test_a_second_sigterm_ends_at_once():
    done = run_code(TWICE)
    assert done.stdout == "still here\n" and done.returncode == -signal.SIGTERM


def test_other_threads_get_no_signals():
    ended = []

    def work():
        with deferred_termination() as end_if_told:
            end_if_told()
        ended.append(True)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended and signal.getsignal(signal.SIGTERM) == before


def test_best_weights_are_written_where_a_file_does_not_hold_them(tmp_path):
    network, file = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), tmp_path / "best.keras"
    held = BestWeights(network)
    held.keep()
    best = network.get_weights()
    network.set_weights([weight + 1 for weight in best])
    network.save(file)
    for spoil in (lambda: None, lambda: file.write_bytes(b"PK"), file.unlink):
        spoil()
        held.write(file)
        for a, b, own in zip(keras.models.load_model(file).get_weights(), best, network.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(own, b + 1)
    before = file.stat().st_ino, file.stat().st_mtime_ns
    held.write(file)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == before


def test_everything_that_training_changes():
    """By what a step changes: weights, statistics, a dropout's seed, velocities, the count of steps."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5, seed=1),
                              keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss="mse")
    model.optimizer.build(model.trainable_variables)
    model.other_optimizer = keras.optimizers.Adam()
    model.other_optimizer.build(model.trainable_variables)
    held = list(everything(model))
    before = [variable.numpy() for variable in held]
    model.fit(tf.random.stateless_normal([8, 3], [0, 1]), tf.ones([8, 2]), verbose=0)
    changed = {variable.path.rsplit("/", 1)[-1] for variable, old in zip(held, before, strict=True)
               if (variable.numpy() != old).any()}
    assert {"gamma", "beta", "moving_mean", "moving_variance", "kernel", "bias", "iteration"} <= changed
    assert any("seed" in name for name in changed) and any("velocity" in name or "momentum" in name for name in changed)
    assert len({id(v) for v in held}) == len(held) == 4 + 2 + 1 + (2 + 4) + (2 + 8)
