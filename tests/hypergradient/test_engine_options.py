"""Schedules, budgets, XLA, truncation and precision: what may change time and memory and nothing else."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tf_l2t.hypergradient import (
    HVP_MODES,
    Adjoint,
    Plan,
    Problem,
    StatusFeatures,
    StepOutput,
    adam,
    check_hypergradient,
    every_k,
    hypergradient,
    initial_state,
    memory,
    objective_of,
    rules,
    sgd,
    store_all,
)
from tf_l2t.hypergradient.memory import SEGMENTS_OVERHEAD, choose
from tf_l2t.hypergradient.rules import Rule, rule_of
from tf_l2t.objectives import log_likelihood
from tf_l2t.students import FunctionalStudent
from tf_l2t.training import classification_problem


def distance(one, other):
    norm = float(tf.linalg.global_norm(list(other)))
    return float(tf.linalg.global_norm([a - b for a, b in zip(one, other, strict=True)])) / norm


@pytest.fixture(scope="module")
def reference():
    problem, state = tiny.problem(tiny.dense_batchnorm)
    theta = tuple(tf.cast(v, tf.float64) for v in tiny.teacher().theta)
    function = hypergradient(problem, tiny.teacher(), hvp="reverse_over_reverse", schedule="store_all", jit=False)
    return problem, state, theta, function(state, 3, theta)


@pytest.mark.parametrize("schedule", ["binomial:2", "binomial:3:2", "binomial", 5, Plan(13, 4, 2), Plan(13, 3, 1)])
def test_every_schedule_gives_the_same_gradient(reference, schedule):
    problem, state, theta, expected = reference
    function = hypergradient(problem, tiny.teacher(), hvp="saved_residuals", schedule=schedule, jit=False, debug=True)
    result = function(state, 3, theta)
    # The same numbers added in another order.
    assert distance(result.gradient, expected.gradient) < 1e-13
    assert distance(tf.nest.flatten(result.adjoint), tf.nest.flatten(expected.adjoint)) < 1e-13
    np.testing.assert_array_equal(result.rollout.features, expected.rollout.features)


@pytest.mark.parametrize("mode", HVP_MODES)
def test_xla_gives_the_same_gradient(reference, mode):
    problem, state, theta, expected = reference
    function = hypergradient(problem, tiny.teacher(), hvp=mode, schedule="binomial:2:3", jit=True, debug=True,
                             trace=("loss", "adjoint_norm"))
    result = function(state, 3, theta)
    assert function.choice.jit and function.choice.hvp == mode
    # XLA fuses differently, so roundings of 1e-16 differ in 13 steps.
    assert distance(result.gradient, expected.gradient) < 1e-12
    assert result.rollout.trace["loss"].shape == result.rollout.trace["adjoint_norm"].shape == [13]


@pytest.mark.parametrize(("student", "optimizer", "modes"), [
    (tiny.dropout, None, ("forward_over_reverse", "saved_residuals")),
    (tiny.dense_batchnorm, adam(0.05, epsilon=0.01), ("forward_over_reverse",))])
def test_xla_against_differences(student, optimizer, modes):
    problem, state = tiny.problem(student, optimizer, num_steps=9)
    report = check_hypergradient(problem, tiny.teacher(), state, 3, num_directions=1, schedules=(4,), jit=True,
                                 hvp_modes=modes, dot_product=False)  # which is never of XLA
    assert report.passed, str(report)


def test_xla_is_for_students_without_convolutions(xla):
    for build, expected in ((tiny.conv_batchnorm, False), (tiny.plain, True)):
        problem, state = tiny.problem(build, num_steps=2)
        function = hypergradient(problem, tiny.teacher())
        assert function.choice is None
        function(state, 0)
        assert function.choice.jit == expected


def test_what_xla_cannot_compile_runs_without_it(xla):
    problem, state = tiny.problem(num_steps=3)

    def loss_fn(params, non_trainable, batch, coefficients):
        x, y = batch
        x = tf.numpy_function(lambda a: a, [x], x.dtype) + tf.zeros_like(x)  # no XLA form
        return problem.loss_fn(params, non_trainable, (tf.ensure_shape(x, batch[0].shape), y), coefficients)

    beyond = problem._replace(loss_fn=loss_fn)
    with pytest.warns(UserWarning, match="runs without XLA"):
        result = hypergradient(beyond, tiny.teacher())(state, 0)
    assert distance(result.gradient, hypergradient(problem, tiny.teacher(), jit=False)(state, 0).gradient) < 1e-13
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)):
        hypergradient(beyond, tiny.teacher(), jit=True)(state, 0)


def test_residuals_are_few():
    """Of a dense layer on data, neither the kernel nor the data are kept: its adjoint reads only what comes after."""
    problem, state = tiny.problem(tiny.plain)
    batch = problem.batch_fn(0, 0)
    teacher = tiny.teacher()
    rule = rule_of("saved_residuals", problem, teacher.apply, tuple(map(tf.convert_to_tensor, teacher.theta)), state,
                   batch, tf.zeros([tiny.NUM_CLASSES + 3], tf.float64))
    shapes = [tuple(spec.shape) for spec in rule.kept]
    kernel, _, last_kernel, _ = (tuple(p.shape) for p in state.params)
    assert kernel not in shapes and last_kernel in shapes
    assert not {tuple(batch[0].shape), (7, 72)} & set(shapes)
    assert sum(int(np.prod(s)) for s in shapes) < int(np.prod(kernel))


def test_a_student_with_a_function_of_its_own(reference):
    class Compiled(keras.layers.Layer):
        @tf.function
        def call(self, x):
            return tf.tanh(x) * x

    def build():
        inputs = keras.Input(tiny.IMAGE)
        x = Compiled()(keras.layers.Dense(5)(keras.layers.Flatten()(inputs)))
        return keras.Model(inputs, keras.layers.Dense(3)(x))

    problem, state = tiny.problem(build, num_steps=5)
    report = check_hypergradient(problem, tiny.teacher(), state, 3, num_directions=1, schedules=(2,),
                                 hvp_modes=HVP_MODES[:2])
    assert report.passed, str(report)
    with pytest.raises(ValueError, match=r"saved_residuals.*tf\.function within a layer"):
        hypergradient(problem, tiny.teacher(), hvp="saved_residuals", jit=False)(state, 3)
    function = hypergradient(problem, tiny.teacher(), hvp="auto", jit=False)
    function(state, 3)
    assert function.choice.hvp == "forward_over_reverse"


@pytest.mark.parametrize("build", [tiny.dense_batchnorm, tiny.conv_batchnorm, tiny.dropout])
def test_residuals_are_those_of_forward_over_reverse_under_a_linear_optimizer(build, monkeypatch):
    def refused(*_):
        raise LookupError("not this way")

    problem, state = tiny.problem(build, num_steps=5)
    theta = tuple(tf.cast(v, tf.float64) for v in tiny.teacher().theta)
    expected = hypergradient(problem, tiny.teacher(), hvp="reverse_over_reverse", jit=False)(state, 3, theta)
    for by_mode in ("_by_transposition", "_by_tangents"):
        with monkeypatch.context() as patched:
            patched.setattr(rules, by_mode, refused)
            function = hypergradient(problem, tiny.teacher(), hvp="saved_residuals", schedule=2, jit=False)
            result = function(state, 3, theta)
        assert distance(result.gradient, expected.gradient) < 1e-12
        assert distance(tf.nest.flatten(result.adjoint), tf.nest.flatten(expected.adjoint)) < 1e-12


def test_residuals_where_gradient_functions_put_ops_in_order():
    """The gradient of log-sum-exp by a factor that is itself an exponential: its control inputs cross the cut."""
    def loss(labels, logits, coefficients):
        rows = tf.gather(coefficients, labels)
        return -tf.exp(rows[:, 0]) * tf.reduce_logsumexp(tf.nn.log_softmax(logits) + 3 * rows, axis=-1)

    student = FunctionalStudent(tiny.plain, dtype="float64")
    problem = classification_problem(student, tiny.arrays(24, 0), tiny.arrays(15, 1), loss=loss,
                                     objective=log_likelihood, optimizer=sgd(0.2, momentum=0.9), num_steps=5,
                                     batch_size=7)
    state, theta = initial_state(problem, *student.init(5)), tuple(tf.cast(v, tf.float64) for v in tiny.teacher().theta)
    residuals, states = (hypergradient(problem, tiny.teacher(), hvp=hvp, jit=False)(state, 3, theta).gradient
                         for hvp in ("saved_residuals", "forward_over_reverse"))
    assert distance(residuals, states) < 1e-12


def test_residuals_hold_what_was_drawn():
    """Both halves of a step see the same noise, drawn by whatever it was."""
    problem, state = tiny.problem(tiny.plain, num_steps=1)
    batch, teacher = problem.batch_fn(0, 0), tiny.teacher()
    theta = tuple(tf.cast(v, tf.float64) for v in teacher.theta)
    features = tf.fill([tiny.NUM_CLASSES + 3], tf.constant(0.5, tf.float64))
    v = Adjoint(tuple(tf.sin(p + 1) for p in state.params), (), tf.nest.map_structure(tf.cos, state.slots))

    def swept(draw):
        def loss_fn(params, non_trainable, batch, coefficients):
            noise = draw(batch[0])
            noisy = batch[0] + noise, batch[1]
            return problem.loss_fn(params, non_trainable, noisy, coefficients)._replace(metrics={"noise": noise})

        noisy_problem = problem._replace(loss_fn=loss_fn)
        rule = rule_of("saved_residuals", noisy_problem, teacher.apply, theta, state, batch, features)
        _, output, _, kept = rule.forward(theta, state, batch, features)
        return output.metrics["noise"], rule.backward(theta, state, state.step, batch, features, kept, v)

    noise, result = swept(lambda x: tf.random.normal(tf.shape(x), dtype=x.dtype))
    _, expected = swept(lambda x: noise)
    assert np.abs(noise).max() > 1
    assert distance(tf.nest.flatten(result), tf.nest.flatten(expected)) < 1e-14


class Table:
    """Φ_t = row t of θ [T, C, C]: the gradient then tells every step's dΦ_t apart."""

    def __init__(self, num_steps):
        rng = np.random.default_rng(0)
        start = 0.1 * np.eye(3) + 0.02 * rng.standard_normal((num_steps, 3, 3))
        self.trainable_variables = (tf.Variable(start, dtype=tf.float64),)

    def apply(self, theta, features):
        return theta[0][tf.cast(tf.round(features[0]), tf.int32)]


