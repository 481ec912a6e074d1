"""Losses without weights against NumPy, entry by entry; derivatives against differences; in Keras' own Distiller."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.distillation.maps import pooled_to
from tf_l2t.distillation.matching import MATCHING, MatchingLoss

RNG = np.random.default_rng(0)
MAPS = RNG.standard_normal((4, 6, 6, 3)), RNG.standard_normal((4, 4, 4, 5))  # of the teacher, of the student
ROWS = RNG.standard_normal((5, 7)), RNG.standard_normal((5, 4))
SAME = RNG.standard_normal((5, 4)), RNG.standard_normal((5, 4))
SCORES = RNG.standard_normal((3, 2, 5, 5)), RNG.standard_normal((3, 2, 5, 5))
STATES = RNG.standard_normal((3, 4, 6)), RNG.standard_normal((3, 4, 6))


def unit(v):
    return v / np.sqrt((v * v).sum())


def bins(image, size):
    """Means over the bins of PyTorch's adaptive pooling, one by one."""
    n = len(image)
    cut = [(i * n // size, int(np.ceil((i + 1) * n / size))) for i in range(size)]
    return np.array([[image[a:b, c:d].mean((0, 1)) for c, d in cut] for a, b in cut])


def at(t, s, p=2.0, variant="repdistiller"):
    total = 0.0
    for i in range(len(t)):
        q_t, q_s = (unit(np.array([np.mean([abs(v) ** p for v in place]) for place in x.reshape(-1, x.shape[-1])]))
                    for x in (bins(t[i], 4), s[i]))
        total += ((q_t - q_s) ** 2).sum() / 16 if variant == "repdistiller" else np.sqrt(((q_t - q_s) ** 2).sum()) / 2
    return total / len(t)


def nst(t, s):
    total = 0.0
    for i in range(len(t)):
        a = [unit(bins(t[i], 4)[..., c].ravel()) for c in range(3)]
        b = [unit(s[i][..., c].ravel()) for c in range(5)]
        k = {name: np.mean([np.dot(u, v) ** 2 for u in x for v in y]) for name, x, y in
             (("tt", a, a), ("ss", b, b), ("st", b, a))}
        total += k["tt"] + k["ss"] - 2 * k["st"]
    return total / len(t)


def sp(t, s):
    g = []
    for x in (t, s):
        x = x.reshape(len(x), -1)
        g.append(np.array([unit(np.array([u @ v for v in x])) for u in x]))
    return sum((a - b) ** 2 for a, b in zip(g[0].ravel(), g[1].ravel(), strict=True)) / len(t) ** 2


def huber(x):
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def rkd(t, s, distance_weight=25.0, angle_weight=50.0):
    n = len(t)
    d, angle = [], []
    for x in (t, s):
        e = np.array([[np.sqrt(((u - v) ** 2).sum()) for v in x] for u in x])
        d.append(e / e[e > 0].mean())
        angle.append([(0.0 if i in (j, k) else unit(x[j] - x[i]) @ unit(x[k] - x[i]))
                      for i in range(n) for j in range(n) for k in range(n)])
    distances = np.mean([huber(b - a) for a, b in zip(d[0].ravel(), d[1].ravel(), strict=True)])
    return distance_weight * distances + angle_weight * np.mean([huber(b - a) for a, b in zip(*angle, strict=True)])


def pkt(t, s):
    p = []
    for x in (t, s):
        x = [u / (np.sqrt((u * u).sum()) + 1e-7) for u in x]
        cos = np.array([[(u @ v + 1) / 2 for v in x] for u in x])
        p.append(cos / cos.sum(1, keepdims=True))
    return np.mean(p[0] * np.log((p[0] + 1e-7) / (p[1] + 1e-7)))


def cc(t, s, variant="repdistiller", gamma=0.4, order=2):
    if variant == "repdistiller":
        return np.mean([sum(abs(s[i] - t[i]) * abs(s[i + 1] - t[i + 1])) for i in range(len(t) - 1)])
    c = []
    for x in (t, s):
        x = [unit(u) for u in x]
        series = [[1, 2 * gamma * (u @ v), (2 * gamma * (u @ v)) ** 2 / 2, (2 * gamma * (u @ v)) ** 3 / 6]
                  for u in x for v in x]
        c.append([np.exp(-2 * gamma) * sum(terms[:order + 1]) for terms in series])
    return np.mean((np.array(c[0]) - np.array(c[1])) ** 2)


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def kd(t, s, temperature=4.0):
    p, q = ([softmax(z / temperature) for z in x] for x in (t, s))
    return temperature ** 2 * np.mean([sum(a * np.log(a / b)) for a, b in zip(p, q, strict=True)])


def soft_cross_entropy(t, s, temperature=1.0):
    p, q = ([softmax(z / temperature) for z in x] for x in (t, s))
    return -temperature ** 2 * np.mean([sum(a * np.log(b)) for a, b in zip(p, q, strict=True)])


def attention_scores(t, s):
    return sum((a - b) ** 2 for a, b in zip(t.ravel(), s.ravel(), strict=True)) / t.size


def patient(t, s, variant="code"):
    each = [((unit(a[0]) - unit(b[0])) ** 2).sum() for a, b in zip(t, s, strict=True)]
    return np.mean(each) / (t.shape[-1] if variant == "code" else 1)


# name -> (teacher, student), formula, options
FORMULAS = {
    "at": (MAPS, at, [{}, {"p": 1.0}, {"p": 3.0}, {"variant": "paper"}]),
    "nst": (MAPS, nst, [{}]),
    "sp": (MAPS, sp, [{}]),
    "rkd": (ROWS, rkd, [{}, {"distance_weight": 0.0}, {"distance_weight": 2.0, "angle_weight": 0.0}]),
    "pkt": (ROWS, pkt, [{}]),
    "cc": (SAME, cc, [{}, {"variant": "paper"}, {"variant": "paper", "gamma": 1.0, "order": 3}]),
    "kd": (SAME, kd, [{}, {"temperature": 1.0}]),
    "attention_scores": (SCORES, attention_scores, [{}]),
    "patient": (STATES, patient, [{}, {"variant": "paper"}]),
    "soft_cross_entropy": (SAME, soft_cross_entropy, [{}, {"temperature": 3.0}]),
}
CASES = [(name, options) for name, (_, _, all_options) in FORMULAS.items() for options in all_options]


def test_every_loss_is_tested():
    assert FORMULAS.keys() == MATCHING.keys()


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_against_numpy(name, options):
    (teacher, student), formula, _ = FORMULAS[name]
    got = MatchingLoss(name, **options).compute_loss(tf.constant(teacher), tf.constant(student))
    assert got.shape == ()
    np.testing.assert_allclose(got, formula(teacher, student, **options), rtol=1e-9)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_derivatives_against_differences(name, options):
    """In the student, along a random direction; the teacher gets none."""
    (teacher, student), formula, _ = FORMULAS[name]
    loss = MatchingLoss(name, **options)
    t, s = tf.Variable(teacher), tf.Variable(student)
    with tf.GradientTape() as tape:
        value = loss.compute_loss(t, s)
    to_teacher, to_student = tape.gradient(value, (t, s))
    assert to_teacher is None
    direction = np.random.default_rng(1).standard_normal(student.shape)
    step = 1e-6
    ahead, behind = (formula(teacher, student + sign * step * direction, **options) for sign in (1, -1))
    # Central differences of doubles, of losses of up to some tens: 1e-9 of relative error, and as much of the loss.
    np.testing.assert_allclose((to_student.numpy() * direction).sum(), (ahead - behind) / (2 * step), rtol=1e-6,
                               atol=1e-8)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_zeros_teach_nothing_that_is_not_a_number(name, options):
    """Features of a ReLU may be all 0, and examples of a batch the same."""
    (teacher, student), _, _ = FORMULAS[name]
    for value in (np.zeros_like(student), np.ones_like(student)):
        s = tf.Variable(value)
        with tf.GradientTape() as tape:
            loss = MatchingLoss(name, **options).compute_loss(tf.constant(teacher), s)
        assert np.isfinite(loss) and np.isfinite(tape.gradient(loss, s)).all()


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "soft_cross_entropy"])
def test_an_equal_student_loses_nothing(name):
    teacher = FORMULAS[name][0][0]
    np.testing.assert_allclose(MatchingLoss(name).compute_loss(tf.constant(teacher), tf.constant(teacher)), 0,
                               atol=1e-12)


