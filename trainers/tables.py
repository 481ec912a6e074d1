"""Makes the tables of measured figures in README.md and docs/ anew from docs/measured/.

    python -m trainers.tables
"""

from __future__ import annotations

import pathlib

from benchmarks.tables import TABLES
from tf_l2t.training.measured import fill_tables

ROOT = pathlib.Path(__file__).parent.parent


def documents() -> list[pathlib.Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


if __name__ == "__main__":
    for document in documents():
        document.write_text(fill_tables(document.read_text(), ROOT / "docs" / "measured", TABLES))
