"""TinyBERT's loss with weights against NumPy and differences; the methods of encoders, on tiny ones."""

import keras
import keras_nlp
import numpy as np
import pytest
import tensorflow as tf

from tests.distillation.test_matching import patient
from tf_l2t.distillation import DistillationTrainer, HiddenStates, method, pairs
from tf_l2t.students import bert_classifier, bilstm, taps

RNG = np.random.default_rng(0)
TOKENS = np.array([[101, 5, 6, 7, 102, 0], [101, 8, 102, 9, 102, 0], [101, 5, 9, 8, 6, 102], [101, 7, 102, 0, 0, 0]])
LABELS = np.array([0, 1, 1, 0])


def classifier(layers, name, seed, width=8, heads=2):
    keras.utils.set_random_seed(seed)
    backbone = keras_nlp.models.BertBackbone(110, layers, heads, width, 12, dropout=0.0, max_sequence_length=6)
    model = bert_classifier(backbone, 2)
    model.name = name
    return model


def test_hidden_states():
    layer = HiddenStates(dtype="float64")
    t, s, direction = (RNG.standard_normal(shape) for shape in ((3, 4, 6), (3, 4, 5), (3, 4, 5)))
    layer.build(t.shape, s.shape)
    kernel, bias = (np.asarray(w) for w in layer.weights)
    assert kernel.shape == (5, 6) and abs(kernel).max() <= 5 ** -0.5

    def formula(kernel, s):
        return ((s @ kernel + bias - t) ** 2).sum() / t.size

    student = tf.Variable(s)
    with tf.GradientTape() as tape:
        value = layer(tf.constant(t), student)
    gradients = tape.gradient(value, [student, layer.weights[0].value])
    np.testing.assert_allclose(value, formula(kernel, s), rtol=1e-12)
    moved, step = RNG.standard_normal(kernel.shape), 1e-6
    for gradient, along, at in ((gradients[0], direction, lambda d: formula(kernel, s + d * direction)),
                                (gradients[1], moved, lambda d: formula(kernel + d * moved, s))):
        np.testing.assert_allclose((gradient.numpy() * along).sum(), (at(step) - at(-step)) / (2 * step), rtol=1e-6)


def test_which_layers_are_compared():
    teacher, student, other = classifier(6, "teacher", 0), classifier(3, "student", 1), classifier(4, "other", 2)
    assert pairs("attentions", teacher, student) == [(f"attention{2 * m}", f"attention{m}") for m in (1, 2, 3)]
    assert pairs("hidden", teacher, student) == [("embeddings", "embeddings"),
                                                 *((f"hidden{2 * m}", f"hidden{m}") for m in (1, 2, 3))]
    assert pairs("patient", teacher, student) == [("hidden2", "hidden1"), ("hidden4", "hidden2")]
    assert pairs("patient_last", teacher, student) == [("hidden4", "hidden1"), ("hidden5", "hidden2")]
    assert pairs("patient_last", teacher, other) == [(f"hidden{2 + m}", f"hidden{m}") for m in (1, 2, 3)]
    with pytest.raises(ValueError, match="or a multiple; received 6, 4"):
        pairs("hidden", teacher, other)
    with pytest.raises(ValueError, match="received 3, 6"):
        pairs("patient_last", student, teacher)
    with pytest.raises(ValueError, match="at least 2; received 1"):
        pairs("patient", teacher, classifier(1, "one", 3))
    with pytest.raises(ValueError, match=r"'bilstm' has the taps \['pooled', 'logits'\]"):
        pairs("attentions", teacher, bilstm(110, units=3, embedding=4))


@pytest.mark.parametrize(("name", "student", "match"), [
    ("tinybert", {"heads": 4}, "as many heads"), ("pkd", {"width": 12}, "of one width"),
])
def test_encoders_that_do_not_fit_are_refused(name, student, match):
    with pytest.raises(ValueError, match=match):
        DistillationTrainer(classifier(2, "student", 1, **student), classifier(4, "teacher", 0), name)


def taps_of(model):
    return {name: np.asarray(value) for name, value in zip(
        taps(model), keras.Model(model.inputs, list(taps(model).values()))([TOKENS]), strict=True)}


def fit(trainer, phase):
    trainer.begin(phase)
    trainer.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1) if trainer.teaches else None,
                    metrics=["accuracy"], run_eagerly=True)  # a graph of one step takes longer
    return trainer.fit(TOKENS, LABELS, batch_size=4, epochs=1, shuffle=False, verbose=0).history["loss"][0]


def log_softmax(z):
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def test_layers_named_hidden_are_taps_of_encoders_only():
    inputs = x = keras.Input((4,))
    for i in (1, 2):
        x = keras.layers.Dense(3, name=f"hidden{i}")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
    assert list(taps(model)) == ["pooled", "logits"]



