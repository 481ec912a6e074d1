"""The Transformer of the L2T-DLF paper, 6 + 6 layers of width 256, by maximum likelihood as the paper says that it
trains it: plain SGD, rate 0.1, batches of 32.

Quoted from the paper (Table 3, IWSLT-14 German–English): cross entropy 34.01 BLEU, taught 34.80. With the usual
training of such networks: configs/translation_transformer_adam.py.

    python -m trainers.train_student --config configs/translation_transformer.py --config.data.path=DIR \\
        --workdir runs/transformer
"""

import ml_collections

from configs import translation_base


def get_config() -> ml_collections.ConfigDict:
    config = translation_base.get_config()
    config.student.name = "transformer"
    return config
