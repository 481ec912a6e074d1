"""Is this hypergradient right? A check that users run on their own problem."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_l2t.hypergradient.moments import exact_moments
from tf_l2t.hypergradient.rules import HVP_MODES
from tf_l2t.hypergradient.state import Problem, StudentState, Tensors
from tf_l2t.hypergradient.step import Adjoint, inner_step, split_floats, step_adjoint
from tf_l2t.hypergradient.unroll import TeacherLike, hypergradient, objective_of, rollout

_ZERO = tf.UnconnectedGradients.ZERO


class CheckRow(NamedTuple):
    """One comparison: `value` against `reference`, and whether their relative error is within `tolerance`."""

    name: str
    value: float
    reference: float
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.tolerance  # False for NaN


class CheckReport(NamedTuple):
    """All comparisons of `check_hypergradient`; `str(report)` is the printed table."""

    rows: tuple[CheckRow, ...]

    @property
    def passed(self) -> bool:
        """Whether every row has passed."""
        return all(row.passed for row in self.rows)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [f"{'check':{width}}  {'value':>15} {'reference':>15} {'error':>9} {'allowed':>9}"]
        lines += [f"{row.name:{width}}  {row.value:15.8e} {row.reference:15.8e} {row.error:9.1e} {row.tolerance:9.1e}"
                  f"  {'ok' if row.passed else 'FAILED'}" for row in self.rows]
        return "\n".join([*lines, "passed" if self.passed else "FAILED"])


def check_hypergradient(problem: Problem, teacher: TeacherLike, state: StudentState, seed: int = 0, *,
                        num_directions: int = 3, epsilon: float = 1e-4, tolerance: float = 1e-5,
                        agreement: float = 1e-10, hvp_modes: tuple[str, ...] = HVP_MODES,
                        schedules: tuple[str | int, ...] = ("store_all", "every_k"), jit: str | bool = False,
                        dot_product: bool = True, verbose: bool = True) -> CheckReport:
    """Checks dM/dθ of a float64 problem and prints a report.

    Three kinds of comparison, because two wrong things can agree:

    1. Central differences. Along random directions d of unit norm in θ, (dM/dθ)'d against the fourth-order
       difference (8 (M(h) − M(−h)) − (M(2h) − M(−2h))) / 12h with the recorded s_t replayed, as equation (5) holds
       them fixed. The error is relative to the larger of the difference and ‖dM/dθ‖ / √(number of θ).
    2. Adjoint dot product. For the student's last step S and random u, w: ⟨w, S'(x) u⟩, by forward-mode
       differentiation of the step itself (of a loop that has none, by reverse mode twice), against ⟨S'(x)ᵀ w, u⟩ by
       `step_adjoint`, in every mode that sweeps by steps.
    3. Agreement: ‖g − g₀‖ / ‖g₀‖ between the HVP modes, and between the schedules.

    Use smooth activations: a kink inside ±2h spoils differences, not gradients.

    Args:
      problem: whose student, batches and objective compute in float64. Keep it small: it is run
        4 num_directions + modes + schedules times.
      teacher: its variables may be float32; they are converted.
      state: the initial student state, float64.
      seed: of the batches.
      epsilon: h.
      tolerance: for kinds 1 and 2 (the latter at a tenth of it).
      agreement: for kind 3.
      jit: as for `hypergradient`; False saves the time to compile.
      dot_product: make comparisons of kind 2 too; they trace the step once more for every mode and once forward, a
        large part of a check of a large network.
      verbose: print the report, and while it is made every few seconds how far it is.

    Returns:
      A `CheckReport`; `report.passed` tells the outcome.

    Raises:
      ValueError: if the student's weights are not float64.
    """
    wrong = sorted({p.dtype.name for p in state.params if p.dtype != tf.float64})
    if wrong:
        raise ValueError(f"central differences need a float64 student; received weights of dtype {wrong}. "
                         'Build the problem with dtype="float64".')
    rng = np.random.default_rng(seed)
    theta = tuple(tf.cast(v, tf.float64) for v in teacher.trainable_variables)
    results = {}
    ways = [*((mode, schedules[0]) for mode in hvp_modes), *((hvp_modes[0], s) for s in schedules[1:])]
    # Saved residuals have no step of their own.
    stepwise = [mode for mode in hvp_modes if mode != "saved_residuals"] if dot_product else []
    done = _told(len(ways) + num_directions + bool(stepwise), verbose)
    for mode, schedule in ways:
        function = hypergradient(problem, teacher, hvp=mode, schedule=schedule, jit=jit)
        results[mode, schedule] = function(state, seed, theta)
        done()
    (name0, first), *others = results.items()
    objective = objective_of(problem, teacher, jit=jit)
    rows = _difference_rows(objective, theta, state, seed, first, rng, num_directions, epsilon, tolerance, done)
    if stepwise:
        rows += _dot_product_rows(problem, teacher, theta, state, seed, stepwise, rng, tolerance / 10)
        done()
    norm = _norm(first.gradient)
    for name, other in others:
        distance = _norm([a - b for a, b in zip(other.gradient, first.gradient, strict=True)])
        rows.append(CheckRow(f"agreement {'/'.join(map(str, name))} with {'/'.join(map(str, name0))}",
                             _norm(other.gradient), norm, distance / max(norm, 1e-300), agreement))
    report = CheckReport(tuple(rows))
    if verbose:
        print(report)
    return report


def _told(total: int, verbose: bool, seconds: float = 5.0) -> Callable[[], None]:
    """A function that is called after every part of a check, and every few seconds says how far it is."""
    started = said = time.monotonic()
    count = 0

    def done() -> None:
        nonlocal count, said
        count, now = count + 1, time.monotonic()
        if verbose and now - said >= seconds:
            said = now
            print(f"compared {count} of {total}, {(now - started) / count * (total - count):.0f} s left", flush=True)

    return done


def _norm(tensors) -> float:
    return float(tf.linalg.global_norm(list(tensors)))


def _inner(left, right) -> float:
    return float(sum(tf.reduce_sum(a * b) for a, b in zip(left, right, strict=True)))


def _random_like(tensors, rng: np.random.Generator) -> list[tf.Tensor]:
    return [tf.constant(rng.standard_normal(t.shape), t.dtype) for t in tensors]


def _difference_rows(objective, theta, state, seed, result, rng, num_directions, epsilon, tolerance, done):
    size = sum(int(np.prod(t.shape)) for t in theta)
    typical = _norm(result.gradient) / np.sqrt(size)
    rows = []
    for index in range(num_directions):
        direction = _random_like(theta, rng)
        length = tf.linalg.global_norm(direction)
        direction = [d / length for d in direction]

        def at(distance: float, direction: list[tf.Tensor] = direction) -> float:
            moved = tuple(t + distance * d for t, d in zip(theta, direction, strict=True))
            return float(objective(moved, state, seed, result.rollout.features))

        h = epsilon
        difference = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        value = _inner(result.gradient, direction)
        error = abs(value - difference) / max(abs(difference), typical, 1e-300)
        rows.append(CheckRow(f"central difference, direction {index}", value, difference, error, tolerance))
        done()
    return rows


def _dot_product_rows(problem, teacher, theta, state, seed, modes, rng, tolerance):
    shorter = problem._replace(num_steps=max(1, problem.num_steps - 1))
    run = rollout(shorter, lambda features: teacher.apply(theta, features), trace=("features", "coefficients"))
    before = run(state, seed)
    state, coefficients = before.final_state, before.trace["coefficients"][-1]
    batch = problem.batch_fn(tf.constant(seed, tf.int64), state.step)
    floats, merge = split_floats(state.non_trainable)
    slots = tf.nest.flatten(state.slots)
    inputs: Tensors = (*state.params, *floats, *slots, coefficients)
    cut = (len(state.params), len(state.params) + len(floats))

    def next_state(inputs: list[tf.Tensor]) -> list[tf.Tensor]:
        params, floats, rest = inputs[:cut[0]], inputs[cut[0]:cut[1]], inputs[cut[1]:-1]
        here = state._replace(params=tuple(params), non_trainable=merge(tuple(floats)),
                              slots=tf.nest.pack_sequence_as(state.slots, rest))
        after, _ = inner_step(problem, here, batch, inputs[-1])
        return [*after.params, *split_floats(after.non_trainable)[0], *tf.nest.flatten(after.slots)]

    tangents = _random_like(inputs, rng)
    weights = _random_like([*state.params, *floats, *slots], rng)

    def pushed_forward() -> list[tf.Tensor]:
        with exact_moments(), tf.autodiff.ForwardAccumulator(list(inputs), tangents) as accumulator:
            outputs = next_state(list(inputs))
        return accumulator.jvp(outputs, unconnected_gradients=_ZERO)

    def transposed_twice() -> list[tf.Tensor]:
        probe = [tf.zeros_like(w) for w in weights]
        with tf.GradientTape() as outer:
            outer.watch(probe)
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = next_state(list(inputs))
            pulled = tape.gradient(outputs, inputs, output_gradients=probe, unconnected_gradients=_ZERO)
        return outer.gradient(pulled, probe, output_gradients=tangents, unconnected_gradients=_ZERO)

    adjoint_tp1 = Adjoint(tuple(weights[:cut[0]]), tuple(weights[cut[0]:cut[1]]),
                          tf.nest.pack_sequence_as(state.slots, weights[cut[1]:]))

    def pulled(mode: str) -> list[tf.Tensor]:
        adjoint, adjoint_coefficients = step_adjoint(problem, state, batch, coefficients, adjoint_tp1, mode)
        return [*adjoint.params, *adjoint.non_trainable, *tf.nest.flatten(adjoint.slots), adjoint_coefficients]

    @tf.function(autograph=False)
    def everything() -> tuple[list[tf.Tensor], list[list[tf.Tensor]]]:
        # Forward mode through the step: an independent path in which only the gradient itself is shared. A while-loop
        # RNN has no such path; there the double transpose of reverse mode stands in for it.
        pushed = pushed_forward() if "forward_over_reverse" in modes else transposed_twice()
        # At once: gradients that are rounding alone, before a normalisation, are then the same on both sides of a kink.
        return pushed, [pulled(mode) for mode in modes]

    pushed, all_pulled = everything()
    reference, rows = _inner(weights, pushed), []
    for mode, pulled_back in zip(modes, all_pulled, strict=True):
        value = _inner(pulled_back, tangents)
        error = abs(value - reference) / max(abs(reference), 1e-300)
        rows.append(CheckRow(f"adjoint dot product, {mode}", value, reference, error, tolerance))
    return rows
