"""docs/engine.png from docs/measured/engine.json: time per step and peak memory against T.

    python -m benchmarks.plot
"""

from __future__ import annotations

import pathlib
from typing import Any

from benchmarks.tables import MEMORY_STEPS, setting_name
from tf_l2t.training.measured import read

ROOT = pathlib.Path(__file__).parent.parent
STYLES = {"tf_l2t": "-", "jax": "--", "torchopt": ":", "higher": "-."}


def lines(rows: list[dict[str, Any]], field: str) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(library, setting) -> the measured (T, value) of the sweep over T."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in sorted(rows, key=lambda row: row["steps"]):
        if row["student"] == "mlp" and row["steps"] in MEMORY_STEPS and row.get(field) is not None:
            found.setdefault((row["library"], setting_name(row)), []).append((row["steps"], row[field]))
    return found


def draw(rows: list[dict[str, Any]], path: str | pathlib.Path) -> None:
    """Writes the picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.2), layout="constrained")
    for axes, field, label in zip(figure.subplots(1, 2), ("ms_per_step", "peak_mb"),
                                  ("ms per student step, with the teacher's gradient", "peak memory above base, MB"),
                                  strict=True):
        for i, ((library, name), points) in enumerate(lines(rows, field).items()):
            axes.plot(*zip(*points, strict=True), STYLES[library], marker="o", markersize=3, color=f"C{i % 10}",
                      label=name)
        axes.set(xscale="log", yscale="log", xlabel="T, student steps", title=label)
        axes.grid(True, which="both", alpha=0.2)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(read(ROOT / "docs" / "measured" / "engine.json"), ROOT / "docs" / "engine.png")
