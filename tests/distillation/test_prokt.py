"""ProKT: its step against loops written out, and the properties that the paper says of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillation.small import X, Y, compiled, fit, linear, log_softmax, network, trainer_of, values
from tf_l2t.distillation import DistillationTrainer, constrained_teacher_loss, method, proximal_teacher_loss
from tf_l2t.students import tapped


@pytest.mark.parametrize("lam", [0.0, 0.4])
def test_a_step_of_prokt_is_algorithm_1(lam):
    """Weights after two steps, against a loop of NumPy: linear networks, whose gradients are (q − p) x."""
    teacher, student = linear("teacher", 2), linear("student", 1)
    trainer = DistillationTrainer(student, teacher, method("prokt", lam=lam))
    assert all((w == 0).all() for model in (teacher, student) for w in values(model))
    compiled(trainer, 0.1)
    flat = X.reshape(12, -1).astype("float64")
    one_hot = np.eye(3)[Y]
    t, s = (np.zeros((flat.shape[1] + 1, 3)) for _ in range(2))
    inputs = np.concatenate([flat, np.ones((12, 1))], axis=1)
    for _ in range(2):
        q = np.exp(log_softmax(inputs @ s))
        p = np.exp(log_softmax(inputs @ t))
        t -= 0.1 * inputs.T @ (p - (1 - lam) * one_hot - lam * q) / 12
        p = np.exp(log_softmax(inputs @ t))  # the updated teacher's
        s -= 0.1 * inputs.T @ (q - p) / 12
    fit(trainer, epochs=2)
    for model, expected in ((teacher, t), (student, s)):
        kernel, bias = values(model)
        np.testing.assert_allclose(np.concatenate([kernel, bias[None]]), expected, rtol=1e-4, atol=1e-7)


def test_without_lambda_the_teacher_is_trained_as_if_alone():
    trainer = compiled(trainer_of("prokt", lam=0.0))
    alone = DistillationTrainer(trainer_of("prokt").teacher, None, "none")  # its head is 0, too
    alone.student.set_weights(values(trainer.teacher))
    fit(trainer, epochs=3, batch_size=6)
    fit(compiled(alone), epochs=3, batch_size=6)
    for a, b in zip(values(trainer.teacher), values(alone.student), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_the_idle_network_stays_as_it_is():
    """One update of moving statistics and one draw of dropout a step, for either network."""
    student, teacher = network(2, "student", 1, dropout=0.5), network(4, "teacher", 2, dropout=0.5)
    trainer = compiled(DistillationTrainer(student, teacher, "prokt"), rate=0.0)
    before = [{w.path: w.numpy() for w in model.non_trainable_variables} for model in (student, teacher)]
    fit(trainer)
    seen = []
    for model, start in zip((student, teacher), before, strict=True):
        convolution = keras.Model(model.inputs, model.layers[1].output)(X).numpy()
        for w in model.non_trainable_variables:
            seen.append(w.path.split("/")[-1])
            if w.path.endswith("stage1_preact/moving_mean"):
                np.testing.assert_allclose(w, 0.1 * convolution.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
            if w.path.endswith("stage1_preact/moving_variance"):
                np.testing.assert_allclose(w, 0.9 + 0.1 * convolution.var((0, 1, 2)), rtol=1e-4)
            if "seed" in w.path:
                assert (w.numpy() - start[w.path]).tolist() == [0, 1]
    assert seen.count("moving_mean") == seen.count("moving_variance") == 4 and seen.count("seed_generator_state") == 2


@pytest.mark.parametrize("name", ["prokt", "crd_prokt"])
def test_targets_are_the_updated_teachers_in_training_mode(name):
    """KL(p_t ‖ q_s), and of "crd_prokt" 0.8 of the term on the features of both, with p_t of a twin that made the step
    alone. In inference mode the moving statistics, which one step moved by a tenth, would give another p_t."""
    trainer = compiled(trainer_of(name, lam=0.0))
    twin = compiled(DistillationTrainer(keras.models.clone_model(trainer.teacher), None, "none"))
    twin.student.set_weights(values(trainer.teacher))
    fit(twin)
    student = keras.models.clone_model(trainer.student)
    student.set_weights(values(trainer.student))
    teachers, students = (tapped(m, ["pooled", "logits"])([X], training=True) for m in (twin.student, student))
    log_p, log_q = (log_softmax(np.asarray(x["logits"])) for x in (teachers, students))
    idle = log_softmax(np.asarray(twin.student(X, training=False)))
    expected = (np.exp(log_p) * (log_p - log_q)).sum(1).mean()
    assert abs((np.exp(idle) * (idle - log_q)).sum(1).mean() - expected) > 0.01 * expected
    if name == "crd_prokt":
        (layer,) = trainer._connectors
        drawn = layer._negatives(tf.constant(Y))
        layer._negatives = lambda labels: drawn
        expected += 0.8 * float(layer(teachers["pooled"], students["pooled"], tf.range(12), tf.constant(Y)))
    history = fit(trainer)
    np.testing.assert_allclose(history["loss"][0], expected, rtol=1e-4)
    np.testing.assert_allclose(history["teacher_accuracy"][0], 1 / 3)  # before its step: class 0 throughout


def dropping(name, seed):
    """Linear, behind dropout."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(X.shape[1:])
    dropped = keras.layers.Dropout(0.5)(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(dropped), name=name)


