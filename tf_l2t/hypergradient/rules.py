"""How one student step is swept back: what the forward run keeps for it, and what is made of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tf_l2t.hypergradient.graphs import separate
from tf_l2t.hypergradient.pooling import linear_max_pool
from tf_l2t.hypergradient.state import Problem, StepOutput, StudentState, Tensors
from tf_l2t.hypergradient.step import Adjoint, inner_step, inner_step_and_adjoint, split_floats, step_adjoint

HVP_MODES = ("forward_over_reverse", "reverse_over_reverse", "saved_residuals")
"""The ways to take Hessian-vector products."""
_ZERO = tf.UnconnectedGradients.ZERO
Apply = Callable[[Tensors, tf.Tensor], tf.Tensor]  # (theta, s_t) -> Φ_t


class UnavailableModeError(ValueError):
    """An HVP mode does not pass through a student's step."""


class Rule(NamedTuple):
    """A step and its adjoint, cut into two functions.

    Attributes:
      forward: (theta, state, batch, s_t) -> (state after, `StepOutput`, Φ_t, kept), `kept` a list of tensors.
      backward: (theta, like, step, batch, s_t, kept, adjoint of the state after) -> (adjoint of the state, dM/dθ of
        this step); `like` is any state of the run: shapes count.
      kept: shapes and dtypes of `kept`.
    """

    forward: Callable[..., tuple[StudentState, StepOutput, tf.Tensor, list[tf.Tensor]]]
    backward: Callable[..., tuple[Adjoint, Tensors]]
    kept: list[tf.TensorSpec]


def rule_of(hvp: str, problem: Problem, apply: Apply, theta: Tensors, state: StudentState, batch: Any,
            features: tf.Tensor) -> Rule:
    """The rule of an HVP mode; of all arguments but the functions, structures, shapes and dtypes count."""
    if hvp == "saved_residuals":
        if problem.shards:
            raise UnavailableModeError('hvp="saved_residuals" keeps results of one device, and the batch is split over '
                                       'several: use hvp="forward_over_reverse".')
        return _saved_residuals(problem, apply, theta, state, batch, features)
    return _saved_states(hvp, problem, apply, state)


def trace_backward(rule: Rule, theta: Tensors, state: StudentState, batch: Any, features: tf.Tensor) -> None:
    """Traces the backward function of a rule of saved states, which the segments then call.

    Raises:
      UnavailableModeError: if forward-mode derivatives do not pass through the student.
    """
    floats, _ = split_floats(state.non_trainable)
    arguments = (theta, state, state.step, batch, features, rule.kept, Adjoint(state.params, floats, state.slots))
    try:
        rule.backward.get_concrete_function(  # type: ignore[attr-defined]
            *tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), arguments))
    except (TypeError, NotImplementedError, LookupError) as error:
        raise UnavailableModeError('hvp="forward_over_reverse" does not pass through this student, as it does not '
                                   "through a while loop, such as an LSTM that is not unrolled: use "
                                   f'hvp="reverse_over_reverse", or unroll=True ({_reason(error)}).') from error


