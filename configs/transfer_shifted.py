"""A teacher of compare_shifted.py, trained with the MLP at 500 steps, with students of another kind.

Rivals are trained anew for the other students; the teacher is not. It is the first of the table with 500 dev digits.
Data and measured figures as in compare_shifted.py.

    python -m trainers.compare --config configs/compare_shifted.py --workdir runs/shifted500 \\
        "--config.compare.dev_sizes=(500,)"
    python -m trainers.compare --config configs/transfer_shifted.py --workdir runs/5T \\
        --config.compare.setting=transfer_5T --config.training.num_steps=2500
    python -m trainers.compare --config configs/transfer_shifted.py --workdir runs/width \\
        --config.compare.setting=transfer_width --config.student.hidden=100
    python -m trainers.compare --config configs/transfer_shifted.py --workdir runs/lenet \\
        --config.compare.setting=transfer_lenet --config.student.name=lenet \\
        --config.compare.selection_seeds=5 --config.compare.seeds=5
"""

import ml_collections

from configs import compare_shifted


def get_config() -> ml_collections.ConfigDict:
    config = compare_shifted.get_config()
    config.compare.num_teachers = 0
    config.compare.teacher = "runs/shifted500/dev500/teachers/0/teacher"
    config.compare.dev_sizes = ()
    config.compare.rows = ("cross_entropy", "taught", "train_tuned", "gold_correction", "taught_tuned")
    config.compare.learning_rates = (0.01, 0.03, 0.1, 0.2)
    config.compare.tune_rates = (0.003, 0.01, 0.03, 0.1)
    config.compare.selection_seeds = 2
    config.compare.num_folds = 2
    config.compare.seeds = 3
    return config
