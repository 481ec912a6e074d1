"""MNIST with LeNet, as in the L2T-DLF paper (Table 1 and appendix B).

Quoted from the paper: two convolutions of 5×5 with 20 and 50 filters, a hidden layer of 500, batch 500, momentum SGD
with rate 0.01 and momentum 0.9, the teacher trained by Adam(1e-4, epsilon 1e-8) for 60 steps; test error 0.98 % by
cross entropy, 0.77 % taught.
Not in the paper: the horizon T (here 1,100 steps, 11 epochs of 50,000), the split (50,000 / 10,000).

Nothing was measured with this config yet: a teacher step runs 1,100 student steps of batch 500.
Everything else is as in mnist_mlp.py.
"""

import ml_collections

from configs import mnist_mlp


def get_config() -> ml_collections.ConfigDict:
    config = mnist_mlp.get_config()
    config.student.name = "lenet"
    config.training.num_steps = 1100
    config.training.batch_size = 500
    config.compare.evaluate_every = 100
    return config
