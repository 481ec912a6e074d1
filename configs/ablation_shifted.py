"""What of the teacher earns its place: variants of compare_shifted.py at 500 dev digits, one teacher each.

The row "as it is" is the recipe of the table; every other row changes what it names and nothing else. Some four minutes
each on a core. Data and measured figures as in compare_shifted.py.

    python -m trainers.ablate --config configs/ablation_shifted.py --workdir runs/ablation
"""

import ml_collections

from configs import compare_shifted

VARIANTS = (
    ("as it is", ()),
    ("penalty: none", (("teacher_training.penalty", 0.0),)),
    ("sweep: the whole run", (("teacher_training.truncate", 0),)),
    ("Adam's epsilon: 1e-8", (("teacher_training.damping", 0.0),)),
    ("penalty: threefold", (("teacher_training.penalty", 0.012),)),
    ("loss: stable", (("teacher.loss", "stable"), ("teacher_training.learning_rate", 0.002),
                      ("teacher_training.damping", 0.0), ("teacher_training.penalty", 0.0))),
    ("objective: relaxed accuracy", (("teacher_training.objective", "relaxed_accuracy"),)),
    ("teacher: static", (("teacher.name", "static"),)),
    ("features: t/T only", (("teacher.ignored", ("train_accuracy", "dev_accuracy", "dev_precision")),)),
    ("horizon: 100, used at 500", (("teacher_training.num_steps", 100), ("teacher_training.truncate", 60))),
    ("rollouts: 4, a quarter of the steps", (("teacher_training.rollouts", 4), ("teacher_training.steps", 20))),
    ("loss: the paper's", (("teacher.loss", "paper"), ("teacher_training.learning_rate", 0.02),
                           ("teacher_training.damping", 0.0), ("teacher_training.penalty", 0.0))),
    ("loss: soft", (("teacher.loss", "soft"), ("teacher_training.objective", "calibrated_log_likelihood"))),
    ("teacher: MLP", (("teacher.name", "mlp"),)),
    ("teacher: diagonal", (("teacher.name", "diagonal"),)),
    ("keys: 1", (("teacher.num_keys", 1),)),
    ("keys: 3", (("teacher.num_keys", 3),)),
    ("keys: 30", (("teacher.num_keys", 30),)),
    ("features: no precisions", (("teacher.ignored", ("dev_precision",)),)),
    ("horizon: 250, used at 500", (("teacher_training.num_steps", 250), ("teacher_training.truncate", 150))),
    ("horizon: 100, then 500 for half the steps", (("teacher_training.curriculum", ((100, 80),)),
                                                   ("teacher_training.steps", 40))),
    ("sweep: the last 100 steps", (("teacher_training.truncate", 100),)),
    ("rate: constant", (("teacher_training.decay", "constant"),)),
    ("rate: a third", (("teacher_training.learning_rate", 0.0033),)),
    ("rate: threefold", (("teacher_training.learning_rate", 0.03),)),
    ("rate: threefold, with rollback", (("teacher_training.learning_rate", 0.03), ("teacher_training.rollback", 0.05),
                                        ("teacher_training.validation_freq", 5))),
)


def get_config() -> ml_collections.ConfigDict:
    config = compare_shifted.get_config()
    config.ablation = VARIANTS
    config.compare.setting = "shifted40"
    config.compare.num_teachers = 1
    config.compare.dev_sizes = ()
    config.compare.rows = ("taught",)
    return config
