"""Is a student one that a teacher can be trained through? A check of its layers before any training."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from tf_l2t.students.examine import FAILING, MISSING, MODES, NOT_CHECKED, Call, Findings, examine
from tf_l2t.students.functional import building
from tf_l2t.students.translator import Translator

WHOLE = "whole model"
# Findings about stock Keras layers and models made of them alone hold for as long as the process lives.
_known: dict[Any, Findings] = {}
# Layers of Keras whose derivatives do not depend on how many channels there are, as long as there are several.
_OF_ANY_WIDTH = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.BatchNormalization,
                 keras.layers.Activation, keras.layers.ReLU, keras.layers.Add, keras.layers.Concatenate,
                 keras.layers.AveragePooling2D, keras.layers.GlobalAveragePooling2D)


class LayerReport(NamedTuple):
    """What was found about one layer.

    Attributes:
      name: the layer's, with those of the models around it; "whole model" for the student itself.
      kind: its class.
      forward_over_reverse, reverse_over_reverse: how the second derivative is in this mode: "ok", "missing",
        "wrong (relative error)", "surrogate (relative error)" (the derivative of the gradient, which is not that of the
        value), "not needed" (no trained weight in the layer or before it) or "not checked".
      replayable: whether two calls from the same weights and seed states agree; None if not checked.
      notes: what is the matter and what to do, a sentence each.
    """

    name: str
    kind: str
    forward_over_reverse: str
    reverse_over_reverse: str
    replayable: bool | None = None
    notes: tuple[str, ...] = ()

    def fails(self, mode: str) -> bool:
        """Whether the second derivative cannot be had in this mode, or the layer's randomness is lost."""
        return self.replayable is False or getattr(self, mode).startswith(FAILING)

    def __str__(self) -> str:
        found = ("its randomness is lost" if self.replayable is False else
                 ", ".join(f"{getattr(self, mode)} in {mode}" for mode in MODES if self.fails(mode)))
        return ": ".join(filter(None, [f"{self.name} ({self.kind})", found, "; ".join(self.notes)]))


