"""The demo: a teacher for students that learn digits of which 40 % carry the next digit's label.

Embedded MNIST digits: 3,500 for training (noisy), 500 for dev (clean), 1,000 for test. The recipe: the mixture form of
the loss, which can doubt a label; the dev log-likelihood as the teacher's objective; Adam with a cosine decay, and the
damping that few dev examples want; sweeps back through the last 60 % of a student's run. `make demo` runs it whole in
about 5 minutes on 2 cores and prints its figures; the rows `demo_shifted40` of docs/results.md are those of one run.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.compare.pairs = base.DIGIT_PAIRS
    config.data.noise_fraction = 0.4
    config.teacher_training.truncate = 180
    config.compare.setting = "demo_shifted40"
    return config
