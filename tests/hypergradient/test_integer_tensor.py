"""Seeds and steps that TensorFlow keeps nothing of."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.hypergradient.state import integer_tensor

ROOT = pathlib.Path(__file__).parent.parent.parent

GROWN = """
import os, pathlib
import tensorflow as tf
from tf_l2t.hypergradient.state import integer_tensor

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def grown(make, first):
    for number in range(first, first + 2000):
        make(number)
    before = resident()
    for number in range(first + 2000, first + 22_000):
        make(number)
    return resident() - before

print(grown(integer_tensor, 10**9), grown(lambda number: tf.convert_to_tensor(number, tf.int64), 2 * 10**9))
"""


def test_tensorflow_keeps_nothing_of_seeds_and_steps():
    """Of Python's numbers it does, some 600 bytes each, as the second figure shows. In a process of its own: one that
    has freed much takes none from the system, whatever is kept."""
    done = subprocess.run([sys.executable, "-c", GROWN], cwd=ROOT, capture_output=True, text=True, check=True)
    ours, tensorflows = map(int, done.stdout.split())
    assert ours < 2e6 and tensorflows > 6e6


def test_seeds_and_steps_are_integers():
    for value in (3, np.int32(3), tf.constant(3, tf.int32), tf.constant(3, tf.int32).numpy()):
        found = integer_tensor(value, tf.int32)
        assert found.dtype == tf.int32 and found.shape == () and int(found) == 3
    assert integer_tensor(2**40).dtype == tf.int64 and int(integer_tensor(2**40)) == 2**40
    with pytest.raises(TypeError, match="integer"):
        integer_tensor(2.5)
    with pytest.raises(OverflowError):
        integer_tensor(2**40, tf.int32)