@pytest.mark.parametrize("targets", [None, "inference", "training"])
def test_networks_without_batch_normalisation_say_in_inference_mode_what_to_learn(targets):
    """What the teacher is drawn to has no dropout, nor has what the student learns from: a student that stays where it
    is, and a teacher whose step is written out. Of a linear network in training mode both would be other numbers."""
    student, teacher = dropping("student", 1), linear("teacher", 2)
    trainer = DistillationTrainer(student, teacher, method("prokt", lam=0.6, targets=targets))
    trainer.compile(keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.1))
    kernel = np.random.default_rng(0).standard_normal((int(np.prod(X.shape[1:])), 3)).astype("float32")
    student.set_weights([kernel, np.zeros(3, "float32")])
    flat = X.reshape(12, -1)
    q = np.exp(log_softmax(flat @ kernel))
    expected = -0.1 * flat.T @ (1 / 3 - 0.4 * np.eye(3)[Y] - 0.6 * q) / 12
    fit(trainer)
    near = np.allclose(values(teacher)[0], expected, rtol=1e-4, atol=1e-6)
    assert near == (targets != "training")
    student, teacher = linear("student", 1), dropping("teacher", 2)
    trainer = compiled(DistillationTrainer(student, teacher, method("prokt", targets=targets)), 0.0)
    teacher.set_weights([kernel, np.zeros(3, "float32")])
    learned = np.log(3) + (q * np.log(q)).sum(1).mean()  # KL(p ‖ uniform): the same weights, now the teacher's
    assert np.isclose(fit(trainer)["loss"][0], learned, rtol=1e-4) == (targets != "training")


def test_of_two_kinds_of_networks_each_is_in_its_own_mode():
    """Beside a network with batch normalisation one with dropout, which in training mode would be another number
    every time: as student, it draws the teacher in inference mode; as teacher, the student learns from it so."""
    kernel = np.random.default_rng(0).standard_normal((int(np.prod(X.shape[1:])), 3)).astype("float32")
    head = np.random.default_rng(1).standard_normal((8, 3)).astype("float32")
    without = log_softmax(X.reshape(12, -1) @ kernel)

    student, teacher = dropping("student", 1), network(4, "teacher", 2)
    trainer = compiled(DistillationTrainer(student, teacher, method("prokt", lam=0.6)), 0.0)
    student.set_weights([kernel, np.zeros(3, "float32")])
    teacher.set_weights([*values(teacher)[:-2], head, np.zeros(3, "float32")])
    twin = keras.models.clone_model(teacher)
    twin.set_weights(values(teacher))
    log_p = log_softmax(np.asarray(twin(X, training=True)))
    expected = -0.4 * log_p[np.arange(12), Y].mean() - 0.6 * (np.exp(without) * log_p).sum(1).mean()
    np.testing.assert_allclose(fit(trainer)["teacher_loss"][0], expected, rtol=1e-4)

    student, teacher = network(4, "student", 2), dropping("teacher", 1)
    trainer = compiled(DistillationTrainer(student, teacher, "prokt"), 0.0)
    teacher.set_weights([kernel, np.zeros(3, "float32")])
    student.set_weights([*values(student)[:-2], head, np.zeros(3, "float32")])
    np.testing.assert_allclose(fit(trainer)["loss"][0], (np.exp(without) * (without - log_p)).sum(1).mean(), rtol=1e-4)


