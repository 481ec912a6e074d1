"""What Keras users expect of the trainer, method by method; of ProKT more in test_prokt.py."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillation.small import X, Y, compiled, fit, linear, log_softmax, network, trainer_of, values
from tests.event_files import scalars
from tf_l2t.data import array_batches
from tf_l2t.distillation import (
    CoupledSGD,
    DistillationTrainer,
    method,
)
from tf_l2t.training import distillation_fit
from tf_l2t.training.stretches import everything


@pytest.mark.parametrize("name", ["none", "kd", "prokt"])
def test_penalties_of_layers_count(name):
    """Regularizers of the student are in its loss; those of a teacher that is trained along in the teacher's."""
    trainer, plain = (compiled(DistillationTrainer(
        linear("student", 1, penalty), None if name == "none" else linear("teacher", 2, penalty), name), rate=0.0)
        for penalty in (keras.regularizers.L2(0.5), None))
    for model in (trainer, plain):
        for part in (model.student, model.teacher):
            if part is not None:
                part.layers[-1].kernel.assign(np.random.default_rng(3).standard_normal(part.layers[-1].kernel.shape))
    penalty = 0.5 * (values(trainer.student)[0] ** 2).sum()
    found, without = fit(trainer), fit(plain)
    np.testing.assert_allclose(found["loss"][0] - without["loss"][0], penalty, rtol=1e-5)
    if name == "prokt":
        np.testing.assert_allclose(found["teacher_loss"][0] - without["teacher_loss"][0], penalty, rtol=1e-5)


@pytest.mark.parametrize("name", ["kd", "at", "crd"])
def test_a_fixed_teacher_is_fixed(name):
    trainer = compiled(trainer_of(name))
    before = values(trainer.teacher)
    fit(trainer, epochs=2)
    for a, b in zip(before, values(trainer.teacher), strict=True):
        np.testing.assert_array_equal(a, b)


def test_divergence_and_teacher_accuracy_are_of_the_targets():
    trainer = compiled(trainer_of("kd"), rate=0.0)
    log_p = log_softmax(np.asarray(trainer.teacher(X)))
    log_q = log_softmax(np.asarray(trainer.student(X, training=True)))
    history = fit(trainer)
    np.testing.assert_allclose(history["divergence"][0], (np.exp(log_p) * (log_p - log_q)).sum(1).mean(), rtol=1e-4)
    np.testing.assert_allclose(history["teacher_accuracy"][0], (log_p.argmax(1) == Y).mean(), rtol=1e-6)


