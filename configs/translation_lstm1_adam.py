"""LSTM-1 by maximum likelihood with Adam: what its paper's SGD needs many epochs for, in a few; and a teacher that can
move its students.

A vocabulary of 4,000 subwords, rate 0.002 falling to 0, dropout. The teacher's loss is the paper's; but a rate of 1e-4
moves Φ by half a percent in 50 steps, and this one moves it by half in a few.

    python -m trainers.train_student --config configs/translation_lstm1_adam.py --config.data.path=DIR \\
        --workdir runs/lstm1
"""

import ml_collections

from configs import translation_lstm1


def get_config() -> ml_collections.ConfigDict:
    config = translation_lstm1.get_config()
    config.data.vocabulary = 4000
    config.data.max_length = 50
    config.student.options = (("dropout", 0.1),)
    config.training.optimizer = "adam"
    config.training.learning_rate = 0.002
    config.training.decay = "linear"
    config.training.clip_norm = 5.0
    config.training.num_steps = 18_000
    config.training.evaluate_every = 500
    config.teacher.name = "shared_diagonal"
    outer = config.teacher_training
    outer.objective = "log_sharp_expected_bleu"
    outer.judge = "measure"
    outer.dev_size = 0
    outer.learning_rate = 0.1
    outer.epsilon = 1e-5
    outer.decay = "cosine"
    outer.steps = 15
    outer.validation_rollouts = 1
    return config
