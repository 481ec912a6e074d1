"""The rollout of a student's training run and the reverse sweep through it: Algorithm 1 of the L2T-DLF paper."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from tf_l2t.hypergradient.compiling import compile_once, suits_xla, trace_step
from tf_l2t.hypergradient.graphs import separate
from tf_l2t.hypergradient.memory import Choice, check_available, choose, live_bytes, num_ops
from tf_l2t.hypergradient.rules import HVP_MODES, Rule, UnavailableModeError, rule_of, trace_backward
from tf_l2t.hypergradient.schedules import Plan, parse_bytes, plan_for
from tf_l2t.hypergradient.state import Problem, StudentState, Tensors, integer_tensor
from tf_l2t.hypergradient.step import Adjoint
from tf_l2t.hypergradient.trajectory import Run, Sweep

Coefficients = Callable[[tf.Tensor], tf.Tensor]
TRACEABLE = ("batch", "features", "coefficients", "loss", "metrics", "adjoint_norm")


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
      adjoint: dM/d(state at t = 0), or at the first step swept; its `params` is dω_0.
      rollout: the forward run.
    """

    objective: tf.Tensor
    gradient: Tensors
    adjoint: Adjoint
    rollout: Rollout


def _check_trace(trace: Sequence[str], names: Sequence[str] = TRACEABLE) -> tuple[str, ...]:
    unknown = [name for name in trace if name not in names]
    if isinstance(trace, str) or unknown:
        raise ValueError(f"trace must be a sequence of names from {tuple(names)}; received {trace!r}.")
    return tuple(trace)


def _forward(runner: Run, state: StudentState, features: tf.Tensor | None, trace: Sequence[str]) -> Rollout:
    num_steps = runner.problem.num_steps
    state, _, records = runner.to_recorded(state, num_steps, features, tf.constant(0),
                                           runner.records(runner.num_chunks([num_steps])))
    stacked = runner.stacked(records, num_steps)
    return Rollout(state, stacked["features"], {name: stacked[name] for name in trace})


def rollout(problem: Problem, coefficients_fn: Coefficients, *, trace: Sequence[str] = (),
            jit: str | bool = "auto") -> Callable[..., Rollout]:
    """A compiled forward run of `problem`: no gradient, nothing kept but what `trace` names.

    Args:
      problem: the student's run.
      coefficients_fn: s_t -> Φ_t: a teacher, or a function that ignores its argument for a fixed loss.
      trace: names from ("batch", "features", "coefficients", "loss", "metrics") to return for every step.
      jit: as for `hypergradient`.

    Returns:
      A `tf.function` (initial_state, seed) -> `Rollout`, traced once.

    Raises:
      ValueError: for an unknown name in `trace`, or an unknown `jit`.
    """
    trace = _check_trace(trace, TRACEABLE[:-1])
    apply, values = _with_theta(coefficients_fn)

    def make(jit: bool, theta: Tensors, state: StudentState, step: Any) -> Callable[..., Rollout]:
        rule = _forward_rule(problem, apply, state, jit)

        def run_all(theta: Tensors, state: StudentState, seed: tf.Tensor) -> Rollout:
            runner = Run(problem, rule, theta, seed, step.structured_outputs, trace, problem.num_steps, jit)
            return _forward(runner, state, None, trace)

        return run_all

    run_fn = compile_once(problem, apply, jit, make)
    return lambda state, seed: run_fn(values(), state, integer_tensor(seed))