class PreflightReport(NamedTuple):
    """The layers of a student and what was found about each; `str(report)` is the printed table."""

    rows: tuple[LayerReport, ...]

    @property
    def modes(self) -> tuple[str, ...]:
        """The HVP modes that are right for the entire student."""
        return tuple(mode for mode in MODES if not self.failures(mode))

    @property
    def passed(self) -> bool:
        """Whether some mode is right for all layers and all randomness can be replayed."""
        return bool(self.modes)

    def failures(self, mode: str) -> tuple[LayerReport, ...]:
        """The layers that stand in this mode's way; the whole model only if none of its layers does."""
        *layers, whole = self.rows
        return tuple(row for row in layers if row.fails(mode)) or (whole,) * whole.fails(mode)

    def require(self) -> None:
        """Does nothing if `passed`.

        Raises:
          ValueError: naming the layers at fault, and the remedy.
        """
        if not self.passed:
            at_fault = dict.fromkeys(row for mode in MODES for row in self.failures(mode))
            raise ValueError("\n  ".join(["no teacher can be trained through this student:", *map(str, at_fault)]))

    def __str__(self) -> str:
        titles = ("layer", "class", *MODES, "randomness")
        randomness = {True: "ok", False: "LOST", None: "not checked"}
        cells = [titles, *((*row[:4], randomness[row.replayable]) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                 for line in cells]
        for note in dict.fromkeys(note for row in self.rows for note in row.notes):
            names = [row.name for row in self.rows if note in row.notes]
            lines.append(f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}: {note}")
        return "\n".join([*lines, f"right for the whole student: {', '.join(self.modes)}" if self.passed else "FAILED"])


def preflight(student: keras.Model | Callable[[], keras.Model],
              progress: Callable[[int, int], None] | None = None, verbose: int = 1) -> PreflightReport:
    """Checks every layer of a student, and the student as a whole, before a teacher is trained through it.

    A teacher's gradient needs second derivatives of the student. Some layers have none in one way of computing them;
    some have wrong ones, on which both ways agree. Each distinct layer is checked once, as the student calls it in
    training, but in float64 and on three random examples: the engine's own Hessian-vector products against central
    differences of the gradient, the gradient against differences of the value, and one call against its repetition. Of
    the usual layers of Keras those that differ in their number of channels alone are not distinct.
    Derivatives with respect to data are not needed and not asked for. A `Translator` is checked as a whole alone.

    Args:
      student: a function that builds a Functional or Sequential model or a `Translator`, or such a model, built; it is
        left unchanged. A layer that cannot be made anew in float64, by the function under a float64 policy or from its
        config, is checked in its own precision, roughly.
      progress: hears after every layer how many are checked, and of how many, the whole model among them.
      verbose: 1 for a bar with the time left, unless `progress` is given; 0 for none.

    Returns:
      A `PreflightReport`.

    Raises:
      ValueError: if the model is not built, or is neither Functional nor Sequential nor a `Translator`.
    """
    with building(0, "float64"):
        model = student if isinstance(student, keras.Model) else student()
        if isinstance(model, Translator):
            return _translator_report(model)
        if _functional(model) is None:
            raise ValueError("preflight takes a built Functional or Sequential model; received "
                             f"{getattr(model, 'name', model)!r} ({type(model).__name__}). Give its first layer a "
                             "keras.Input, or wrap it: x = keras.Input(shape); keras.Model(x, model(x)).")
        model = _in_float64(model)
        found: dict[Any, Findings] = {}
        calls, rows = [*_calls(model)], []
        bar = keras.utils.Progbar(len(calls) + 1, verbose=0 if progress else verbose, unit_name="layer")
        for name, call in calls:
            rows.append(_row(name, call, MODES, found))
            bar.update(len(rows))
            if progress:
                progress(len(rows), len(calls) + 1)
        functional = _functional(model)
        whole = Call(model, (functional._inputs_struct,), {}, frozenset(map(id, functional.inputs)))
        modes = tuple(mode for mode in MODES if not any(row.fails(mode) for row in rows))
        rows.append(_row(WHOLE, whole, modes, found) if modes else
                    LayerReport(WHOLE, type(model).__name__, NOT_CHECKED, NOT_CHECKED))
        bar.update(len(rows))
        if not _is_float64(model):  # differences of the whole are then too rough for a verdict
            forward, reverse = (NOT_CHECKED if rows[-1].fails(mode) else getattr(rows[-1], mode) for mode in MODES)
            rows[-1] = rows[-1]._replace(forward_over_reverse=forward, reverse_over_reverse=reverse)
    return PreflightReport(tuple(rows))


def _translator_report(model: Translator) -> PreflightReport:
    """A translation student is checked as a whole: it calls its layers as it pleases."""
    if not _is_float64(model):
        copied = type(model).from_config(_with_float64(model.get_config()))
        copied.set_weights(model.get_weights())
        model = copied
    # Of a few tokens: an unrolled student is traced as often, and every step of it is the same.
    sentences = tuple(keras.KerasTensor([None, 3], "int32") for _ in range(2))
    call = Call(model, (sentences,), {}, frozenset(map(id, sentences)))
    (forward, reverse), replayable, notes = examine(call, points=1)
    return PreflightReport((LayerReport(WHOLE, type(model).__name__, forward, reverse, replayable, notes),))


def choose_hvp(report: PreflightReport, hvp: str) -> str:
    """The HVP mode to train a teacher in: `hvp`, or, with a warning, one that is right where `hvp` is not.

    Args:
      report: the student's.
      hvp: the mode asked for. One that leaves the choice to the engine ("auto") stands if all modes are right.

    Raises:
      ValueError: if no mode is right or randomness cannot be replayed; it names the layers and the remedy.
    """
    report.require()
    if hvp in report.modes or report.modes == MODES:
        return hvp
    (mode,) = report.modes
    forward, reverse = MODES
    reasons = report.failures(reverse if mode == forward else forward)
    # Residuals are those of forward over reverse if there is such a thing and the inner optimizer is linear.
    if hvp == "saved_residuals" and mode == reverse and all(getattr(row, forward) == MISSING for row in reasons):
        return hvp
    if hvp != "auto":
        warnings.warn(f"hvp={hvp!r} is not right for this student, hvp={mode!r} is used: "
                      f"{'; '.join(map(str, reasons))}.", stacklevel=3)
    return mode


def _functional(model: Any) -> Any:
    """The graph of layer calls behind a Functional or Sequential model; None for anything else."""
    functional = getattr(model, "_functional", model)
    return functional if hasattr(functional, "_nodes_by_depth") else None


def _calls(model: Any, prefix: str = "", on_data: bool = True) -> Iterator[tuple[str, Call]]:
    """The names and first calls of all layers, those of models within the model included, from inputs to outputs.

    `on_data` tells whether the model is called on data only.
    """
    functional = _functional(model)
    data = set(map(id, functional.inputs)) if on_data else set()
    seen = set()
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        for node in functional._nodes_by_depth[depth]:
            layer = node.operation
            if node.is_input:
                continue
            only_data = all(id(t) in data for t in node.input_tensors)
            if only_data and not getattr(layer, "trainable_variables", ()):
                data |= set(map(id, node.outputs))
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            if _functional(layer) is None:
                yield prefix + layer.name, Call(layer, node.arguments.args, node.arguments.kwargs, frozenset(data))
            else:
                yield from _calls(layer, f"{prefix}{layer.name}/", only_data)


class _Borrowed(keras.layers.Layer):
    """Calls another layer, so that a copy of a model can use it and leave no trace in it."""

    def __init__(self, layer: keras.Layer):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.borrowed = layer

    def build(self, *shapes: Any, **named: Any) -> None:
        self.built = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.borrowed(*args, **kwargs)


def _is_float64(layer: keras.Layer) -> bool:
    return all(part.compute_dtype == part.variable_dtype == "float64" for part in layer._flatten_layers())


def _in_float64(model: Any) -> Any:
    """The model, or a copy of it of the same weights in which all layers that can be are in float64."""
    if _is_float64(model):
        return model

    def copy(layer: keras.Layer) -> keras.Layer:
        if not _is_float64(layer):
            try:
                return type(layer).from_config(_with_float64(layer.get_config()))
            except Exception:  # whatever a custom layer's config raises
                pass
        return _Borrowed(layer)

    copied = keras.models.clone_model(model, clone_function=copy, recursive=True)
    copied.set_weights(model.get_weights())
    return copied


def _with_float64(config: Any) -> Any:
    """A layer's config with every floating dtype and policy in it replaced."""
    if isinstance(config, dict):
        return {key: "float64" if key == "dtype" and "float" in json.dumps(value) else _with_float64(value)
                for key, value in config.items()}
    return [_with_float64(item) for item in config] if isinstance(config, list) else config


def _row(name: str, call: Call, modes: tuple[str, ...], found: dict[Any, Findings]) -> LayerReport:
    key, stock = _key(call, modes)
    known = _known if stock else found
    if key not in known:
        known[key] = _examine_whole(call, modes) if name == WHOLE else examine(call, modes)
    kind = type(getattr(call.operation, "borrowed", call.operation)).__name__
    (forward, reverse), replayable, notes = known[key]
    return LayerReport(name, kind, forward, reverse, replayable, notes)


def _examine_whole(call: Call, modes: tuple[str, ...]) -> Findings:
    """To trace all of a deep model takes most of a check's time: it is kept for a verdict against the student."""
    quick = examine(call, modes, traced=False, points=1)
    fails = any(status.startswith(FAILING) for status in quick.modes)
    return examine(call, modes, points=1) if fails else quick


def _key(call: Call, modes: tuple[str, ...]) -> tuple[Any, bool]:
    """What tells calls apart, and whether all of it is Keras's own (anybody else's code may change)."""
    if not isinstance(call.operation, keras.Layer):
        return id(call.operation), False
    parts = call.operation._flatten_layers()
    names = {part.name: f"#{index}" for index, part in enumerate(parts)}
    try:
        described = _anonymous(keras.saving.serialize_keras_object(call.operation), names)
        config = json.dumps(described, default=repr)
    except Exception:
        return id(call.operation), False
    kinds = tuple(type(part) for part in parts)
    dtypes = tuple(str(v.dtype) for v in call.operation.variables)
    stock = all(kind.__module__.startswith("keras.") for kind in kinds) and '"class_name": "function"' not in config \
        and "__lambda__" not in config
    any_width = stock and kinds[0] in _OF_ANY_WIDTH and described["config"].get("groups", 1) == 1
    if any_width:
        config = json.dumps(_narrow(described), default=repr)
    tensors = keras.tree.map_structure(
        lambda leaf: (_few(leaf.shape) if any_width else leaf.shape, leaf.dtype, id(leaf) in call.data)
        if isinstance(leaf, keras.KerasTensor) else leaf, (call.args, call.kwargs))
    return (config, kinds, dtypes, repr(tensors), modes), stock


def _narrow(described: dict[str, Any]) -> dict[str, Any]:
    """The description of a layer with two channels, in and out, in the place of any larger number."""
    config, built = dict(described["config"]), dict(described.get("build_config") or {})
    config.update({name: min(2, config[name]) for name in ("filters", "units") if name in config})
    if "input_shape" in built:
        shape = built["input_shape"]
        built["input_shape"] = [_few(s) for s in shape] if isinstance(shape[0], list | tuple) else _few(shape)
    return described | {"config": config, "build_config": built}


def _few(shape: Any) -> tuple[int | None, ...]:
    return (*shape[:-1], shape[-1] and min(2, shape[-1]))


def _anonymous(config: Any, names: dict[str, str]) -> Any:
    """The config without the names of layers, which Keras numbers through; [name, node, tensor] is a reference."""
    if isinstance(config, dict):
        return {key: _anonymous(value, names) for key, value in config.items() if key != "name"}
    if not isinstance(config, list | tuple):
        return config
    if len(config) == 3 and isinstance(config[0], str) and isinstance(config[1], int):
        return [names.get(config[0], config[0]), *config[1:]]
    return [_anonymous(item, names) for item in config]