@pytest.mark.parametrize(("hvp", "schedule"), [("forward_over_reverse", 3), ("saved_residuals", "binomial:2")])
def test_a_truncated_sweep_is_the_end_of_the_whole_one(hvp, schedule):
    problem, state = tiny.problem(tiny.dense_batchnorm)
    problem = problem._replace(features=StatusFeatures(
        lambda: (), lambda state: (tf.cast(state.step, tf.float64)[tf.newaxis], ()), lambda status, metrics: ()))
    teacher = Table(problem.num_steps)
    state = state._replace(status=())

    def at(truncate):
        return hypergradient(problem, teacher, hvp=hvp, schedule=schedule, truncate=truncate, jit=False,
                             trace=("adjoint_norm", "loss"))(state, 0)

    whole = at(None)
    norms = whole.rollout.trace["adjoint_norm"].numpy()
    assert norms.shape == (13,) and np.all(norms > 0)
    assert norms[0] == pytest.approx(float(tf.linalg.global_norm(list(whole.adjoint.params))), rel=1e-6)
    for steps in (4, 13):
        part = at(steps)
        first = max(0, 13 - steps)
        assert float(part.objective) == float(whole.objective)
        np.testing.assert_array_equal(part.rollout.trace["loss"], whole.rollout.trace["loss"])
        np.testing.assert_allclose(part.gradient[0][first:], whole.gradient[0][first:], rtol=1e-10, atol=1e-14)
        np.testing.assert_array_equal(part.gradient[0][:first], 0)
        np.testing.assert_allclose(part.rollout.trace["adjoint_norm"], np.where(np.arange(13) < first, 0, norms),
                                   rtol=1e-6)
        assert norms[first] == pytest.approx(float(tf.linalg.global_norm(list(part.adjoint.params))), rel=1e-6)


