"""What both PyTorch libraries need: the students as modules, the loss, M, and plain training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.work import LEARNING_RATE, MOMENTUM, Work


def module(work: Work) -> nn.Module:
    """The student in PyTorch's layouts, with the work's weights."""
    layers: list[nn.Module] = []
    kernels, biases = work.params[0::2], work.params[1::2]
    dense = [k for k in kernels if k.ndim == 2]
    for kernel in kernels[:-2]:
        layers += [nn.Conv2d(kernel.shape[2], kernel.shape[3], kernel.shape[0]), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(*dense[0].shape), nn.ReLU(), nn.Linear(*dense[1].shape)]
    network = nn.Sequential(*layers)
    channels = kernels[-3].shape[3] if len(kernels) > 2 else 1
    weighted = [layer for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer, kernel, bias in zip(weighted, kernels, biases, strict=True):
            if kernel.ndim == 4:
                kernel = kernel.transpose(3, 2, 0, 1)
            elif kernel is dense[0]:
                # Keras flattens [height, width, channels], PyTorch [channels, height, width].
                side = int(np.sqrt(kernel.shape[0] / channels))
                kernel = kernel.reshape(side, side, channels, -1).transpose(2, 0, 1, 3).reshape(kernel.shape).T
            else:
                kernel = kernel.T
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
            layer.bias.copy_(torch.from_numpy(bias))
    return network


class TorchWork:
    """The arrays as tensors, and the formulas on them."""

    def __init__(self, work: Work):
        images = [np.ascontiguousarray(x.transpose(0, 3, 1, 2)) for x in (work.x_train, work.x_dev)]
        self.x_train, self.x_dev = map(torch.from_numpy, images)
        self.y_train, self.y_dev = (torch.from_numpy(y.astype(np.int64)) for y in (work.y_train, work.y_dev))
        self.index = torch.from_numpy(work.batches.astype(np.int64))
        self.features = torch.from_numpy(work.features)
        self.steps = work.steps
        self.values = torch.from_numpy(work.values).requires_grad_()
        self.keys = torch.from_numpy(work.keys).requires_grad_()
        self.network = module(work)
        self.start = {name: value.clone() for name, value in self.network.state_dict().items()}

    def loss(self, network: Callable[[torch.Tensor], torch.Tensor], step: int) -> torch.Tensor:
        """L_Φ of the step's batch."""
        rows = self.index[step]
        coefficients = self.values @ torch.softmax(self.keys @ self.features[step], dim=0)
        log_p = functional.log_softmax(network(self.x_train[rows]), dim=-1)
        return -torch.sigmoid((coefficients[self.y_train[rows]] * log_p).sum(dim=-1)).mean()

    def objective(self, network: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """M."""
        log_p = functional.log_softmax(network(self.x_dev), dim=-1)
        return log_p.gather(-1, self.y_dev[:, None]).exp().mean()

    def teacher_gradient(self, objective: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        values, keys = torch.autograd.grad(objective, (self.values, self.keys))
        return objective.detach().numpy(), values.numpy(), keys.numpy()

    def plain(self) -> np.ndarray:
        self.network.load_state_dict(self.start)
        optimizer = torch.optim.SGD(self.network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        self.values.requires_grad_(False)
        self.keys.requires_grad_(False)
        for step in range(self.steps):
            optimizer.zero_grad()
            self.loss(self.network, step).backward()
            optimizer.step()
        self.values.requires_grad_()
        self.keys.requires_grad_()
        bias = list(self.network.parameters())[-1].detach().numpy().copy()
        self.network.load_state_dict(self.start)
        self.network.zero_grad()
        return bias