def advance(problem: Problem, coefficients_fn: Coefficients, *, jit: str | bool = "auto",
            strategy: tf.distribute.Strategy | None = None) -> Callable[..., Any]:
    """A compiled stretch of `problem`'s run: (state, seed, stop) -> the state at step `stop`.

    Stretches follow each other: a run interrupted at any step, to be evaluated say, is the same run. With a strategy
    the function takes lists of states and seeds, and returns a list, as that of `hypergradient`.
    """
    apply, values = _with_theta(coefficients_fn)

    def make(jit: bool, theta: Tensors, state: StudentState, step: Any) -> Callable[..., StudentState]:
        rule = _forward_rule(problem, apply, state, jit)

        def run_to(theta: Tensors, state: StudentState, seed: tf.Tensor, stop: tf.Tensor) -> StudentState:
            runner = Run(problem, rule, theta, seed, step.structured_outputs, (), problem.num_steps, jit)
            return runner.to(state, stop, None)

        return run_to

    run_fn = compile_once(problem, apply, jit, make, strategy)

    def call(state: Any, seed: Any, stop: int | tf.Tensor) -> Any:
        stop = integer_tensor(stop, tf.int32)
        return run_fn(values(), state, *_seeds(seed, strategy), stop if strategy is None else [stop] * len(state))

    return call


def objective_of(problem: Problem, teacher: TeacherLike, *, jit: str | bool = False) -> Callable[..., tf.Tensor]:
    """M as a function of θ, compiled: (theta, initial_state, seed, features=None) -> M.

    `features` [T, num_features] are replayed; None lets the student's status be live. This is the function whose
    gradient in θ `hypergradient` returns; with live features it is the true M(θ), of which equation (5) leaves the
    part through s_t out. Compare it with a hypergradient of the same `jit`: XLA draws other random numbers from the
    same seeds than TensorFlow does, so a student with dropout is another one.
    """
    def make(jit: bool, theta: Tensors, state: StudentState, step: Any) -> Callable[..., tf.Tensor]:
        rule = _forward_rule(problem, teacher.apply, state, jit)

        def value(theta: Tensors, state: StudentState, seed: tf.Tensor, features: tf.Tensor | None) -> tf.Tensor:
            runner = Run(problem, rule, theta, seed, step.structured_outputs, (), problem.num_steps, jit)
            final = _forward(runner, state, features, ()).final_state
            return problem.objective_fn(final.params, final.non_trainable)

        return value

    live, replayed = (compile_once(problem, teacher.apply, jit, make) for _ in range(2))

    def call(theta: Tensors, state: StudentState, seed: int | tf.Tensor, features: tf.Tensor | None = None) -> Any:
        arguments = (tuple(theta), state, integer_tensor(seed))
        return live(*arguments, None) if features is None else replayed(*arguments, features)

    return call


def check_options(hvp: str, schedule: str | int | Plan, num_steps: int, memory_budget: str | int | None = None,
                  truncate: int | None = None) -> tuple[int, int | None]:
    """The number of steps to sweep and the bytes of `memory_budget`; the arguments are those of `hypergradient`.

    Raises:
      ValueError: for an unknown HVP mode or schedule, or numbers out of range.
    """
    if hvp not in (*HVP_MODES, "auto"):
        raise ValueError(f'hvp must be "auto" or one of {HVP_MODES}; received {hvp!r}.')
    if truncate is not None and (isinstance(truncate, bool) or not isinstance(truncate, int) or truncate < 1):
        raise ValueError(f"truncate must be a number of steps, at least 1, or None; received {truncate!r}.")
    swept = min(truncate or num_steps, num_steps)
    plan_for(schedule, swept)
    if memory_budget is None:
        return swept, None
    if schedule != "every_k":
        raise ValueError("memory_budget chooses the schedule: give one of the two; received "
                         f"schedule={schedule!r} and memory_budget={memory_budget!r}.")
    return swept, parse_bytes(memory_budget)


