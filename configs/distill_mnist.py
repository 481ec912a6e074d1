"""Every method of ProKT's Tables 1 and 3 on full MNIST at 32 × 32, 10,000 train examples; teacher ResNet-20.

    python -m trainers.distill --config configs/distill_mnist.py \\
        --config.data.path=data/mnist.npz --workdir runs/teacher \\
        --config.method.name=none --config.student.name=resnet20 --config.training.anchors=4
    python -m trainers.distill --config configs/distill_mnist.py \\
        --config.data.path=data/mnist.npz --workdir runs/kd \\
        --config.method.name=kd --config.teacher.path=runs/teacher
"""

import ml_collections

from configs import distill_base


def get_config() -> ml_collections.ConfigDict:
    config = distill_base.get_config()
    config.data.train_size = 10_000
    config.data.dev_size = 2000
    config.training.batch_size = 32
    config.training.num_steps = 936  # 3 epochs
    config.training.first_steps = 117  # as 30 of the paper's 240 epochs
    config.training.evaluate_every = 117
    return config
