"""Rows of docs/measured/distillation.json, and the table made from them."""

from __future__ import annotations

from typing import Any

from tf_l2t.training.results import plus_minus

KEY = ("task", "teacher", "student", "method")
TEACHER = "teacher"  # in the place of a method: the row of the teacher, trained by itself


def distillation_table(rows: list[dict[str, Any]], task: str) -> str:
    """Test accuracy in % of every method and student on `task`: after the last step, and of the weights that were best
    on dev, mean ± standard deviation over seeds; then milliseconds a step, the fastest look's or, where it was measured
    afterwards (`benchmarks.distillation_steps`), the fastest step's. Between them F1 and the figures of further tests,
    after the last step, where a task has them, and last the learning rate, where a student's are chosen on dev. The
    teacher's, trained by itself, stand below."""
    rows = [row for row in rows if row["task"] == task]
    teachers = [row for row in rows if row["method"] == TEACHER]
    rows = [row for row in rows if row["method"] != TEACHER]
    if not rows:
        return "No figures yet."
    students = list(dict.fromkeys(row["student"] for row in rows))
    found = {(row["method"], row["student"]): row for row in rows}
    further = tuple(rows[0].get("further", ()))
    columns = {student: ("last", *further, "best on dev", "ms / step") for student in students}
    for student in dict.fromkeys(row["student"] for row in rows if "by_rate" in row):
        columns[student] += ("rate",)
    names = [f"{student}: {' | '.join(columns[student])}" for student in students]
    lines = [f"| method | {' | '.join(names)} | seeds |",
             "|---" * (sum(len(columns[student]) for student in students) + 2) + "|"]
    for method in dict.fromkeys(row["method"] for row in rows):
        cells, seeds = [], set[str]()
        for student in students:
            row = found.get((method, student))
            if row is None:
                cells += ["–"] * len(columns[student])
                continue
            seeds.add(f"{row['seeds']}" + (f" ({row['diverged']} diverged)" if "diverged" in row else ""))
            parts = [(row[f"{name}_mean"], row[f"{name}_std"]) for name in ("test_accuracy", "best_test_accuracy")]
            parts[1:1] = [(row["further"][name]["mean"], row["further"][name]["std"]) for name in further]
            cells += [plus_minus(mean, std, row["seeds"]) for mean, std in parts]
            cells.append(f"{row['ms_per_step']:.0f}")
            if "rate" in columns[student]:
                cells.append(f"{row['learning_rate']:g}")
        lines.append(f"| {method} | {' | '.join(cells)} | {', '.join(sorted(seeds))} |")
    lines += [f"\nThe teacher, {row['teacher']}: {row['test_accuracy_mean']:.2f} after its last step, "
              f"{row['best_test_accuracy_mean']:.2f} best on dev; {row['ms_per_step']:.0f} ms a step."
              for row in teachers]
    return "\n".join(lines)
