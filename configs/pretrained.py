"""The teachers that come with the package, `tf_l2t.pretrained_teacher`: each on the embedded digits, in minutes.

    python -m trainers.train_teacher --config configs/pretrained.py:noisy_digits --workdir runs/noisy_digits
    python -m trainers.compare --config configs/pretrained.py:noisy_digits --workdir runs/noisy_digits_table \\
        --config.compare.teacher=runs/noisy_digits/teacher

runs/NAME/teacher is tf_l2t/pretrained/NAME. "noisy_digits" is the demo's; "clean_digits" is for right labels, and
"imbalanced_digits" for class sizes that fall from 337 to 3, by labels that are right.
"""

import ml_collections

from configs import demo


def get_config(name: str = "noisy_digits") -> ml_collections.ConfigDict:
    if name not in ("noisy_digits", "clean_digits", "imbalanced_digits"):
        raise ValueError("the teachers are 'noisy_digits', 'clean_digits' and 'imbalanced_digits'; received "
                         f"{name!r}.")
    config = demo.get_config()
    if name != "noisy_digits":  # as in compare_clean.py and compare_longtail.py
        config.data.noise_fraction = 0.0
        config.teacher.loss = "soft"
        config.teacher_training.objective = "calibrated_log_likelihood"
        config.compare.rows = ("cross_entropy", "untaught", "taught")
    if name == "clean_digits":
        config.teacher_training.penalty = 0.001
        config.teacher_training.learning_rate = 0.003
        config.teacher_training.steps = 40
    if name == "imbalanced_digits":
        config.data.long_tail = 100.0
        config.teacher.class_counts = True
        config.teacher_training.steps = 40
    config.compare.setting = name
    return config
