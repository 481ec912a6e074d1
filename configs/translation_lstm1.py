"""LSTM-1 of the L2T-DLF paper, by maximum likelihood, as the paper trains it: plain SGD, rate 0.1, batches of 32, with
the gradient's norm clipped to 1.

Quoted from the paper (Table 3, IWSLT-14 German–English): cross entropy 27.28 BLEU, taught 29.52. On other text, give
its folder as --config.data.path. What trains faster on two cores is configs/translation_lstm1_adam.py.

    python -m trainers.train_student --config configs/translation_lstm1.py --config.data.path=DIR --workdir runs/lstm1
"""

import ml_collections

from configs import translation_base


def get_config() -> ml_collections.ConfigDict:
    return translation_base.get_config()