def test_pooling_is_adaptive():
    image = RNG.standard_normal((1, 7, 5, 2))
    got = pooled_to(tf.constant(image), 3, 4)
    rows, columns = [(0, 3), (2, 5), (4, 7)], [(0, 2), (1, 3), (2, 4), (3, 5)]  # by hand, as PyTorch's rule has it
    expected = [[image[0, a:b, c:d].mean((0, 1)) for c, d in columns] for a, b in rows]
    np.testing.assert_allclose(got[0], expected, rtol=1e-12)


def test_kd_is_keras_divergence():
    """T² KL by Keras' own loss of probabilities."""
    t, s = (tf.constant(x, tf.float32) for x in SAME)
    keras_loss = keras.losses.KLDivergence()(tf.nn.softmax(t / 4), tf.nn.softmax(s / 4)) * 16
    np.testing.assert_allclose(MatchingLoss("kd").compute_loss(t, s), keras_loss, rtol=1e-5)


def networks():
    keras.utils.set_random_seed(0)
    models = []
    for width, name in ((6, "teacher"), (4, "student")):
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.Conv2D(width, 3, activation="relu", name="conv")(inputs)
        x = keras.layers.GlobalAveragePooling2D()(x)
        models.append(keras.Model(inputs, keras.layers.Dense(3)(x), name=name))
    return models