def test_a_budget_picks_the_cheapest_plan_that_fits(reference, monkeypatch):
    monkeypatch.setattr(memory, "SEGMENTS_OVERHEAD", 0)  # the whole of this tiny run takes less
    problem, state, theta, expected = reference
    teacher = tiny.teacher()

    def within(budget):
        function = hypergradient(problem, teacher, hvp="saved_residuals", memory_budget=budget, jit=False)
        assert distance(function(state, 3, theta).gradient, expected.gradient) < 1e-13
        return function.choice

    ample = within("1GB")
    assert ample.plan == store_all(13) and ample.extra_work == 0
    fixed = ample.peak_bytes - ample.snapshot_bytes - 13 * ample.step_bytes
    tight = within(fixed + 3 * ample.snapshot_bytes + 2 * ample.step_bytes)
    assert tight.peak_bytes <= fixed + 3 * ample.snapshot_bytes + 2 * ample.step_bytes
    assert tight.extra_work == tight.plan.num_recomputed / 13 > 0
    assert f"{tight.extra_work:.0%} of the student's steps run again" in str(tight)
    with pytest.raises(ValueError, match="needs at least"):
        hypergradient(problem, teacher, memory_budget=fixed)(state, 3)


def fake_rules(kept):
    return {mode: Rule(None, None, [tf.TensorSpec([size // 4], tf.float32)]) for mode, size in kept.items()}


def test_auto_takes_the_fastest_mode_that_fits():
    params = (tf.zeros([1000]),)
    problem = Problem(None, None, None, sgd(0.1), StatusFeatures(lambda: (), None, None), 100)
    state = initial_state(problem, params)

    def chosen(kept, budget=None, plan=None):
        rule_of_mode = fake_rules(kept).__getitem__
        return choose(tuple(kept), rule_of_mode, plan or "store_all", 100, budget, False, state, (), 0, 0)[1]

    small = {"saved_residuals": 4000, "forward_over_reverse": 4000}
    assert chosen(small).hvp == "saved_residuals"
    # A kilobyte of weights, a hundred megabytes of activations a step: 10 GB to keep them.
    large = {"saved_residuals": 100_000_000, "forward_over_reverse": 4000}
    assert chosen(large).hvp == "forward_over_reverse"
    assert chosen(large, plan=Plan(100, 2, 50)).hvp == "saved_residuals"
    # Within a budget: 20 MB a step leave room for segments of few steps, and running those again costs more than the
    # second evaluation of every gradient does; with 5 MB a step the plan needs no repetition.
    assert chosen({"saved_residuals": 20_000_000, "forward_over_reverse": 4000}, 200_000_000).hvp \
        == "forward_over_reverse"
    assert chosen({"saved_residuals": 1_000_000, "forward_over_reverse": 4000}, 200_000_000).hvp == "saved_residuals"


def test_live_bytes_of_a_chain_and_of_a_sum():
    @tf.function(autograph=False)
    def chain(x):
        for _ in range(5):
            x = tf.sin(x)  # 4000 bytes in, 4000 out
        return tf.reshape(x, [10, 100])

    @tf.function(autograph=False)
    def total(x):
        return tf.add_n([tf.sin(x), tf.cos(x), tf.tanh(x)])

    spec = tf.TensorSpec([1000])
    assert memory.live_bytes(chain.get_concrete_function(spec).graph) == 2 * 4000
    assert memory.live_bytes(total.get_concrete_function(spec).graph) == 4 * 4000


def test_ops_are_counted_in_functions_too_and_cost_memory():
    @tf.function(autograph=False)
    def inner(x):
        return tf.sin(tf.cos(x))

    @tf.function(autograph=False)
    def outer(x):
        return tf.exp(inner(x))

    # x, the call, exp, the result's Identity; of the function sin and cos and its own Identity.
    assert memory.num_ops(outer.get_concrete_function(tf.TensorSpec([3])).graph) == 4 + 3
    assert memory.overhead(0, False) == memory.overhead(memory.FEW_OPS, False) == memory.OVERHEAD
    assert memory.overhead(memory.FEW_OPS + 10, True) \
        == memory.OVERHEAD + 10 * memory.OP_OVERHEAD + memory.XLA_OVERHEAD


def test_segments_cost_their_overhead_and_stay_within_the_budget():
    params = (tf.zeros([1000]),)
    problem = Problem(None, None, None, sgd(0.1), StatusFeatures(lambda: (), None, None), 100)
    state = initial_state(problem, params)
    rule_of_mode = fake_rules({"saved_residuals": 1_000_000}).__getitem__

    def chosen(budget):
        return choose(("saved_residuals",), rule_of_mode, "every_k", 100, budget, False, state, (), 0, 0)[1]

    whole = chosen(10**9)
    assert whole.plan == store_all(100) == chosen(whole.peak_bytes).plan
    parts = chosen(whole.peak_bytes - 1)
    assert parts.plan.num_segments > 1 and parts.peak_bytes < whole.peak_bytes
    held = parts.plan.num_snapshots * parts.snapshot_bytes + parts.plan.segment_length * parts.step_bytes
    assert parts.peak_bytes - held - SEGMENTS_OVERHEAD \
        == whole.peak_bytes - whole.snapshot_bytes - 100 * whole.step_bytes


def test_auto_end_to_end(reference):
    problem, state, theta, expected = reference
    function = hypergradient(problem, tiny.teacher(), hvp="auto", jit=False)
    assert distance(function(state, 3, theta).gradient, expected.gradient) < 1e-13
    choice = function.choice
    assert choice.hvp == "saved_residuals"
    assert choice.plan == every_k(13, None, choice.snapshot_bytes, choice.step_bytes)


def test_predicted_bytes_are_those_of_the_tensors(reference):
    problem, state, *_ = reference
    function = hypergradient(problem, tiny.teacher(), jit=False)
    function(state, 3)
    size = {name: sum(8 * int(np.prod(t.shape)) for t in tf.nest.flatten(getattr(state, name)))
            for name in ("params", "non_trainable", "slots")}
    assert function.choice.snapshot_bytes == sum(size.values())
    assert function.choice.step_bytes == size["params"] + size["non_trainable"]  # momentum's adjoint reads no slots


def mixed(policy="mixed_bfloat16"):
    def build():
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            return tiny.dense_batchnorm()
        finally:
            keras.config.set_dtype_policy(before)

    return build


def float32_problem(build):
    student = tiny.FunctionalStudent(build)
    train, dev = (tiny.ArrayPair(pair.x.astype(np.float32), pair.y) for pair in (tiny.arrays(24), tiny.arrays(15, 1)))
    problem = tiny.classification_problem(
        student, train, dev, loss=tiny.taught_form("stable").per_example, objective=tiny.log_likelihood,
        optimizer=sgd(0.05, 0.9), num_steps=8, batch_size=8, refresh_every=3)
    return problem, initial_state(problem, *student.init(5))


def test_mixed_precision_is_near_float32():
    problem, state = float32_problem(tiny.dense_batchnorm)
    expected = hypergradient(problem, tiny.teacher(), jit=False)(state, 0)
    for mode, jit in ((HVP_MODES[0], False), (HVP_MODES[1], False), (HVP_MODES[2], True)):
        problem, state = float32_problem(mixed())
        assert all(p.dtype == tf.float32 for p in state.params)
        result = hypergradient(problem, tiny.teacher(), hvp=mode, jit=jit)(state, 0)
        assert result.gradient[0].dtype == tf.float32
        # bfloat16 has 8 bits: roundings of 0.4 % in every layer, step and derivative.
        assert float(result.objective) == pytest.approx(float(expected.objective), rel=0.02)
        assert distance(result.gradient, expected.gradient) < 0.1


@pytest.mark.parametrize(("policy", "match"), [("bfloat16", "mixed_bfloat16"), ("mixed_float16", "loss scaling"),
                                               ("float16", "half precision")])
def test_half_precision_weights_are_refused(policy, match):
    with pytest.raises(ValueError, match=match):
        tiny.FunctionalStudent(mixed(policy))


@pytest.mark.parametrize("options", [{"truncate": 0}, {"truncate": 1.5}, {"truncate": True}, {"jit": "yes"},
                                     {"memory_budget": "5"}, {"memory_budget": "1GB", "schedule": "store_all"}])
def test_bad_options(options):
    problem, _ = tiny.problem()
    with pytest.raises(ValueError, match=r"received"):
        hypergradient(problem, tiny.teacher(), **options)


def test_metrics_and_losses_may_be_anything_but_differentiated():
    """A loss_fn without metrics, and features that depend on the weights smoothly: neither leaks into dM/dθ."""
    problem, state = tiny.problem(tiny.plain, num_steps=7)

    def smooth(state):
        x, y = problem.batch_fn(tf.constant(9, tf.int64), tf.constant(0))
        loss = problem.loss_fn(state.params, state.non_trainable, (x, y), 0.1 * tf.eye(3, dtype=tf.float64)).loss
        return tf.stack([loss] * 6), ()

    def loss_fn(*arguments):
        return StepOutput(*problem.loss_fn(*arguments)[:2], {})

    changed = problem._replace(loss_fn=loss_fn, features=StatusFeatures(lambda: (), smooth, lambda s, m: s))
    state = state._replace(status=())
    teacher = tiny.teacher()
    theta = tuple(tf.cast(v, tf.float64) for v in teacher.theta)
    for mode in HVP_MODES:
        result = hypergradient(changed, teacher, hvp=mode, schedule=3, jit=False)(state, 0, theta)
        value = objective_of(changed, teacher)
        norm = tf.linalg.global_norm(list(result.gradient))
        at = [float(value([t + h * g / norm for t, g in zip(theta, result.gradient, strict=True)], state, 0,
                          result.rollout.features)) for h in (-1e-5, 1e-5)]
        # The difference itself is good to h² relative to the curvature, about 1e-7 here.
        assert (at[1] - at[0]) / 2e-5 == pytest.approx(float(norm), rel=1e-6)


def test_large_steps_may_be_called_twice():
    """TensorFlow's graph rewriter turns sums of large gradients into temporary variables, which fail in loops from the
    second call on; the engine does without it."""
    inputs = keras.Input((64, 64, 3))

    def build():
        x = keras.layers.Conv2D(32, 3, padding="same")(inputs)
        x = keras.layers.Add()([x, keras.layers.Activation("tanh")(x), keras.layers.Activation("gelu")(x)])
        return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))

    rng = np.random.default_rng(0)
    pair = tiny.ArrayPair(rng.standard_normal((64, 64, 64, 3)).astype(np.float32), (np.arange(64) % 3).astype(np.int32))
    student = tiny.FunctionalStudent(build)
    small = tiny.ArrayPair(pair.x[:6], pair.y[:6])
    problem = tiny.classification_problem(
        student, pair, small, loss=tiny.taught_form("stable").per_example, objective=tiny.log_likelihood,
        optimizer=sgd(0.05, 0.9), num_steps=2, batch_size=64)
    function = hypergradient(problem, tiny.teacher(), schedule="store_all")
    state = initial_state(problem, *student.init(0))
    first, second = function(state, 0), function(state, 0)
    for a, b in zip(first.gradient, second.gradient, strict=True):
        np.testing.assert_array_equal(a, b)
