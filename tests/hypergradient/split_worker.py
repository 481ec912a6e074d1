"""A process of a cluster that has half of a student's batches.

    python -m tests.hypergradient.split_worker OUT STUDENT

TF_CONFIG says which it is. It writes M and dθ of a run in float64 to OUT, an .npz.
"""

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import tensorflow as tf


def main(out: str, student: str) -> None:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else of TensorFlow's
    import numpy as np

    from tests import tiny
    from tf_l2t.hypergradient import hypergradient
    from tf_l2t.hypergradient.replicas import Shards

    problem, state = tiny.problem(getattr(tiny, student), batch_size=8)
    found = hypergradient(problem._replace(shards=Shards(strategy)), tiny.teacher())(state, 3)
    np.savez(out, found.objective, *found.gradient)


if __name__ == "__main__":
    main(*sys.argv[1:])