def test_penalties_of_activities_are_the_students_in_its_turn():
    """0.05 Σ z² / batch of the student's logits z, with its gradient: the second time that the student is asked, for
    what the teacher is drawn to, is no part of it. Three steps against NumPy."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(X.shape[1:])
    head = keras.layers.Dense(3, activity_regularizer=keras.regularizers.L2(0.05), name="logits")
    student, teacher = keras.Model(inputs, head(keras.layers.Flatten()(inputs)), name="student"), linear("teacher", 2)
    trainer = compiled(DistillationTrainer(student, teacher, method("prokt", lam=0.3)), 0.1)
    rows = np.concatenate([X.reshape(12, -1).astype("float64"), np.ones((12, 1))], axis=1)
    t, s = (np.zeros((rows.shape[1], 3)) for _ in range(2))
    for _ in range(3):
        q, p = (np.exp(log_softmax(rows @ w)) for w in (s, t))
        t -= 0.1 * rows.T @ (p - 0.7 * np.eye(3)[Y] - 0.3 * q) / 12
        s -= 0.1 * rows.T @ (q - np.exp(log_softmax(rows @ t)) + 2 * 0.05 * rows @ s) / 12
    fit(trainer, epochs=3)
    np.testing.assert_allclose(np.concatenate([values(student)[0], values(student)[1][None]]), s, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("form", ["proximal", "constrained"])
def test_the_teachers_losses_in_numpy(form):
    """Values and gradients: (1 − λ)(p − y) + λ (p − q), or (p − y) + β (p − q), over the batch; none to the student."""
    rng = np.random.default_rng(0)
    teacher, student = (tf.Variable(rng.standard_normal((5, 4))) for _ in range(2))
    labels, y = np.array([0, 1, 2, 3, 0]), np.eye(4)[[0, 1, 2, 3, 0]]
    log_p, log_q = log_softmax(teacher.numpy()), log_softmax(student.numpy())
    p, q = np.exp(log_p), np.exp(log_q)
    with tf.GradientTape() as tape:
        if form == "proximal":
            value = proximal_teacher_loss(labels, teacher, student, 0.3)
        else:
            value, excess = constrained_teacher_loss(labels, teacher, student, 0.7, epsilon=0.2)
    gradients = tape.gradient(value, [teacher, student])
    if form == "proximal":
        expected = -(0.7 * y * log_p + 0.3 * q * log_p).sum(1).mean()
        slope = (0.7 * (p - y) + 0.3 * (p - q)) / 5
    else:
        over = (q * (log_q - log_p)).sum(1).mean() - 0.2
        np.testing.assert_allclose(excess, over, rtol=1e-9)
        expected = -(y * log_p).sum(1).mean() + 0.7 * over
        slope = ((p - y) + 0.7 * (p - q)) / 5
    np.testing.assert_allclose(value, expected, rtol=1e-9)
    np.testing.assert_allclose(gradients[0], slope, rtol=1e-9, atol=1e-12)
    assert gradients[1] is None


@pytest.mark.parametrize("options", [{"lam": 0.0}, {"lam": 0.3}, {"lam": 0.7}, {"epsilon": 0.01, "lam_rate": 1.0}])
def test_the_students_cross_entropy_falls_monotonically(options):
    """Proposition 1, on a convex problem: linear networks of the same form, all data at every step. Of the constrained
    form, which it is about, and of the other with fixed λ."""
    trainer = DistillationTrainer(linear("student", 1), linear("teacher", 2), method("prokt", **options))
    compiled(trainer, 0.05)
    losses = [np.log(3), *fit(trainer, epochs=40, validation_data=(X, Y))["val_loss"]]
    assert (np.diff(losses) < 0).all() and losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(("epsilon", "rate"), [(1e-4, 10.0), (0.5, 0.05), (2.0, 1.0)])
def test_the_constrained_form_is_dual_ascent(epsilon, rate):
    """The teacher's gradient is (p − y) + β (p − q), and then β ← max(0, β + rate · (KL(q ‖ p) − ε)), KL before the
    step: β and all weights against a loop of NumPy. With the first β rises, with the others it falls, to 0 at last."""
    teacher, student = linear("teacher", 2), linear("student", 1)
    trainer = compiled(DistillationTrainer(student, teacher, method("prokt", lam=0.05, epsilon=epsilon, lam_rate=rate)),
                       0.5)
    inputs = np.concatenate([X.reshape(12, -1).astype("float64"), np.ones((12, 1))], axis=1)
    t, s = (np.zeros((inputs.shape[1], 3)) for _ in range(2))
    beta, seen = 0.05, []
    for _ in range(5):
        log_q, log_p = log_softmax(inputs @ s), log_softmax(inputs @ t)
        q, p = np.exp(log_q), np.exp(log_p)
        t -= 0.5 * inputs.T @ (p - np.eye(3)[Y] + beta * (p - q)) / 12
        beta = max(0.0, beta + rate * ((q * (log_q - log_p)).sum(1).mean() - epsilon))
        s -= 0.5 * inputs.T @ (q - np.exp(log_softmax(inputs @ t))) / 12
        seen.append(beta)
        np.testing.assert_allclose(fit(trainer)["multiplier"][0], beta, rtol=1e-4, atol=1e-6)
    for model, expected in ((teacher, t), (student, s)):
        np.testing.assert_allclose(np.concatenate([values(model)[0], values(model)[1][None]]), expected, rtol=1e-3,
                                   atol=1e-6)
    assert seen[-1] > 0.05 if epsilon == 1e-4 else seen[-1] == 0.0


@pytest.mark.parametrize("name", ["prokt", "crd_prokt"])
def test_neither_network_gets_a_gradient_in_the_others_step(name, monkeypatch):
    trainer = trainer_of(name)
    compiled(trainer, run_eagerly=True)
    own = {"student": trainer.student.trainable_variables, "teacher": trainer.teacher.trainable_variables}
    seen = []

    def apply(optimizer, tape, loss, variables):
        names = [*own]
        found = tape.gradient(loss, [own[name] for name in names])
        seen.append({name for name, gradients in zip(names, found, strict=True)
                     if any(gradient is not None for gradient in gradients)})

    monkeypatch.setattr(trainer, "_apply", apply)
    fit(trainer)
    assert seen == [{"teacher"}, {"student"}]


def test_networks_within_others_begin_with_the_uniform_distribution_too():
    """A layer before a network and one that only casts behind it: the same training as of the bare network."""
    def trained(wrap):
        trainer = compiled(DistillationTrainer(wrap(network(2, "student", 1)), wrap(network(4, "teacher", 2)), "prokt"))
        np.testing.assert_array_equal(trainer.predict(X, verbose=0), 0)
        return fit(trainer, epochs=2)

    def wrapped(inner):
        return keras.Sequential([keras.Input((8, 8, 2)), keras.layers.Rescaling(1.0), inner,
                                 keras.layers.Activation("linear", dtype="float32")])

    bare, within = trained(lambda inner: inner), trained(wrapped)
    assert bare["loss"][0] != bare["loss"][1]
    for name, values_ in bare.items():
        np.testing.assert_allclose(within[name], values_, rtol=1e-5, err_msg=name)
    flat = keras.Sequential([keras.Input((8, 8, 2)), keras.layers.Flatten(), keras.layers.Dense(3),
                             keras.layers.LayerNormalization()], name="normed")
    with pytest.raises(ValueError, match="'normed' ends with LayerNormalization"):
        DistillationTrainer(flat, network(4, "teacher", 2), "prokt")
