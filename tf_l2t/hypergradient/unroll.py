"""The rollout of a student's training run and the reverse sweep through it: Algorithm 1 of the L2T-DLF paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from tf_l2t.hypergradient.compiling import compile_once, compiled
from tf_l2t.hypergradient.memory import Choice, choose, num_bytes
from tf_l2t.hypergradient.rules import HVP_MODES, Rule, restore, rule_of, snapshot
from tf_l2t.hypergradient.schedules import Plan, Visit, parse_bytes, plan_for
from tf_l2t.hypergradient.segment import arrays_like, read_all, run, sweep, write
from tf_l2t.hypergradient.state import Problem, StudentState, Tensors
from tf_l2t.hypergradient.step import Adjoint

Coefficients = Callable[[tf.Tensor], tf.Tensor]
TRACEABLE = ("batch", "features", "coefficients", "loss", "metrics", "adjoint_norm")
# Steps of one compiled call of the forward run: as many as make its fixed cost small, as far as their batches are.
CHUNK, CHUNK_BYTES = 100, 16_000_000


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


class _Run:
    """The forward run of a problem as chunks of steps, each one call of one compiled function.

    A chunk serves the first run and the repetitions alike. Under XLA the batches are made outside of it: what makes
    them may have no XLA form.
    """

    def __init__(self, problem: Problem, rule: Rule, theta: Tensors, seed: tf.Tensor, record: dict[str, Any],
                 trace: Sequence[str], segment_length: int, jit: bool):
        self.problem, self.theta, self.seed, self.jit = problem, theta, seed, jit
        self.chunk = chunk = _chunk(problem.num_steps, segment_length, num_bytes(tf.nest.flatten(record["batch"])))
        self.specimen = {name: record[name] for name in dict.fromkeys(("features", *trace))}
        self._batch = record["batch"]

        def steps(theta, state, seed, batches, count, recorded, live):
            return run(problem, rule, theta, state, self.fetch(batches, seed), count, chunk, recorded, live,
                       self.specimen, keep=False)[:2]

        self._steps = compiled(steps, jit)

    def fetch(self, batches: Any, seed: tf.Tensor) -> Callable[[tf.Tensor, tf.Tensor], Any]:
        """Where a step's batch comes from: the stretch's own, or without XLA straight from `batch_fn`."""
        if not self.jit:
            return lambda index, step: self.problem.batch_fn(seed, step)
        return lambda index, step: tf.nest.map_structure(lambda stacked: stacked[index], batches)

    def batches(self, start: tf.Tensor, length: int) -> Any:
        """The batches of the steps start … start + length − 1 (of the last step for those beyond it), stacked."""
        if not self.jit or not tf.nest.flatten(self._batch):
            return ()
        steps = tf.minimum(start + tf.range(length), self.problem.num_steps - 1)
        signature = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), self._batch)
        return tf.map_fn(lambda step: self.problem.batch_fn(self.seed, step), steps, fn_output_signature=signature)

    def recorded(self, features: tf.Tensor, start: tf.Tensor, length: int) -> tf.Tensor:
        return tf.gather(features, tf.minimum(start + tf.range(length), self.problem.num_steps - 1))

    def to(self, state: StudentState, stop: Any, features: tf.Tensor | None) -> StudentState:
        """The state at step `stop`, s_t replayed from `features` [T, num_features], or live."""
        return tf.while_loop(lambda state: state.step < stop,
                             lambda state: (self._chunk(state, stop, features)[0],), (state,),
                             parallel_iterations=1)[0]

    def to_recorded(self, state: StudentState, stop: Any, features: tf.Tensor | None, written: Any,
                    records: list[tf.TensorArray]) -> tuple[StudentState, Any, list[tf.TensorArray]]:
        """As `to`; the records of every chunk are written to `records`, from entry `written` on."""
        def body(state, written, records):
            start = state.step
            state, record = self._chunk(state, stop, features)
            done = [r[:state.step - start] for r in tf.nest.flatten(record)]
            return state, written + 1, write(records, written, done)

        return tf.while_loop(lambda state, *_: state.step < stop, body, (state, written, records),
                             parallel_iterations=1)

    def _chunk(self, state: StudentState, stop: Any, features: tf.Tensor | None) -> tuple[StudentState, Any]:
        live = tf.constant(features is None)
        recorded = tf.zeros([self.chunk, *self.specimen["features"].shape], self.specimen["features"].dtype) \
            if features is None else self.recorded(features, state.step, self.chunk)
        return self._steps(self.theta, state, self.seed, self.batches(state.step, self.chunk),
                           tf.minimum(stop - state.step, self.chunk), recorded, live)

    def num_chunks(self, stops: Sequence[int]) -> int:
        starts = [0, *stops]
        return sum(-(-(stop - start) // self.chunk) for start, stop in zip(starts, stops, strict=False))

    def records(self, size: int) -> list[tf.TensorArray]:
        return [tf.TensorArray(t.dtype, size=size, element_shape=[None, *t.shape], infer_shape=False)
                for t in tf.nest.flatten(self.specimen)]

    def stacked(self, records: list[tf.TensorArray], num_steps: int) -> dict[str, Any]:
        whole = [tf.ensure_shape(r.concat(), [num_steps, *t.shape])
                 for r, t in zip(records, tf.nest.flatten(self.specimen), strict=True)]
        return tf.nest.pack_sequence_as(self.specimen, whole)


def _forward(runner: _Run, state: StudentState, features: tf.Tensor | None, trace: Sequence[str]) -> Rollout:
    num_steps = runner.problem.num_steps
    state, _, records = runner.to_recorded(state, num_steps, features, tf.constant(0),
                                           runner.records(runner.num_chunks([num_steps])))
    stacked = runner.stacked(records, num_steps)
    return Rollout(state, stacked["features"], {name: stacked[name] for name in trace})


def _assert_same(recomputed: StudentState, stored: StudentState) -> list[tf.Operation]:
    checks = []
    for new, old in zip(snapshot(recomputed), snapshot(stored), strict=True):
        # A NaN is not equal to itself, yet a run that diverged was still repeated exactly.
        same = (new == old) | ((new != new) & (old != old)) if new.dtype.is_floating else new == old
        checks.append(tf.debugging.Assert(tf.reduce_all(same), [
            "A recomputed segment ends in another state than the forward run did: the student's step is not a pure "
            "function of (state, batch, coefficients), or batch_fn not one of (seed, step). First step after the "
            "segment:", recomputed.step]))
    return checks


class _Sweep:
    """A plan carried out: the forward run, and the segments swept from the last to the first."""

    def __init__(self, runner: _Run, rule: Rule, template: StudentState, plan: Plan, first_step: int, norms: bool,
                 debug: bool):
        self.runner, self.template, self.plan, self.debug = runner, template, plan, debug
        self.first, *self.others = [_shifted(visit, first_step) for visit in plan.visits()]
        self.first_step = first_step
        problem, length = runner.problem, plan.segment_length

        def last(theta, state, seed, batches):
            return sweep(problem, rule, theta, state, runner.fetch(batches, seed), length, length, None, None,
                         runner.specimen, norms)

        def earlier(theta, state, seed, batches, count, recorded, adjoint):
            nothing: dict[str, Any] = {"features": runner.specimen["features"]}
            result = sweep(problem, rule, theta, state, runner.fetch(batches, seed), count, length, recorded, adjoint,
                           nothing, norms)
            return result[1], *result[3:]

        self._last, self._earlier = compiled(last, runner.jit), compiled(earlier, runner.jit)

    def __call__(self, state: StudentState) -> tuple[tf.Tensor, StudentState, dict[str, Any], Adjoint, Tensors, Any]:
        runner, plan = self.runner, self.plan
        snapshots = arrays_like(snapshot(state), plan.num_snapshots)
        stops = [move.stop for move in self.first.moves]
        records = runner.records(runner.num_chunks([*([self.first_step] if self.first_step else []), *stops]) + 1)
        written = tf.constant(0)
        if self.first_step:  # truncated: the sweep never goes back beyond it
            state, written, records = runner.to_recorded(state, self.first_step, None, written, records)
        if self.others:
            snapshots = write(snapshots, 0, snapshot(state))

            def move(index, state, written, records, snapshots):
                row = tf.constant(self.first.moves)[index]
                state, written, records = runner.to_recorded(state, row[0], None, written, records)
                return index + 1, state, written, records, _keep(snapshots, row[1], state)

            _, state, written, records, snapshots = tf.while_loop(
                lambda index, *_: index < len(stops), move, (tf.constant(0), state, written, records, snapshots),
                parallel_iterations=1)
        objective, final, record, adjoint, gradient, norms = self._last(
            runner.theta, state, runner.seed, runner.batches(state.step, plan.segment_length))
        records = write(records, written, tf.nest.flatten(record))
        trace = runner.stacked(records, runner.problem.num_steps)
        if self.others:
            adjoint, gradient, norms = self._back(state, snapshots, trace["features"], adjoint, gradient, norms)
        return objective, final, trace, adjoint, gradient, norms

    def _back(self, last: StudentState, snapshots: list[tf.TensorArray], features: tf.Tensor, adjoint: Adjoint,
              gradient: Tensors, last_norms: tf.Tensor) -> tuple[Adjoint, Tensors, tf.Tensor]:
        runner, length = self.runner, self.plan.segment_length
        moves = [move for visit in self.others for move in visit.moves]
        ends, rows = 0, []
        for visit in self.others:
            rows.append((visit.load, visit.start, ends, ends + len(visit.moves), visit.stop))
            ends += len(visit.moves)
        visits, move_rows = tf.constant(rows), tf.constant([tuple(m) for m in moves] or [(0, 0)])
        all_norms = [tf.TensorArray(tf.float32, size=len(rows) + 1, element_shape=[None], infer_shape=False)]
        all_norms = write(all_norms, len(rows), [last_norms])

        def body(index, snapshots, frontier, adjoint, gradient, norms):
            load, start, first_move, end_move, stop = tf.unstack(visits[index])
            state = restore(self.template, read_all(snapshots, load), start)

            def move(number, state, snapshots):
                state = runner.to(state, move_rows[number][0], features)
                return number + 1, state, _keep(snapshots, move_rows[number][1], state)

            if moves:
                _, state, snapshots = tf.while_loop(lambda number, *_: number < end_move, move,
                                                    (first_move, state, snapshots), parallel_iterations=1)
            first = state.step
            if self.debug:
                stored = restore(self.template, frontier, stop)
                with tf.control_dependencies(_assert_same(runner.to(state, stop, features), stored)):
                    stop = tf.identity(stop)
                frontier = snapshot(state)
            _, adjoint, part, lengths = self._earlier(
                runner.theta, state, runner.seed, runner.batches(first, length), stop - first,
                runner.recorded(features, first, length), adjoint)
            gradient = tuple(g + p for g, p in zip(gradient, part, strict=True))
            norms = write(norms, len(rows) - 1 - index, [lengths[:stop - first]])
            return index + 1, snapshots, frontier, adjoint, gradient, norms

        frontier = snapshot(last) if self.debug else []
        _, _, _, adjoint, gradient, all_norms = tf.while_loop(
            lambda index, *_: index < len(rows), body,
            (tf.constant(0), snapshots, frontier, adjoint, gradient, all_norms), parallel_iterations=1)
        return adjoint, gradient, all_norms[0].concat()


def _shifted(visit: Visit, by: int) -> Visit:
    return Visit(visit.load, visit.start + by, tuple(m._replace(stop=m.stop + by) for m in visit.moves),
                 visit.first + by, visit.stop + by)


def _keep(snapshots: list[tf.TensorArray], slot: tf.Tensor, state: StudentState) -> list[tf.TensorArray]:
    # Writing back what is there, where nothing is to be kept: a cond around the write would copy the lists.
    index = tf.maximum(slot, 0)
    values = tf.cond(slot < 0, lambda: read_all(snapshots, index), lambda: snapshot(state))
    return write(snapshots, index, [tf.ensure_shape(v, t.shape) for v, t in zip(values, snapshot(state), strict=True)])


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

    def make(jit: bool, theta: Tensors, state: StudentState, record: dict[str, Any]) -> Callable[..., Rollout]:
        rule = _forward_rule(problem, ignoring_theta, state)

        def run_all(theta: Tensors, state: StudentState, seed: tf.Tensor) -> Rollout:
            runner = _Run(problem, rule, theta, seed, record, trace, problem.num_steps, jit)
            return _forward(runner, state, None, trace)

        return run_all

    def ignoring_theta(theta: Tensors, features: tf.Tensor) -> tf.Tensor:
        return coefficients_fn(features)

    run_fn = compile_once(problem, ignoring_theta, jit, make)
    return lambda state, seed: run_fn((), state, tf.convert_to_tensor(seed, tf.int64))


def advance(problem: Problem, coefficients_fn: Coefficients, *,
            jit: str | bool = "auto") -> Callable[..., StudentState]:
    """A compiled stretch of `problem`'s run: (state, seed, stop) -> the state at step `stop`.

    Stretches follow each other: a run interrupted at any step, to be evaluated say, is the same run.
    """
    def make(jit: bool, theta: Tensors, state: StudentState, record: dict[str, Any]) -> Callable[..., StudentState]:
        rule = _forward_rule(problem, ignoring_theta, state)

        def run_to(theta: Tensors, state: StudentState, seed: tf.Tensor, stop: tf.Tensor) -> StudentState:
            runner = _Run(problem, rule, theta, seed, record, (), problem.num_steps, jit)
            return runner.to(state, stop, None)

        return run_to

    def ignoring_theta(theta: Tensors, features: tf.Tensor) -> tf.Tensor:
        return coefficients_fn(features)

    run_fn = compile_once(problem, ignoring_theta, jit, make)
    return lambda state, seed, stop: run_fn((), state, tf.convert_to_tensor(seed, tf.int64),
                                            tf.convert_to_tensor(stop, tf.int32))


def objective_of(problem: Problem, teacher: TeacherLike, *, jit: str | bool = False) -> Callable[..., tf.Tensor]:
    """M as a function of θ, compiled: (theta, initial_state, seed, features=None) -> M.

    `features` [T, num_features] are replayed; None lets the student's status be live. This is the function whose
    gradient in θ `hypergradient` returns; with live features it is the true M(θ), of which equation (5) leaves the
    part through s_t out. Compare it with a hypergradient of the same `jit`: XLA draws other random numbers from the
    same seeds than TensorFlow does, so a student with dropout is another one.
    """
    def make(jit: bool, theta: Tensors, state: StudentState, record: dict[str, Any]) -> Callable[..., tf.Tensor]:
        rule = _forward_rule(problem, teacher.apply, state)

        def value(theta: Tensors, state: StudentState, seed: tf.Tensor, features: tf.Tensor | None) -> tf.Tensor:
            runner = _Run(problem, rule, theta, seed, record, (), problem.num_steps, jit)
            final = _forward(runner, state, features, ()).final_state
            return problem.objective_fn(final.params, final.non_trainable)

        return value

    live, replayed = (compile_once(problem, teacher.apply, jit, make) for _ in range(2))

    def call(theta: Tensors, state: StudentState, seed: int | tf.Tensor, features: tf.Tensor | None = None) -> Any:
        arguments = (tuple(theta), state, tf.convert_to_tensor(seed, tf.int64))
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
      choice: the mode and plan, with the predicted memory and work; None before the first call.
    """

    def __init__(self, problem: Problem, teacher: TeacherLike, hvp: str, schedule: str | int | Plan, swept: int,
                 budget: int | None, jit: str | bool, trace: Sequence[str], debug: bool):
        self.choice: Choice | None = None
        self._problem, self._teacher = problem, teacher
        self._modes = ("saved_residuals", "reverse_over_reverse") if hvp == "auto" else (hvp,)
        self._schedule, self._swept, self._budget = schedule, swept, budget
        self._trace, self._debug = trace, debug
        self._run = compile_once(problem, teacher.apply, jit, self._make)

    def __call__(self, state: StudentState, seed: int | tf.Tensor, theta: Tensors | None = None) -> Hypergradient:
        if theta is None:
            theta = tuple(tf.convert_to_tensor(v) for v in self._teacher.trainable_variables)
        return self._run(tuple(theta), state, tf.convert_to_tensor(seed, tf.int64))

    def _make(self, jit: bool, theta: Tensors, state: StudentState,
              record: dict[str, Any]) -> Callable[..., Hypergradient]:
        problem, trace = self._problem, self._trace
        batch, features = record["batch"], record["features"]
        rule, self.choice = choose(
            self._modes, lambda mode: rule_of(mode, problem, self._teacher.apply, theta, state, batch, features),
            self._schedule, self._swept, self._budget, jit, state, batch)
        plan = self.choice.plan
        first_step = problem.num_steps - plan.num_steps

        def everything(theta: Tensors, state: StudentState, seed: tf.Tensor) -> Hypergradient:
            forward_trace = [name for name in trace if name != "adjoint_norm"]
            runner = _Run(problem, rule, theta, seed, record, forward_trace, plan.segment_length, jit)
            sweep = _Sweep(runner, rule, state, plan, first_step, "adjoint_norm" in trace, self._debug)
            objective, final, records, adjoint, gradient, norms = sweep(state)
            records["adjoint_norm"] = tf.concat([tf.zeros([first_step]), norms], axis=0)
            forward = Rollout(final, records["features"], {name: records[name] for name in trace})
            return Hypergradient(objective, gradient, adjoint, forward)

        return everything


