"""Students of every kind train under a strategy of two replicas as on one device: to the same weights."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tests.clusters import environments
from tests.commands import start_module
from tests.distillation import small
from tests.training import test_sequence_student as sentences
from tests.training import test_taught_translator as translation
from tf_l2t.losses import LargeMarginStudent
from tf_l2t.training import TaughtStudent
from tf_l2t.training.actor_critic import ActorCriticStudent
from tf_l2t.training.sequence_student import sequence_student
from tf_l2t.training.translator_fit import translation_dataset
from tf_l2t.translation.token_losses import TokenLoss


@pytest.fixture(scope="module")
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def taught():
    keras.utils.set_random_seed(1)
    train, dev = tiny.arrays(48, 0), tiny.arrays(12, 1)
    model = TaughtStudent(tiny.plain(), tiny.teacher(), (dev.x, dev.y), num_steps=8, refresh_every=3)
    model.compile(keras.optimizers.SGD(0.2, momentum=0.9), metrics=["accuracy"])
    history = model.fit(train.x, train.y, batch_size=12, epochs=2, shuffle=False, verbose=0).history
    assert model.step == 8
    return model, [*history["loss"], *history["accuracy"], model.running_train_accuracy, *model.coefficients.ravel(),
                   model.evaluate(train.x, train.y, batch_size=12, verbose=0)[0]]


def large_margin():
    """λ falls with the steps."""
    keras.utils.set_random_seed(1)
    train = tiny.arrays(48, 0)
    model = LargeMarginStudent(tiny.plain(), margin=3, base=2.0, gamma=0.5, power=1.0)
    model.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
    history = model.fit(train.x, train.y, batch_size=12, epochs=2, shuffle=False, verbose=0).history
    return model, [*history["loss"], *history["accuracy"], *model.evaluate(train.x, train.y, batch_size=12, verbose=0)]


def taught_translator():
    """Batches of 4: two replicas share them evenly."""
    model = translation.taught(translation.student())
    data = translation_dataset(translation.bucketed_batches(translation.TRAIN, 4), 7, 0, 5)
    history = model.fit(data, verbose=0).history
    return model, [history["loss"][-1], *model.coefficients]


def by_sentences(name, **options):
    def build():
        model = sequence_student(sentences.student(), name, seed=3, candidates="beam", num_candidates=3, **options)
        model.compile(keras.optimizers.SGD(0.5))
        history = model.fit(translation_dataset(sentences.reversing, 0, 0, 3), verbose=0).history
        return model, [history["loss"][-1], history["reward"][-1]]

    return build


def by_likelihood():
    model = sentences.student()
    model.compile(keras.optimizers.SGD(0.5), loss=TokenLoss())
    return model, model.fit(translation_dataset(sentences.reversing, 0, 0, 3), verbose=0).history["loss"]


def distilled(name, **options):
    """Networks without moments of a batch, which replicas take of their parts."""
    def build():
        student, teacher = small.linear("student", 1, "l2"), small.linear("teacher", 2)
        trainer = small.compiled(small.DistillationTrainer(student, teacher, small.method(name, **options)))
        history = small.fit(trainer, epochs=3)
        return trainer, [*history["loss"], *history["divergence"], *small.values(teacher)[0].ravel()]

    return build


def contrasted(name):
    """The memory is compared, too."""
    def network(width, name, seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((8, 8, 2))
        pooled = keras.layers.Dense(width, name="pooled")(keras.layers.Flatten()(inputs))
        return keras.Model(inputs, keras.layers.Dense(3, name="logits")(pooled), name=name)

    def build():
        trainer = small.compiled(small.DistillationTrainer(
            network(4, "student", 1), network(6, "teacher", 2), small.method(name, num_negatives=4), small.Y))
        history = small.fit(trainer, epochs=3, batch_size=4)
        kept = [w for w in trainer.weights if "bank" in w.path or "constant" in w.path]
        assert len(kept) == 4
        return trainer, [*history["loss"], *np.concatenate([np.ravel(w) for w in kept])]

    return build


STUDENTS = {"taught": taught, "large_margin": large_margin, "taught_translator": taught_translator,
            "mle": by_likelihood, "reinforce": by_sentences("reinforce", baseline="running"),
            "kd": distilled("kd"), "crd": contrasted("crd"), "crd_prokt": contrasted("crd_prokt"),
            "prokt": distilled("prokt"), "prokt_constrained": distilled("prokt", epsilon=0.1)}


# float32 sums in another order, over a few steps.
@pytest.mark.parametrize("name", STUDENTS)
def test_two_replicas_train_as_one_device(name, strategy):
    one, figures = STUDENTS[name]()
    with strategy.scope():
        two, others = STUDENTS[name]()
    np.testing.assert_allclose(others, figures, rtol=1e-4, atol=1e-5)
    for a, b in zip(two.trainable_variables, one.trainable_variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


def test_a_translator_of_two_replicas_outside_of_its_strategy(strategy):
    """Called op by op, where its variables are mirrored ones still."""
    one, _ = by_likelihood()
    with strategy.scope():
        two, _ = by_likelihood()
    inputs, _ = next(iter(translation_dataset(sentences.reversing, 0, 0, 1)))
    np.testing.assert_allclose(two(inputs), one(inputs), rtol=1e-4, atol=1e-5)


def test_moments_and_dropout_under_a_strategy(strategy):
    """BatchNormalization is each replica's own, and what it keeps the mean of theirs; a student learns all the same."""
    with strategy.scope():
        student, teacher = small.network(2, "student", 1, dropout=0.2), small.network(4, "teacher", 2)
        trainer = small.DistillationTrainer(student, teacher, small.method("prokt"))
        history = small.fit(small.compiled(trainer, rate=0.5), epochs=30)
    kept = small.values(student)
    assert np.isfinite(np.concatenate([np.ravel(v) for v in kept])).all()
    assert history["teacher_loss"][-1] < 0.8 * history["teacher_loss"][0]


