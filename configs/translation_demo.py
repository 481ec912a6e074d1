"""Translation on embedded text, in minutes: LibreOffice help, 5,000 pairs, a small LSTM.

Enough to see every part run, not to translate well. First a student by maximum likelihood, then a teacher that begins
with it:

    python -m trainers.train_student --config configs/translation_demo.py --workdir runs/mle
    python -m trainers.train_teacher --config configs/translation_demo.py --workdir runs/teacher \\
        --config.training.start=runs/mle/best
"""

import ml_collections

from configs import translation_lstm1_adam


def get_config() -> ml_collections.ConfigDict:
    config = translation_lstm1_adam.get_config()
    config.data.name = "libreoffice_help"
    config.data.vocabulary = 1000
    config.data.max_length = 40
    config.student.options = (("units", 128),)
    config.training.num_steps = 600
    config.training.evaluate_every = 200
    config.training.dev_sample_size = 200
    config.teacher.name = "diagonal"
    config.teacher.loss = "stable"  # the paper's form, at Φ = 1, teaches a student that knows so little nearly nothing
    config.teacher_training.steps = 5
    config.teacher_training.num_steps = 40
    config.teacher_training.dev_size = 100
    config.teacher_training.learning_rate = 0.003
    config.teacher_training.epsilon = 1e-8
    config.teacher_training.decay = "constant"
    config.teacher_training.objective = "log_expected_bleu"
    config.teacher_training.judge = "objective"
    config.teacher_training.validation_rollouts = 2
    return config
