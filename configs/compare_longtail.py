"""Full MNIST with the MLP, a long tail: class sizes fall from 4,5xx digits to 4x, 100 to 1; dev and test are balanced.

500 dev digits, 50 a class; the test error is that of 892 digits a class. Data and measured figures as in
compare_shifted.py.

    python -m trainers.compare --config configs/compare_longtail.py --workdir runs/longtail
"""

import ml_collections

from configs import compare_shifted


def get_config() -> ml_collections.ConfigDict:
    config = compare_shifted.get_config()
    config.data.noise_fraction = 0.0
    config.data.long_tail = 100.0
    config.data.balance = True
    config.teacher.loss = "stable"
    config.compare.setting = "longtail100"
    config.compare.dev_sizes = (500,)
    config.compare.rows = (
        "cross_entropy", "smooth", "large_margin", "label_smoothing", "focal", "class_balanced", "logit_adjustment",
        "taught", "dev_only", "train_dev", "train_tuned", "class_balanced_tuned", "logit_adjustment_tuned", "reweight",
        "reweight_tuned", "meta_weight_net", "meta_weight_net_tuned", "taught_tuned")
    return config