@pytest.mark.parametrize("name", ["pkd", "pkd_last"])
def test_patient_distillation(name):
    teacher, student = classifier(4, "teacher", 0), classifier(2, "student", 1)
    t, s = taps_of(teacher), taps_of(student)
    log_p, log_q = (log_softmax(x["logits"] / 10) for x in (t, s))
    expected = -0.5 * log_softmax(s["logits"])[np.arange(4), LABELS].mean()
    expected += 0.5 * 100 * (np.exp(log_p) * (log_p - log_q)).sum(1).mean()
    expected += 100 * patient(t["hidden2" if name == "pkd" else "hidden3"], s["hidden1"])
    np.testing.assert_allclose(fit(DistillationTrainer(student, teacher, name), "main"), expected, rtol=1e-5)


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_patience_over_several_layers(variant):
    """The code has the mean over layers and width, the paper the sum of both."""
    teacher, student = classifier(6, "teacher", 0), classifier(3, "student", 1)
    t, s = taps_of(teacher), taps_of(student)
    total = sum(patient(t[f"hidden{2 * m}"], s[f"hidden{m}"], "paper") for m in (1, 2))
    trainer = DistillationTrainer(student, teacher, method("pkd", ce=0.0, kd=0.0, variant=variant))
    expected = 100 * total / (2 * 8 if variant == "code" else 1)
    np.testing.assert_allclose(fit(trainer, "main"), expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "first"), [("tinybert", None), ("tinybert_prokt", None), ("tinybert_prokt", 5)])
def test_tinybert(name, first):
    """The first stage's loss in NumPy; its teacher stays, the second stage's teacher too unless it is ProKT's."""
    teacher, student = classifier(4, "teacher", 0), classifier(2, "student", 1, width=12)
    first_teacher = first and classifier(4, "first", first)
    trainer = DistillationTrainer(student, teacher, name, first_teacher=first_teacher)
    t, s = taps_of(first_teacher or teacher), taps_of(student)
    (hidden,) = trainer._terms["hidden_states"].layers
    kernel, bias = (np.asarray(w) for w in hidden.weights)
    expected = sum(((t[f"attention{2 * m}"] - s[f"attention{m}"]) ** 2).mean() for m in (1, 2))
    expected += sum(((s[b] @ kernel + bias - t[a]) ** 2).mean() for a, b in
                    (("embeddings", "embeddings"), ("hidden2", "hidden1"), ("hidden4", "hidden2")))
    before = [w.numpy() for w in teacher.weights]
    np.testing.assert_allclose(fit(trainer, "inner"), expected, rtol=1e-5)
    assert all((a == b.numpy()).all() for a, b in zip(before, teacher.weights, strict=True))
    assert not (np.asarray(hidden.weights[0]) == kernel).all()
    assert not np.allclose(taps_of(student)["attention1"], s["attention1"])
    head = student.layers[-1].kernel
    head.assign(50 * head)  # a divergence well above the rounding of log-probabilities
    log_p, log_q = (log_softmax(taps_of(network)["logits"]) for network in (teacher, student))
    second = fit(trainer, "main")
    if name == "tinybert":  # of an updated teacher otherwise, as in test_prokt.py
        np.testing.assert_allclose(second, (np.exp(log_p) * (log_p - log_q)).sum(1).mean(), rtol=1e-5)
    changed = [not (a == b.numpy()).all() for a, b in zip(before, teacher.weights, strict=True)]
    assert any(changed) == (name == "tinybert_prokt")
    if first:
        fresh = classifier(4, "first", first)
        assert all((a.numpy() == b.numpy()).all() for a, b in zip(fresh.weights, first_teacher.weights, strict=True))


@pytest.mark.parametrize(("method", "layers", "match"), [
    ("tinybert", 4, "no phase with a teacher of its own"), ("tinybert_prokt", 2, "first_teacher is of the teacher's")])
def test_a_first_teacher_that_does_not_fit(method, layers, match):
    with pytest.raises(ValueError, match=match):
        DistillationTrainer(classifier(2, "student", 1), classifier(4, "teacher", 0), method,
                            first_teacher=classifier(layers, "first", 2))


def test_padding_has_no_part_in_scores():
    """Scores are q · k / √d, 0 where the key is padding; behind a softmax over the rest they are Keras' own weights."""
    model = classifier(1, "one", 0)
    encoder = model.get_layer("transformer_layer_0")
    inner = taps(model)
    scores, states = (np.asarray(x) for x in keras.Model(model.inputs, [inner["attention1"], inner["embeddings"]])(
        [TOKENS]))
    mask = TOKENS != 0
    assert (scores[~np.broadcast_to(mask[:, None, None], scores.shape)] == 0).all()
    weights = np.exp(np.where(mask[:, None, None], scores, -np.inf))
    weights /= weights.sum(-1, keepdims=True)
    _, expected = encoder(states, padding_mask=mask, return_attention_scores=True)
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-7)


def test_methods_of_the_text_experiments():
    kl = method("kl")
    assert (kl.last.ce, kl.last.kd, kl.temperature) == (0.0, 1.0, 1.0)
    assert method("tinybert_prokt").phases[0].frozen and not method("tinybert_prokt").last.frozen
    for name, lam in (("tinybert", 0.0), ("tinybert_prokt", 0.3)):
        inner, last = method(name).phases
        assert (inner.ce, inner.kd, inner.terms) == (0.0, 0.0, (("attention_scores", 1.0), ("hidden_states", 1.0)))
        assert (last.ce, last.kd, last.terms, method(name).temperature, method(name).lam) == (0.0, 1.0, (), 1.0, lam)
