"""Full MNIST with the MLP, 40 % of the train labels moved to the next class: every way of training in one table.

50,000 digits for training; 500, 1,000 and 2,000 clean dev digits, nested, beside the same train digits; the 10,000
test digits. Every student makes 500 steps of 50 at a rate of its own, chosen on dev; 5 teachers for each dev size, 5
students of each. Data: MNIST as data/mnist.npz, or --config.data.path=…. The measured figures stand in docs/results.md.

    python -m trainers.compare --config configs/compare_shifted.py --workdir runs/shifted
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.compare.pairs = base.DIGIT_PAIRS
    config.data.name = "mnist"
    config.data.path = "data/mnist.npz"
    config.data.train_size = 50_000
    config.data.noise_fraction = 0.4
    config.training.num_steps = 500
    config.training.learning_rate = 0.2
    config.teacher_training.truncate = 300
    config.teacher_training.hvp = "saved_residuals"
    config.teacher_training.validation_freq = 10
    config.compare.setting = "shifted40"
    config.compare.learning_rates = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3)
    config.compare.seeds = 5
    config.compare.selection_seeds = 5
    config.compare.num_teachers = 5
    config.compare.dev_sizes = (500, 1000, 2000)
    config.compare.rows = (
        "cross_entropy", "smooth", "large_margin", "label_smoothing", "focal", "generalised_cross_entropy",
        "symmetric_cross_entropy", "taught", "dev_only", "train_dev", "train_tuned", "gold_correction",
        "gold_correction_tuned", "reweight", "reweight_tuned", "meta_weight_net", "meta_weight_net_tuned",
        "taught_tuned", "oracle_forward", "oracle_forward_tuned", "oracle_clean")
    return config
