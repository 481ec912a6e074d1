"""LSTM-2 of the L2T-DLF paper, two layers a side, by maximum likelihood as the paper trains it: plain SGD, rate 0.1,
batches of 32.

Quoted from the paper (Table 3, IWSLT-14 German–English): cross entropy 30.86 BLEU, taught 31.75. On other text, give
its folder as --config.data.path.

    python -m trainers.train_student --config configs/translation_lstm2.py --config.data.path=DIR --workdir runs/lstm2
"""

import ml_collections

from configs import translation_base


def get_config() -> ml_collections.ConfigDict:
    config = translation_base.get_config()
    config.student.name = "lstm2"
    return config
