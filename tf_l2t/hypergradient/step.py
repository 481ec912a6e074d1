"""One student step, and its adjoint: equations (1), (4) and (5) of the L2T-DLF paper for any inner optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_l2t.hypergradient.moments import exact_moments
from tf_l2t.hypergradient.pooling import linear_max_pool
from tf_l2t.hypergradient.state import Problem, StepOutput, StudentState, Tensors
from tf_l2t.hypergradient.tangents import forward_accumulator

_ZERO = tf.UnconnectedGradients.ZERO


class Adjoint(NamedTuple):
    """The derivative of M with respect to a student's state.

    Attributes:
      params: dω_t, one tensor per trainable weight.
      non_trainable: one tensor per floating-point non-trainable weight, such as BatchNorm's moving statistics.
      slots: as `StudentState.slots`.
    """

    params: Tensors
    non_trainable: Tensors
    slots: tuple[Tensors, ...]


def is_differentiable(tensor: tf.Tensor) -> bool:
    """Whether it is of a floating-point type; seed states and counts are not."""
    return tensor.dtype.is_floating


def split_floats(tensors: Tensors) -> tuple[Tensors, Callable[[Tensors], Tensors]]:
    """The floating-point tensors, and a function that puts such a tuple back among the others."""

    def merge(floats: Tensors) -> Tensors:
        remaining = iter(floats)
        return tuple(next(remaining) if is_differentiable(t) else t for t in tensors)

    return tuple(t for t in tensors if is_differentiable(t)), merge


def _dense(gradients: Any) -> Any:
    """`IndexedSlices` (gradients of a gather) as tensors: a ForwardAccumulator does not see through them."""
    return [tf.convert_to_tensor(g) for g in gradients]


def loss_and_gradient(problem: Problem, params: Tensors, non_trainable: Tensors, batch: Any,
                      coefficients: tf.Tensor) -> tuple[StepOutput, Tensors]:
    """L_Φ(ω_t; batch) and ∂L/∂ω_t."""
    def of(batch: Any) -> tuple[StepOutput, Tensors]:
        with exact_moments(), tf.GradientTape() as tape:
            tape.watch(params)
            output = problem.loss(params, non_trainable, batch, coefficients)
            gradient = tape.gradient(output.loss, params, unconnected_gradients=_ZERO)
        return output, tuple(_dense(gradient))

    return problem.over_batch(of, batch)


def inner_step(problem: Problem, state: StudentState, batch: Any,
               coefficients: tf.Tensor) -> tuple[StudentState, StepOutput]:
    """One student update, equation (1): ω_{t+1} from ω_t by the gradient of L_Φ through the inner optimizer.

    `status` is passed on unchanged: it is the forward run's business, and a recomputation has no use for it.
    """
    output, grads = loss_and_gradient(problem, state.params, state.non_trainable, batch, coefficients)
    params, slots = problem.optimizer.update(grads, state.slots, state.params, state.step)
    return StudentState(params, output.non_trainable, slots, state.step + 1, state.status), output


def step_adjoint(problem: Problem, state: StudentState, batch: Any, coefficients: tf.Tensor, adjoint_tp1: Adjoint,
                 hvp: str = "forward_over_reverse") -> tuple[Adjoint, tf.Tensor]:
    """The transposed derivative of `inner_step` at (state, Φ_t), applied to the adjoint of the next state.

    With g = ∂L/∂ω and (ω_{t+1}, slots_{t+1}) = update(g, slots_t, ω_t), first the transposed derivative of
    `update` gives the direct parts and v, the cotangent of g (for plain SGD v = −η_t dω_{t+1}). Then

        dω_t  = direct part + ∂²L/∂ω² v   + (∂N/∂ω)' dn_{t+1}         equation (4)
        dΦ_t  =               ∂²L/∂Φ∂ω v  + (∂N/∂Φ)' dn_{t+1}         equation (5), before ∂Φ_t/∂θ
        dn_t  =               ∂²L/∂n∂ω v  + (∂N/∂n)' dn_{t+1}

    with n the floating-point non-trainable weights and N their update in the forward pass. All three lines come
    from one nested tape: with c = 0 and its tangent dn_{t+1}, the derivative of ∂/∂(ω, Φ, n) [L + ⟨N, c⟩]
    along (v, dn_{t+1}) in (ω, c).

    Args:
      hvp: "forward_over_reverse" (a `GradientTape` under a `ForwardAccumulator`, see `tangents`) or
        "reverse_over_reverse" (a tape under a tape).

    Returns:
      The adjoint of `state` and dΦ_t, shaped as `coefficients`.
      Cost: one gradient of the loss and its derivative, 2 to 3 gradients in time; memory of one step.
    """
    if problem.optimizer.linear:
        grads = tuple(tf.zeros_like(p) for p in state.params)
    else:
        _, grads = loss_and_gradient(problem, state.params, state.non_trainable, batch, coefficients)
    v, direct = _transposed_update(problem, state, grads, adjoint_tp1)
    product = _forward_over_reverse if hvp == "forward_over_reverse" else _reverse_over_reverse
    second = problem.over_batch(
        lambda part: product(problem, state, part, coefficients, v, adjoint_tp1.non_trainable)[2], batch)
    return _sum(direct, second), second[len(state.params)]


def inner_step_and_adjoint(problem: Problem, state: StudentState, batch: Any, coefficients: tf.Tensor,
                           adjoint_tp1: Adjoint) -> tuple[StudentState, StepOutput, Adjoint, tf.Tensor]:
    """`inner_step` and `step_adjoint` in one graph, for a linear inner optimizer: the gradient is evaluated once.

    Of an optimizer that is linear v does not depend on the gradient, so that the same pass makes the gradient and its
    tangent along v, forward over reverse.
    """
    v, direct = _transposed_update(problem, state, tuple(tf.zeros_like(p) for p in state.params), adjoint_tp1)
    output, grads, second = _forward_over_reverse(problem, state, batch, coefficients, v, adjoint_tp1.non_trainable)
    params, slots = problem.optimizer.update(grads, state.slots, state.params, state.step)
    after = StudentState(params, output.non_trainable, slots, state.step + 1, state.status)
    return after, output, _sum(direct, second), second[len(state.params)]


def _transposed_update(problem: Problem, state: StudentState, grads: Tensors,
                       adjoint_tp1: Adjoint) -> tuple[Tensors, Adjoint]:
    """v and what of the adjoint does not pass through the gradient."""
    slots_flat = tf.nest.flatten(state.slots)
    with tf.GradientTape() as tape:
        sources = [*grads, *slots_flat, *state.params]
        tape.watch(sources)
        params_tp1, slots_tp1 = problem.optimizer.update(grads, state.slots, state.params, state.step)
    pulled = tape.gradient([*params_tp1, *tf.nest.flatten(slots_tp1)], sources,
                           output_gradients=[*adjoint_tp1.params, *tf.nest.flatten(adjoint_tp1.slots)],
                           unconnected_gradients=_ZERO)
    num_params = len(state.params)
    v, slots, params = pulled[:num_params], pulled[num_params:-num_params], pulled[-num_params:]
    return v, Adjoint(params, (), tf.nest.pack_sequence_as(state.slots, slots))


def _sum(direct: Adjoint, second: Tensors) -> Adjoint:
    """The whole adjoint; `second` is by weights, Φ and moving statistics."""
    num_params = len(direct.params)
    return Adjoint(params=tuple(d + s for d, s in zip(direct.params, second[:num_params], strict=True)),
                   non_trainable=tuple(second[num_params + 1:]), slots=direct.slots)


def _dot(left: Any, right: Any) -> tf.Tensor:
    return tf.add_n([tf.reduce_sum(a * b) for a, b in zip(left, right, strict=True)])


def _forward_over_reverse(problem, state, batch, coefficients, v, adjoint_floats):
    """(output, ∂L/∂ω, its derivatives along v together with those of ⟨N, dn_{t+1}⟩ by weights, Φ and statistics)."""
    params, (floats, merge) = state.params, split_floats(state.non_trainable)
    primals = [*params, coefficients, *floats]
    # The cotangents of N: zero, with dn_{t+1} as their tangents.
    nothing = [tf.zeros_like(n) for n in floats]
    with exact_moments(), forward_accumulator([*params, *nothing], [*v, *adjoint_floats]) as accumulator:
        with tf.GradientTape() as tape:
            tape.watch(primals)
            output = problem.loss(params, merge(floats), batch, coefficients)
            new_floats, _ = split_floats(output.non_trainable)
        gradient = _dense(tape.gradient([output.loss, *new_floats], primals, unconnected_gradients=_ZERO,
                                        output_gradients=[tf.ones_like(output.loss), *nothing]))
    second = accumulator.jvp(gradient, unconnected_gradients=_ZERO)
    return output, tuple(gradient[:len(params)]), second


def _reverse_over_reverse(problem, state, batch, coefficients, v, adjoint_floats):
    """As `_forward_over_reverse`."""
    params, (floats, merge) = state.params, split_floats(state.non_trainable)
    primals = [*params, coefficients, *floats]
    with exact_moments(), linear_max_pool(), tf.GradientTape() as outer:
        outer.watch(primals)
        with tf.GradientTape() as tape:
            tape.watch(params)
            output = problem.loss(params, merge(floats), batch, coefficients)
        gradient = _dense(tape.gradient(output.loss, params, unconnected_gradients=_ZERO))
        target = _dot(gradient, v)
        if floats:
            new_floats, _ = split_floats(output.non_trainable)
            target = target + tf.cast(_dot(new_floats, adjoint_floats), target.dtype)
    second = _dense(outer.gradient(target, primals, unconnected_gradients=_ZERO))
    return output, tuple(gradient), second
