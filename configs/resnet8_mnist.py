"""ResNet-8 on MNIST made like CIFAR (32 x 32 x 3), with augmentation: a check of the whole image pipeline on real data.

No figure of the paper is for this. 50,000 digits for training, 10,000 for dev, the 10,000 test digits; runs of 1,000
steps of 50, one epoch, with rate drops; crops of mirrored digits, no flips. The teacher sees runs of 300 steps, and its
students run for 1,000. On a core, twelve minutes for the teacher and a minute and a half for each of 36 students. The
measured figures stand in docs/results.md.

    python -m trainers.compare --config configs/resnet8_mnist.py --workdir runs/resnet8_mnist --config.data.path=PATH
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.compare.pairs = base.DIGIT_PAIRS
    config.data.name = "mnist"
    config.data.path = "data/mnist.npz"
    config.data.dev_size = 10_000
    config.data.like_cifar = True
    config.data.recipe = "digits"
    config.student.name = "resnet8"
    config.training.num_steps = 1000
    config.training.decay = "drops:0.5,0.75"
    config.features.refresh_every = 50
    config.teacher.loss = "soft"
    outer = config.teacher_training
    outer.num_steps = 300
    outer.truncate = 150
    outer.steps = 12
    outer.objective = "calibrated_log_likelihood"
    outer.learning_rate = 0.003
    outer.penalty = 0.001
    outer.validation_freq = 4
    config.compare.setting = "resnet8_mnist"
    config.compare.num_teachers = 1
    config.compare.rows = ("cross_entropy", "label_smoothing", "untaught", "taught")
    config.compare.learning_rates = (0.1, 0.2, 0.5)
    config.compare.evaluate_every = 250
    return config