def _reason(error: Exception) -> str:
    """What went wrong in one line; Keras says first where it did."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception encountered")]
    return f"{type(error).__name__}: {(lines or [''])[0]}"


def snapshot(state: StudentState) -> list[tf.Tensor]:
    """What going on from a state needs, besides the step number: replays read the recorded s_t, not the status."""
    return tf.nest.flatten((state.params, state.non_trainable, state.slots))


def restore(template: StudentState, values: Sequence[tf.Tensor], step: tf.Tensor) -> StudentState:
    """The state whose `snapshot` is `values`."""
    parts = (template.params, template.non_trainable, template.slots)
    shaped = [tf.ensure_shape(value, like.shape) for value, like in zip(values, snapshot(template), strict=True)]
    params, non_trainable, slots = tf.nest.pack_sequence_as(parts, shaped)
    return StudentState(params, non_trainable, slots, step, template.status)


def _saved_states(hvp: str, problem: Problem, apply: Apply, like: StudentState) -> Rule:
    """Keeps the state of every step, and takes its gradient and Hessian-vector product there (`step_adjoint`)."""
    def needed(state: StudentState) -> list[tf.Tensor]:
        # The derivative of a linear update does not depend on the slots' values.
        return snapshot(state._replace(slots=()) if problem.optimizer.linear else state)

    def forward(theta, state, batch, features):
        coefficients = apply(theta, features)
        new_state, output = inner_step(problem, state, batch, coefficients)
        return new_state, output, coefficients, needed(state)

    def backward(theta, like, step, batch, features, kept, adjoint):
        if problem.optimizer.linear:
            kept = [*kept, *tf.nest.flatten(like.slots)]
        with tf.GradientTape() as tape:
            tape.watch(theta)
            coefficients = apply(theta, features)
        adjoint, adjoint_coefficients = step_adjoint(problem, restore(like, kept, step), batch,
                                                     tf.stop_gradient(coefficients), adjoint, hvp)
        return adjoint, _by_theta(tape, coefficients, theta, adjoint_coefficients)

    # Traced once for all segments; and what second derivatives leave behind unused is pruned from a graph of its own.
    return Rule(forward, separate(backward), [tf.TensorSpec(t.shape, t.dtype) for t in needed(like)])


def _saved_residuals(problem: Problem, apply: Apply, theta: Tensors, state: StudentState, batch: Any,
                     features: tf.Tensor) -> Rule:
    """Keeps, of every step, the intermediate results that its adjoint reads, and evaluates nothing twice.

    The step and its adjoint, optimizer and teacher included, are traced into one graph. What of it depends on the
    adjoint of the next state is the backward function; what that reads of the rest is kept, as far as it depends on the
    student's state. The rest follows from batch and s_t, which are to be had again.
    """
    floats, _ = split_floats(state.non_trainable)
    inputs = (theta, (state.params, state.non_trainable, state.slots), (state.step, batch, features),
              Adjoint(state.params, floats, state.slots))
    reasons = []
    for by_mode in [_by_tangents] * problem.optimizer.linear + [_by_transposition]:
        try:
            return _cut(by_mode, problem, apply, inputs)
        except (TypeError, NotImplementedError, LookupError) as error:
            reasons.append(error)
    raise UnavailableModeError('hvp="saved_residuals" does not pass through this student, as it does not through a '
                               "while loop, such as an LSTM that is not unrolled, or a tf.function within a layer: use "
                               f'hvp="reverse_over_reverse", or unroll=True ({"; ".join(map(_reason, reasons))}).'
                               ) from reasons[-1]


def _cut(by_mode: Callable[..., Any], problem: Problem, apply: Apply, inputs: Any) -> Rule:
    """The rule of a step and its adjoint in one graph, cut in two.

    Raises:
      TypeError: where the graph cannot be cut.
    """
    structures: list[Any] = []
    signature = [tf.TensorSpec(t.shape, t.dtype) for t in tf.nest.flatten(inputs)]

    def step_and_adjoint(*flat):
        theta, parts, (step, batch, features), adjoint = tf.nest.pack_sequence_as(inputs, flat)
        params, non_trainable, slots = parts
        state = StudentState(params, non_trainable, slots, step)
        results, *pulled = by_mode(problem, apply, theta, state, batch, features, adjoint)
        structures[:] = results, pulled
        return tf.nest.flatten(results), tf.nest.flatten(pulled)

    # wrap_function is the public way to a graph that can be cut: its `prune` makes functions of parts of it.
    whole = tf.compat.v1.wrap_function(step_and_adjoint, signature)
    _drop_order(whole.graph)
    theta_in, state_in, rest_in, cotangents_in = tf.nest.pack_sequence_as(
        [tf.nest.flatten(part) for part in inputs], whole.graph.inputs[:len(signature)])
    results, gradients = whole.structured_outputs
    from_cotangents = _dependents(whole.graph, cotangents_in)
    # What is drawn or looked up is not to be had again.
    drawn = [t for op in whole.graph.get_operations() if _is_drawn(op) for t in op.outputs]
    residuals = _residuals(gradients, _dependents(whole.graph, [*state_in, *drawn]), from_cotangents)
    if any(result.ref() in from_cotangents for result in results):
        raise TypeError("the step's value and its tangent are one op")
    if any(residual.dtype == tf.variant for residual in residuals):
        raise TypeError("the stacked results of a loop would have to be kept")
    unshaped = [residual.name for residual in residuals if not residual.shape.is_fully_defined()]
    if unshaped:
        raise TypeError(f"of {len(unshaped)} results, such as {unshaped[0]!r}, the shapes are not known beforehand")
    run_forward = whole.prune([*theta_in, *state_in, *rest_in], [*results, *residuals])
    run_backward = whole.prune([*theta_in, *rest_in, *residuals, *cotangents_in], list(gradients))

    def forward(theta, state, batch, features):
        parts = (theta, (state.params, state.non_trainable, state.slots), (state.step, batch, features))
        flat = run_forward(*tf.nest.flatten(parts))
        after, output, coefficients = tf.nest.pack_sequence_as(structures[0], flat[:len(results)])
        return after._replace(status=state.status), output, coefficients, flat[len(results):]

    def backward(theta, like, step, batch, features, kept, adjoint):
        flat = run_backward(*theta, *tf.nest.flatten((step, batch, features)), *kept, *tf.nest.flatten(adjoint))
        for result, gradient in zip(flat, gradients, strict=True):
            result.set_shape(gradient.shape)  # not all are inferred anew for a part of the graph
        return tf.nest.pack_sequence_as(structures[1], flat)

    return Rule(forward, backward, [tf.TensorSpec(r.shape, r.dtype) for r in residuals])


def _by_tangents(problem, apply, theta, state, batch, features, adjoint):
    """((state after, output, Φ_t), adjoint of the state, dM/dθ): forward over reverse."""
    with tf.GradientTape() as tape:
        tape.watch(theta)
        coefficients = apply(theta, features)
    after, output, adjoint, adjoint_coefficients = inner_step_and_adjoint(
        problem, state, batch, tf.stop_gradient(coefficients), adjoint)
    return (after, output, coefficients), adjoint, _by_theta(tape, coefficients, theta, adjoint_coefficients)


def _by_transposition(problem, apply, theta, state, batch, features, adjoint):
    """As `_by_tangents`: reverse over reverse, through the inner optimizer as well."""
    floats, merge = split_floats(state.non_trainable)
    sources = (theta, state.params, floats, state.slots)
    with tf.GradientTape() as tape:
        tape.watch(sources)
        coefficients = apply(theta, features)
        with linear_max_pool():
            after, output = inner_step(problem, state._replace(non_trainable=merge(floats)), batch, coefficients)
        new_floats, _ = split_floats(after.non_trainable)
    targets = [*after.params, *new_floats, *tf.nest.flatten(after.slots)]
    pulled = tape.gradient(targets, tf.nest.flatten(sources), output_gradients=tf.nest.flatten(adjoint),
                           unconnected_gradients=_ZERO)
    gradient, params, floats, slots = tf.nest.pack_sequence_as(sources, [tf.convert_to_tensor(g) for g in pulled])
    return (after, output, coefficients), Adjoint(params, floats, slots), gradient


def _by_theta(tape: tf.GradientTape, coefficients: tf.Tensor, theta: Tensors,
              adjoint_coefficients: tf.Tensor) -> Tensors:
    gradient = tape.gradient(coefficients, theta, output_gradients=adjoint_coefficients, unconnected_gradients=_ZERO)
    return tuple(tf.convert_to_tensor(g) for g in gradient)


def _is_drawn(op: tf.Operation) -> bool:
    return op.op_def.is_stateful and op.type not in ("Placeholder", "ReadVariableOp", "VarHandleOp")


def _residuals(gradients: Sequence[tf.Tensor], from_state: set[Any], from_cotangents: set[Any]) -> list[tf.Tensor]:
    """The tensors between the two halves of a step: state-dependent, and read to make `gradients` of cotangents."""
    residuals, seen, open_ends = [], set(), list(gradients)
    while open_ends:
        tensor = open_ends.pop()
        if tensor.ref() in seen:
            continue
        seen.add(tensor.ref())
        if tensor.ref() in from_state and tensor.ref() not in from_cotangents:
            residuals.append(tensor)
        else:
            open_ends += tensor.op.inputs
    return residuals


def _dependents(graph: tf.Graph, tensors: Sequence[tf.Tensor]) -> set[Any]:
    found = {tensor.ref() for tensor in tensors}
    for op in graph.get_operations():  # in the order of their creation: inputs come first
        if any(value.ref() in found for value in op.inputs):
            found |= {value.ref() for value in op.outputs}
    return found


def _drop_order(graph: tf.Graph) -> None:
    """Takes the control inputs off all ops without side effects.

    Gradient functions put them on some ops only to have them run late, which across the cut would make one half of the
    step wait for the other. `tf.Operation` has no public way to do so; the method is that of the pinned TensorFlow.
    """
    for op in graph.get_operations():
        if op.control_inputs and not op.op_def.is_stateful:
            op._remove_all_control_inputs()
