"""Full MNIST with the MLP and true labels: Table 1 of the L2T-DLF paper, and the fixed losses that it does not have.

50,000 digits for training, 10,000 for dev, the 10,000 test digits; ten epochs, 10,000 steps of 50, at a rate of each
row's own. Quoted from the paper (Table 1): cross entropy 1.94 %, smooth 1.89 %, large-margin 1.83 %, taught 1.69 %.
The teachers see runs of the full length: what a short run on few digits wants of smoothing is more than a long one on
many does. Data and measured figures as in compare_shifted.py. Some 120 students of 12 seconds each and 5 teachers of 8
minutes on a core, and large margin's 110 of 18 seconds: two hours in all on one core.

    python -m trainers.compare --config configs/compare_clean.py --workdir runs/clean
"""

import ml_collections

from configs import compare_shifted


def get_config() -> ml_collections.ConfigDict:
    config = compare_shifted.get_config()
    config.data.noise_fraction = 0.0
    config.training.num_steps = 10_000
    config.training.learning_rate = 0.1
    config.teacher.loss = "soft"
    config.teacher_training.objective = "calibrated_log_likelihood"
    config.teacher_training.penalty = 0.001
    config.teacher_training.learning_rate = 0.003
    config.teacher_training.truncate = 2000
    config.teacher_training.steps = 12
    config.teacher_training.validation_freq = 4
    config.compare.setting = "clean"
    config.compare.dev_sizes = (10_000,)
    config.compare.learning_rates = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2)
    config.compare.selection_seeds = 2
    config.compare.evaluate_every = 1000
    config.compare.rows = ("cross_entropy", "smooth", "label_smoothing", "focal", "untaught", "taught", "large_margin")
    return config
