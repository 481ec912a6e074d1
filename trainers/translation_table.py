"""Rows of docs/measured/translation.json, and the table made from them."""

from __future__ import annotations

from typing import Any

from tf_l2t.training.results import plus_minus

KEY = ("data", "student", "loss", "seeds")
COLUMNS = {"dev": "bleu_dev", "test, greedy": "bleu_greedy", "beam": "bleu_beam{}", "beam, tokens in lower case":
           "tokenized_lower_beam{}", "last weights, greedy": "bleu_last_greedy"}
SPEEDS = {"training": "tokens_per_second", "greedy": "greedy_tokens_per_second", "beam": "beam{}_tokens_per_second"}


def translation_table(rows: list[dict[str, Any]], data: str) -> str:
    """BLEU of every student and loss on `data`, mean ± standard deviation over seeds where there are several, in the
    order of the rows. A dash is the speed of what was not trained for its row."""
    rows = [row for row in rows if row["data"] == data]
    if not rows:
        return "No figures yet."
    heads = ["student", "loss", "rate", *COLUMNS, "seeds", "tokens / s: " + ", ".join(SPEEDS)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        beam = row["beam_size"]
        figures = [plus_minus(row[f"{name}_mean"], row[f"{name}_std"], row["seeds"])
                   for name in (name.format(beam) for name in COLUMNS.values())]
        speeds = ", ".join(f"{row[name.format(beam)]:,}" if row[name.format(beam)] else "–" for name in
                           SPEEDS.values())
        seeds = f"{row['seeds']}" + (f" ({row['diverged']} diverged)" if row.get("diverged") else "")
        cells = [row["student"], row["loss"], f"{row['learning_rate']:g}", *figures, seeds, speeds]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
