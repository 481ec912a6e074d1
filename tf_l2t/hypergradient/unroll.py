"""The rollout of a student's training run and the reverse sweep through it: Algorithm 1 of the L2T-DLF paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from tf_l2t.hypergradient.moments import exact_moments
from tf_l2t.hypergradient.schedules import Plan, every_k, plan_for
from tf_l2t.hypergradient.state import Problem, StudentState, Tensors
from tf_l2t.hypergradient.step import HVP_MODES, Adjoint, inner_step, split_floats, step_adjoint

TRACEABLE = ("batch", "features", "coefficients", "loss", "metrics")


class TeacherLike(Protocol):
    """What the engine needs of a teacher: its variables, and μ as a function of their values."""

    @property
    def trainable_variables(self) -> Sequence[tf.Variable]: ...

    def apply(self, theta: Tensors, features: tf.Tensor) -> tf.Tensor: ...


class Rollout(NamedTuple):
    """A forward run.

    Attributes:
      final_state: the state after T steps.
      features: the recorded s_t, [T, num_features].
      trace: dict from the names asked for to stacked values, [T, ...] (nests for `batch` and `metrics`).
    """

    final_state: StudentState
    features: tf.Tensor
    trace: dict[str, Any]


class Hypergradient(NamedTuple):
    """A forward run and the reverse sweep through it.

    Attributes:
      objective: M at the end of the run, a scalar.
      gradient: dM/dθ, one tensor per teacher variable, s_t held fixed (equation 5).
      adjoint: dM/d(state at t = 0); its `params` is dω_0.
      rollout: the forward run.
    """

    objective: tf.Tensor
    gradient: Tensors
    adjoint: Adjoint
    rollout: Rollout


def _check_trace(trace: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in trace if name not in TRACEABLE]
    if isinstance(trace, str) or unknown:
        raise ValueError(f"trace must be a sequence of names from {TRACEABLE}; received {trace!r}.")
    return tuple(trace)


def _snapshot(state: StudentState) -> list[tf.Tensor]:
    """What a step needs of a state, besides the step number: the status is left out, replays read recorded s_t."""
    return tf.nest.flatten((state.params, state.non_trainable, state.slots))


def _restore(template: StudentState, arrays: Sequence[tf.TensorArray], index: tf.Tensor,
             step: tf.Tensor) -> StudentState:
    like = _snapshot(template)
    values = [tf.ensure_shape(array.read(index), tensor.shape) for array, tensor in zip(arrays, like, strict=True)]
    parts = (template.params, template.non_trainable, template.slots)
    params, non_trainable, slots = tf.nest.pack_sequence_as(parts, values)
    return StudentState(params, non_trainable, slots, step, template.status)


def _arrays_like(tensors: Sequence[tf.Tensor], size: Any) -> list[tf.TensorArray]:
    return [tf.TensorArray(t.dtype, size=size, element_shape=t.shape, clear_after_read=False) for t in tensors]


def _write(arrays: Sequence[tf.TensorArray], index: tf.Tensor, values: Sequence[tf.Tensor]) -> list[tf.TensorArray]:
    return [array.write(index, value) for array, value in zip(arrays, values, strict=True)]


def _step_with(problem: Problem, state: StudentState, features: tf.Tensor,
               coefficients_fn: Callable[[tf.Tensor], tf.Tensor],
               seed: tf.Tensor) -> tuple[StudentState, dict[str, Any]]:
    """The step from `state` under the status vector `features`, and its record."""
    batch = problem.batch_fn(seed, state.step)
    coefficients = coefficients_fn(features)
    new_state, output = inner_step(problem, state, batch, coefficients)
    return new_state, {"batch": batch, "features": features, "coefficients": coefficients, "loss": output.loss,
                       "metrics": output.metrics}


def _live_step(problem: Problem, coefficients_fn: Callable[[tf.Tensor], tf.Tensor], state: StudentState,
               seed: tf.Tensor) -> tuple[StudentState, dict[str, Any]]:
    """The step from `state` under its own status, which is updated."""
    with exact_moments():
        features, status = problem.features.features_fn(state)
    new_state, record = _step_with(problem, state, features, coefficients_fn, seed)
    return new_state._replace(status=problem.features.update_fn(status, record["metrics"])), record


def _forward(problem: Problem, coefficients_fn: Callable[[tf.Tensor], tf.Tensor], state: StudentState,
             seed: tf.Tensor, plan: Plan, trace: Sequence[str], replayed: tf.Tensor | None,
             keep_snapshots: bool) -> tuple[Rollout, list[tf.TensorArray]]:
    num_steps, length = plan.num_steps, plan.segment_length

    def status_and_step(state: StudentState) -> tuple[StudentState, dict[str, Any]]:
        if replayed is None:
            return _live_step(problem, coefficients_fn, state, seed)
        return _step_with(problem, state, replayed[state.step], coefficients_fn, seed)

    # A step traced in a graph of its own, and never run, tells shapes and structures.
    specimen = tf.function(status_and_step, autograph=False).get_concrete_function(state).structured_outputs[1]
    names = ("features", *(name for name in trace if name != "features"))
    recorded = [specimen[name] for name in names]
    records = _arrays_like(tf.nest.flatten(recorded), num_steps)
    snapshots = _arrays_like(_snapshot(state), plan.num_segments if keep_snapshots else 0)

    def one_step(state, records):
        index = state.step
        state, record = status_and_step(state)
        return state, _write(records, index, tf.nest.flatten([record[name] for name in names]))

    def one_segment(segment, state, records, snapshots):
        if keep_snapshots:
            snapshots = _write(snapshots, segment, _snapshot(state))
        stop = tf.minimum((segment + 1) * length, num_steps)
        state, records = tf.while_loop(lambda state, *_: state.step < stop, one_step, (state, records),
                                       parallel_iterations=1)
        return segment + 1, state, records, snapshots

    _, state, records, snapshots = tf.while_loop(
        lambda segment, *_: segment < plan.num_segments, one_segment, (tf.constant(0), state, records, snapshots),
        parallel_iterations=1)
    stacked = dict(zip(names, tf.nest.pack_sequence_as(recorded, [r.stack() for r in records]), strict=True))
    return Rollout(state, stacked["features"], {name: stacked[name] for name in trace}), snapshots


def _objective_adjoint(problem: Problem, state: StudentState) -> tuple[tf.Tensor, Adjoint]:
    """M and equation (3): its derivative with respect to the last state."""
    floats, merge = split_floats(state.non_trainable)
    with exact_moments(), tf.GradientTape() as tape:
        tape.watch([state.params, floats])
        objective = problem.objective_fn(state.params, merge(floats))
        params, adjoint_floats = tape.gradient(objective, (state.params, floats),
                                               unconnected_gradients=tf.UnconnectedGradients.ZERO)
    params = tuple(tf.convert_to_tensor(p) for p in params)
    return objective, Adjoint(params, adjoint_floats, tf.nest.map_structure(tf.zeros_like, state.slots))


def _assert_same(recomputed: StudentState, stored: StudentState) -> list[tf.Operation]:
    checks = []
    for new, old in zip(_snapshot(recomputed), _snapshot(stored), strict=True):
        # A NaN is not equal to itself, yet a run that diverged was still repeated exactly.
        same = (new == old) | ((new != new) & (old != old)) if new.dtype.is_floating else new == old
        checks.append(tf.debugging.Assert(tf.reduce_all(same), [
            "A recomputed segment ends in another state than the forward run did: the student's step is not a pure "
            "function of (state, batch, coefficients), or batch_fn not one of (seed, step). First step after the "
            "segment:", recomputed.step]))
    return checks


def _reverse(problem: Problem, teacher: TeacherLike, theta: Tensors, forward: Rollout,
             snapshots: Sequence[tf.TensorArray], template: StudentState, seed: tf.Tensor, plan: Plan, hvp: str,
             debug: bool, adjoint: Adjoint) -> tuple[Tensors, Adjoint]:
    length = plan.segment_length

    def replay(state: StudentState) -> StudentState:
        features = forward.features[state.step]
        return inner_step(problem, state, problem.batch_fn(seed, state.step), teacher.apply(theta, features))[0]

    def recompute(state, states):
        states = _write(states, state.step % length, _snapshot(state))
        return replay(state), states

    def adjoint_step(step, start, states, gradient, adjoint):
        step -= 1
        state = _restore(template, states, step - start, step)
        features = forward.features[step]
        with tf.GradientTape() as tape:
            tape.watch(theta)
            coefficients = teacher.apply(theta, features)
        adjoint, adjoint_coefficients = step_adjoint(
            problem, state, problem.batch_fn(seed, step), tf.stop_gradient(coefficients), adjoint, hvp)
        contribution = tape.gradient(coefficients, theta, output_gradients=adjoint_coefficients,
                                     unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradient = tuple(g + tf.convert_to_tensor(c) for g, c in zip(gradient, contribution, strict=True))
        return step, start, states, gradient, adjoint

    def one_segment(segment, gradient, adjoint):
        start = segment * length
        stop = tf.minimum(start + length, plan.num_steps)
        state = _restore(template, snapshots, segment, start)
        states = _arrays_like(_snapshot(template), length)
        state, states = tf.while_loop(lambda state, _: state.step < stop - 1, recompute, (state, states),
                                      parallel_iterations=1)
        states = _write(states, state.step - start, _snapshot(state))
        if debug:
            following = tf.minimum(segment + 1, plan.num_segments - 1)
            stored = tf.cond(stop < plan.num_steps,
                             lambda: _snapshot(_restore(template, snapshots, following, stop)),
                             lambda: _snapshot(forward.final_state))
            parts = (template.params, template.non_trainable, template.slots)
            expected = StudentState(*tf.nest.pack_sequence_as(parts, stored), stop, template.status)
            with tf.control_dependencies(_assert_same(replay(state), expected)):
                stop = tf.identity(stop)
        _, _, _, gradient, adjoint = tf.while_loop(
            lambda step, start, *_: step > start, adjoint_step, (stop, start, states, gradient, adjoint),
            parallel_iterations=1)
        return segment - 1, gradient, adjoint

    gradient = tuple(tf.zeros_like(t) for t in theta)
    _, gradient, adjoint = tf.while_loop(
        lambda segment, *_: segment >= 0, one_segment, (tf.constant(plan.num_segments - 1), gradient, adjoint),
        parallel_iterations=1)
    return gradient, adjoint


def _compile_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` traced at its first call and never again: other shapes or dtypes later are an error."""
    traced = None

    def call(*args: Any) -> Any:
        nonlocal traced
        if traced is None:
            traced = tf.function(function, autograph=False).get_concrete_function(*args)
        return traced(*args)

    return call


