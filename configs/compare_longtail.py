"""Full MNIST with the MLP, a long tail: class sizes fall from 4,548 digits to 45, 100 to 1; dev and test are balanced.

500 dev digits, 50 a class; the test error is that of 892 digits a class. Students make 2,000 steps, nine times through
the 11,283 train digits, and so do those of the teachers, which start from logit adjustment with labels smoothed towards
the class frequencies. Data and measured figures as in compare_shifted.py.

    python -m trainers.compare --config configs/compare_longtail.py --workdir runs/longtail
"""

import ml_collections

from configs import compare_shifted


def get_config() -> ml_collections.ConfigDict:
    config = compare_shifted.get_config()
    config.data.noise_fraction = 0.0
    config.data.long_tail = 100.0
    config.data.balance = True
    config.teacher.loss = "soft"
    config.teacher.class_counts = True
    config.training.num_steps = 2000
    config.training.learning_rate = 0.2
    config.teacher_training.objective = "calibrated_log_likelihood"
    config.teacher_training.truncate = 600
    config.teacher_training.steps = 20
    config.teacher_training.validation_freq = 5
    config.compare.setting = "longtail100"
    config.compare.dev_sizes = (500,)
    config.compare.selection_seeds = 3
    config.compare.num_folds = 3
    config.compare.evaluate_every = 200
    config.compare.rows = (
        "cross_entropy", "smooth", "large_margin", "label_smoothing", "focal", "class_balanced", "logit_adjustment",
        "untaught", "taught", "dev_only", "train_dev", "train_tuned", "class_balanced_tuned", "logit_adjustment_tuned",
        "reweight", "reweight_tuned", "meta_weight_net", "meta_weight_net_tuned", "taught_tuned")
    return config
