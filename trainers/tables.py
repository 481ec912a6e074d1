"""Makes the tables of measured figures in README.md and docs/ anew from docs/measured/.

    python -m trainers.tables
"""

from __future__ import annotations

import functools
import pathlib
from typing import Any

from benchmarks.example import example_sentence
from benchmarks.tables import TABLES as ENGINE_TABLES
from tf_l2t.training.measured import ablation_table, error_table, fill_tables, ratio_table, summary_table
from trainers.distill_table import distillation_table
from trainers.translation_table import translation_table

ROOT = pathlib.Path(__file__).parent.parent
SETTINGS = ("clean", "shifted40", "uniform40", "longtail100", "demo_shifted40", "transfer_5T", "transfer_width",
            "transfer_lenet", "transfer_lenet_slow", "resnet8_mnist")
DISTILLATION_TASKS = ("mnist_10k", "mnist_10k_longer", "mnist_10k_early_teacher", "movie_reviews",
                      "movie_reviews_longer")
TABLES: dict[str, Any] = {
    **ENGINE_TABLES, "mnist summary": summary_table, "mnist ratios": ratio_table, "ablation": ablation_table,
    "example": example_sentence,
    "translation": functools.partial(translation_table, data="de-en"),
    **{f"distillation {task}": functools.partial(distillation_table, task=task) for task in DISTILLATION_TASKS},
    "pretrained": error_table,
    **{f"mnist {name}": functools.partial(error_table, setting=name) for name in SETTINGS}}


def documents() -> list[pathlib.Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
            *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]


if __name__ == "__main__":
    for document in documents():
        document.write_text(fill_tables(document.read_text(), ROOT / "docs" / "measured", TABLES))