def rollout(problem: Problem, coefficients_fn: Callable[[tf.Tensor], tf.Tensor], *,
            trace: Sequence[str] = ()) -> Callable[..., Rollout]:
    """A compiled forward run of `problem`: no gradient, nothing kept but what `trace` names.

    Args:
      problem: the student's run.
      coefficients_fn: s_t -> Φ_t: a teacher, or a function that ignores its argument for a fixed loss.
      trace: names from ("batch", "features", "coefficients", "loss", "metrics") to return for every step.

    Returns:
      A `tf.function` (initial_state, seed) -> `Rollout`, traced once.

    Raises:
      ValueError: for an unknown name in `trace`.
    """
    trace = _check_trace(trace)
    plan = every_k(problem.num_steps)

    @_compile_once
    def run(state: StudentState, seed: tf.Tensor) -> Rollout:
        return _forward(problem, coefficients_fn, state, seed, plan, trace, None, keep_snapshots=False)[0]

    return lambda state, seed: run(state, tf.convert_to_tensor(seed, tf.int64))


def advance(problem: Problem, coefficients_fn: Callable[[tf.Tensor], tf.Tensor]) -> Callable[..., StudentState]:
    """A compiled stretch of `problem`'s run: (state, seed, stop) -> the state at step `stop`.

    Stretches follow each other: a run interrupted at any step, to be evaluated say, is the same run.
    """
    @_compile_once
    def run(state: StudentState, seed: tf.Tensor, stop: tf.Tensor) -> StudentState:
        return tf.while_loop(lambda state: state.step < stop,
                             lambda state: (_live_step(problem, coefficients_fn, state, seed)[0],), (state,),
                             parallel_iterations=1)[0]

    return lambda state, seed, stop: run(state, tf.convert_to_tensor(seed, tf.int64),
                                         tf.convert_to_tensor(stop, tf.int32))