def test_anchors_follow_each_other():
    trainer = compiled(trainer_of("rco"))
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(values(trainer.teacher)[0]))
    fit(trainer, epochs=8, callbacks=[watch])
    for epoch, kernel in enumerate(seen):
        np.testing.assert_array_equal(kernel, values(trainer.anchors[epoch // 2])[0])
    fit(trainer, epochs=6, initial_epoch=5, total_epochs=8, callbacks=watch)  # one, not in a list
    np.testing.assert_array_equal(values(trainer.teacher)[0], values(trainer.anchors[2])[0])
    with pytest.raises(ValueError, match="6 epochs are no multiple"):
        fit(trainer, epochs=6)


def test_boundaries_come_before_labels():
    """AB's first phase teaches all but the last layer; its second has the labels only."""
    trainer = compiled(trainer_of("ab"))
    start = values(trainer.student)
    fit(trainer)
    moved = [not np.array_equal(a, b) for a, b in zip(start, values(trainer.student), strict=True)]
    assert moved[:-2] == [True] * (len(start) - 2) and moved[-2:] == [False, False]
    connector = [w.numpy() for layer in trainer._connectors for w in layer.trainable_variables]
    trainer.begin("main")
    fit(compiled(trainer))
    assert not np.array_equal(values(trainer.student)[-1], start[-1])
    for a, layer_weight in zip(connector, [w for layer in trainer._connectors for w in layer.trainable_variables],
                               strict=True):
        np.testing.assert_array_equal(a, layer_weight)


def test_boundaries_in_numpy():
    """The loss of AB's first phase over two stages: 2^(i − n + 1) of each of n."""
    trainer = compiled(trainer_of("ab"), rate=0.0, run_eagerly=True)
    before = values(trainer.student)
    found = (trainer._teacher_outputs(X, training=False), trainer._student_outputs(X, training=True))
    trainer.student.set_weights(before)
    teacher, student = ([np.asarray(outputs[f"stage{i}_preact"], np.float64) for i in (1, 2)] for outputs in found)
    expected = 0.0
    for factor, layer, t, s in zip((0.5, 1.0), trainer._connectors, teacher, student, strict=True):
        s = np.asarray(layer._connector(t.astype("float32"), s.astype("float32"), training=True), np.float64)
        below, above = ((s > -1) & (t <= 0)) * (s + 1) ** 2, ((s <= 1) & (t > 0)) * (s - 1) ** 2
        expected += factor * (below + above).sum() / 12 * 3 / 1000
    np.testing.assert_allclose(fit(trainer)["loss"][0], expected, rtol=1e-5)


def test_the_paraphraser_is_prepared_and_stays():
    trainer = compiled(trainer_of("ft"))
    start, student = values(trainer._connectors[0]), values(trainer.student)
    losses = fit(trainer, epochs=20)["loss"]
    assert losses[-1] < losses[0]
    for a, b in zip(student, values(trainer.student), strict=True):
        np.testing.assert_array_equal(a, b)
    prepared = {w.path: w.numpy() for w in trainer._connectors[0].weights}
    assert not np.array_equal(start[0], next(iter(prepared.values())))
    trainer.begin("main")
    fit(compiled(trainer))
    for w in trainer._connectors[0].weights:
        assert np.array_equal(prepared[w.path], w) == ("translator" not in w.path)


def test_data_sets_bring_indices():
    """The same run from arrays and from a data set of (x, y, index)."""
    first, second = (compiled(trainer_of("crd")) for _ in range(2))
    for a, b in zip(first._connectors, second._connectors, strict=True):
        b.set_weights(a.get_weights())
    fit(first, epochs=2, batch_size=4)
    data = tf.data.Dataset.from_tensor_slices((X, Y, np.arange(12))).batch(4)
    second.fit(data, epochs=2, verbose=0)
    for a, b in zip(values(first.student), values(second.student), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="return \\(x, y, index\\)"):
        second.fit(data.map(lambda x, y, index: (x, y)), verbose=0)


def same_negatives(trainer):
    """In place of draws, so that two trainers can be compared."""
    for layer in trainer._connectors:
        if hasattr(layer, "_negatives"):
            layer._negatives = lambda labels: tf.tile((labels[:, None] + 1) % 3, [1, 6])  # of the next class
    return trainer


@pytest.mark.parametrize("name", ["crd_prokt", "rco", "ft", "none"])
def test_saved_and_loaded(tmp_path, name):
    trainer = compiled(same_negatives(trainer_of(name)), momentum=0.9)
    fit(trainer, epochs=4 if name == "rco" else 1)
    trainer.save(tmp_path / "trainer.keras")
    again = keras.saving.load_model(tmp_path / "trainer.keras")
    assert again.method == trainer.method and again.phase == trainer.phase
    np.testing.assert_allclose(again(X), trainer(X), rtol=1e-5, atol=1e-6)
    assert len(again.weights) == len(trainer.weights)
    for a, b in zip(trainer.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    same_negatives(again)
    epochs = {"epochs": 8, "initial_epoch": 7} if name == "rco" else {}
    for model in (trainer, again):  # with the optimizers' velocities
        fit(model, **epochs)
    for a, b in zip(trainer.weights, again.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["vid", "prokt"])
def test_a_run_that_was_stopped_goes_on(tmp_path, name):
    """Three epochs, and two that are followed by one in a new trainer, by Keras' own callback."""
    def run(epochs, *callbacks):
        trainer = trainer_of(name)
        for i, layer in enumerate(trainer._connectors):
            rng = np.random.default_rng(i)
            layer.set_weights([rng.standard_normal(w.shape) * 0.1 for w in layer.weights])
        trained = trainer.method.teacher == "trained"
        trainer.compile(keras.optimizers.SGD(0.05, momentum=0.9), keras.optimizers.Adam(0.01) if trained else None)
        fit(trainer, epochs=epochs, batch_size=6, callbacks=list(callbacks))
        return trainer

    whole = run(3)
    backup = [keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False) for _ in range(2)]
    run(2, backup[0])
    resumed = run(3, backup[1])
    for a, b in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stop_at", [2, 3])
def test_phases_go_on_where_they_were_stopped(stop_at, tmp_path, monkeypatch):
    """Two looks of factor transfer's paraphraser and two of its student, stopped behind any of them."""
    def run(path):
        trainer = trainer_of("ft")
        for i, layer in enumerate(trainer._connectors):
            rng = np.random.default_rng(i)
            layer.set_weights([rng.standard_normal(w.shape) * 0.1 for w in layer.weights])
        phases = [distillation_fit.PhasePlan(name, 4, lambda: compiled(trainer)) for name in ("paraphraser", "main")]
        distillation_fit.fit_distillation(trainer, phases, array_batches(X, Y, 6, index=True), seed=1, evaluate_every=2,
                                          dev=(X, Y), path=path, verbose=0)
        return trainer

    (tmp_path / "whole").mkdir()
    (tmp_path / "run").mkdir()
    whole = run(tmp_path / "whole")
    looks, real = [], distillation_fit.write_json

    def write(path, value):
        real(path, value)
        looks.append(value)
        if len(looks) == stop_at:
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(distillation_fit, "write_json", write)
        with pytest.raises(InterruptedError):
            run(tmp_path / "run")
    resumed = run(tmp_path / "run")
    found = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [(r["phase"], r["step"]) for r in found] == [(name, step) for name in ("paraphraser", "main")
                                                        for step in (2, 4)]
    for a, b in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    for run, records in (("paraphraser", found[:2]), ("main", found[2:])):  # a look is an epoch, each phase has its own
        curves = tmp_path / "run" / "tensorboard" / run
        assert scalars(curves / "train")["epoch_loss"] == pytest.approx(
            {look: record["loss"] for look, record in enumerate(records)}, rel=1e-5)
        if run == "main":
            assert scalars(curves / "validation")["epoch_accuracy"] == pytest.approx(
                {look: record["val_accuracy"] for look, record in enumerate(records)}, rel=1e-5)


@pytest.mark.parametrize(("name", "options"), [
    ("crd", {}), ("rco", {}), ("prokt", {"epsilon": 0.01}), ("crd_prokt", {}), ("vid", {})])
def test_a_run_that_goes_on_ends_with_the_same_bits(name, options, tmp_path):
    """Memory banks, anchors, a multiplier, a teacher that is trained along, connectors; with momentum."""
    class Stopped(keras.callbacks.Callback):
        looks = 0

        def on_epoch_end(self, epoch, logs=None):
            self.looks += 1
            if self.looks == 3:
                raise InterruptedError

    def run(path, *callbacks):
        trainer = trainer_of(name, **options)
        for i, layer in enumerate(trainer._connectors):
            rng = np.random.default_rng(i)
            layer.set_weights([rng.standard_normal(w.shape) * 0.1 for w in layer.weights])
        phase = distillation_fit.PhasePlan("main", 8, lambda: compiled(trainer, momentum=0.9))
        path.mkdir(exist_ok=True)
        history = distillation_fit.fit_distillation(
            trainer, [phase], array_batches(X, Y, 6, index=True), seed=1, evaluate_every=2, dev=(X, Y), path=path,
            callbacks=callbacks, verbose=0)
        return [v.numpy() for v in everything(trainer)], [record["loss"] for record in history]

    whole, losses = run(tmp_path / "whole")
    with pytest.raises(InterruptedError):
        run(tmp_path / "run", Stopped())
    kept = (tmp_path / "run/checkpoints/main").glob("*.json")
    assert sorted(file.name for file in kept) == ["state-2.json", "state-4.json"]
    resumed, same = run(tmp_path / "run")
    assert same == losses
    for a, b in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_curves_are_in_tensorboard(tmp_path):
    trainer = compiled(trainer_of("prokt"))
    history = fit(trainer, epochs=2, callbacks=[keras.callbacks.TensorBoard(tmp_path)])
    found = scalars(tmp_path / "train")
    for name in ("divergence", "teacher_accuracy", "teacher_loss", "loss"):
        np.testing.assert_allclose(list(found[f"epoch_{name}"].values()), history[name], rtol=1e-5)


def test_coupled_sgd_is_pytorchs():
    """v ← μ v + g + wd w, w ← w − η v, through a drop of the rate."""
    w = tf.Variable([1.0, -2.0])
    variable = keras.Variable(w)
    optimizer = CoupledSGD(keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.01]), 0.9, 0.05)
    v, expected = np.zeros(2), np.array([1.0, -2.0])
    for g in (np.array([0.5, 1.0]), np.array([-1.0, 2.0]), np.array([0.3, 0.0]), np.array([0.1, 0.1])):
        rate = 0.1 if optimizer.iterations.numpy() <= 1 else 0.01
        v = 0.9 * v + g + 0.05 * expected
        expected = expected - rate * v
        optimizer.apply_gradients([(tf.constant(g, tf.float32), variable)])
        np.testing.assert_allclose(variable, expected, rtol=1e-5)
    bias = keras.Variable([1.0], name="bias")
    without = CoupledSGD(0.1, weight_decay=1.0)
    without.exclude_from_weight_decay(var_names=["bias"])
    without.apply_gradients([(tf.zeros(1), bias)])
    np.testing.assert_array_equal(bias, [1.0])
    again = CoupledSGD.from_config(optimizer.get_config())
    assert (again.momentum, again.coupled_weight_decay) == (0.9, 0.05)


def student_of(name="student"):
    return network(2, name, 1)


def softmax_of(model):
    return keras.Model(model.inputs, keras.layers.Softmax()(model.output), name=model.name)


def parts_of_one():
    """Two classifiers on the same layers, as of one pre-trained encoder."""
    inputs = keras.Input((4,))
    body = keras.layers.Dense(3)(inputs)
    return [keras.Model(inputs, keras.layers.Dense(3)(body)) for _ in range(2)]


def wider():
    inputs = keras.Input((9, 8, 2))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))


