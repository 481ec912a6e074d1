"""Runs of a table whose students diverged: noted in their directories, and not made again."""

from __future__ import annotations

import pathlib

from absl import logging

from tf_l2t.training import StudentDivergedError
from tf_l2t.training.workdir import read_sealed, write_sealed

FILE = "diverged.json"


def note(folder: pathlib.Path, error: StudentDivergedError) -> None:
    """Writes down that the run in `folder` ended so, and warns of it."""
    logging.warning("%s", error)
    write_sealed(folder / FILE, {"said": str(error)})


def noted(folder: pathlib.Path) -> bool:
    """Whether the run in `folder` has ended so; then it is warned of."""
    known = read_sealed(folder / FILE)
    if known:
        logging.warning("%s", known["said"])
    return known is not None
