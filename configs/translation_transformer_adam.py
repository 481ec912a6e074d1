"""The Transformer by maximum likelihood as such networks are usually trained: normalisation before every sublayer,
dropout, Adam with a rate that rises for a tenth of the steps.

The network's sizes are the paper's, text and subwords those of configs/translation_lstm1_adam.py. Halfway
through its training it has 24.8 BLEU, greedy, on the test set of docs/results.md, section Translation.

    python -m trainers.train_student --config configs/translation_transformer_adam.py --config.data.path=DIR \\
        --workdir runs/transformer
"""

import ml_collections

from configs import translation_lstm1_adam


def get_config() -> ml_collections.ConfigDict:
    config = translation_lstm1_adam.get_config()
    config.student.name = "transformer"
    config.student.options = (("dropout", 0.1), ("normalize_first", True))
    config.training.learning_rate = 0.001
    config.training.decay = "cosine:0.1"
    return config
