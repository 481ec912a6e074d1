"""The work in higher: a differentiable SGD on a patched module.

    python -m benchmarks.peers.higher_run    (see benchmarks/serve.py for what it reads)
"""

from __future__ import annotations

import higher
import numpy as np
import torch

from benchmarks.peers.torch_work import TorchWork
from benchmarks.serve import Options, serve
from benchmarks.work import LEARNING_RATE, MOMENTUM, Work


class Higher(TorchWork):
    def __init__(self, work: Work, options: Options):
        if options != Options("store_all", None, False):
            raise NotImplementedError("higher keeps the whole graph, and has no other way.")
        super().__init__(work)

    def gradient(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        optimizer = torch.optim.SGD(self.network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        with higher.innerloop_ctx(self.network, optimizer) as (network, differentiable):
            for step in range(self.steps):
                differentiable.step(self.loss(network, step))
            return self.teacher_gradient(self.objective(network))


if __name__ == "__main__":
    serve(Higher)
