"""Rows of docs/measured/distillation.json, and the table made from them."""

from __future__ import annotations

from typing import Any

KEY = ("task", "teacher", "student", "method")


def distillation_table(rows: list[dict[str, Any]], task: str) -> str:
    """Test accuracy in % of every method and student on `task`: after the last step, and of the weights that were best
    on dev, mean ± standard deviation over seeds; then the fastest look's milliseconds a step."""
    rows = [row for row in rows if row["task"] == task]
    if not rows:
        return "No figures yet."
    students = list(dict.fromkeys(row["student"] for row in rows))
    found = {(row["method"], row["student"]): row for row in rows}
    lines = [f"| method | {' | '.join(f'{s}: last | best on dev | ms / step' for s in students)} | seeds |",
             "|---" * (3 * len(students) + 2) + "|"]
    for method in dict.fromkeys(row["method"] for row in rows):
        cells, seeds = [], set()
        for student in students:
            row = found.get((method, student))
            if row is None:
                cells += ["–"] * 3
                continue
            seeds.add(row["seeds"])
            cells += [_figure(row, "test_accuracy"), _figure(row, "best_test_accuracy"), f"{row['ms_per_step']:.0f}"]
        lines.append(f"| {method} | {' | '.join(cells)} | {', '.join(map(str, sorted(seeds)))} |")
    return "\n".join(lines)


def _figure(row: dict[str, Any], name: str) -> str:
    return f"{row[f'{name}_mean']:.2f} ± {row[f'{name}_std']:.2f}"
