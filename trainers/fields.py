"""What the fields of a config may hold, beyond the types that ml_collections keeps."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ml_collections


@contextlib.contextmanager
def refused_types(sentence: str) -> Iterator[None]:
    """Makes a ValueError, which begins with the sentence, of the TypeError of what is built from a config's options."""
    try:
        yield
    except TypeError as error:
        raise ValueError(f"{sentence}: {error}") from error


class Either(NamedTuple):
    """One shape or the other."""

    one: Any
    other: Any


# A type; [x] for any number of x; (x, y) for two, x and y.
OPTIONS = [(str, object)]
SHAPES: dict[str, Any] = {
    "ablation": [(str, OPTIONS)],
    "compare.changes": [(str, OPTIONS)],
    "compare.dev_sizes": [int],
    "compare.epochs": [float],
    "compare.learning_rates": [float],
    "compare.loss_options": [(str, OPTIONS)],
    "compare.losses": [str],
    "compare.methods": [(str, OPTIONS)],
    "compare.more_losses": [(str, [str])],
    "compare.of_teacher": OPTIONS,
    "compare.pairs": Either([(int, int)], [(str, str)]),
    "compare.rows": [str],
    "compare.skipped": [(str, str)],
    "compare.students": Either([str], [(str, OPTIONS)]),
    "compare.tune_rates": [float],
    "compare.tuned": [(str, [str])],
    "method.options": OPTIONS,
    "quick_changes": OPTIONS,
    "quick_data": OPTIONS,
    "student.options": OPTIONS,
    "teacher.ignored": [str],
    "teacher.options": OPTIONS,
    "teacher_training.curriculum": [(int, int)],
    "teacher_training.profile": [int],
    "training.loss_options": OPTIONS,
}


TASKS = {"": "image classification", "translation": "translation", "distillation": "distillation of images",
         "text_distillation": "distillation of text"}


def check_task(config: ml_collections.ConfigDict, tasks: Sequence[str]) -> None:
    """Raises ValueError for a config of another task than a command has."""
    task = config.get("task", "")
    if task not in tasks:
        raise ValueError(f"this command takes configs of {', '.join(TASKS[known] for known in tasks)}; received one of "
                         f"{TASKS.get(task, repr(task))}.")


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a tuple whose parts are not what its field holds, or a number that is not finite."""
    for name, value in _leaves(config):
        shape = SHAPES.get(name)
        if shape is not None and not _fits(value, shape):
            raise ValueError(f"config.{name} must be {_described(shape)}; received {value!r}.")
        if not all(math.isfinite(number) for number in _floats(value)):
            raise ValueError(f"config.{name} must be finite; received {value!r}.")


def _leaves(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _fits(value: Any, shape: Any) -> bool:
    if isinstance(shape, Either):
        return _fits(value, shape.one) or _fits(value, shape.other)
    if isinstance(shape, list):
        return isinstance(value, tuple | list) and all(_fits(part, shape[0]) for part in value)
    if isinstance(shape, tuple):
        return isinstance(value, tuple | list) and len(value) == len(shape) and \
            all(_fits(part, kind) for part, kind in zip(value, shape, strict=True))
    if isinstance(value, bool) and shape in (int, float):
        return False
    return isinstance(value, int | float if shape is float else shape)


def _described(shape: Any) -> str:
    if isinstance(shape, Either):
        return f"{_described(shape.one)}, or {_described(shape.other)}"
    if isinstance(shape, list):
        return f"a tuple of {_described(shape[0])} each"
    if isinstance(shape, tuple):
        return f"({', '.join(_described(kind) for kind in shape)})"
    return {str: "a name", object: "a value", int: "an integer", float: "a number"}[shape]


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _floats(part)