class HypergradientFunction:
    """What `hypergradient` returns: (initial_state, seed, theta=None) -> `Hypergradient`.

    Attributes:
      choice: the mode and plan, with the predicted memory and work; None before the first call or `predict`.
    """

    def __init__(self, problem: Problem, teacher: TeacherLike, hvp: str, schedule: str | int | Plan, swept: int,
                 budget: int | None, jit: str | bool, trace: Sequence[str], debug: bool,
                 strategy: tf.distribute.Strategy | None):
        self.choice: Choice | None = None
        self._problem, self._teacher = problem, teacher
        self._modes = ("saved_residuals", "forward_over_reverse") if hvp == "auto" else (hvp,)
        self._explicit = hvp != "auto"
        self._schedule, self._swept, self._budget = schedule, swept, budget
        self._trace, self._debug, self._jit, self._strategy = trace, debug, jit, strategy
        self._run = compile_once(problem, teacher.apply, jit, self._make, strategy, update=True)

    def __call__(self, state: Any, seed: Any, theta: Tensors | None = None) -> Any:
        if theta is None:
            theta = tuple(tf.convert_to_tensor(v) for v in self._teacher.trainable_variables)
        return self._run(tuple(theta), state, *_seeds(seed, self._strategy))

    def predict(self, state: StudentState, theta: Tensors | None = None) -> Choice:
        """The `choice` for students of this state's size, from the graphs of a step; no step is run.

        Raises:
          ValueError: as the first call.
        """
        theta = tuple(tf.convert_to_tensor(v) for v in theta or self._teacher.trainable_variables)
        step = trace_step(self._problem, self._teacher.apply, theta, state, tf.zeros((), tf.int64), update=True)
        self._make(suits_xla(self._problem, step) if self._jit == "auto" else bool(self._jit), theta, state, step)
        assert self.choice is not None
        return self.choice

    def _make(self, jit: bool, theta: Tensors, state: StudentState, step: Any) -> Callable[..., Hypergradient]:
        problem, trace = self._problem, self._trace
        batch, features = step.structured_outputs["batch"], step.structured_outputs["features"]

        def chosen() -> tuple[Rule, Choice]:
            rule, choice = choose(
                self._modes, lambda mode: rule_of(mode, problem, self._teacher.apply, theta, state, batch, features),
                self._schedule, self._swept, self._budget, jit, state, batch, live_bytes(step.graph),
                num_ops(step.graph))
            if choice.hvp == "forward_over_reverse":
                trace_backward(rule, theta, state, batch, features)
            return rule, choice

        try:
            rule, choice = chosen()
        except UnavailableModeError as error:
            if "forward_over_reverse" not in self._modes:
                raise
            if self._explicit:
                warnings.warn(f"running with hvp='reverse_over_reverse': {error}", stacklevel=6)
            self._modes = ("reverse_over_reverse",)
            rule, choice = chosen()
        rule = _step_by_step(rule, jit)
        self.choice, plan = choice, choice.plan
        check_available(choice)
        first_step = problem.num_steps - plan.num_steps

        def everything(theta: Tensors, state: StudentState, seed: tf.Tensor) -> Hypergradient:
            forward_trace = [name for name in trace if name != "adjoint_norm"]
            runner = Run(problem, rule, theta, seed, step.structured_outputs, forward_trace, plan.segment_length, jit)
            sweep = Sweep(runner, rule, state, plan, first_step, "adjoint_norm" in trace, self._debug)
            objective, final, records, adjoint, gradient, norms = sweep(state)
            records["adjoint_norm"] = tf.concat([tf.zeros([first_step]), norms], axis=0)
            forward = Rollout(final, records["features"], {name: records[name] for name in trace})
            return Hypergradient(objective, gradient, adjoint, forward)

        return everything


