"""The pictures: coefficient heat maps, a teacher's curve, accuracies side by side."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tf_l2t.data import check_class_names
from tf_l2t.garbage import gone_afterwards


def _draw_coefficients(axes: Any, coefficients: np.ndarray, limit: float, title: str,
                       class_names: Sequence[str] | None) -> Any:
    if np.ndim(coefficients) == 1:
        if len(coefficients) > 100:  # of a vocabulary, row by row: its matrix would be nearly all zeros
            side = math.ceil(len(coefficients) ** 0.5)
            coefficients = np.pad(coefficients, (0, side * side - len(coefficients))).reshape(side, side)
            image = axes.imshow(coefficients, cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set_title(title or f"{side} classes a row", fontsize=10)
            return image
        coefficients = np.diag(coefficients)
    image = axes.imshow(coefficients, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("class j")
    axes.set_ylabel("label y")
    if len(coefficients) <= 20:
        names = [str(c) for c in range(len(coefficients))] if class_names is None or not len(class_names) \
            else class_names
        axes.set_xticks(range(len(names)), names, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    return image


def _limit(coefficients: Any) -> float:
    """The colour scale's end, never zero, so that the same colour always means the same sign."""
    size = np.abs(np.asarray(coefficients, np.float64))
    return max(float(np.max(size, initial=0.0, where=np.isfinite(size))), 1e-6)


def labelled_pairs(pairs: Iterable[tuple[int | str, int | str]], num_classes: int, class_names: Sequence[str] = ()
                   ) -> dict[str, tuple[int, int]]:
    """Pairs of classes, in both directions, as (row, column) of Φ, keyed by what pictures call them: "Φ(cat, dog)".

    Args:
      pairs: of class numbers, or of `class_names`.
      num_classes: C.
      class_names: of the classes in order; () for their numbers.

    Raises:
      ValueError: for a class that there is not, no pair, or not a name of its own for each class.
    """
    class_names = tuple(class_names)
    names = check_class_names(class_names or range(num_classes), num_classes)
    known: dict[int | str, int] = {name: number for number, name in enumerate(names)}
    known |= {number: number for number in range(num_classes)}
    pairs = list(pairs)
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"pairs of classes must be of two each, such as [(0, 1), (2, 3)]; received {pairs}.")
    wrong = [name for pair in pairs for name in pair if name not in known]
    if wrong:
        raise ValueError(f"pairs of classes: {pairs} names {wrong}; there are {list(class_names) or 'classes'}"
                         f"{', or ' if class_names else ' '}0 … {num_classes - 1}.")
    ordered = [(known[i], known[j]) for a, b in pairs for i, j in ((a, b), (b, a))]
    return {f"Φ({names[i]}, {names[j]})": (i, j) for i, j in ordered}