def test_actor_critic_on_two_replicas(strategy):
    """Both have the same sentences, for which they draw the same numbers: they are one device that has them once. By
    SGD, as Adam makes steps of one size of whatever rounding leaves of a gradient that is 0."""
    def twice(seed, step):
        return tuple(tf.concat([part, part], axis=0) for part in sentences.reversing(seed, step, size=4))

    def once(seed, step):
        return sentences.reversing(seed, step, size=4)

    def fit(batches):
        model = ActorCriticStudent(sentences.student(), critic_steps=2, target_rate=0.2, delayed_actor=True, seed=3,
                                   critic_optimizer=keras.optimizers.SGD(0.05, momentum=0.5))
        falling = keras.optimizers.schedules.PolynomialDecay(0.1, 3, 0.01)
        model.compile(keras.optimizers.SGD(falling, momentum=0.5))
        history = model.fit(translation_dataset(batches, 0, 0, 5), verbose=0).history
        assert int(model.optimizer.iterations.numpy()) == 3 and model.step == 5
        return [w.numpy() for w in model.weights], [values[-1] for values in history.values()]

    one, figures = fit(once)
    with strategy.scope():
        two, others = fit(twice)
    np.testing.assert_allclose(others, figures, rtol=1e-3, atol=1e-4)
    for a, b in zip(two, one, strict=True):  # the critics, the slow copies and the actor
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_several_machines_are_refused(tmp_path):
    """No Keras 3 model can be fitted there; two real processes are told so, in place of Keras' own error."""
    names = ["taught", "large_margin", "taught_translator", "reinforce", "prokt"]
    outs = [tmp_path / f"out{index}.json" for index in range(2)]
    processes = [start_module("tests.training.students_worker", str(out), *names, env=env)
                 for out, env in zip(outs, environments(), strict=True)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    for out in outs:
        told = json.loads(out.read_text())
        assert list(told) == names
        assert all("a MultiWorkerMirroredStrategy of 2 processes" in sentence for sentence in told.values()), told


def test_what_several_replicas_cannot_do(strategy):
    with strategy.scope():
        critic = ActorCriticStudent(sentences.student(), critic_steps=1)
        critic.compile(keras.optimizers.AdamW(0.1))
    with pytest.raises(ValueError, match="several replicas"):
        critic.fit(translation_dataset(sentences.reversing, 0, 0, 2), verbose=0)
