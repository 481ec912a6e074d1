"""Every method's loss and constants, and losses of Keras' API as methods."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillation.small import X, Y, compiled, fit, log_softmax, network, trainer_of, values
from tf_l2t.distillation import (
    METHODS,
    TERMS,
    DistillationTrainer,
    Method,
    Phase,
    Term,
)
from tf_l2t.distillation.terms import Examples
from tf_l2t.students import tapped, taps

STAGES = ("stage1", "stage2", "stage3")
# RepDistiller's commands: γ of cross entropy, α of KD, T, β of the term, where it stands.
PUBLISHED = {
    "none": (1, 0, None, None, ()), "kd": (0.1, 0.9, 4, None, ()), "rco": (0.1, 0.9, 4, None, ()),
    "kl": (0, 1, 1, None, ()), "rco_kl": (0, 1, 1, None, ()), "fitnet": (1, 0, None, 100, ("stage2",)),
    "at": (1, 0, None, 1000, STAGES), "sp": (1, 0, None, 3000, ("stage3",)), "cc": (1, 0, None, 0.02, ("pooled",)),
    "vid": (1, 0, None, 1, STAGES), "rkd": (1, 0, None, 1, ("pooled",)), "pkt": (1, 0, None, 30000, ("pooled",)),
    "ab": (1, 0, None, None, ()), "ft": (1, 0, None, 200, ("stage3",)), "nst": (1, 0, None, 50, STAGES),
    "crd": (1, 0, None, 0.8, ("pooled",)), "crd_kd": (1, 1, 4, 0.8, ("pooled",)), "prokt": (0, 1, 1, None, ()),
    "crd_prokt": (0, 1, 1, 0.8, ("pooled",))}


@pytest.mark.parametrize("name", PUBLISHED)
def test_constants_are_the_published_ones(name):
    found = METHODS[name]
    ce, kd, temperature, weight, where = PUBLISHED[name]
    assert (found.last.ce, found.last.kd) == (ce, kd) and temperature in (None, found.temperature)
    assert [w for _, w in found.last.terms] == ([] if weight is None else [weight])
    teacher, student = network(4, "teacher", 2, stages=3), network(2, "student", 1, stages=3)
    for term, _ in found.last.terms:
        assert Term(term, teacher, student, {}, Y).pairs == [(tap, tap) for tap in where]
    if name == "ab":
        term = Term("ab", teacher, student)
        assert term.pairs == [(f"{tap}_preact", f"{tap}_preact") for tap in STAGES]
        factors = [TERMS["ab"].scale(i, 3, {}) for i in range(3)]
        assert found.phases[0].terms == (("ab", 1.0),) and factors == [0.25, 0.5, 1.0]


OF_ENCODERS = ("pkd", "pkd_last", "tinybert", "tinybert_prokt")  # see test_encoders.py


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].teacher != "trained"
                                  and name not in OF_ENCODERS])
def test_the_loss_is_what_the_method_says(name):
    """ce · H(y, q) + kd · T² KL(p ‖ q) + weight · term, the first two in NumPy, the last by the term itself."""
    trainer = trainer_of(name)
    trainer.begin(trainer.method.last.name)
    compiled(trainer, run_eagerly=True)  # a graph of one step takes longer
    (phase, temperature), student = (trainer.method.last, trainer.method.temperature), trainer.student
    log_q = log_softmax(np.asarray(student(X, training=True)))
    student.set_weights(values(network(2, "student", 1)))  # as they were: the call renewed the moving statistics
    expected = -phase.ce * log_q[np.arange(12), Y].mean()
    if phase.kd:
        logits = np.asarray(trainer.teacher(X, training=False)), np.asarray(student(X, training=True))
        student.set_weights(values(network(2, "student", 1)))
        log_p, log_q = (log_softmax(z / temperature) for z in logits)
        expected += phase.kd * temperature ** 2 * (np.exp(log_p) * (log_p - log_q)).sum(1).mean()
    drawn = []
    for term, weight in phase.terms:
        found = trainer._terms[term]
        for layer in found.layers:
            if hasattr(layer, "_negatives"):  # the same ones twice
                drawn.append(layer._negatives(tf.constant(Y)))
                layer._negatives = lambda labels: drawn[0]
        outputs = trainer._teacher_outputs(X, training=False), trainer._student_outputs(X, training=True)
        student.set_weights(values(network(2, "student", 1)))
        expected += weight * float(found.loss(*outputs, Examples(tf.range(12), tf.constant(Y)), training=False))
    # In training mode batch normalisation of connectors has the batch's statistics: only there the two differ.
    if name in ("fitnet", "ft"):
        outputs = trainer._teacher_outputs(X, training=False), trainer._student_outputs(X, training=True)
        student.set_weights(values(network(2, "student", 1)))
        modes = [float(trainer._terms[name].loss(*outputs, Examples(None, tf.constant(Y)), training=mode))
                 for mode in (False, True)]
        expected += phase.terms[0][1] * (modes[1] - modes[0])
    whole = {"total_epochs": 4} if METHODS[name].teacher == "anchors" else {}
    np.testing.assert_allclose(fit(trainer, **whole)["loss"][0], expected, rtol=2e-5)


@pytest.mark.parametrize("loss", [
    keras.distillation.FeatureDistillation("mse", "stage2", "stage2_preact"),
    keras.distillation.LogitsDistillation(temperature=2.0, loss=keras.losses.KLDivergence())])
def test_losses_of_keras(loss, tmp_path):
    """Of a layer's outputs, or of logits; beside the labels' cross entropy, and kept with the trainer."""
    student, teacher = network(2, "student", 1), network(2, "teacher", 2)
    maps = [keras.Model(m.inputs, [m.get_layer(name).output, m.output]) for m, name in
            ((teacher, "stage2"), (student, "stage2_preact"))]
    (t, t_logits), (s, s_logits) = (m([X], training=m is maps[1]) for m in maps)
    expected = -log_softmax(np.asarray(s_logits))[np.arange(12), Y].mean()
    if isinstance(loss, keras.distillation.FeatureDistillation):
        expected += ((np.asarray(t) - np.asarray(s)) ** 2).mean()
    else:
        log_p, log_q = (log_softmax(np.asarray(z) / 2) for z in (t_logits, s_logits))
        expected += 4 * (np.exp(log_p) * (log_p - log_q)).sum(1).mean()
    trainer = compiled(DistillationTrainer(student, teacher, loss), rate=0.0)
    np.testing.assert_allclose(fit(trainer)["loss"][0], expected, rtol=1e-4)
    trainer.save(tmp_path / "trainer.keras")
    np.testing.assert_allclose(fit(keras.saving.load_model(tmp_path / "trainer.keras"))["loss"][0], expected, rtol=1e-4)


def test_the_divergence_that_keras_takes_of_logits_is_refused():
    """Its default has neither softmax nor T²: more than twice what it should be, in the reference's example."""
    student, teacher = network(2, "student", 1), network(2, "teacher", 2)
    loss = keras.distillation.LogitsDistillation()
    for given in (loss, Method("mine", "fixed", (Phase(ce=1.0, terms=((loss, 1.0),)),))):
        with pytest.raises(ValueError, match=r"takes logits for probabilities.*KLDivergence\(\)"):
            DistillationTrainer(student, teacher, given)