@gone_afterwards()
def coefficient_image(coefficients: np.ndarray, title: str = "", class_names: Sequence[str] = ()) -> np.ndarray:
    """Φ, [C, C] or its diagonal [C], as an RGB picture, uint8 [height, width, 3]: blue negative, red positive."""
    figure = Figure(figsize=(4, 3.4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    image = _draw_coefficients(figure.subplots(), coefficients, _limit(coefficients), title, class_names)
    figure.colorbar(image)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@gone_afterwards()
def curve_image(curves: Mapping[str, np.ndarray], xlabel: str, ylabel: str, log: bool = False) -> np.ndarray:
    """Curves of [count] numbers, by name, as an RGB picture, uint8 [height, width, 3].

    What is not finite, and with `log`, on a logarithmic scale, what is not positive, is left out. A single curve has no
    legend.
    """
    figure = Figure(figsize=(5, 3), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, found in curves.items():
        values = np.asarray(found, np.float64)
        shown = np.isfinite(values) & ((values > 0) | (not log))
        axes.plot(np.flatnonzero(shown), values[shown], marker="." if len(values) < 50 else None, label=name)
    axes.set_yscale("log" if log else "linear")
    axes.set_xlim(0, max(1, *(len(values) - 1 for values in curves.values())))
    if len(curves) > 1:
        axes.legend(fontsize=7)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def plot_coefficients(matrices: Mapping[str, np.ndarray], path: str | pathlib.Path,
                      class_names: Sequence[str] | None = None) -> pathlib.Path:
    """Several Φ side by side under one colour scale, keyed by title. Returns the written path."""
    figure = Figure(figsize=(3.6 * len(matrices) + 0.6, 3.6), layout="constrained")
    limit = _limit(list(matrices.values()))
    panels = np.atleast_1d(figure.subplots(1, len(matrices)))
    for axes, (title, matrix) in zip(panels, matrices.items(), strict=True):
        image = _draw_coefficients(axes, matrix, limit, title, class_names)
    figure.colorbar(image, ax=list(panels), shrink=0.8)
    return _save(figure, path)


def plot_teacher_curve(steps: Sequence[int], values: Sequence[float], path: str | pathlib.Path,
                       validation: tuple[Sequence[int], Sequence[float]] | None = None,
                       ylabel: str = "dev accuracy of the student, %") -> pathlib.Path:
    """The student's dev measure along teacher optimization, as figure 3 of the L2T-DLF paper."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, values, color="tab:blue", alpha=0.6, label="the step's student")
    if validation is not None:
        axes.plot(*validation, color="tab:red", marker="o", markersize=3, label="students the teacher never saw")
    axes.set_xlabel("teacher optimization step")
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    axes.legend()
    return _save(figure, path)


def plot_curves(curves: Mapping[str, Sequence[tuple[float, float]]], path: str | pathlib.Path, xlabel: str,
                ylabel: str) -> pathlib.Path:
    """Several curves of (x, y) points in one picture, named in its legend; empty ones are left out."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    styles = ("-", "--", ":", "-.")
    for number, (name, points) in enumerate((n, p) for n, p in curves.items() if len(p)):
        axes.plot(*np.transpose(points), label=name, linestyle=styles[number // 10 % len(styles)],
                  marker="." if len(points) < 15 else None)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")
    return _save(figure, path)


def plot_pairs(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], path: str | pathlib.Path
               ) -> pathlib.Path:
    """Coefficients of pairs of classes, [rows, columns], as a heat map with the numbers in it: blue negative, red
    positive. As figure 4 of the L2T-DLF paper: a row is an epoch of the student, a column a pair."""
    figure = Figure(figsize=(1.1 * len(columns) + 2, 0.5 * len(rows) + 1.8), layout="constrained")
    axes = figure.subplots()
    limit = _limit(values)
    image = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=8,
                  color="white" if abs(value) > 0.6 * limit else "black")
    axes.set_xticks(range(len(columns)), columns, fontsize=8, rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_ylabel("epoch")
    figure.colorbar(image)
    return _save(figure, path)


def plot_errors(stats: Mapping[str, tuple[float, float]], path: str | pathlib.Path, xlabel: str) -> pathlib.Path:
    """One point per row, (mean, standard deviation), on a logarithmic scale: rows may differ by a factor of ten."""
    figure = Figure(figsize=(9, 0.3 * len(stats) + 1.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, (mean, std)) in enumerate(stats.items()):
        color = "tab:red" if "taught" in name else "tab:blue"
        axes.errorbar(mean, number, xerr=std, color=color, marker="o", capsize=3)
        axes.annotate(f"{mean:.2f}", (mean + std, number), xytext=(6, 0), textcoords="offset points", va="center",
                      fontsize=8, color=color)
    axes.set_yticks(range(len(stats)), list(stats), fontsize=8)
    axes.invert_yaxis()
    if min(mean for mean, _ in stats.values()) > 0:
        axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel(xlabel)
    axes.grid(alpha=0.3, axis="x", which="both")
    return _save(figure, path)


def _save(figure: Figure, path: str | pathlib.Path) -> pathlib.Path:
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