def objective_of(problem: Problem, teacher: TeacherLike) -> Callable[..., tf.Tensor]:
    """M as a function of θ, compiled: (theta, initial_state, seed, features=None) -> M.

    `features` [T, num_features] are replayed; None lets the student's status be live. This is the function whose
    gradient in θ `hypergradient` returns; with live features it is the true M(θ), of which equation (5) leaves the
    part through s_t out.
    """
    plan = every_k(problem.num_steps)

    def run(theta: Tensors, state: StudentState, seed: tf.Tensor, features: tf.Tensor | None) -> tf.Tensor:
        forward, _ = _forward(problem, lambda s: teacher.apply(theta, s), state, seed, plan, (), features, False)
        final = forward.final_state
        return problem.objective_fn(final.params, final.non_trainable)

    live, replayed = _compile_once(run), _compile_once(run)

    def call(theta: Tensors, state: StudentState, seed: int | tf.Tensor, features: tf.Tensor | None = None) -> Any:
        arguments = (tuple(theta), state, tf.convert_to_tensor(seed, tf.int64))
        return live(*arguments, None) if features is None else replayed(*arguments, features)

    return call


def check_options(hvp: str, schedule: str | int | Plan, num_steps: int) -> Plan:
    """The plan of `schedule`; raises ValueError for an unknown HVP mode or schedule."""
    if hvp not in HVP_MODES:
        raise ValueError(f"hvp must be one of {HVP_MODES}; received {hvp!r}.")
    return plan_for(schedule, num_steps)


