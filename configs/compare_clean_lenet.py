"""Full MNIST with LeNet and true labels: the other half of Table 1 of the L2T-DLF paper.

50,000 digits for training, 10,000 for dev, the 10,000 test digits. Quoted from the paper (Table 1): cross entropy 0.98
%, smooth 0.94 %, large-margin 0.88 %, taught 0.77 %. Cut to what 2 cores can do: 3 epochs, 3,000 steps of 50, where the
paper's students are trained to the end; `--config.training.num_steps=20000` is the full run. The teachers see runs of
the full length. A student takes 44 seconds on a core, a teacher 20 minutes: with some 110 students, large margin's 95
and 5 teachers about four and a half hours on one core, the full run a day and a half.

    python -m trainers.compare --config configs/compare_clean_lenet.py --workdir runs/clean_lenet
"""

import ml_collections

from configs import compare_clean


def get_config() -> ml_collections.ConfigDict:
    config = compare_clean.get_config()
    config.student.name = "lenet"
    config.training.num_steps = 3000
    config.training.learning_rate = 0.03
    config.teacher_training.truncate = 600
    config.compare.learning_rates = (0.001, 0.003, 0.01, 0.03, 0.1)
    config.compare.evaluate_every = 1000
    return config
