"""Options by name, as configs and calls give them, and the kinds of values that they take."""

from __future__ import annotations

import numbers
from typing import Any

_KINDS: dict[str, tuple[Any, str]] = {
    "bool": (bool, "True or False"), "int": (numbers.Integral, "a whole number"), "float": (numbers.Real, "a number"),
    "str": (str, "text")}


def check_kind(name: str, value: Any, kind: str, what: str) -> None:
    """Raises ValueError unless the value of the option `name`, of `what`, is of a kind: "bool", "int", "float", "str";
    of another kind everything is. True and False are no numbers."""
    if kind not in _KINDS:
        return
    takes, words = _KINDS[kind]
    if not isinstance(value, takes) or (isinstance(value, bool) and kind != "bool"):
        raise ValueError(f"{name} of {what} must be {words}; received {value!r}.")