def hypergradient(problem: Problem, teacher: TeacherLike, *, hvp: str = "forward_over_reverse",
                  schedule: str | int | Plan = "every_k", trace: Sequence[str] = (),
                  debug: bool = False) -> Callable[..., Hypergradient]:
    """The exact gradient of the dev measure M with respect to a teacher's parameters θ.

    Like `jax.grad`, this returns a function: compiled once, called at every teacher step. It runs the student for T
    steps (equation 1), takes dω_T (equation 3), and sweeps back (equations 4 and 5), with the inner optimizer's
    recursion and the moving statistics differentiated exactly and the recorded s_t held fixed.

    Args:
      problem: the student's run and the dev measure.
      teacher: has `trainable_variables` and `apply(theta, features)`, as `tf_l2t.teachers.Teacher`.
      hvp: "forward_over_reverse" or "reverse_over_reverse": how Hessian-vector products are made.
      schedule: "store_all", "every_k" (√T), an integer k, or a `schedules.Plan`.
      trace: names from ("batch", "features", "coefficients", "loss", "metrics") to return for every step.
      debug: compare every recomputed segment's end with the stored state, bit for bit; a difference raises
        `tf.errors.InvalidArgumentError`. Costs up to one student step per segment.

    Returns:
      A function (initial_state, seed, theta=None) -> `Hypergradient`. `theta` are the values to differentiate at,
      by default those of the teacher's variables at the time of the call.
      Cost with "every_k": about 4 student steps per step in time, 2√T states in memory; with "store_all" about 3
      and T states.

    Raises:
      ValueError: for an unknown mode, schedule or trace name.
    """
    trace = _check_trace(trace)
    plan = check_options(hvp, schedule, problem.num_steps)

    @_compile_once
    def run(theta: Tensors, state: StudentState, seed: tf.Tensor) -> Hypergradient:
        forward, snapshots = _forward(problem, lambda s: teacher.apply(theta, s), state, seed, plan, trace, None, True)
        objective, adjoint = _objective_adjoint(problem, forward.final_state)
        gradient, adjoint = _reverse(problem, teacher, theta, forward, snapshots, state, seed, plan, hvp, debug,
                                     adjoint)
        return Hypergradient(objective, gradient, adjoint, forward)

    def call(state: StudentState, seed: int | tf.Tensor, theta: Tensors | None = None) -> Hypergradient:
        if theta is None:
            theta = tuple(tf.convert_to_tensor(v) for v in teacher.trainable_variables)
        return run(tuple(theta), state, tf.convert_to_tensor(seed, tf.int64))

    return call