def hypergradient(problem: Problem, teacher: TeacherLike, *, hvp: str = "forward_over_reverse",
                  schedule: str | int | Plan = "every_k", memory_budget: str | int | None = None,
                  truncate: int | None = None, jit: str | bool = "auto", trace: Sequence[str] = (),
                  debug: bool = False) -> HypergradientFunction:
    """The exact gradient of the dev measure M with respect to a teacher's parameters θ.

    Like `jax.grad`, this returns a function: compiled once, called at every teacher step. It runs the student for T
    steps (equation 1), takes dω_T (equation 3), and sweeps back (equations 4 and 5), with the inner optimizer's
    recursion and the moving statistics differentiated exactly and the recorded s_t held fixed.

    Args:
      problem: the student's run and the dev measure.
      teacher: has `trainable_variables` and `apply(theta, features)`, as `tf_l2t.teachers.Teacher`.
      hvp: "forward_over_reverse" or "reverse_over_reverse": how the Hessian-vector product of each step is made, at
        the step's state, which is kept; "saved_residuals": reverse over reverse from the intermediate results of the
        step, which are kept instead, so that nothing is evaluated twice; "auto": the fastest one that fits.
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

    Returns:
      A function (initial_state, seed, theta=None) -> `Hypergradient`. `theta` are the values to differentiate at,
      by default those of the teacher's variables at the time of the call. Its `choice` tells, after the first call,
      the mode and plan, and the memory and work that they are predicted to take.

    Raises:
      ValueError: for an unknown mode, schedule or trace name; at the first call, for a budget that is too small.
    """
    swept, budget = check_options(hvp, schedule, problem.num_steps, memory_budget, truncate)
    return HypergradientFunction(problem, teacher, hvp, schedule, swept, budget, jit, _check_trace(trace), debug)


def _forward_rule(problem: Problem, apply: Any, state: StudentState) -> Rule:
    """A rule to run a student forward by; which one does not matter."""
    return rule_of(HVP_MODES[0], problem, apply, (), state, None, tf.zeros(()))


def _chunk(num_steps: int, segment_length: int, batch_bytes: int) -> int:
    """How many steps a compiled call of the forward run makes: an even part of a segment, or several segments."""
    most = max(1, min(CHUNK, CHUNK_BYTES // max(1, batch_bytes)))
    if segment_length >= most:
        return -(-segment_length // -(-segment_length // most))
    return min(num_steps, segment_length * (most // segment_length))
