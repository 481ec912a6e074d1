"""The work in TorchOpt: its differentiable SGD on a functional model.

    python -m benchmarks.peers.torchopt_run    (see benchmarks/serve.py for what it reads)
"""

from __future__ import annotations

import numpy as np
import torch
import torchopt

from benchmarks.peers.torch_work import TorchWork
from benchmarks.serve import Options, serve
from benchmarks.work import LEARNING_RATE, MOMENTUM, Work


class TorchOpt(TorchWork):
    def __init__(self, work: Work, options: Options):
        if options != Options("store_all", None, False):
            raise NotImplementedError("TorchOpt keeps the whole graph, and has no other way.")
        super().__init__(work)

    def gradient(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # With PyTorch's momentum v ← m v + g, ω ← ω − η v: at a constant rate the steps of Keras's form.
        optimizer = torchopt.sgd(LEARNING_RATE, momentum=MOMENTUM, moment_requires_grad=False)
        params = {name: p.detach().requires_grad_() for name, p in self.network.named_parameters()}
        state = optimizer.init(params)

        def network(x: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(self.network, params, (x,))

        for step in range(self.steps):
            grads = torch.autograd.grad(self.loss(network, step), tuple(params.values()), create_graph=True)
            updates, state = optimizer.update(dict(zip(params, grads, strict=True)), state, inplace=False)
            params = torchopt.apply_updates(params, updates, inplace=False)
        return self.teacher_gradient(self.objective(network))


if __name__ == "__main__":
    serve(TorchOpt)