def half():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="mixed_float16")])


def same_optimizer(trainer):
    optimizer = keras.optimizers.SGD()
    trainer.compile(optimizer, optimizer)


@pytest.mark.parametrize(("make", "match"), [
    (lambda: method("kldiv"), "one of .*'prokt'"),
    (lambda: method("kd", weight=1.0), "no term of inner tensors"),
    (lambda: method("kd", lam=0.1), "train the teacher along"),
    (lambda: method("prokt", lam=1.5), r"\[0, 1\]; received 1.5"),
    (lambda: method("kd", temperature=0.0), "above 0"),
    (lambda: method("kd", ce=-1.0), "at least 0"),
    (lambda: method("none", kd=1.0), "no teacher"),
    (lambda: method("ab", weight=2.0), "last phase"),
    (lambda: method("kd", temperature=None), "temperature must be a number of at least 0; received None"),
    (lambda: method("prokt", lam=None), "lam must be a number"),
    (lambda: method("kd", ce=float("inf")), "ce must be a number of at least 0; received inf"),
    (lambda: method("kd", **{"name": "kd"}), "no term of inner tensors"),
    (lambda: trainer_of("at", p="x"), "p of the loss 'at' must be a number; received 'x'"),
    (lambda: trainer_of("rkd", angle_weight=None), "angle_weight of the loss 'rkd' must be a number"),
    (lambda: trainer_of("vid", variance="x"), "variance of the term 'vid' must be a number"),
    (lambda: trainer_of("crd", num_negatives=2.5), "num_negatives of the term 'crd' must be a whole number"),
    (lambda: trainer_of("cc", order=2.0), "order of the term 'cc' must be a whole number"),
    (lambda: trainer_of("cc", variant="papre"), "variant must be one of"),
    (lambda: trainer_of("cc", gamma=-1.0), "gamma must be above 0"),
    (lambda: trainer_of("ft", variant=3), "variant of the term 'ft' must be text"),
    (lambda: DistillationTrainer(student_of(), student_of("t"), ["kd"]), "method must be a name"),
    (lambda: compiled(trainer_of("kd")).evaluate(X, np.eye(3)[Y], verbose=0), r"one integer an example.*\(None, 3\)"),
    (lambda: trainer_of("at", q=2.0), r"options \['p', 'variant'\]; received \['q'\]"),
    (lambda: trainer_of("ft", q=2.0), r"options .*'rate'.*; received \['q'\]"),
    (lambda: DistillationTrainer(student_of(), None, "kd"), "needs a teacher"),
    (lambda: DistillationTrainer(student_of(), student_of(), "none"), "leave it out"),
    (lambda: DistillationTrainer(student_of(), student_of(), "rco"), "a list of anchors"),
    (lambda: DistillationTrainer(student_of(), [student_of()], "kd"), "received a list"),
    (lambda: DistillationTrainer(student_of(), student_of(), "crd"), "give their labels"),
    (lambda: DistillationTrainer(linear("a", 0), linear("b", 1), "at"), "has the taps"),
    (lambda: DistillationTrainer(linear("a", 0), 3, "kd"), "received int"),
    (lambda: trainer_of("ab").begin("end"), r"\['boundaries', 'main'\]; received 'end'"),
    (lambda: trainer_of("prokt").compile("sgd"), "give teacher_optimizer"),
    (lambda: trainer_of("kd").compile("sgd", "sgd"), "leave out teacher_optimizer"),
    (lambda: trainer_of("kd").compile("sgd", loss="mse"), "leave out `loss`"),
    (lambda: CoupledSGD(momentum=1.0), "momentum"),
    (lambda: method("crd", temperature=0.2), "nce_temperature"),
    (lambda: method("kd", ce=0.0, kd=0.0), "a loss of 0"),
    (lambda: DistillationTrainer(softmax_of(student_of()), None, "none"), "ends in a softmax"),
    (lambda: DistillationTrainer(student_of(), softmax_of(student_of("teacher")), "kd"), "the teacher .* softmax"),
    (lambda: DistillationTrainer(student_of(), keras.Sequential([keras.layers.Dense(3)]), "kd"), "no weights yet"),
    (lambda: DistillationTrainer(*parts_of_one(), "kd"), "weights in common"),
    (lambda: DistillationTrainer(linear("student", 1), wider(), "kd"),
     r"take other inputs: \[\(9, 8, 2\)\] and \[\(8, 8, 2\)\]"),
    (lambda: DistillationTrainer(half(), None, "none"), "mixed_bfloat16"),
    (lambda: same_optimizer(trainer_of("prokt")), "an optimizer each"),
    (lambda: compiled(trainer_of("kd")).fit(X, np.eye(3)[Y], verbose=0), r"one integer an example.*\(None, 3\)"),
    (lambda: compiled(trainer_of("kd")).fit(
        tf.data.Dataset.from_tensors((X, Y, np.ones(12, "float32"))), verbose=0), "indices, integers.*float32"),
    (lambda: compiled(trainer_of("crd")).fit(X, Y[::-1].copy(), verbose=0), "must be the train_labels"),
    (lambda: fit(compiled(trainer_of("kd")), sample_weight=np.ones(12)), r"leave out \['sample_weight'\]"),
])
def test_bad_input(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_the_same_model_twice():
    model = student_of()
    with pytest.raises(ValueError, match="weights in common"):
        DistillationTrainer(model, model, "kd")
