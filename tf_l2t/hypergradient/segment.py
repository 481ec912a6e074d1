"""Stretches of a student's run: forward, and a segment forward and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tf_l2t.hypergradient.moments import exact_moments
from tf_l2t.hypergradient.rules import Rule
from tf_l2t.hypergradient.state import Problem, StudentState, Tensors
from tf_l2t.hypergradient.step import Adjoint, split_floats

Fetch = Callable[[tf.Tensor, tf.Tensor], Any]  # (index in the stretch, step) -> batch
_ZERO = tf.UnconnectedGradients.ZERO


def arrays_like(tensors: Sequence[Any], size: Any) -> list[tf.TensorArray]:
    """An array for each of the tensors, of `size` like it, which may be read more than once."""
    size = tf.convert_to_tensor(size)  # once, not by each array
    return [tf.TensorArray(t.dtype, size=size, element_shape=t.shape, clear_after_read=False) for t in tensors]


def write(arrays: Sequence[tf.TensorArray], index: tf.Tensor, values: Sequence[tf.Tensor]) -> list[tf.TensorArray]:
    """The arrays with the values at `index`, one each."""
    return [array.write(index, value) for array, value in zip(arrays, values, strict=True)]


def read_all(arrays: Sequence[tf.TensorArray], index: tf.Tensor) -> list[tf.Tensor]:
    """What stands at `index` of each of the arrays."""
    return [array.read(index) for array in arrays]


def run(problem: Problem, rule: Rule, theta: Tensors, state: StudentState, fetch: Fetch, count: Any, length: int,
        recorded: tf.Tensor | None, live: tf.Tensor | None, specimen: dict[str, Any],
        keep: bool) -> tuple[StudentState, dict[str, Any], list[tf.TensorArray]]:
    """`count` ≤ `length` student steps from `state`.

    Args:
      recorded: s_t to replay, [length, num_features]; None for the student's own status.
      live: with `recorded`, a boolean scalar: whether to use the student's own status after all. One compiled
        function then serves the run and its repetitions, which come out bit for bit alike.
      specimen: the record's entries to return, and their shapes.
      keep: whether to return what the rule keeps.

    Returns:
      The state after, the records stacked to [length, ...], of which `count` entries are set, and the kept tensors.
    """
    def features_of(index: tf.Tensor, state: StudentState) -> tuple[tf.Tensor, Any]:
        def measure() -> tuple[tf.Tensor, Any]:
            with exact_moments():
                return problem.features.features_fn(state)

        if recorded is None:
            return measure()
        if live is None:
            return recorded[index], state.status
        return tf.cond(live, measure, lambda: (recorded[index], state.status))

    def body(index, state, records, kept):
        features, status = features_of(index, state)
        batch = fetch(index, state.step)
        after, output, coefficients, needed = rule.forward(theta, state, batch, features)
        record = {"batch": batch, "features": features, "coefficients": coefficients, "loss": output.loss,
                  "metrics": output.metrics}
        if keep:
            kept = write(kept, index, needed)
        records = write(records, index, tf.nest.flatten({name: record[name] for name in specimen}))
        return index + 1, after._replace(status=problem.features.update_fn(status, output.metrics)), records, kept

    records, kept = arrays_like(tf.nest.flatten(specimen), length), arrays_like(rule.kept if keep else [], length)
    _, state, records, kept = tf.while_loop(
        lambda index, *_: index < count, body, (tf.constant(0), state, records, kept),
        maximum_iterations=length, parallel_iterations=1)
    return state, tf.nest.pack_sequence_as(specimen, [array.stack() for array in records]), kept


def objective_adjoint(problem: Problem, state: StudentState) -> tuple[tf.Tensor, Adjoint]:
    """M and equation (3): its derivative with respect to the last state."""
    floats, merge = split_floats(state.non_trainable)
    with exact_moments(), tf.GradientTape() as tape:
        tape.watch([state.params, floats])
        objective = problem.objective_fn(state.params, merge(floats))
        params, adjoint_floats = tape.gradient(objective, (state.params, floats), unconnected_gradients=_ZERO)
    params = tuple(tf.convert_to_tensor(p) for p in params)
    return objective, Adjoint(params, adjoint_floats, tf.nest.map_structure(tf.zeros_like, state.slots))


def sweep(problem: Problem, rule: Rule, theta: Tensors, state: StudentState, fetch: Fetch, count: Any, length: int,
          recorded: tf.Tensor | None, adjoint: Adjoint | None, specimen: dict[str, Any],
          norms: bool) -> tuple[tf.Tensor, StudentState, dict[str, Any], Adjoint, Tensors, tf.Tensor]:
    """Runs a segment of `count` ≤ `length` steps and sweeps it back: equations (4) and (5).

    Args:
      recorded: s_t to replay, or None for the last segment, whose forward run this is.
      adjoint: of the state after the segment, or None for the last one: then that of the objective.
      specimen: as for `run`; must have `features`.

    Returns:
      (objective or 0, state after, records, adjoint of `state`, dM/dθ of these steps, ‖dω_t‖ [length] or [0]).
    """
    after, records, kept = run(problem, rule, theta, state, fetch, count, length, recorded, None, specimen, keep=True)
    objective = tf.zeros((), state.params[0].dtype)
    if adjoint is None:
        objective, adjoint = objective_adjoint(problem, after)

    def back(index, adjoint, gradient, lengths):
        index -= 1
        step = state.step + index
        adjoint, part = rule.backward(theta, state, step, fetch(index, step), records["features"][index],
                                      read_all(kept, index), adjoint)
        gradient = tuple(g + p for g, p in zip(gradient, part, strict=True))
        if norms:
            norm = tf.cast(tf.linalg.global_norm(list(adjoint.params)), tf.float32)
            lengths = write(lengths, index, [norm])
        return index, adjoint, gradient, lengths

    _, adjoint, gradient, lengths = tf.while_loop(
        lambda index, *_: index > 0, back,
        (tf.convert_to_tensor(count), adjoint, tuple(tf.zeros_like(t) for t in theta),
         arrays_like([tf.TensorSpec((), tf.float32)], length if norms else 0)),
        maximum_iterations=length, parallel_iterations=1)
    return objective, after, records, adjoint, gradient, lengths[0].stack()
