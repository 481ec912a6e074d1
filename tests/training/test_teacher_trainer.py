"""The teacher's training loop."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_l2t
from tests import tiny
from tests.event_files import tags
from tf_l2t.data import ArrayPair
from tf_l2t.hypergradient import InnerOptimizer, hypergradient, initial_state, sgd
from tf_l2t.losses import stable_loss
from tf_l2t.objectives import log_likelihood
from tf_l2t.students import FunctionalStudent
from tf_l2t.training import TeacherDivergedError, TeacherSummaries, TeacherTrainer, classification_problem
from tf_l2t.training.validation import Validation

DEV = ArrayPair(*(tiny.arrays(30, 1)))


def noisy_train():
    train = tiny.arrays(60, 0)
    y = train.y.copy()
    y[::2] = (y[::2] + 1) % 3
    return ArrayPair(train.x, y)


def trainer(teacher=None, num_steps=25, student_optimizer=None, student=tiny.plain, **options):
    made = TeacherTrainer(student, teacher or tf_l2t.teachers.AttentionTeacher(3, 6, num_keys=4),
                          num_steps=num_steps, batch_size=12, refresh_every=5,
                          student_optimizer=student_optimizer or keras.optimizers.SGD(0.05, momentum=0.9))
    made.compile(keras.optimizers.Adam(0.01), **options)
    return made


def test_a_teacher_learns_to_help_on_shifted_labels(xla):
    made = trainer(rollouts=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = made.fit(noisy_train(), DEV, teacher_steps=20, validation_freq=5, verbose=0)
    values = history.history
    assert len(values["objective"]) == 20 and len(values["val_objective"]) == 4
    assert np.mean(values["objective"][-4:]) > np.mean(values["objective"][:4]) + 0.1
    assert max(values["val_objective"]) > history.params["initial_val_objective"] + 0.1
    assert values["dropped"][-1] == 0 and made.choice.jit
    noted = made.teacher.training
    assert noted["teacher_steps"] == 20 and noted["num_steps"] == 25 and noted["student_weights"] > 0
    assert made.teacher.training["val_objective"] == max([*values["val_objective"],
                                                          history.params["initial_val_objective"]])


def test_a_teacher_learns_to_help_on_a_long_tail():
    """From logit adjustment with smoothed labels, by the objective that does not ask students to be sure."""
    whole = tiny.arrays(120, 0, separation=0.3)
    kept = np.concatenate([np.flatnonzero(whole.y == c)[:n] for c, n in enumerate((40, 12, 4))])
    train = ArrayPair(whole.x[kept], whole.y[kept])
    teacher = tf_l2t.teachers.AttentionTeacher(3, 6, num_keys=4, loss="soft", class_counts=np.bincount(train.y))
    made = trainer(teacher, rollouts=2, objective="calibrated_log_likelihood", penalty=0.004)
    report = made.check(train, DEV, num_steps=6)
    assert report.passed, str(report)
    history = made.fit(train, DEV, teacher_steps=20, validation_freq=5, validation_rollouts=4, verbose=0)
    # The same four students every time, so what differs is the teacher.
    assert min(history.history["val_objective"]) > history.params["initial_val_objective"] + 0.02


def test_one_step_is_adam_on_the_clipped_mean_gradient():
    """The trainer's step against the engine's gradients of the same seeds and the stock optimizer."""
    teacher = tiny.teacher()
    start = [v.numpy() for v in teacher.theta]
    made = trainer(teacher, rollouts=2, clip_norm=0.3)
    history = made.fit(noisy_train(), DEV, teacher_steps=1, validation_freq=0, verbose=0)
    student = FunctionalStudent(tiny.plain)
    train, dev = noisy_train(), DEV
    problem = classification_problem(student, train, dev, loss=stable_loss, objective=log_likelihood,
                                     optimizer=sgd(float(np.float32(0.05)), 0.9), num_steps=25, batch_size=12,
                                     refresh_every=5)
    twin = tiny.teacher()
    results = [hypergradient(problem, twin)(initial_state(problem, *student.init(s)), s) for s in (0, 1)]
    norms = [float(tf.linalg.global_norm(r.gradient)) for r in results]
    assert max(norms) > 0.3  # the clip is at work
    mean = [sum(g * min(1, 0.3 / n) for g, n in zip(gs, norms, strict=True)) / 2
            for gs in zip(*(r.gradient for r in results), strict=True)]
    variables = [keras.Variable(v) for v in start]
    keras.optimizers.Adam(0.01).apply([-g for g in mean], variables)
    for ours, expected in zip(teacher.theta, variables, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)
    assert history.history["gradient_norm"][0] == pytest.approx(np.mean(norms), rel=1e-5)
    assert history.history["adjoint_norm"][0] == pytest.approx(
        np.mean([float(tf.linalg.global_norm(r.adjoint.params)) for r in results]), rel=1e-5)
    assert history.history["objective"][0] == pytest.approx(np.mean([float(r.objective) for r in results]), rel=1e-5)


def test_a_penalty_pulls_towards_harmless_coefficients():
    """Two steps of plain SGD, with and without: the first ones agree, as λ_0 = 0, so the second ones differ by
    -λ/2 dr/dθ; r is differenced along directions."""
    stepped = []
    for penalty in (0.0, 0.8):
        teacher = tiny.teacher()
        made = trainer(teacher)
        made.compile(keras.optimizers.SGD(1.0), penalty=penalty, clip_norm=0.1)
        before = []
        keep = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs, t=teacher, b=before: b.append([v.numpy() for v in t.theta]))
        logs = made.fit(noisy_train(), DEV, teacher_steps=2, validation_freq=0, verbose=0, callbacks=[keep]).history
        stepped.append([v.numpy().astype(np.float64) for v in teacher.theta])
    gradient = [(a - b) / 0.4 for a, b in zip(*stepped, strict=True)]
    theta = tuple(tf.constant(v, tf.float64) for v in before[1])
    features = tf.cast(made.last_result.rollout.features, tf.float64)
    assert logs["penalty"][1] == pytest.approx(float(teacher.penalty(teacher.apply(theta, features))), rel=1e-5)
    for i in range(len(theta)):
        direction = tf.random.stateless_normal(theta[i].shape, [5, i], dtype=tf.float64)
        up, down = (teacher.penalty(teacher.apply(tuple(t + h * direction if k == i else t
                                                        for k, t in enumerate(theta)), features))
                    for h in (1e-6, -1e-6))
        np.testing.assert_allclose(np.sum(gradient[i] * direction), (up - down) / 2e-6, rtol=1e-4)  # float32 steps


def test_a_student_of_stock_adam_is_differentiated_through():
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 25)
    made = trainer(tiny.teacher(), student_optimizer=keras.optimizers.Adam(schedule, global_clipnorm=1.0))
    start = made.get_weights()
    values = made.fit(noisy_train(), DEV, teacher_steps=2, validation_freq=0, verbose=0).history
    assert values["dropped"] == [0, 0] and min(values["gradient_norm"]) > 0
    assert all(np.abs(a - b).max() > 0 for a, b in zip(made.get_weights(), start, strict=True))


def test_the_best_teacher_on_dev_is_kept():
    """At an absurd rate later teachers are worse than the first; the weights left are those of the best validation."""
    made = trainer()
    made.compile(keras.optimizers.SGD(300.0), clip_norm=None)
    start = made.get_weights()
    with pytest.warns(UserWarning, match="no validated teacher was better than the one that this training began with"):
        history = made.fit(noisy_train(), DEV, teacher_steps=4, validation_freq=1, verbose=0)
    assert max(history.history["val_objective"]) < history.params["initial_val_objective"]
    for a, b in zip(made.get_weights(), start, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_penalty_does_not_judge():
    """Weights of an early step are kept, of the highest M, though r falls to the end."""
    made = trainer(tiny.teacher())
    made.compile(keras.optimizers.Adam(0.02), penalty=0.5)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda step, logs: seen.append(made.get_weights()))
    history = made.fit(noisy_train(), DEV, teacher_steps=6, validation_freq=1, verbose=0, callbacks=[watch]).history
    best = np.argmax(history["val_objective"])
    assert best < np.argmin(history["penalty"])
    assert made.teacher.training["val_objective"] == history["val_objective"][best]
    for kept, then in zip(made.get_weights(), seen[best], strict=True):
        np.testing.assert_array_equal(kept, then)


@pytest.mark.parametrize(("judge", "kept"), [("objective", 3), ("measure", 1)])
def test_the_exact_measure_may_judge(monkeypatch, judge, kept):
    """M rises to the end, accuracy is best behind the first step, the second validation."""
    seen = ((0.0, 0.4), (0.1, 0.6), (0.2, 0.5), (0.3, 0.5))
    values = iter([{"val_objective": m, "val_accuracy": a} for m, a in seen])
    monkeypatch.setattr(Validation, "_means", lambda *_: next(values))
    made = trainer()
    made.compile(keras.optimizers.Adam(0.01), judge=judge)
    weights = [made.get_weights()]
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda step, logs: weights.append(made.get_weights()))
    made.fit(noisy_train(), DEV, teacher_steps=3, validation_freq=1, verbose=0, callbacks=[watch])
    for a, b in zip(made.get_weights(), weights[kept], strict=True):
        np.testing.assert_array_equal(a, b)
    assert (made.teacher.training["val_objective"], made.teacher.training["val_accuracy"]) == seen[kept]
    with pytest.raises(ValueError, match="judge must be one of"):
        made.compile(keras.optimizers.Adam(0.01), judge="accuracy")


def exploding() -> InnerOptimizer:
    plain = sgd(0.05)
    return plain._replace(update=lambda g, s, p, t: (tuple(x * 1e30 for x in plain.update(g, s, p, t)[0]), s))


def test_a_fall_is_rolled_back_and_later_steps_are_halved():
    """At a rate that ruins the teacher in one step it is at its best weights after every validation."""
    seen = []
    made = trainer()
    made.compile(keras.optimizers.SGD(1e4), clip_norm=1.0, rollback=0.0)
    start = made.get_weights()
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda step, logs: seen.append(
        (logs["val_objective"], logs["rollbacks"], made.get_weights())))
    history = made.fit(noisy_train(), DEV, teacher_steps=3, validation_freq=1, verbose=0, callbacks=[watch])
    initial = history.params["initial_val_objective"]
    assert [value < initial for value, *_ in seen] == [True] * 3 and [n for _, n, _ in seen] == [1, 2, 3]
    for *_, weights in seen:
        for a, b in zip(weights, start, strict=True):
            np.testing.assert_array_equal(a, b)


def test_steps_after_a_rollback_are_halved(monkeypatch):
    """SGD on a gradient of norm 1 moves the teacher by its rate; after a validation that seems worse, by half of it."""
    values = iter([0.0, -1.0, -0.5, -0.5])
    monkeypatch.setattr(Validation, "_means", lambda *_: {"val_objective": next(values)})
    moved = []
    made = trainer()
    made.compile(keras.optimizers.SGD(0.01), clip_norm=1e-3, rollback=0.9)  # every gradient is clipped to this norm
    before = [made.get_weights()]

    def look(step, logs):
        moved.append(np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(made.get_weights(), before[0], strict=True))))
        before[0] = made.get_weights()

    made.fit(noisy_train(), DEV, teacher_steps=3, validation_freq=1, verbose=0,
             callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=look)])
    # Rolled back in the first step, not in the others: -0.5 is within 0.9 of the best.
    np.testing.assert_allclose(moved, [0, 0.5e-5, 0.5e-5], rtol=1e-2, atol=1e-9)  # float32 weights near 0.1


def test_rollback_needs_validations():
    with pytest.raises(ValueError, match="goes by validations"):
        trainer(rollback=0.1).fit(noisy_train(), DEV, teacher_steps=1, validation_freq=0, verbose=0)


def test_gradients_that_are_not_finite_never_reach_the_teacher():
    made = trainer(student_optimizer=exploding())
    start = made.get_weights()
    with pytest.raises(TeacherDivergedError, match="3 teacher steps in a row"):
        made.fit(noisy_train(), DEV, teacher_steps=10, validation_freq=0, verbose=0)
    for a, b in zip(made.get_weights(), start, strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(made.optimizer.iterations) == 0


def without_gradient(results):
    """As of rollouts whose dθ is not finite."""
    return [(number, result._replace(gradient=tuple(np.nan * g for g in result.gradient)), measure)
            for number, result, measure in results]


@pytest.mark.filterwarnings("ignore:no finite gradient", "ignore:teacher step .* goes without")
def test_faults_take_the_teacher_back_to_its_best_weights_once(monkeypatch):
    """Steps 2 and 3 have no gradient, nor has any from step 5 on."""
    made = trainer(max_dropped=2)
    apply, before = made._apply, []

    def nan_later(results, *rest):
        before.append(made.get_weights())
        return apply(without_gradient(results) if len(before) in (3, 4) or len(before) > 5 else results, *rest)

    monkeypatch.setattr(made, "_apply", nan_later)
    validated = iter([1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    monkeypatch.setattr(Validation, "_means", lambda *_: {"val_objective": next(validated), "val_accuracy": 0.0})
    with pytest.raises(TeacherDivergedError, match=r"2 teacher steps in a row \(the last was step 8.*its best weights"):
        made.fit(noisy_train(), DEV, teacher_steps=20, validation_freq=2, verbose=0)
    # Away from the best weights after two steps, back there for the fifth; away by it, back for the eighth.
    assert len(before) == 9
    changes = [any(np.any(a != b) for a, b in zip(weights, before[0], strict=True)) for weights in before]
    assert changes == [False, True, True, True, False, True, True, False, False]
    assert made.history.history["dropped"] == [0, 0, 1, 2, 2, 3, 4, 5, 6]


def test_the_student_step_where_a_fault_began_is_told():
    with pytest.warns(UserWarning, match="teacher step 0 goes without rollout 0: the student's loss is not finite from "
                                         "student step [1-9]") as caught, pytest.raises(TeacherDivergedError):
        trainer(student_optimizer=exploding(), max_dropped=1).fit(noisy_train(), DEV, teacher_steps=1, verbose=0,
                                                                  validation_freq=0)
    assert not any("adjoints grew" in str(w.message) for w in caught)  # there were none that could grow


def test_a_single_dropped_step_is_counted_and_survived(monkeypatch):
    made = trainer()
    apply, calls = made._apply, []

    def second_is_nan(results, *rest):
        calls.append(1)
        return apply(without_gradient(results) if len(calls) == 2 else results, *rest)

    monkeypatch.setattr(made, "_apply", second_is_nan)
    history = made.fit(noisy_train(), DEV, teacher_steps=4, validation_freq=0, verbose=0)
    assert history.history["dropped"] == [0, 1, 1, 1]
    assert int(made.optimizer.iterations) == 3
    assert all(np.isfinite(w).all() for w in made.get_weights())


def test_divergence_without_validation_keeps_the_last_weights(monkeypatch):
    made = trainer()
    apply, calls = made._apply, []

    def nan_from_the_third_on(results, *rest):
        calls.append(made.get_weights())
        return apply(without_gradient(results) if len(calls) > 2 else results, *rest)

    start = made.get_weights()
    monkeypatch.setattr(made, "_apply", nan_from_the_third_on)
    with pytest.raises(TeacherDivergedError, match="left at its last weights"):
        made.fit(noisy_train(), DEV, teacher_steps=10, validation_freq=0, verbose=0)
    assert not np.array_equal(made.get_weights()[0], start[0])
    for a, b in zip(made.get_weights(), calls[2], strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_bad_rollout_of_two_is_left_out_and_counted(monkeypatch):
    made = trainer(rollouts=2)
    apply, seen = made._apply, []

    def first_is_nan(results, *rest):
        seen.append([result for _, result, _ in results])
        return apply([*without_gradient(results[:1]), results[1]], *rest)

    monkeypatch.setattr(made, "_apply", first_is_nan)
    history = made.fit(noisy_train(), DEV, teacher_steps=2, validation_freq=0, verbose=0).history
    assert history["dropped"] == [0, 0] and history["dropped_rollouts"] == [1, 2]
    np.testing.assert_allclose(history["objective"], [float(results[1].objective) for results in seen], rtol=1e-6)
    np.testing.assert_allclose(history["gradient_norm"],
                               [float(tf.linalg.global_norm(results[1].gradient)) for results in seen], rtol=1e-6)


@pytest.mark.filterwarnings("ignore:teacher step .* goes without")
def test_a_rollout_whose_loss_was_not_finite_has_no_part_in_the_mean(monkeypatch):
    """Though its dθ and M are: the step is that of the other rollout alone."""
    made = trainer(rollouts=2)
    made.compile(keras.optimizers.SGD(1.0), rollouts=2, clip_norm=None)
    apply, seen = made._apply, []

    def infinite_loss(results, *rest):
        (number, first, measure), other = results
        seen.append(other[1].gradient)
        losses = tf.tensor_scatter_nd_update(first.rollout.trace["loss"], [[4]], [np.inf])
        trace = first.rollout.trace | {"loss": losses}
        return apply([(number, first._replace(rollout=first.rollout._replace(trace=trace)), measure), other], *rest)

    monkeypatch.setattr(made, "_apply", infinite_loss)
    before = made.get_weights()
    history = made.fit(noisy_train(), DEV, teacher_steps=1, validation_freq=0, verbose=0).history
    assert history["dropped"] == [0] and history["dropped_rollouts"] == [1]
    for now, start, gradient in zip(made.get_weights(), before, seen[0], strict=True):
        np.testing.assert_allclose(now, start + gradient, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("what", ["value", "gradient"])
def test_a_penalty_that_is_not_finite_drops_its_rollout(what, monkeypatch):
    """And leaves θ as it is, whatever λ counts for at that step."""
    made = trainer(penalty=0.01)

    def penalty(result):
        bad = np.full(sum(w.size for w in made.get_weights()), np.nan if what == "gradient" else 0.0, np.float32)
        return np.inf if what == "value" else 0.0, bad

    monkeypatch.setattr(made._apply, "_penalty_of", penalty)
    before = made.get_weights()
    with pytest.warns(UserWarning, match=r"without rollout 0: the penalty, or its gradient, is not finite"):
        history = made.fit(noisy_train(), DEV, teacher_steps=1, validation_freq=0, verbose=0).history
    assert history["dropped"] == [1] and history["dropped_rollouts"] == [1]
    for now, start in zip(made.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, start)


def test_the_papers_loss_and_objective_under_a_schedule():
    made = trainer(tiny.teacher("paper"))
    made.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 3)), objective="relaxed_accuracy")
    history = made.fit(noisy_train(), DEV, teacher_steps=3, validation_freq=0, verbose=0).history
    np.testing.assert_allclose(history["learning_rate"], [0.01, 0.0075, 0.0025], rtol=1e-5)
    assert all(0 < value < 1 for value in history["objective"])


@pytest.mark.parametrize("options", [{"num_steps": 0}, {"batch_size": 0}, {"refresh_every": 0}, {"dev_sample_size": 0},
                                     {"seed": 10}, {"seed": -1}])
def test_numbers_out_of_range(options):
    with pytest.raises(ValueError, match="must be"):
        TeacherTrainer(tiny.plain, tiny.teacher(), **({"num_steps": 5, "batch_size": 5,
                                                       "student_optimizer": sgd(0.1)} | options))


def test_early_stopping_stops():
    made = trainer()
    made.fit(noisy_train(), DEV, teacher_steps=50, validation_freq=0, verbose=0, callbacks=[
        keras.callbacks.EarlyStopping("objective", mode="max", patience=1, min_delta=100)])
    assert made.teacher.training["teacher_steps"] == 2


def test_a_teacher_that_is_stopped_between_validations_is_validated_then():
    class StopAfter(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 6

    made = trainer(rollouts=2)
    start = made.get_weights()
    history = made.fit(noisy_train(), DEV, teacher_steps=50, validation_freq=50, verbose=0, callbacks=[StopAfter()])
    assert "val_objective" not in history.history
    assert made.teacher.training["val_objective"] > history.params["initial_val_objective"]
    assert not np.array_equal(made.get_weights()[0], start[0])


def test_the_progress_bar(capsys):
    trainer().fit(noisy_train(), DEV, teacher_steps=2, validation_freq=0)
    out = capsys.readouterr().out
    assert "2/2" in out and "objective" in out


def test_the_same_seed_gives_the_same_teacher():
    first, second = trainer(), trainer()
    for made in (first, second):
        made.fit(noisy_train(), DEV, teacher_steps=3, validation_freq=0, verbose=0)
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_check_runs_in_float64_on_the_users_own_parts():
    assert trainer(tiny.teacher()).check(noisy_train(), DEV, num_steps=12, num_directions=1, verbose=False).passed


@pytest.mark.parametrize(("train", "dev", "message"), [
    ("x", DEV, "pair"), (DEV, (DEV.x[:, :5], DEV.y), "examples of shape"), (DEV, (DEV.x, 0 * DEV.y), "two classes"),
    (DEV, (DEV.x[:0], DEV.y[:0]), "no example"), ((np.nan * DEV.x, DEV.y), DEV, "NaN"),
    ((DEV.x, DEV.y + 3), DEV, "labels must be in 0 … 2"), ((DEV.x[:5], DEV.y[:5]), DEV, "batch_size"),
])
def test_bad_data(train, dev, message):
    with pytest.raises(ValueError, match=message):
        trainer().fit(train, dev, teacher_steps=1, verbose=0)


@pytest.mark.parametrize("options", [{"objective": "accuracy"}, {"rollouts": 0}, {"clip_norm": 0}, {"rollback": -1},
                                     {"penalty": -1}, {"penalty": np.nan}, {"clip_norm": np.inf}, {"rollback": np.inf},
                                     {"adjoint_limit": np.inf},
                                     {"hvp": "x"}, {"schedule": "x"},
                                     {"optimizer": 3}])
def test_bad_options(options):
    with pytest.raises(ValueError, match="must be"):
        trainer().compile(**({"optimizer": keras.optimizers.Adam()} | options))


def test_order_and_fit_of_parts():
    with pytest.raises(ValueError, match="4 classes, the student has 3"):
        trainer(tf_l2t.teachers.AttentionTeacher(4, 7))
    bare = TeacherTrainer(tiny.plain, tiny.teacher(), num_steps=5, batch_size=5, student_optimizer=sgd(0.1))
    with pytest.raises(ValueError, match="compile"):
        bare.fit(noisy_train(), DEV, teacher_steps=1)
    with pytest.raises(ValueError, match="teacher_steps"):
        trainer().fit(noisy_train(), DEV, teacher_steps=0)


def test_growing_adjoints_are_reported_once_with_a_truncation_that_helps(tmp_path):
    """Steps at 4 to 10 times the stable rate of a quadratic student: every step multiplies the adjoint."""
    def expansive(momentum=0.0):
        return sgd(3.0, momentum)

    made = trainer(student_optimizer=expansive(), num_steps=30, adjoint_alarm=10.0, adjoint_limit=None,
                   jit=False)
    with pytest.warns(UserWarning, match=r"compile\(truncate=\d+\)") as caught:
        history = made.fit(noisy_train(), DEV, teacher_steps=2, validation_freq=0, verbose=0, preflight=False,
                           callbacks=[TeacherSummaries(tmp_path)])
    alarms = [w for w in caught if "adjoints grew" in str(w.message)]
    assert len(alarms) == 1
    growth = history.history["adjoint_growth"]
    norms = made.last_result.rollout.trace["adjoint_norm"].numpy()
    assert norms.shape == (30,) and max(growth) > 10
    assert growth[-1] == pytest.approx(norms.max() / norms[-1], rel=1e-5)
    steps = int(str(alarms[0].message).split("truncate=")[1].split(")")[0])
    shorter = trainer(student_optimizer=expansive(), num_steps=30, adjoint_alarm=10.0, adjoint_limit=None,
                      truncate=steps, jit=False)
    first = shorter.fit(noisy_train(), DEV, teacher_steps=1, validation_freq=0, verbose=0, preflight=False)
    assert first.history["adjoint_growth"][0] <= 10
    assert first.history["objective"][0] == pytest.approx(history.history["objective"][0], rel=1e-6)
    shown = tags(tmp_path)
    assert sorted(shown["adjoint/norm_by_step"]) == [0, 1]
    assert list(map(float, shown["teacher/adjoint_growth"].values())) == pytest.approx(growth, rel=1e-6)


def test_exploding_adjoints_are_left_out_and_counted():
    """As numbers that are not finite; with the student step."""
    options = {"student_optimizer": sgd(3.0), "num_steps": 30, "jit": False, "adjoint_alarm": None}
    theta, first = [], None
    for limit in (None, 10.0):
        made = trainer(**options, adjoint_limit=limit)
        before = made.get_weights()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made.fit(noisy_train(), DEV, teacher_steps=2, validation_freq=0, verbose=0, preflight=False)
        history = made.history.history
        told = [str(w.message) for w in caught if "goes without rollout" in str(w.message)]
        theta.append(max(np.abs(a - b).max() for a, b in zip(made.get_weights(), before, strict=True)))
        first = first or history["adjoint_growth"][0]
        assert history["dropped_rollouts"] == ([0, 0] if limit is None else [1, 2]) and len(told) == 2 * bool(limit)
    assert first > 10 and f"its adjoints grew {first:.1e} times on their way back to student step" in told[0]
    assert theta[0] > 0 and theta[1] == 0


def test_a_memory_budget_and_auto_choose_for_the_user(capsys):
    made = trainer(hvp="auto", memory_budget="1GB", jit=False)
    made.fit(noisy_train(), DEV, teacher_steps=1, validation_freq=0, preflight=False)
    assert made.choice.hvp == "saved_residuals" and made.choice.extra_work == 0
    assert f"engine {made.choice}" in capsys.readouterr().out


@pytest.mark.parametrize("options", [{"adjoint_alarm": 1.0}, {"adjoint_limit": 0.5}, {"truncate": 0},
                                     {"memory_budget": "lots"}])
def test_bad_engine_options(options):
    with pytest.raises(ValueError, match="received"):
        trainer(**options)
