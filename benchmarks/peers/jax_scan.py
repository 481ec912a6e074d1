"""The work in JAX: `jax.grad` of a `lax.scan` over the student's steps.

    python -m benchmarks.peers.jax_scan    (see benchmarks/serve.py for what it reads)

Schedules: "store_all", one scan with all residuals kept; "every_k", a scan of `jax.checkpoint`ed scans of k steps, k
the divisor of T nearest to √T; "checkpoint_step", one scan of checkpointed steps, the states alone kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.serve import Options, serve
from benchmarks.work import LEARNING_RATE, MOMENTUM, NUM_CLASSES, Work

Arrays = tuple[jax.Array, ...]


def mlp(params: Arrays, x: jax.Array) -> jax.Array:
    w1, b1, w2, b2 = params
    hidden = jax.nn.relu(x.reshape(len(x), -1) @ w1 + b1)
    return hidden @ w2 + b2


# `lax.conv_general_dilated`, `lax.reduce_window` and their derivatives are slow on CPUs: with a product of patches and
# a maximum over axes instead, this LeNet of batch 100 trains 9 times as fast and is differentiated 2.6 times as fast.
def _conv(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    side, _, channels, filters = kernel.shape
    n, height, width, _ = x.shape
    rows, columns = height - side + 1, width - side + 1
    patches = jnp.stack([x[:, i:i + rows, j:j + columns] for i in range(side) for j in range(side)], axis=3)
    return patches.reshape(n, rows, columns, side * side * channels) @ kernel.reshape(-1, filters) + bias


def _pool(x: jax.Array) -> jax.Array:
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))


def lenet(params: Arrays, x: jax.Array) -> jax.Array:
    x = _pool(_conv(x, *params[0:2]))
    x = _pool(_conv(x, *params[2:4]))
    return mlp(params[4:], x)


def divisor_near_root(steps: int) -> int:
    """The divisor of `steps` nearest to its root: nested scans need segments of one length."""
    divisors = [k for k in range(1, steps + 1) if steps % k == 0]
    return min(divisors, key=lambda k: abs(np.log(k * k / steps)))


def _scan(step: Callable[..., Any], schedule: str, steps: int) -> Callable[..., Any]:
    """(carry, inputs with leading axis `steps`) -> carry."""
    if schedule == "store_all":
        return lambda carry, inputs: lax.scan(step, carry, inputs)[0]
    # Inside a scan nothing can be merged with its recomputation, so the barriers against that are not needed.
    if schedule == "checkpoint_step":
        checked = jax.checkpoint(step, prevent_cse=False)
        return lambda carry, inputs: lax.scan(checked, carry, inputs)[0]
    if schedule.startswith("every_k"):
        k = int(schedule.partition(":")[2] or divisor_near_root(steps))
        if steps % k:
            raise NotImplementedError(f"segments of {k} steps do not divide {steps} steps.")

        def segment(carry: Any, inputs: Any) -> Any:
            return lax.scan(step, carry, inputs)

        outer = jax.checkpoint(segment, prevent_cse=False)

        def run(carry: Any, inputs: Any) -> Any:
            inputs = jax.tree.map(lambda a: a.reshape(steps // k, k, *a.shape[1:]), inputs)
            return lax.scan(outer, carry, inputs)[0]

        return run
    raise NotImplementedError(f"no schedule is called {schedule!r}.")


class JaxScan:
    def __init__(self, work: Work, options: Options):
        if not options.jit:
            raise NotImplementedError("a lax.scan is compiled always.")
        network = {"mlp": mlp, "lenet": lenet}[work.student]
        # Arguments, not constants of the program: XLA would try to fold those.
        self.data = {name: jnp.asarray(getattr(work, name))
                     for name in ("x_train", "y_train", "x_dev", "y_dev", "batches", "features")}
        self.theta = (jnp.asarray(work.values), jnp.asarray(work.keys))
        self.params = tuple(jnp.asarray(p) for p in work.params)

        def log_probs(params: Arrays, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
            return jax.nn.log_softmax(network(params, x)), jax.nn.one_hot(y, NUM_CLASSES)

        def loss(params: Arrays, x: jax.Array, y: jax.Array, coefficients: jax.Array) -> jax.Array:
            log_p, target = log_probs(params, x, y)
            return -jnp.mean(jax.nn.sigmoid(jnp.sum((target @ coefficients) * log_p, axis=-1)))

        def train(theta: Arrays, params: Arrays, data: dict[str, jax.Array], schedule: str) -> Arrays:
            values, keys = theta

            def step(carry: tuple[Arrays, Arrays], inputs: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
                params, velocity = carry
                rows, features = inputs
                coefficients = values @ jax.nn.softmax(keys @ features)
                grads = jax.grad(loss)(params, data["x_train"][rows], data["y_train"][rows], coefficients)
                velocity = tuple(MOMENTUM * v - LEARNING_RATE * g for v, g in zip(velocity, grads, strict=True))
                return (tuple(p + v for p, v in zip(params, velocity, strict=True)), velocity), None

            start = (params, tuple(jnp.zeros_like(p) for p in params))
            return _scan(step, schedule, work.steps)(start, (data["batches"], data["features"]))[0]

        def objective(theta: Arrays, params: Arrays, data: dict[str, jax.Array]) -> jax.Array:
            params = train(theta, params, data, options.schedule)
            log_p, target = log_probs(params, data["x_dev"], data["y_dev"])
            return jnp.mean(jnp.exp(jnp.sum(target * log_p, axis=-1)))

        self._gradient = jax.jit(jax.value_and_grad(objective))
        self._plain = jax.jit(lambda theta, params, data: train(theta, params, data, "store_all"))
        jax.block_until_ready((self.data, self.theta, self.params))

    def gradient(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        objective, (values, keys) = self._gradient(self.theta, self.params, self.data)
        return np.asarray(objective), np.asarray(values), np.asarray(keys)

    def plain(self) -> np.ndarray:
        return np.asarray(jax.block_until_ready(self._plain(self.theta, self.params, self.data))[-1])


if __name__ == "__main__":
    serve(JaxScan)