@pytest.mark.parametrize("name", ["at", "nst", "sp", "rkd", "pkt", "cc", "soft_cross_entropy"])
def test_in_keras_distiller(name):
    """Its loss is ½ of the cross entropy and ½ of both distillation losses, each computed here by itself."""
    teacher, student = networks()
    of_maps = name in ("at", "nst", "sp")
    named = {"teacher_layer_name": "conv", "student_layer_name": "conv"} if of_maps else {}
    losses = [MatchingLoss("kd", temperature=2.0), MatchingLoss(name, **named)]
    distiller = keras.distillation.Distiller(teacher, student, losses, [1.0, 0.5])
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", loss=cross_entropy)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 8, 8, 1)).astype("float32"), np.arange(12) % 3
    logits = teacher(x), student(x)
    maps = [keras.Model(m.inputs, m.get_layer("conv").output)(x) for m in (teacher, student)] if of_maps else logits
    expected = 0.5 * cross_entropy(y, logits[1]) + 0.5 * (
        losses[0].compute_loss(*logits) + 0.5 * losses[1].compute_loss(*maps))
    got = distiller.fit(x, y, batch_size=12, shuffle=False, verbose=0).history["total_loss"][0]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_states_of_encoders_in_keras_distiller():
    """Patient distillation of [batch, length, width] that a layer has; the weight of the labels' loss is 0 here."""
    keras.utils.set_random_seed(0)
    teacher, student = (keras.Sequential([keras.Input((5,)), keras.layers.Embedding(9, 4, name="states"),
                                          keras.layers.Flatten(), keras.layers.Dense(2)]) for _ in range(2))
    loss = MatchingLoss("patient", teacher_layer_name="states", student_layer_name="states")
    distiller = keras.distillation.Distiller(teacher, student, loss, student_loss_weight=0.0)
    distiller.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).integers(0, 9, (6, 5))
    first = [np.asarray(m.get_layer("states")(x))[:, 0] for m in (teacher, student)]
    t, s = (states / np.linalg.norm(states, axis=1, keepdims=True) for states in first)
    expected = ((t - s) ** 2).mean()
    got = distiller.fit(x, np.arange(6) % 2, batch_size=6, verbose=0).history["total_loss"][0]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_loss_is_kept_in_a_config():
    loss = MatchingLoss("at", teacher_layer_name="a", student_layer_name="b", p=3.0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
    t, s = (tf.constant(x) for x in MAPS)
    assert again.compute_loss(t, s) == loss.compute_loss(t, s)


@pytest.mark.parametrize(("make", "match"), [
    (lambda: MatchingLoss("kl"), "must be one of .*'kd'"),
    (lambda: MatchingLoss("kd", temparature=2.0), r"options \['temperature'\]; received \['temparature'\]"),
    (lambda: MatchingLoss("at", teacher_layer_name="a"), "of both networks"),
    (lambda: MatchingLoss("kd", temperature=0.0).compute_loss(*map(tf.constant, SAME)), "above 0; received 0.0"),
    (lambda: MatchingLoss("kd").compute_loss(*map(tf.constant, ROWS)), "as many classes"),
    (lambda: MatchingLoss("at").compute_loss(*map(tf.constant, ROWS)), r"feature maps .* received shape \(5, 7\)"),
    (lambda: MatchingLoss("at", variant="b").compute_loss(*map(tf.constant, MAPS)), "'paper'"),
    (lambda: MatchingLoss("at", p=0.5).compute_loss(*map(tf.constant, MAPS)), "at least 1; received 0.5"),
    (lambda: MatchingLoss("cc").compute_loss(*map(tf.constant, ROWS)), "one width"),
    (lambda: MatchingLoss("cc", order=0).compute_loss(*map(tf.constant, SAME)), "order"),
    (lambda: MatchingLoss("rkd", angle_weight=-1.0).compute_loss(*map(tf.constant, ROWS)), "at least 0"),
    (lambda: MatchingLoss("kd").validate_outputs([1], [1]), "two tensors"),
])
def test_bad_input(make, match):
    with pytest.raises(ValueError, match=match):
        make()
