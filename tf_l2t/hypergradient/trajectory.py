"""A student's run in chunks of steps, and a plan carried out on it: what `unroll` compiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tf_l2t.hypergradient.compiling import compiled
from tf_l2t.hypergradient.memory import num_bytes
from tf_l2t.hypergradient.rules import Rule, restore, snapshot
from tf_l2t.hypergradient.schedules import Move, Plan, Visit
from tf_l2t.hypergradient.segment import arrays_like, read_all, run, sweep, write
from tf_l2t.hypergradient.state import Problem, StudentState, Tensors
from tf_l2t.hypergradient.step import Adjoint

# Steps of one compiled call of the forward run: as many as make its fixed cost small, as far as their batches are.
CHUNK, CHUNK_BYTES = 100, 16_000_000


class Run:
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


def _chunk(num_steps: int, segment_length: int, batch_bytes: int) -> int:
    """How many steps a compiled call of the forward run makes: an even part of a segment, or several segments."""
    most = max(1, min(CHUNK, CHUNK_BYTES // max(1, batch_bytes)))
    if segment_length >= most:
        return -(-segment_length // -(-segment_length // most))
    return min(num_steps, segment_length * (most // segment_length))


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


class Sweep:
    """A plan carried out: the forward run, and the segments swept from the last to the first."""

    def __init__(self, runner: Run, rule: Rule, template: StudentState, plan: Plan, first_step: int, norms: bool,
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
            *kept, last = self.first.moves

            def move(index, state, written, records, snapshots):
                stop, keep = tf.unstack(tf.constant(kept)[index])
                state, written, records = runner.to_recorded(state, stop, None, written, records)
                return index + 1, state, written, records, write(snapshots, keep, snapshot(state))

            if kept:
                _, state, written, records, snapshots = tf.while_loop(
                    lambda index, *_: index < len(kept), move, (tf.constant(0), state, written, records, snapshots),
                    parallel_iterations=1)
            state, written, records = runner.to_recorded(state, last.stop, None, written, records)
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
        moves: list[Move] = []
        rows = []
        for visit in self.others:
            before = len(moves)
            moves.extend(visit.moves[:-1])
            rows.append((visit.load, visit.start, before, len(moves), visit.first, visit.stop))
        visits = tf.constant(rows)
        all_norms = [tf.TensorArray(tf.float32, size=len(rows) + 1, element_shape=[None], infer_shape=False)]
        all_norms = write(all_norms, len(rows), [last_norms])

        def body(index, snapshots, frontier, adjoint, gradient, norms):
            load, start, first_move, end_move, first, stop = tf.unstack(visits[index])
            state = restore(self.template, read_all(snapshots, load), start)

            def move(number, state, snapshots):
                end, keep = tf.unstack(tf.constant(moves)[number])
                state = runner.to(state, end, features)
                return number + 1, state, write(snapshots, keep, snapshot(state))

            if moves:
                _, state, snapshots = tf.while_loop(lambda number, *_: number < end_move, move,
                                                    (first_move, state, snapshots), parallel_iterations=1)
            if any(visit.moves for visit in self.others):
                state = runner.to(state, first, features)
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
