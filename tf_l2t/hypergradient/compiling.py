"""What is compiled once, and whether by XLA."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tf_l2t.hypergradient.moments import exact_moments
from tf_l2t.hypergradient.replicas import on_replicas
from tf_l2t.hypergradient.rules import Apply
from tf_l2t.hypergradient.state import Problem, StudentState, Tensors
from tf_l2t.hypergradient.step import inner_step

Make = Callable[[bool, Tensors, StudentState, Any], Callable[..., Any]]


def compiled(function: Callable[..., Any], jit: bool) -> Callable[..., Any]:
    """`function` as one call of a graph, by XLA or not."""
    return tf.function(function, autograph=False, jit_compile=True if jit else None)


@contextlib.contextmanager
def _without_rewriting() -> Iterator[None]:
    """While active, functions are traced and called without TensorFlow's graph rewriter (Grappler).

    One of its passes turns sums of three or more large tensors into temporary variables, which fail inside loops from
    the second call on (AlreadyExistsError), as soon as it reckons that a step needs more than 200 MB on a CPU.
    """
    before = tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})


def compile_once(problem: Problem, apply: Apply, jit: str | bool, make: Make,
                 strategy: tf.distribute.Strategy | None = None, update: bool = False) -> Callable[..., Any]:
    """A function (theta, state, seed, …) traced at its first call and never again.

    Other shapes or dtypes later are an error. With a strategy all but theta are lists, and so is what is returned, of
    an entry for each replica of this process.

    Args:
      problem: whose step is looked at.
      apply: (theta, s_t) -> Φ_t.
      jit: True, False, or "auto": XLA unless the step has a convolution on a CPU, whose backward passes it makes
        tens of times slower, or turns out to be beyond XLA.
      make: (jit, theta, state, a step as of `trace_step`) -> the function to trace; of all tensors, shapes and dtypes
        count.
      strategy: whose replicas run the function.
      update: whether `make` looks at the step's gradient and update, too.

    Raises:
      ValueError: for another `jit`, or for XLA with a batch that is split over replicas.
    """
    if jit not in ("auto", True, False):
        raise ValueError(f'jit must be True, False or "auto"; received {jit!r}.')
    if jit is True and problem.shards:
        raise ValueError("XLA cannot compile the steps of a student whose batch is split over replicas; received "
                         "jit=True. Leave it at jit=\"auto\".")
    traced = None

    @_without_rewriting()
    def call(*arguments: Any) -> Any:
        nonlocal traced
        if traced is not None:
            return traced(*arguments)
        specimen = arguments if strategy is None else (arguments[0], *(values[0] for values in arguments[1:]))
        theta, state, seed = specimen[:3]
        step = trace_step(problem, apply, theta, state, seed, update)

        def trace(by_xla: bool) -> Callable[..., Any]:
            function = make(by_xla, theta, state, step)
            concrete = tf.function(function, autograph=False).get_concrete_function(*specimen)
            return concrete if strategy is None else on_replicas(strategy, concrete)

        by_xla = suits_xla(problem, step) if jit == "auto" else bool(jit)
        function = trace(by_xla)
        try:
            result = function(*arguments)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if not by_xla or jit is True:
                raise
            function = trace(False)
            result = function(*arguments)  # raises again if XLA was not the reason
            warnings.warn("the student's step runs without XLA, which cannot compile it (jit=False says so at once): "
                          f"{str(error).splitlines()[0]}", stacklevel=3)
        traced = function
        return result

    return call


def trace_step(problem: Problem, apply: Apply, theta: Tensors, state: StudentState, seed: tf.Tensor,
               update: bool) -> Any:
    """A student step as a concrete function that is never run: its ops, and the shapes of its record.

    Without the `update` it ends with the loss: all of the record, and the fewest ops to trace.
    """
    whole = problem._replace(narrow_fn=None, shards=None)

    def step(theta, state, seed):
        batch = problem.batch_fn(seed, state.step)
        with exact_moments():
            features, _ = problem.features.features_fn(state)
        coefficients = apply(theta, features)
        if update:
            _, output = inner_step(whole, state, batch, coefficients)
        else:
            with exact_moments():
                output = whole.loss(state.params, state.non_trainable, batch, coefficients)
        return {"batch": batch, "features": features, "coefficients": coefficients, "loss": output.loss,
                "metrics": output.metrics}

    return tf.function(step, autograph=False).get_concrete_function(theta, state, seed)


def suits_xla(problem: Problem, step: Any) -> bool:
    """Whether XLA is worth while: not for convolutions on a CPU, nor where shapes change from step to step.

    And not where it cannot be: for a batch that is split over replicas.
    """
    if problem.narrow_fn is not None or problem.shards is not None:
        return False
    if tf.config.list_logical_devices("GPU"):
        return True
    graph = step.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return not any("Conv" in node.op for node in nodes)
