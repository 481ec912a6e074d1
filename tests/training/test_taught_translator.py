"""A translation student that a teacher trains through Keras `fit` is the one that the engine trains."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from tests.training.test_translation_problem import V, pairs
from tf_l2t.hypergradient import advance, initial_state, sgd
from tf_l2t.students import AttentionLSTM, FunctionalTranslator
from tf_l2t.teachers import AttentionTeacher, DiagonalTeacher
from tf_l2t.training.taught_translator import TaughtTranslator
from tf_l2t.training.translation_problem import translation_problem
from tf_l2t.training.translation_task import TranslationTask
from tf_l2t.training.translator_fit import translation_dataset
from tf_l2t.translation import bucketed_batches

TRAIN, DEV = pairs(9, 0), pairs(6, 1)
STEPS = 5


def student():
    model = FunctionalTranslator(lambda: AttentionLSTM(V, units=4)).new_model(0)
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(weight.numpy() + 0.6 * rng.standard_normal(weight.shape))
    return model


def teacher(form="stable"):
    """One whose Φ is another for every token, and changes with the status."""
    made, rng = DiagonalTeacher(V, 3, num_keys=2, loss=form), np.random.default_rng(1)
    made.values.assign(made.values + 0.05 * rng.standard_normal(made.values.shape))
    made.keys.assign(5 * rng.standard_normal(made.keys.shape))
    return made


def taught(model, form="stable"):
    wrapped = TaughtTranslator(model, teacher(form), TRAIN, DEV, STEPS, refresh_every=2, sample_size=4)
    wrapped.compile(optimizer=keras.optimizers.SGD(0.3, momentum=0.5))
    return wrapped


def data(first, stop):
    return translation_dataset(bucketed_batches(TRAIN, 3), 7, first, stop)



def test_fit_makes_the_steps_of_the_engine():
    form = "mixture"
    functional = FunctionalTranslator(lambda: AttentionLSTM(V, units=4))
    problem = translation_problem(functional, TRAIN, DEV, form=form, objective="log_likelihood",
                                  optimizer=sgd(0.3, momentum=0.5), num_steps=STEPS, batch_size=3, refresh_every=2,
                                  sample_size=4)
    model = student()
    before = [w.numpy() for w in model.trainable_variables]
    state = initial_state(problem, tuple(map(tf.constant, before)), functional.init(0)[1])
    expected = advance(problem, teacher(form), jit=False)(state, 7, STEPS)

    wrapped = taught(model, form)
    wrapped.fit(data(0, STEPS), verbose=0, shuffle=False)
    assert wrapped.step == STEPS
    np.testing.assert_allclose(wrapped.coefficients, teacher(form)(expected.status), rtol=1e-5)
    assert np.ptp(wrapped.coefficients) > 0.02
    for own, theirs, first in zip(model.trainable_variables, expected.params, before, strict=True):
        assert np.abs(own.numpy() - first).max() > 1e-3
        np.testing.assert_allclose(own, theirs, rtol=0, atol=2e-6)  # float32; XLA and Keras order sums otherwise


def test_saved_and_loaded_it_goes_on(tmp_path):
    whole, begun = student(), student()
    taught(whole).fit(data(0, STEPS), verbose=0, shuffle=False)
    wrapped = taught(begun)
    wrapped.fit(data(0, 3), verbose=0, shuffle=False)
    found = wrapped.evaluate(data(0, 2), return_dict=True, verbose=0)
    assert set(found) == {"token_loss", "reward"} and 0 <= found["reward"] < 1 < found["token_loss"]
    wrapped.save(tmp_path / "taught.keras")
    loaded = keras.models.load_model(tmp_path / "taught.keras")
    assert loaded.step == 3
    np.testing.assert_array_equal(loaded.coefficients, wrapped.coefficients)
    loaded.fit(data(3, STEPS), verbose=0, shuffle=False)
    for own, theirs in zip(loaded.student.trainable_variables, whole.trainable_variables, strict=True):
        np.testing.assert_array_equal(own, theirs)


def test_a_teacher_is_trained_through_the_task():
    """It begins with the weights given, and M rises: the hypergradient points up, and the steps are small."""
    start = student()
    task = TranslationTask(lambda: AttentionLSTM(V, units=4), start=start, sample_size=4)
    for own, given in zip(task.init(3)[0], start.trainable_variables, strict=True):
        np.testing.assert_array_equal(own, given)
    trained = DiagonalTeacher(V, 3, num_keys=2, loss="stable")
    trainer = tf_l2t.TeacherTrainer(task, trained, num_steps=3, batch_size=3, refresh_every=2,
                                    student_optimizer=keras.optimizers.SGD(0.1))
    trainer.compile(optimizer=keras.optimizers.SGD(0.01), objective="log_likelihood", hvp="reverse_over_reverse",
                    clip_norm=None, jit=False)
    assert trainer.preflight().modes == ("reverse_over_reverse",)
    history = trainer.fit(TRAIN, DEV, 2, validation_freq=1, validation_rollouts=1, verbose=0)
    assert trainer.measure == "bleu" and 0 <= history.history["val_bleu"][-1] <= 1
    values = [history.params["initial_val_objective"], *history.history["val_objective"]]
    assert values[0] < values[1] < values[2]
    assert history.history["objective"][0] == pytest.approx(values[0], abs=0.2)  # the same start, other batches


def test_unrolled_students_are_measured_as_others():
    """On sentences of several widths, of which these students take one."""
    data, params = pairs(80, 2, 14), [tf.constant(w) for w in student().trainable_variables]
    found = []
    for unroll in (False, True):
        task = TranslationTask(lambda unroll=unroll: AttentionLSTM(V, units=4, unroll=unroll))
        task.check_objective("log_likelihood")
        state = types.SimpleNamespace(params=params, non_trainable=task.init(0)[1])
        found.append([measure(state) for measure in task.measures("log_likelihood", data)])
    assert found[0] == pytest.approx(found[1], rel=1e-5) and found[0][1] > 0
    with pytest.raises(ValueError, match=r"unroll=False, or choose one of .*'log_likelihood'"):
        task.check_objective("log_sharp_expected_bleu")


@pytest.mark.parametrize(("make", "match"), [
    (lambda: TaughtTranslator(student(), DiagonalTeacher(V + 1, 3), TRAIN, DEV, 5), "8 numbers"),
    (lambda: TaughtTranslator(student(), DiagonalTeacher(V, 11), TRAIN, DEV, 5), "11 features"),
    (lambda: TaughtTranslator(student(), AttentionTeacher(V, 3), TRAIN, DEV, 5), "AttentionTeacher"),
    (lambda: TaughtTranslator(student(), teacher(), TRAIN, DEV, 0), "num_steps"),
    (lambda: TaughtTranslator(student(), DiagonalTeacher(V, 3, class_counts=range(1, V + 1)), TRAIN, DEV, 5),
     "class_counts"),
    (lambda: TaughtTranslator(student(), teacher(), TRAIN, DEV._replace(target=0 * DEV.target), 5),
     r"dev, line 1 \(target\)"),
    (lambda: TaughtTranslator(student(), teacher(), TRAIN._replace(source=TRAIN.source + 90 * (TRAIN.source > 3)), DEV,
                              5), "train.*not in 0"),
    (lambda: TranslationTask(lambda: AttentionLSTM(V, units=4), start=AttentionLSTM(V, units=6)), "other shapes"),
    (lambda: TranslationTask(lambda: AttentionLSTM(V, units=4)).checked((TRAIN.source, TRAIN.target), "train"),
     "EncodedText"),
    (lambda: TranslationTask(lambda: AttentionLSTM(V - 1, units=4)).checked(TRAIN, "train"), "not in 0"),
    (lambda: TranslationTask(lambda: AttentionLSTM(V, units=4)).check_objective("accuracy"), "expected_bleu"),
])
def test_bad_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()
