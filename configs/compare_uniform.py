"""Full MNIST with the MLP, 40 % of the train labels replaced by another class, ten epochs: every way in one table.

50,000 digits for training, ten times over: cross entropy begins to learn wrong labels by heart; 500, 1,000 and 2,000
clean dev digits. The teachers see shorter runs, ten epochs of 10,000 of the digits; the table's students are five times
as long. Data and measured figures as in compare_shifted.py.

    python -m trainers.compare --config configs/compare_uniform.py --workdir runs/uniform
"""

import ml_collections

from configs import compare_shifted


def get_config() -> ml_collections.ConfigDict:
    config = compare_shifted.get_config()
    config.data.noise = "uniform"
    config.training.num_steps = 10_000
    config.training.learning_rate = 0.2
    config.teacher_training.num_steps = 2000
    config.teacher_training.train_size = 10_000
    config.teacher_training.truncate = 1200
    config.teacher_training.steps = 50
    config.teacher_training.learning_rate = 0.03
    config.compare.setting = "uniform40"
    config.compare.learning_rates = (0.03, 0.1, 0.2)
    config.compare.selection_seeds = 2
    config.compare.num_folds = 2
    config.compare.evaluate_every = 1000
    # Left to the other tables for their cost at this length: Meta-Weight-Net, whose steps cost four, and large-margin
    # softmax with its nine variants.
    config.compare.rows = (
        "cross_entropy", "smooth", "label_smoothing", "focal", "generalised_cross_entropy", "symmetric_cross_entropy",
        "taught", "taught_tuned", "dev_only", "train_dev", "train_tuned", "gold_correction", "gold_correction_tuned",
        "oracle_forward", "oracle_forward_tuned", "oracle_clean", "reweight", "reweight_tuned")
    return config