@pytest.mark.parametrize(("teacher", "phases", "match"), [
    ("fixed", (), "phases of a name each"),
    ("fixed", (Phase(ce=1.0), Phase(kd=1.0)), "phases of a name each"),
    ("loaned", (Phase(ce=1.0),), "one of .*'trained'"),
    ("fixed", (Phase(),), r"'main' of 'mine' has a loss of 0 .* one above; received \(0.0, 0.0\)"),
    ("fixed", (Phase(ce=-1.0),), "numbers of at least 0"),
    ("fixed", (Phase(terms=(("at", float("nan")),)),), "numbers of at least 0"),
    ("fixed", (Phase(ce=True),), "numbers of at least 0"),
    ("none", (Phase(ce=1.0, kd=1.0),), "no teacher; received kd=1.0"),
    ("none", (Phase("before", terms=(("at", 1.0),)), Phase(ce=1.0)), "'before' .* no teacher"),
    ("fixed", (Phase(kd=1.0, frozen=True),), "frozen, .* a teacher that stays as it is"),
    ("fixed", (Phase("before", terms=(("at", 1.0),), prepares=True), Phase(ce=1.0)), r"such layers, \['ft'\]"),
    ("fixed", (Phase("before", ce=1.0, terms=(("ft", 1.0),), prepares=True), Phase(ce=1.0)), "ce = kd = 0"),
    ("fixed", (Phase(ce=1.0, terms=(("boundary", 1.0),)),), r"received \['boundary'\]"),
    ("fixed", (Phase(terms=(("ft", 1.0),), prepares=True),), "the last phase trains the student"),
    ("trained", (Phase("a", kd=1.0, frozen=True), Phase("b", kd=1.0, frozen=True)), "has a phase in which it is"),
])
def test_methods_of_ones_own_that_cannot_be_are_refused(teacher, phases, match):
    networks = [network(2, "student", 1), None if teacher == "none" else network(2, "teacher", 2)]
    with pytest.raises(ValueError, match=match):
        DistillationTrainer(*networks, Method("mine", teacher, phases))


@pytest.mark.parametrize("name", ["at", "vid", "nst"])
def test_stages_are_summed(name):
    """The term of three stages is the sum of those of each, not their mean: weights are published for it."""
    teacher, student = network(4, "teacher", 2, stages=3), network(2, "student", 1, stages=3)
    term, examples = Term(name, teacher, student), Examples(None, tf.constant(Y))
    outputs = [tapped(model, STAGES)(X) for model in (teacher, student)]
    alone = [part.compute_loss(outputs[0][tap], outputs[1][tap]) if name != "vid" else
             part(outputs[0][tap], outputs[1][tap]) for part, tap in zip(term._parts, STAGES, strict=True)]
    assert len({float(value) for value in alone}) == 3
    np.testing.assert_allclose(term.loss(*outputs, examples, training=False), sum(map(float, alone)), rtol=1e-6)


def test_boundaries_need_what_is_before_the_activations():
    """A stage that ends in one, and has no name for what is before it, is not compared as if it were that."""
    x = inputs = keras.Input((8, 8, 1))
    for i in (1, 2):
        x = keras.layers.Conv2D(2, 3, activation="relu" if i == 1 else None, name=f"stage{i}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    student = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="mine")
    assert [name for name in taps(student) if "preact" in name] == ["stage2_preact"]
    with pytest.raises(ValueError, match=r"'mine' names that of 1 of its 2 stages.*stage1_preact"):
        Term("ab", network(2, "teacher", 1), student)
