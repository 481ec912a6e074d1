"""A text student by one method on sentences of movie reviews: bi-LSTM, taught by a pre-trained 6-layer encoder.

DIR holds train.tsv, valid.tsv and test.tsv; ENCODER a BERT encoder, in Hugging Face's format or as a Keras preset.

    python -m trainers.distill --config configs/distill_text.py \\
        --config.data.path=DIR --config.encoder=ENCODER --workdir runs/teacher \\
        --config.method.name=none --config.student.name=bert \\
        --config.training.learning_rate=5e-5 --config.training.anchors=4
    python -m trainers.distill --config configs/distill_text.py \\
        --config.data.path=DIR --config.encoder=ENCODER --workdir runs/kl --config.teacher.path=runs/teacher
    python -m trainers.distill --config configs/distill_text.py \\
        --config.data.path=DIR --config.encoder=ENCODER --workdir runs/prokt --config.method.name=prokt
"""

import ml_collections

from configs import distill_text_base


def get_config() -> ml_collections.ConfigDict:
    config = distill_text_base.get_config()
    config.data.length = 40  # nine of ten sentences have up to 42 word pieces
    config.training.num_steps = 472  # 2 epochs, and 8 looks: two for each of four anchors
    config.training.first_steps = 118
    config.training.evaluate_every = 59
    config.teacher_training.learning_rate = 5e-5
    return config
