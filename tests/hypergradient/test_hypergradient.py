"""The gradient of a whole training run against differences, closed form, and itself in every mode."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tf_l2t.data import mnist_5k
from tf_l2t.hypergradient import (
    HVP_MODES,
    Problem,
    StatusFeatures,
    StepOutput,
    adam,
    check_hypergradient,
    clip,
    hypergradient,
    initial_state,
    inner_step,
    objective_of,
    rmsprop,
    rollout,
    sgd,
)
from tf_l2t.hypergradient import segment as segment_module
from tf_l2t.hypergradient import step as step_module
from tf_l2t.students import lenet, mlp
from tf_l2t.teachers import AttentionTeacher

OPTIMIZERS = {
    "sgd": sgd(0.3),
    "momentum": sgd(0.2, momentum=0.9),
    "nesterov": sgd(0.2, momentum=0.9, nesterov=True),
    "decoupled_decay": sgd(0.2, momentum=0.9, weight_decay=0.05),
    "coupled_decay": sgd(0.2, momentum=0.9, nesterov=True, weight_decay=0.05, coupled=True),
    "schedule": sgd(keras.optimizers.schedules.CosineDecay(0.3, 13), momentum=0.8),
    # Adam's step bends where a gradient is about ε / √(1 − β₂): 3e-6 at Keras' ε of 1e-7, which a difference over 1e-4
    # steps across. (test_zero_gradients.py has the stock ε, and a shorter step.)
    "adam": adam(0.05, epsilon=0.01),
    # A second moment with a short memory, so that the largest one so far is not always the newest.
    "adamw": adam(keras.optimizers.schedules.CosineDecay(0.05, 13), beta_2=0.5, epsilon=0.01, amsgrad=True,
                  weight_decay=0.05),
    "rmsprop": rmsprop(0.02, momentum=0.8, epsilon=1e-3, centered=True),
}
# Bounds that no gradient crosses within a difference's step: M has a kink where one does.
CLIPS = {"norm": 0.15, "value": 0.25, "global_norm": 0.8}
OPTIMIZERS |= {f"clip_{kind}": clip(sgd(0.2, momentum=0.9), **{kind: bound}) for kind, bound in CLIPS.items()}
# Those whose step is also compared with its transpose: one of each kind of rule, as that traces it three times more.
TRANSPOSED = ("momentum", "adamw", "clip_global_norm")


# Fourth-order differences in float64: 1e-5 leaves four digits of room above their own error of about 1e-9.
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_mode_and_schedule(optimizer):
    problem, state = tiny.problem(tiny.dense_batchnorm, OPTIMIZERS[optimizer])
    directions, schedules = (3, ("store_all", "every_k")) if problem.optimizer.linear else (2, ("every_k",))
    dot_product = optimizer in TRANSPOSED
    report = check_hypergradient(problem, tiny.teacher(), state, 3, num_directions=directions, schedules=schedules,
                                 tolerance=1e-5, agreement=1e-10, dot_product=dot_product)
    assert len(report.rows) == directions + 2 * dot_product + (3 + len(schedules) - 2)
    assert report.passed, str(report)


@pytest.mark.parametrize("kind", CLIPS)
def test_the_runs_that_were_checked_are_clipped_now_and_then(kind):
    problem, state = tiny.problem(tiny.dense_batchnorm, OPTIMIZERS[f"clip_{kind}"])
    trace = rollout(problem, tiny.teacher(), trace=("batch", "coefficients"))(state, 3).trace
    exceeded = []
    for step in range(problem.num_steps):
        batch = tuple(part[step] for part in trace["batch"])
        coefficients = tf.cast(trace["coefficients"][step], tf.float64)
        _, grads = step_module.loss_and_gradient(problem, state.params, state.non_trainable, batch, coefficients)
        sizes = {"norm": [tf.norm(g) for g in grads], "value": [tf.reduce_max(tf.abs(g)) for g in grads],
                 "global_norm": [tf.linalg.global_norm(grads)]}[kind]
        exceeded.append([float(size) > CLIPS[kind] for size in sizes])
        state, _ = inner_step(problem, state, batch, coefficients)
    assert np.any(exceeded) and not np.all(exceeded)


@pytest.mark.parametrize("student", tiny.STUDENTS)
def test_every_kind_of_student(student):
    problem, state = tiny.problem(tiny.STUDENTS[student], num_steps=12)
    report = check_hypergradient(problem, tiny.teacher(), state, 4, num_directions=2, schedules=("every_k",),
                                 tolerance=1e-5, agreement=1e-10)
    assert report.passed, str(report)


def test_the_papers_loss_and_an_odd_schedule():
    problem, state = tiny.problem(tiny.plain, loss="paper")
    report = check_hypergradient(problem, tiny.teacher("paper"), state, 4, schedules=("every_k", 5, 100))
    assert report.passed, str(report)


@pytest.mark.parametrize("student", ["dense_batchnorm", "conv_batchnorm", "layernorm", "groupnorm"])
def test_stock_moments_would_be_wrong_and_differences_tell(student, monkeypatch):
    """Without the repair both modes agree and the differences do not: what the check exists to find."""
    for module in (step_module, segment_module):
        monkeypatch.setattr(module, "exact_moments", contextlib.nullcontext)
    problem, state = tiny.problem(tiny.STUDENTS[student], num_steps=12)
    report = check_hypergradient(problem, tiny.teacher(), state, 4, hvp_modes=HVP_MODES[:2], schedules=("every_k",),
                                 dot_product=False)
    rows = {kind: [r for r in report.rows if r.name.startswith(kind)] for kind in ("central", "agreement")}
    assert max(r.error for r in rows["central"]) > 1e-4
    assert all(r.passed for r in rows["agreement"])
    assert not report.passed


def test_two_linear_steps_in_closed_form():
    """L = φ_t (a_t ω − b_t)² / 2, momentum m, M = −(ω_2 − c)² / 2, coefficients φ_t = θ s_t: by hand.

    v_1 = −η φ_0 a_0 (a_0 ω_0 − b_0), ω_1 = ω_0 + v_1;  v_2 = m v_1 − η φ_1 a_1 (a_1 ω_1 − b_1), ω_2 = ω_1 + v_2.
    """
    a, b, c, eta, m, omega, theta, s = [2.0, -1.0], [0.5, 1.5], 0.7, 0.1, 0.9, 1.3, 0.8, [1.0, 0.6]
    phi = [theta * x for x in s]
    v1 = -eta * phi[0] * a[0] * (a[0] * omega - b[0])
    w1 = omega + v1
    v2 = m * v1 - eta * phi[1] * a[1] * (a[1] * w1 - b[1])
    w2 = w1 + v2
    dw2 = -(w2 - c)
    dphi1 = dw2 * -eta * a[1] * (a[1] * w1 - b[1])
    dw1 = dw2 * (1 - eta * phi[1] * a[1] ** 2)
    dv1 = dw2 * m + dw1  # v_1 moves ω_2 through v_2 and through ω_1
    dphi0 = dv1 * -eta * a[0] * (a[0] * omega - b[0])
    dw0 = dw1 + dv1 * -eta * phi[0] * a[0] ** 2

    data = tf.constant([a, b], tf.float64)
    problem = Problem(
        loss_fn=lambda p, n, batch, k: StepOutput(k * (batch[0] * p[0] - batch[1]) ** 2 / 2, n, {}),
        batch_fn=lambda seed, step: data[:, step],
        objective_fn=lambda p, n: -(p[0] - c) ** 2 / 2,
        optimizer=sgd(eta, momentum=m),
        features=StatusFeatures(lambda: (), lambda state: (tf.constant([s], tf.float64)[:, state.step], ()),
                                lambda status, metrics: ()),
        num_steps=2)

    class Linear:
        trainable_variables = (tf.Variable(theta, dtype=tf.float64),)

        def apply(self, theta, features):
            return theta[0] * features[0]

    for hvp in ("forward_over_reverse", "reverse_over_reverse"):
        for schedule in ("store_all", 2):
            result = hypergradient(problem, Linear(), hvp=hvp, schedule=schedule)(
                initial_state(problem, (tf.constant(omega, tf.float64),)), 0)
            np.testing.assert_allclose(result.rollout.final_state.params[0], w2, rtol=1e-15)
            np.testing.assert_allclose(result.gradient[0], dphi0 * s[0] + dphi1 * s[1], rtol=1e-14)
            np.testing.assert_allclose(result.adjoint.params[0], dw0, rtol=1e-14)


def test_moving_statistics_carry_a_cotangent():
    """M is measured at inference, so it reads them; without their part the gradient would be another."""
    problem, state = tiny.problem(tiny.dense_batchnorm)
    result = hypergradient(problem, tiny.teacher())(state, 0)
    blind = problem._replace(objective_fn=lambda params, non_trainable: problem.objective_fn(
        params, tuple(tf.stop_gradient(n) for n in non_trainable)))
    without = hypergradient(blind, tiny.teacher())(state, 0)
    difference = float(tf.linalg.global_norm([x - y for x, y in zip(result.gradient, without.gradient, strict=True)]))
    assert difference > 1e-2 * float(tf.linalg.global_norm(result.gradient))
    assert all(float(tf.norm(a)) > 0 for a in result.adjoint.non_trainable)


def test_frozen_features_are_near_live_ones():
    """Equation (5) holds s_t fixed. With live features M(θ) also moves through s_t; with few dev examples accuracies
    move in steps, so almost everywhere that part is zero, and a small step of θ sees the same M either way."""
    problem, state = tiny.problem(num_steps=20)
    teacher = tiny.teacher()
    theta = tuple(tf.cast(v, tf.float64) for v in teacher.theta)
    result = hypergradient(problem, teacher)(state, 0, theta)
    norm = tf.linalg.global_norm(result.gradient)
    direction = [g / norm for g in result.gradient]
    objective = objective_of(problem, teacher)

    def slope(h, features):
        up, down = (tuple(t + sign * h * d for t, d in zip(theta, direction, strict=True)) for sign in (1, -1))
        return float(objective(up, state, 0, features) - objective(down, state, 0, features)) / (2 * h)

    frozen = slope(1e-6, result.rollout.features)
    live = slope(1e-6, None)
    np.testing.assert_allclose(frozen, float(norm), rtol=1e-7)
    # Here no accuracy on the dev sample changes within h, so all that is left is the difference's own error.
    np.testing.assert_allclose(live, float(norm), rtol=1e-7)
    # Over a longer step some do, and the two part: by 3 % at 0.01, where M itself has bent by 15 % (docs/engine.md).
    far_frozen, far_live = slope(0.01, result.rollout.features), slope(0.01, None)
    assert 0.02 * abs(far_frozen) < abs(far_live - far_frozen) < 0.05 * abs(far_frozen)
    assert abs(far_frozen - float(norm)) > 0.1 * float(norm)


def test_no_retracing_from_one_teacher_step_to_the_next():
    traced = []
    problem, state = tiny.problem()

    def counting(*arguments):
        traced.append(1)
        return problem.loss_fn(*arguments)

    teacher = tiny.teacher()
    function = hypergradient(problem._replace(loss_fn=counting), teacher)
    first = function(state, 0)
    count = len(traced)
    assert count < 10  # a Python loop over the 13 steps would trace at least 39
    teacher.values.assign_add(0.1 * tf.ones_like(teacher.values))
    second = function(state._replace(params=tuple(2 * p for p in state.params)), 1)
    assert len(traced) == count
    assert float(first.objective) != float(second.objective)


def test_dropout_and_augmentation_repeat_in_recomputed_segments():
    def augment(x, seed):
        return x + 0.1 * tf.random.stateless_normal(tf.shape(x), seed, dtype=x.dtype)

    problem, state = tiny.problem(tiny.dropout, augment=augment)
    theta = tuple(tf.cast(v, tf.float64) for v in tiny.teacher().theta)
    kept = hypergradient(problem, tiny.teacher(), schedule="store_all", trace=("batch",), jit=False)(state, 0, theta)
    again = hypergradient(problem, tiny.teacher(), schedule=5, debug=True, jit=False)(state, 0, theta)
    for a, b in zip(kept.gradient, again.gradient, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)
    other = hypergradient(problem, tiny.teacher(), schedule=5)(state, 1)
    assert float(other.objective) != float(kept.objective)
    # The masks differ from step to step: the seed state advances.
    seeds = [n for n in kept.rollout.final_state.non_trainable if not n.dtype.is_floating]
    assert seeds and all(not np.array_equal(s, n) for s, n in zip(
        seeds, [n for n in state.non_trainable if not n.dtype.is_floating], strict=True))


@pytest.mark.parametrize(("build", "num_steps"), [(mlp, 30), (lenet, 7)])
def test_the_papers_students_repeat_bit_for_bit_in_float32(build, num_steps):
    splits = mnist_5k()
    student = tiny.FunctionalStudent(build)
    problem = tiny.classification_problem(
        student, splits.train, splits.dev, loss=tiny.taught_form("stable").per_example, num_steps=num_steps,
        objective=tiny.log_likelihood, optimizer=sgd(0.03, 0.9), batch_size=20, dev_sample_size=100)
    teacher = AttentionTeacher(10, 13)
    state = initial_state(problem, *student.init(0))
    modes = [hypergradient(problem, teacher, hvp=hvp, debug=True)(state, 0) for hvp in HVP_MODES]
    difference = [a - b for a, b in zip(modes[0].gradient, modes[1].gradient, strict=True)]
    # float32 through 30 (7) steps: a few thousand roundings of 6e-8.
    assert float(tf.linalg.global_norm(difference)) < 1e-3 * float(tf.linalg.global_norm(modes[0].gradient))


@pytest.mark.parametrize("impure", ["batches", "loss"])
def test_debug_mode_finds_a_step_that_does_not_repeat(impure):
    problem, state = tiny.problem()

    def noisy_batch(seed, step):
        x, y = problem.batch_fn(seed, step)
        return x + tf.random.normal(tf.shape(x), dtype=x.dtype), y

    def noisy_loss(params, *rest):
        output = problem.loss_fn(params, *rest)
        return output._replace(loss=output.loss * tf.random.uniform((), dtype=output.loss.dtype))

    changed = {"batches": {"batch_fn": noisy_batch}, "loss": {"loss_fn": noisy_loss}}[impure]
    with pytest.raises(tf.errors.InvalidArgumentError, match="another state than the forward run"):
        hypergradient(problem._replace(**changed), tiny.teacher(), schedule=4, debug=True)(state, 0)


def test_trace_holds_every_step():
    problem, state = tiny.problem()
    teacher = tiny.teacher()
    names = ("batch", "features", "coefficients", "loss", "metrics")
    result = hypergradient(problem, teacher, trace=names)(state, 2)
    trace = result.rollout.trace
    assert set(trace) == set(names)
    for step in range(problem.num_steps):
        x, y = problem.batch_fn(tf.constant(2, tf.int64), tf.constant(step))
        np.testing.assert_array_equal(trace["batch"][0][step], x)
        np.testing.assert_array_equal(trace["batch"][1][step], y)
    np.testing.assert_allclose(trace["coefficients"], teacher(trace["features"]), rtol=5e-6)  # θ is float32
    np.testing.assert_array_equal(trace["features"], result.rollout.features)
    # s_t is refreshed at 0, 3, 6, … and held between.
    np.testing.assert_allclose(trace["features"][:, 0], [t // 3 * 3 / 13 for t in range(13)])
    first = problem.loss_fn(state.params, state.non_trainable, (trace["batch"][0][0], trace["batch"][1][0]),
                            trace["coefficients"][0])
    np.testing.assert_allclose(trace["loss"][0], first.loss, rtol=1e-12)
    np.testing.assert_allclose(trace["metrics"]["accuracy"][0], first.metrics["accuracy"])
    forward = rollout(problem, teacher, trace=("loss",))(state, 2)
    np.testing.assert_allclose(forward.trace["loss"], trace["loss"], rtol=1e-6)  # here θ stays float32


def test_a_while_loop_rnn_in_the_mode_it_has():
    def build():
        inputs = keras.Input(tiny.IMAGE)
        x = keras.layers.Reshape((6, 12))(inputs)
        return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.LSTM(4, use_cudnn=False)(x)))

    problem, state = tiny.problem(build, num_steps=6)
    report = check_hypergradient(problem, tiny.teacher(), state, num_directions=1, hvp_modes=("reverse_over_reverse",))
    assert report.passed, str(report)
    with pytest.raises(ValueError, match=r"saved_residuals.*while loop"):
        hypergradient(problem, tiny.teacher(), hvp="saved_residuals")(state, 0)
    function = hypergradient(problem, tiny.teacher(), hvp="auto", jit=False)
    expected = function(state, 0)
    assert function.choice.hvp == "reverse_over_reverse"
    fallen_back = hypergradient(problem, tiny.teacher(), jit=False)
    with pytest.warns(UserWarning, match="running with hvp='reverse_over_reverse': .*does not pass through"):
        result = fallen_back(state, 0)
    assert fallen_back.choice.hvp == "reverse_over_reverse"
    for one, other in zip(result.gradient, expected.gradient, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_adjoint_of_the_initial_weights_against_differences():
    problem, state = tiny.problem(tiny.dense_batchnorm, OPTIMIZERS["nesterov"])
    teacher = tiny.teacher()
    theta = tuple(tf.cast(v, tf.float64) for v in teacher.theta)
    result = hypergradient(problem, teacher)(state, 0, theta)
    value = objective_of(problem, teacher)
    rng = np.random.default_rng(0)
    floats = [n.dtype.is_floating for n in state.non_trainable]

    def moved(h, kind, direction):
        if kind == "params":
            return state._replace(params=tuple(p + h * d for p, d in zip(state.params, direction, strict=True)))
        if kind == "slots":
            return state._replace(slots=(tuple(s + h * d for s, d in zip(state.slots[0], direction, strict=True)),))
        assert all(floats)
        return state._replace(non_trainable=tuple(
            n + h * d for n, d in zip(state.non_trainable, direction, strict=True)))

    for kind, adjoint in (("params", result.adjoint.params), ("slots", result.adjoint.slots[0]),
                          ("non_trainable", result.adjoint.non_trainable)):
        direction = [rng.standard_normal(a.shape) for a in adjoint]
        at = [float(value(theta, moved(h, kind, direction), 0, result.rollout.features))
              for h in (-2e-4, -1e-4, 1e-4, 2e-4)]
        difference = (8 * (at[2] - at[1]) - (at[3] - at[0])) / 12e-4
        expected = sum(float(tf.reduce_sum(a * d)) for a, d in zip(adjoint, direction, strict=True))
        assert expected == pytest.approx(difference, rel=1e-5), kind


def test_embedding_gradients_are_made_dense():
    inputs = keras.Input((4,))

    def build():
        x = keras.layers.Embedding(6, 3)(inputs)
        return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))

    rng = np.random.default_rng(0)
    pair = tiny.ArrayPair(rng.integers(0, 6, (20, 4)).astype(np.float64), (np.arange(20) % 3).astype(np.int32))
    student = tiny.FunctionalStudent(build, dtype="float64")
    problem = tiny.classification_problem(student, pair, pair, loss=tiny.taught_form("stable").per_example,
                                          objective=tiny.log_likelihood, optimizer=sgd(0.3), num_steps=6, batch_size=5)
    report = check_hypergradient(problem, tiny.teacher(), initial_state(problem, *student.init(0)), num_directions=1)
    assert report.passed, str(report)


@pytest.mark.parametrize("options", [{"hvp": "finite"}, {"schedule": "revolve"}, {"trace": ("loss", "gradient")},
                                     {"trace": "loss"}])
def test_bad_options(options):
    problem, _ = tiny.problem()
    with pytest.raises(ValueError, match="must be"):
        hypergradient(problem, tiny.teacher(), **options)


def test_the_check_needs_float64():
    problem, state = tiny.problem()
    with pytest.raises(ValueError, match="float64"):
        check_hypergradient(problem, tiny.teacher(), state._replace(params=tuple(
            tf.cast(p, tf.float32) for p in state.params)))


def test_the_check_prints_a_report_and_finds_a_wrong_gradient(capsys):
    problem, state = tiny.problem(num_steps=12)

    @tf.custom_gradient
    def wrong_in_reverse(value):  # right value, first derivative off by a tenth
        return value, lambda upstream: 1.1 * upstream

    broken = problem._replace(objective_fn=lambda p, n: wrong_in_reverse(problem.objective_fn(p, n)))
    report = check_hypergradient(broken, tiny.teacher(), state, num_directions=2, schedules=("every_k",),
                                 dot_product=False)
    assert not report.passed and not any("dot product" in row.name for row in report.rows)
    for row in report.rows:
        if row.name.startswith("central"):
            assert row.value == pytest.approx(1.1 * row.reference, rel=1e-6)
    assert "FAILED" in capsys.readouterr().out
