"""Full MNIST with the MLP, 40 % of the train labels moved to the next class, a clean dev set.

58,000 digits for training, 2,000 for dev, the 10,000 test digits. The recipe of the demo at a
longer horizon. Data: MNIST as data/mnist.npz, or --config.data.path=…. The measured figures stand in docs/results.md.
"""

import ml_collections

from configs import mnist_mlp


def get_config() -> ml_collections.ConfigDict:
    config = mnist_mlp.get_config()
    config.data.dev_size = 2000
    config.data.noise_fraction = 0.4
    config.training.num_steps = 500
    config.training.batch_size = 50
    config.training.learning_rate = 0.1
    config.training.decay = "linear"
    config.features.refresh_every = 20
    config.teacher_training.steps = 80
    config.teacher_training.learning_rate = 0.002
    config.teacher_training.decay = "cosine"
    config.teacher_training.clip_norm = 1.0
    config.compare.setting = "shifted40"
    config.compare.rows = ("cross_entropy", "dev_only", "train_tuned", "taught", "taught_tuned")
    config.compare.evaluate_every = 50
    config.compare.seeds = 5
    return config
