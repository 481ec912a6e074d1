"""LSTM-1 by maximum likelihood with Adam: what its paper's SGD needs many epochs for, in a few.

A vocabulary of 4,000 subwords, rate 0.002 falling to 0, dropout.

    python -m trainers.train_student --config configs/translation_lstm1_adam.py --config.data.path=DIR \\
        --workdir runs/lstm1
"""

import ml_collections

from configs import translation_lstm1


def get_config() -> ml_collections.ConfigDict:
    config = translation_lstm1.get_config()
    config.data.vocabulary = 4000
    config.student.options = (("dropout", 0.1),)
    config.training.optimizer = "adam"
    config.training.learning_rate = 0.002
    config.training.decay = "linear"
    config.training.clip_norm = 5.0
    config.training.num_steps = 18_000
    config.training.evaluate_every = 500
    return config