def hypergradient(problem: Problem, teacher: TeacherLike, *, hvp: str = "forward_over_reverse",
                  schedule: str | int | Plan = "every_k", memory_budget: str | int | None = None,
                  truncate: int | None = None, jit: str | bool = "auto", trace: Sequence[str] = (),
                  debug: bool = False, strategy: tf.distribute.Strategy | None = None) -> HypergradientFunction:
    """The exact gradient of the dev measure M with respect to a teacher's parameters θ.

    Like `jax.grad`, this returns a function: compiled once, called at every teacher step. It runs the student for T
    steps (equation 1), takes dω_T (equation 3), and sweeps back (equations 4 and 5), with the inner optimizer's
    recursion and the moving statistics differentiated exactly and the recorded s_t held fixed.

    Args:
      problem: the student's run and the dev measure.
      teacher: has `trainable_variables` and `apply(theta, features)`, as `tf_l2t.teachers.Teacher`.
      hvp: "forward_over_reverse" or "reverse_over_reverse": how the Hessian-vector product of each step is made, at
        the step's state, which is kept; "saved_residuals": from the intermediate results of the step, which are kept
        instead, so that nothing that depends on the state is evaluated twice; "auto": the fastest one that fits.
        Where forward over reverse does not pass through the student, reverse over reverse is used, with a warning.
      schedule: "store_all", "every_k" (√T), an integer k, "binomial", "binomial:SNAPSHOTS",
        "binomial:SNAPSHOTS:SEGMENT", or a `schedules.Plan`.
      memory_budget: such as "500MB", in the place of a schedule: the plan of least work whose predicted peak, beyond
        the process's size before the first call, is below it.
      truncate: sweep back through the last `truncate` steps only, as if the state before them were given. The
        student's run itself, its optimizer's state included, is the whole one.
      jit: compile the student's steps by XLA; "auto" does so unless they contain a convolution on a CPU, or something
        that XLA cannot compile.
      trace: names from ("batch", "features", "coefficients", "loss", "metrics", "adjoint_norm") to return for every
        step; `adjoint_norm` is ‖dω_t‖.
      debug: compare every recomputed segment's end with the stored state, bit for bit; a difference raises
        `tf.errors.InvalidArgumentError`. Runs every segment once more.
      strategy: run a student on every replica of a `tf.distribute` strategy at the same time: the function then takes a
        list of initial states and one of seeds, an entry for each replica of this process, and returns a list of
        `Hypergradient`s. (One student's batch is split over replicas by `Problem.shards`.)

    Returns:
      A function (initial_state, seed, theta=None) -> `Hypergradient`. `theta` are the values to differentiate at,
      by default those of the teacher's variables at the time of the call. Its `choice` tells, after the first call,
      the mode and plan, and the memory and work that they are predicted to take.

    Raises:
      ValueError: for an unknown mode, schedule or trace name; at the first call, for a budget that is too small.
    """
    swept, budget = check_options(hvp, schedule, problem.num_steps, memory_budget, truncate)
    return HypergradientFunction(problem, teacher, hvp, schedule, swept, budget, jit, _check_trace(trace), debug,
                                 strategy)


def _seeds(seed: Any, strategy: tf.distribute.Strategy | None) -> list[Any]:
    """The seed, or the list of seeds, as the one argument of a compiled function."""
    if strategy is None:
        return [integer_tensor(seed)]
    return [[integer_tensor(one) for one in seed]]


def _with_theta(coefficients_fn: Coefficients) -> tuple[Callable[..., tf.Tensor], Callable[[], Tensors]]:
    """μ as a function of θ, and θ as it is: a variable is on one device, and its values go to all."""
    if isinstance(coefficients_fn, tf.Module) and hasattr(coefficients_fn, "apply"):
        variables = coefficients_fn.trainable_variables
        return coefficients_fn.apply, lambda: tuple(tf.convert_to_tensor(v) for v in variables)
    return lambda theta, features: coefficients_fn(features), tuple


def _forward_rule(problem: Problem, apply: Any, state: StudentState, jit: bool) -> Rule:
    """A rule to run a student forward by; which one does not matter."""
    return _step_by_step(rule_of(HVP_MODES[0], problem, apply, (), state, None, tf.zeros(())), jit)


def _step_by_step(rule: Rule, jit: bool) -> Rule:
    """The rule, each forward step a graph of its own unless XLA compiles many of them into one."""
    return rule if jit else rule._replace(forward=separate(rule.forward))
