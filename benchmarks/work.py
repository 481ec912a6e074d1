"""The work that every library is given: arrays in one .npz file, made in NumPy from fixed seeds.

A student of `steps` steps under l = −σ(y'Φ_t log p), Φ_t = W softmax(V s_t), momentum SGD; M is the relaxed accuracy on
dev; wanted are M, dM/dW and dM/dV. The status vectors s_t are given, so that no library's time holds their evaluation.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any, NamedTuple

import numpy as np

NUM_CLASSES, NUM_FEATURES, NUM_KEYS = 10, 13, 10
LEARNING_RATE, MOMENTUM = 0.1, 0.9
DEV_SIZE, TEST_SIZE = 512, 988

# Kernels in Keras's layout: convolutions [height, width, in, out], dense layers [in, out].
KERNELS: dict[str, tuple[tuple[int, ...], ...]] = {
    "mlp": ((784, 500), (500, 10)),
    "lenet": ((5, 5, 1, 20), (5, 5, 20, 50), (800, 500), (500, 10)),
}


class Work(NamedTuple):
    """One benchmark's arrays.

    Attributes:
      student: "mlp" or "lenet".
      x_train, y_train, x_dev, y_dev: images [n, 28, 28, 1] in [0, 1], labels [n].
      batches: the examples of every batch, [steps, batch].
      features: s_t, [steps, NUM_FEATURES].
      values, keys: the teacher's W [classes, classes, keys] and V [keys, features].
      params: the student's first weights, kernel and bias in turn.
    """

    student: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_dev: np.ndarray
    y_dev: np.ndarray
    batches: np.ndarray
    features: np.ndarray
    values: np.ndarray
    keys: np.ndarray
    params: tuple[np.ndarray, ...]

    @property
    def steps(self) -> int:
        return len(self.batches)


class Spec(NamedTuple):
    """Which work: a student, its batch size and its number of steps."""

    student: str
    batch: int
    steps: int


def drawn(spec: Spec, num_train: int) -> dict[str, np.ndarray]:
    """Everything but the digits."""
    examples, status, teacher, weights = (np.random.default_rng([20181, part]) for part in range(4))
    arrays = {
        "batches": examples.integers(0, num_train, (spec.steps, spec.batch), np.int32),
        "features": status.uniform(size=(spec.steps, NUM_FEATURES)).astype(np.float32),
        # Were the keys' matrices alike, as a new teacher's are, dM/dV would be zero.
        "values": (np.eye(NUM_CLASSES)[..., None]
                   + teacher.uniform(0, 0.2, (NUM_CLASSES, NUM_CLASSES, NUM_KEYS))).astype(np.float32),
        "keys": teacher.normal(size=(NUM_KEYS, NUM_FEATURES)).astype(np.float32),
    }
    for i, shape in enumerate(KERNELS[spec.student]):
        receptive = int(np.prod(shape[:-2]))
        limit = np.sqrt(6 / (receptive * (shape[-2] + shape[-1])))
        arrays[f"param_{2 * i}"] = weights.uniform(-limit, limit, shape).astype(np.float32)
        arrays[f"param_{2 * i + 1}"] = np.zeros(shape[-1], np.float32)
    return arrays


def write(path: str | pathlib.Path, spec: Spec) -> None:
    """Writes the work's arrays to an .npz file."""
    from tf_l2t.data import mnist_5k

    digits = mnist_5k(dev_size=DEV_SIZE, test_size=TEST_SIZE, seed=0)
    arrays: dict[str, Any] = {
        "student": spec.student, "x_train": digits.train.x, "y_train": digits.train.y.astype(np.int32),
        "x_dev": digits.dev.x, "y_dev": digits.dev.y.astype(np.int32), **drawn(spec, digits.train.size)}
    np.savez(path, **arrays)


def read(path: str | pathlib.Path) -> Work:
    """The work in a file of `write`."""
    with np.load(path) as arrays:
        student = str(arrays["student"])
        params = tuple(arrays[f"param_{i}"] for i in range(2 * len(KERNELS[student])))
        return Work(student=student, params=params,
                    **{name: arrays[name] for name in Work._fields if name not in ("student", "params")})


if __name__ == "__main__":
    # A process of its own: reading the digits imports TensorFlow.
    path, student, batch, steps = sys.argv[1:]
    write(path, Spec(student, int(batch), int(steps)))
