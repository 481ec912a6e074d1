"""What README's example gives: test digits that its student gets right, and the same student by cross entropy.

    python -m benchmarks.example

Runs the code as it stands there, five times from other seeds, and records in docs/measured/example.json.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
KEY = ("loss",)


def example() -> str:
    """The code of README's first Python block."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert found, "README.md has no Python code"
    return found[1]


def run(code: str) -> dict[str, Any]:
    """What its names are bound to after it has run."""
    names: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        exec(compile(code.replace("runs/", f"{folder}/"), "README.md", "exec"), names)
    return names


def example_sentence(rows: list[dict[str, Any]]) -> str:
    """What README says of its example."""
    if not rows:
        return "No figures yet."
    found = {row["loss"]: f"{row['accuracy_mean']:.3f} ± {row['accuracy_std']:.3f}" for row in rows}
    seconds = max(row["seconds"] for row in rows)
    return (f"After {seconds:.0f} seconds on 2 cores {found['taught']} of the test digits are right; the same student\n"
            f"by cross entropy has {found['cross_entropy']} (`python -m benchmarks.example`).")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.example", description="README's example.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", default=str(ROOT / "docs" / "measured" / "example.json"))
    chosen = parser.parse_args()
    import keras
    import numpy as np

    from tf_l2t.training.measured import record
    from trainers.command import command_line

    accuracies: dict[str, list[float]] = {"taught": [], "cross_entropy": []}
    seconds = []
    for seed in range(chosen.runs):
        keras.utils.set_random_seed(seed)
        started = time.perf_counter()
        names = run(example())
        seconds.append(time.perf_counter() - started)
        plain = names["student_fn"]()
        plain.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        plain.fit(*names["train"], batch_size=20, epochs=2, verbose=0)
        for loss, model in (("taught", names["student"]), ("cross_entropy", plain)):
            accuracies[loss].append(model.evaluate(*names["test"], verbose=0)[1])
        print({loss: values[-1] for loss, values in accuracies.items()}, flush=True)
    record(chosen.output, [{"loss": loss, "accuracy_mean": round(float(np.mean(values)), 4),
                            "accuracy_std": round(float(np.std(values, ddof=1)), 4), "runs": chosen.runs,
                            "seconds": round(float(np.median(seconds)), 1), "command": command_line().strip()}
                           for loss, values in accuracies.items()], KEY)


if __name__ == "__main__":
    main()
