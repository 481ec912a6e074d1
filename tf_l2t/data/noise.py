"""Wrong labels, made on purpose and recorded."""

from __future__ import annotations

import numpy as np

from tf_l2t.data.splits import Splits


def shift_labels(splits: Splits, fraction: float, seed: int = 0) -> Splits:
    """The same splits with a fraction of the TRAIN labels moved to the next class, y → (y + 1) mod C.

    Dev and test stay clean. Exactly round(fraction · n) labels, drawn by `seed`, are changed.

    Raises:
      ValueError: if `fraction` is not in [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"the fraction of shifted labels must be in [0, 1]; received {fraction!r}.")
    labels = splits.train.y.copy()
    count = round(fraction * len(labels))
    chosen = np.random.default_rng(seed).permutation(len(labels))[:count]
    labels[chosen] = (labels[chosen] + 1) % splits.num_classes
    about = {**splits.about, "noise": "shift", "noise_fraction": fraction, "noise_seed": seed}
    return splits._replace(train=splits.train._replace(y=labels), about=about)
