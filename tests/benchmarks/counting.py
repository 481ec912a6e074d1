"""A training that `benchmarks.soak` can disturb: it counts its steps; with --forgetful, from a random number."""

import argparse
import os
import pathlib
import sys
import time

import tensorflow as tf

from tf_l2t.training import TerminatedError
from tf_l2t.training.checkpoints import Checkpoints
from tf_l2t.training.stretches import fit_in_stretches

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=pathlib.Path)
    parser.add_argument("--verbose")
    parser.add_argument("--forgetful", action="store_true")
    options = parser.parse_args()
    total = tf.Variable(0, dtype=tf.int64)
    checkpoints = Checkpoints(options.workdir / "checkpoints", [total], {})
    memory = int.from_bytes(os.urandom(4)) if options.forgetful else 0

    def fit(first, stop, heard, again):
        time.sleep(0.05)
        total.assign_add(stop - first + memory)
        return {}

    try:
        fit_in_stretches(fit, lambda record, before: record, lambda records: None, checkpoints=checkpoints,
                         num_steps=20, every=2, verbose=0)
    except TerminatedError:
        sys.exit(os.EX_TEMPFAIL)
    (options.workdir / "ending").touch()
    time.sleep(0.1)
