"""Teachers that come with the package, trained on the embedded digits.

Each stands in a folder beside this file as `export_teacher` wrote it, with its card; `configs/pretrained.py` has the
commands that make them.
"""

from __future__ import annotations

import pathlib

from tf_l2t.export import load_teacher
from tf_l2t.teachers import Teacher

TEACHERS = {
    "clean_digits": "digits with right labels; \"soft\" form",
    "imbalanced_digits": "digits with right labels, of classes whose sizes fall from 337 to 3; \"soft\" form",
    "noisy_digits": "digits of which 40 % carry the next class's label; \"mixture\" form",
}
"""What each is for, by name."""


def pretrained_teacher(name: str) -> Teacher:
    """A trained teacher of the package, as `load_teacher` returns it.

        teacher = tf_l2t.pretrained_teacher("noisy_digits")

    Args:
      name: one of `TEACHERS`.

    Raises:
      ValueError: if there is none of that name.
    """
    if name not in TEACHERS:
        raise ValueError(f"the teachers of the package are {sorted(TEACHERS)}; received {name!r}. For one of your own: "
                         "tf_l2t.load_teacher(directory).")
    return load_teacher(pathlib.Path(__file__).parent / name)
