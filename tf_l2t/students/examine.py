"""One layer under examination: do its second derivatives exist, are they right, can its randomness be replayed?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.hypergradient import (
    Adjoint,
    InnerOptimizer,
    Problem,
    StatusFeatures,
    StepOutput,
    StudentState,
    step_adjoint,
)
from tf_l2t.hypergradient.step import loss_and_gradient

MODES = ("forward_over_reverse", "reverse_over_reverse")
OK, MISSING, WRONG, SURROGATE = "ok", "missing", "wrong", "surrogate"
NOT_NEEDED, NOT_CHECKED = "not needed", "not checked"
FAILING = (MISSING, WRONG, SURROGATE)

# Three examples: normalised over a batch of two, every value is ±1 and has no derivative left. Other sizes that
# a model leaves open become 8.
_BATCH, _UNKNOWN = 3, 8
# (h, tolerance) of the differences at one point; what is right at one h is right there. A kink (ReLU, MaxPool) within
# ±2h spoils the difference of a layer in order, ever less often as h shrinks; a wrong derivative stays wrong. The last,
# wide one is for layers that compute in float32.
_STEPS = ((1e-6, 1e-4), (1e-7, 1e-4), (1e-8, 1e-3), (1e-9, 1e-3), (2e-2, 2e-3))
# So many points of failure make a verdict: in a network of a million units, one has a kink within ±2e-9 now and then.
_FAILURES = 2

_REMEDIES = {
    "loop": "forward_over_reverse does not pass through a while loop: use hvp=\"reverse_over_reverse\", or unroll=True",
    "fused": "on a GPU the fused kernel of this layer has no second derivative: build it with use_cudnn=False",
    WRONG: "the second derivative is not the derivative of the first: look for stop_gradient, a custom gradient, or "
           "a tf.nn.moments imported by name (the engine repairs only what is called as tf.nn.moments)",
    SURROGATE: "its gradient is not that of its value (a stop_gradient, a straight-through estimator): training "
               "follows a surrogate, and second derivatives, through the value in later layers' gradients, miss what "
               "the surrogate leaves out",
    "random": "draws randomness that cannot be replayed: draw it by keras.random, with a keras.random.SeedGenerator "
              "that the layer holds, created in __init__",
}


class Call(NamedTuple):
    """How a model calls a layer (or a `keras.Operation`).

    Attributes:
      operation: what is called.
      args, kwargs: with a `KerasTensor` in every tensor's place.
      data: ids of the KerasTensors that no trainable weight has an influence on; no derivative reaches them.
    """

    operation: Any
    args: Any
    kwargs: Mapping[str, Any]
    data: frozenset[int] = frozenset()


class Findings(NamedTuple):
    """What was found about one call; `modes` is a status for each of `MODES`, and `notes` say why and what to do."""

    modes: tuple[str, ...]
    replayable: bool | None = None
    notes: tuple[str, ...] = ()


class _Point(NamedTuple):
    """Where to differentiate: what moves and what does not, the size of each tensor that moves, and a direction."""

    moving: tuple[tf.Tensor, ...]
    fixed: tuple[tf.Tensor, ...]
    scales: tuple[float, ...]
    v: tuple[tf.Tensor, ...]

    def moved(self, distance: float) -> tuple[tf.Tensor, ...]:
        return tuple(m + distance * d for m, d in zip(self.moving, self.v, strict=True))


class _Function:
    """A call as a function of everything that it reads: its input tensors and its layer's variables, in float64."""

    def __init__(self, call: Call):
        self.call = call
        self.is_layer = isinstance(call.operation, keras.Layer)
        leaves = keras.tree.flatten((call.args, call.kwargs))
        self.tensors = list({id(t): t for t in leaves if isinstance(t, keras.KerasTensor)}.values())
        layer = call.operation if self.is_layer else None
        self.states = layer.non_trainable_variables if layer else []
        self.variables = [*layer.trainable_variables, *self.states] if layer else []
        self.moves = ["float" in str(source.dtype) and id(source) not in call.data
                      for source in [*self.tensors, *self.variables]]
        # Without trainable weights in the layer or before it there is nothing to differentiate.
        self.trains = any(self.moves[:len(self.tensors)]) or len(self.variables) > len(self.states)

    def draw(self, rng: np.random.Generator, indices: bool) -> list[tf.Tensor]:
        """Values to call it at: random inputs, the layer's weights made uneven.

        Integers are 0 or 1, which are in any vocabulary; so are floats, rounded down, if they may be `indices`.
        """
        values = []
        for tensor in self.tensors:
            shape = [size or (_UNKNOWN if axis else _BATCH) for axis, size in enumerate(tensor.shape)]
            value = rng.integers(0, 2, shape)
            if "float" in tensor.dtype:
                value = value + rng.uniform(0.25, 0.75, shape) if indices else rng.standard_normal(shape)
            values.append(value)
        for variable in self.variables:
            value = variable.numpy()
            if "float" in variable.dtype:  # positive where it was: a variance stays one
                value = value * rng.uniform(0.7, 1.3, value.shape) + (value == 0) * rng.uniform(0.05, 0.1, value.shape)
            values.append(value)
        return [tf.constant(v, tf.float64 if np.issubdtype(v.dtype, np.floating) else v.dtype)
                for v in map(np.asarray, values)]

    def draw_point(self, rng: np.random.Generator, indices: bool) -> _Point:
        values = self.draw(rng, indices)
        moving, fixed = (tuple(v for v, moves in zip(values, self.moves, strict=True) if moves is wanted)
                         for wanted in (True, False))
        scales = tuple(max(float(tf.linalg.global_norm([m])) / max(m.shape.num_elements(), 1) ** 0.5, 1e-3)
                       for m in moving)
        v = tuple(tf.constant(scale * rng.standard_normal(m.shape)) for m, scale in zip(moving, scales, strict=True))
        return _Point(moving, fixed, scales, v)

    def __call__(self, values: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
        """Outputs, variables that are not trained afterwards, and the layer's own losses."""
        cast = [tf.cast(value, source.dtype)
                for value, source in zip(values, [*self.tensors, *self.variables], strict=True)]
        filled = dict(zip(map(id, self.tensors), cast, strict=False))
        args, kwargs = keras.tree.map_structure(lambda leaf: filled.get(id(leaf), leaf),
                                                (self.call.args, dict(self.call.kwargs)))
        if not self.is_layer:
            return keras.tree.flatten(self.call.operation(*args, **kwargs)), [], []
        if kwargs.get("training") is None:
            kwargs["training"] = True
        mapping = list(zip(self.variables, cast[len(self.tensors):], strict=True))
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            outputs = self.call.operation(*args, **kwargs)
            losses = self.call.operation.losses
        return keras.tree.flatten(outputs), [scope.get_current_value(v) for v in self.states], losses

    def scalar(self, values: list[tf.Tensor]) -> tf.Tensor:
        """Σ c·y + ½ Σ d·y² of the outputs y with random c and d, linear in states, plus the losses: a student's loss
        with a curvature of its own."""
        def normal(like: tf.Tensor, *seed: int) -> tf.Tensor:
            return tf.random.stateless_normal(tf.shape(like), seed, dtype=tf.float64)

        outputs, states, losses = self(values)
        terms = [tf.zeros((), tf.float64), *(tf.cast(loss, tf.float64) for loss in losses)]
        for index, y in enumerate(tf.cast(y, tf.float64) for y in outputs if y.dtype.is_floating):
            terms.append(tf.reduce_sum(normal(y, index, 0) * y + normal(y, index, 1) * y * y / 2))
        for index, n in enumerate(tf.cast(n, tf.float64) for n in states if n.dtype.is_floating):
            terms.append(tf.reduce_sum(normal(n, index, 2) * n))
        return tf.add_n(terms)


def examine(call: Call, modes: tuple[str, ...] = MODES, traced: bool = True, points: int = 2) -> Findings:
    """Examines one call of a built layer.

    The second derivatives are those of the engine's own `step_adjoint`, in the layer's inputs, weights and states
    together; the reference is differences of the first derivative, never another mode.

    Args:
      call: the call.
      modes: which of `MODES` to check; the others are "not checked".
      traced: everything inside a `tf.function`, as in the engine. Without, reverse over reverse is not: several times
        faster for a deep model, whose layers have been checked so.
      points: at how many random points the derivatives must be right.
    """
    function, rng = _Function(call), np.random.default_rng(0)
    notes = [_REMEDIES["fused"]] if traced and has_fused_kernel(call.operation) else []
    indices, error = False, None
    for indices in (False, True):
        try:
            replayable = _replays(function, function.draw(rng, indices))
            break
        except Exception as raised:
            error = error or raised
    else:
        return Findings((NOT_CHECKED,) * 2, None, (*notes, f"cannot be called on its own ({_short(error)})"))
    if not replayable:
        return Findings((NOT_CHECKED,) * 2, False, (*notes, _REMEDIES["random"]))
    if not function.trains:
        return Findings((NOT_NEEDED,) * 2, True, tuple(notes))
    if notes and tf.config.list_physical_devices("GPU"):
        return Findings((MISSING,) * 2, True, tuple(notes))
    status, reasons = _derivatives(function, modes, lambda: function.draw_point(rng, indices), traced, points)
    return Findings(tuple(status.get(mode, NOT_CHECKED) for mode in MODES), True, (*notes, *reasons))


def has_fused_kernel(layer: Any) -> bool:
    """Whether a GPU would run an LSTM or GRU in this layer by one cuDNN kernel."""
    parts = layer._flatten_layers() if isinstance(layer, keras.Layer) else []
    return any(isinstance(part, keras.layers.LSTM | keras.layers.GRU) and part.use_cudnn is not False
               and not part.unroll and part.use_bias and getattr(part, "reset_after", True)
               and part.activation is keras.activations.tanh
               and part.recurrent_activation is keras.activations.sigmoid for part in parts)


def _short(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"


def _replays(function: _Function, values: list[tf.Tensor]) -> bool:
    first = function(values)
    keras.random.uniform(())  # moves Keras's global seed: a layer that draws from it draws anew, as one of NumPy's does
    second = function(values)
    return all(np.array_equal(a, b, equal_nan=a.dtype.is_floating)
               for a, b in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True))


# Hands the gradient on as the next weights: the cotangent of the weights is then the vector of the Hessian product.
_HAND_ON = InnerOptimizer(init=lambda params: (), update=lambda grads, slots, params, step: (grads, ()),
                          linear=True)


def _problem(function: _Function) -> Problem:
    """`function.scalar` as the loss of a student whose weights are all that moves, and whose batch is the rest."""

    def loss_fn(params, non_trainable, batch, coefficients):
        moving, fixed = iter(params), iter(batch)
        values = [next(moving if moves else fixed) for moves in function.moves]
        return StepOutput(function.scalar(values), non_trainable, {})

    def nothing(*_):
        raise NotImplementedError

    return Problem(loss_fn, nothing, nothing, _HAND_ON, StatusFeatures(nothing, nothing, nothing), 1)


def _derivatives(function: _Function, modes: tuple[str, ...], draw_point: Callable[[], _Point], traced: bool,
                 points: int) -> tuple[dict[str, str], list[str]]:
    """(mode -> status, notes)."""
    problem, zero = _problem(function), tf.zeros((), tf.float64)

    def gradient(moving, fixed):
        output, gradients = loss_and_gradient(problem, moving, (), fixed, zero)
        return output.loss, gradients

    def product(mode):
        def along(moving, fixed, v):
            state = StudentState(moving, (), (), tf.zeros((), tf.int32))
            return step_adjoint(problem, state, fixed, zero, Adjoint(v, (), ()), mode)[0].params

        # Forward mode is traced in any case: eagerly, every op's tangents are traced by a function of their own.
        return compiled(along) if traced or mode == "forward_over_reverse" else along

    compiled = tf.function(autograph=False)
    gradient, products = compiled(gradient), {mode: product(mode) for mode in modes}
    status, notes = {}, []
    votes: dict[str, list[tuple[bool, float]]] = {name: [] for name in (SURROGATE, *modes)}
    for _ in range(points + _FAILURES - 1):
        point = draw_point()
        try:
            first = gradient(point.moving, point.fixed)[1]
        except Exception as error:
            return dict.fromkeys(modes, MISSING), ["no first derivative: replace the op that has none "
                                                   f"({_short(error)})"]
        second = {}
        for mode, along in list(products.items()):
            try:
                second[mode] = along(point.moving, point.fixed, point.v)
            except Exception as error:
                status[mode] = MISSING
                del products[mode], votes[mode]
                notes.append(_REMEDIES["loop"] if "variant" in str(error) else f"no second derivative in {mode}: "
                             f"replace the op whose gradient has none ({_short(error)})")
        for name, vote in _compare(gradient, point, first, second).items():
            votes[name].append(vote)
        if all(sum(right for right, _ in cast) == points for cast in votes.values()):
            break
    wrong = {name: np.median([error for right, error in cast if not right]) for name, cast in votes.items()
             if sum(not right for right, _ in cast) >= _FAILURES}
    for mode in products:
        status[mode] = (f"{WRONG} ({wrong[mode]:.1e})" if mode in wrong else
                        f"{SURROGATE} ({wrong[SURROGATE]:.1e})" if SURROGATE in wrong else OK)
    notes += [_REMEDIES[WRONG]] * any(mode in wrong for mode in products)
    notes += [_REMEDIES[SURROGATE]] * (SURROGATE in wrong)
    return status, notes


def _compare(gradient, point: _Point, first, second) -> dict[str, tuple[bool, float]]:
    """For the first derivative and for the second in every mode: is it right at this point, and its smallest error."""
    slope = _inner(first, point.v)
    # Where a difference is nearly zero, the size of its terms is what an error is small against.
    floors = 0.1 * _norm(first, point.v), 0.01 * _norm(first, point.scales)
    verdicts = {name: (False, np.nan) for name in (SURROGATE, *second)}
    for h, tolerance in _STEPS:
        value, gradients = _difference(lambda distance: gradient(point.moved(distance), point.fixed), h)
        for name in [name for name, (right, _) in verdicts.items() if not right]:
            error = (_distance([slope], [value], [1.0], floors[0]) if name == SURROGATE else
                     _distance(second[name], gradients, point.scales, floors[1]))
            verdicts[name] = error <= tolerance, np.fmin(error, verdicts[name][1])
        if all(right for right, _ in verdicts.values()):
            break
    return verdicts


def _difference(function, h):
    """(8 (f(h) − f(−h)) − (f(2h) − f(−2h))) / 12h of every tensor that `function` returns."""
    near, far = (tf.nest.map_structure(tf.subtract, function(d), function(-d)) for d in (h, 2 * h))
    return tf.nest.map_structure(lambda a, b: (8 * a - b) / (12 * h), near, far)


def _inner(left, right):
    return tf.add_n([tf.reduce_sum(a * b) for a, b in zip(left, right, strict=True)])


def _norm(tensors, scales):
    return float(tf.linalg.global_norm([t * s for t, s in zip(tensors, scales, strict=True)]))


def _distance(values, reference, scales, floor):
    """‖values − reference‖ / ‖reference‖, every tensor in units of its primal's size."""
    gap = _norm([a - b for a, b in zip(values, reference, strict=True)], scales)
    return gap / max(_norm(reference, scales), floor, 1e-300)
